"""``edgeface device check``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from edgeface.cli.flags import DEVICE_HELP, Format
from edgeface.cli.output import print_json, say

EPILOG = """Examples:

edgeface device check local

edgeface device check ssh://pi@raspberrypi.local

Exit code: 0 if the device is ready, 1 if something is missing, 2 if it cannot be reached."""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help=DEVICE_HELP)],
    format: Format = "table",
) -> int:
    from edgeface.latency.devices import open_device

    with open_device(url) as device:
        found = device.check()
    if format == "json":
        print_json([dataclasses.asdict(finding) for finding in found])
    for finding in found if format == "table" else ():
        say(f"{'ok' if finding.ok else 'MISSING':8}{finding.what}")
        if finding.fix:
            say(f"{'':8}{'get it with' if finding.ok else 'run'}: {finding.fix}")
    return 0 if all(finding.ok for finding in found) else 1
