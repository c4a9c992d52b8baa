"""This machine as a device."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeface.backends import BACKENDS
from edgeface.latency import session as timing
from edgeface.latency.devices.base import Device, Finding, findings
from edgeface.latency.examine import examine
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import LOCAL, Job, Protocol
from edgeface.types import Progress

if TYPE_CHECKING:
    from edgeface.latency.session import Failed, Finished


class LocalDevice(Device):
    """Measures in worker processes of its own."""

    url = LOCAL

    def check(self) -> list[Finding]:
        return findings(examine(), f"{shlex.quote(sys.executable)} -m pip install")

    def targets(self) -> list[str]:
        return [target for target, row in BACKENDS.items() if row.usable()]

    def measure(
        self,
        jobs: Sequence[Job],
        protocol: Protocol | None = None,
        reference: int | None = None,
        progress: Progress | None = None,
        finished: Finished | None = None,
        failed: Failed | None = None,
        whole: bool = False,
    ) -> list[Measurement]:
        return timing.measure(jobs, protocol, reference, progress, finished, failed)

    def close(self) -> None:
        pass
