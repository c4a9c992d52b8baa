"""``python -m benchmarks.lock``: a lock file with hashes of the checkout's environment, for a
release.

pip resolves what ``make setup`` installs, under ``constraints.txt`` and for this machine's platform
and Python, without installing anything, and says of each package which file it would take. The lock
holds their versions and SHA-256, so that ``pip install --require-hashes -r requirements.lock``
takes these files and no others, wherever they come from.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeface.cli.flags import program_of
from edgeface.cli.output import say
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError
from edgeface.files import write_text

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ("torch==2.13.0", "-e", f"{ROOT}[dev]")
"""as in the Makefile"""


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    out: Path = ROOT / "requirements.lock"
    """output file"""


def main_of(o: Options) -> None:
    """Resolve, and write the lock."""
    with Terminal(steps=True) as terminal, terminal.stage("resolving with pip"):
        report = resolved()
    lines = lock_lines(report)
    write_text(o.out, "\n".join((*header(report), *lines)) + "\n")
    say(f"{o.out}: {len(lines)} packages")


def resolved() -> dict[str, Any]:
    """pip's report of what it would install. Raises DataError if it cannot resolve that."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [*command, "--report", "-", *REQUIREMENTS], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"pip cannot resolve the environment: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lock_lines(report: dict[str, Any]) -> list[str]:
    """``name==version --hash=sha256:...`` of each package but the checkout's own, sorted by name.
    Raises DataError for a package without a hash."""
    lines = []
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        source = item["download_info"]
        if "dir_info" in source:
            continue
        sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256:
            raise DataError(f"pip knows no SHA-256 of {name} {version}: lock it from an index")
        lines.append(f"{name}=={version} --hash=sha256:{sha256}")
    return sorted(lines, key=str.lower)


def header(report: dict[str, Any]) -> list[str]:
    """Comment lines: which environment the lock is for, and how to install it."""
    where = report["environment"]
    return [
        f"# made by python -m benchmarks.lock for Python {where['python_full_version']},"
        f" {where['sys_platform']} {where['platform_machine']}; install with:",
        "# pip install --require-hashes -r requirements.lock && pip install --no-deps -e .",
    ]


main = program_of(Options, "python -m benchmarks.lock", __doc__, main_of)

if __name__ == "__main__":
    sys.exit(main())
