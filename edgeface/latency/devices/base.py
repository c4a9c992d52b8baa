"""Device: something that can measure, and the check of what is installed on it."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeface.backends import BACKENDS, Backend
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.types import Closing, Progress

if TYPE_CHECKING:
    from edgeface.latency.session import Failed, Finished

OLDEST_PYTHON = (3, 10)
FREE_BYTES = 200 << 20
STEADY_GOVERNORS = (None, "performance", "userspace")


@dataclass(frozen=True)
class Finding:
    """One line of ``edgeface device check``."""

    ok: bool
    what: str
    fix: str | None = None
    """command that fixes the problem or, if ``ok``, adds something optional"""


class Device(Closing):
    """Measures Bundles that lie on this machine.

    Close it, or use it in a ``with`` block, so that nothing is left running.
    """

    url: str
    """without its options, as in records"""
    options: str = ""
    """options of the URL that was given, with the question mark"""

    @property
    def check_command(self) -> str:
        """What a user types to find out what is missing."""
        return f"edgeface device check {shlex.quote(self.url + self.options)}"

    @abstractmethod
    def check(self) -> list[Finding]:
        """Find out what is installed and what a user must still install.

        Raises DeviceError if the device cannot be reached at all.
        """

    @abstractmethod
    def targets(self) -> list[str]:
        """Targets whose runtime is installed there. Raises DeviceError as :meth:`check` does."""

    @abstractmethod
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
        """Like :func:`edgeface.latency.session.measure`, on the device.

        The Bundles of ``jobs`` lie on this machine. ``whole``: reuse no records of an earlier call
        that was interrupted, because the records are to be compared round by round.
        """


def findings(facts: dict[str, Any], install: str = "python3 -m pip install") -> list[Finding]:
    """Judge the facts that :func:`edgeface.latency.examine.examine` collected on a device.

    ``install``: command that installs packages there.
    """
    found = [
        _python(facts),
        _package(facts, "numpy", "numpy", install),
        _package(facts, "cv2", "opencv-python-headless", install),
        *_runtimes(facts, install),
        _space(facts),
    ]
    governor = facts["governor"]
    if governor not in STEADY_GOVERNORS:
        found.append(
            Finding(
                True,
                f"governor {governor}: the clock may move while something is measured",
                "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
            )
        )
    return found


def _python(facts: dict[str, Any]) -> Finding:
    version = facts["python"]
    good = tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_PYTHON
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Finding(
        good,
        f"Python {version} on {facts['system']} {facts['machine']}, {facts['cores']} cores",
        None if good else f"install Python {oldest} or newer",
    )


def _package(facts: dict[str, Any], module: str, distribution: str, install: str) -> Finding:
    version = facts["packages"][module]
    if version:
        return Finding(True, f"{distribution} {version}")
    return Finding(False, f"{distribution} is missing", f"{install} {distribution}")


def _runtimes(facts: dict[str, Any], install: str) -> list[Finding]:
    """One finding per target. A missing runtime is an error only if there is no other."""
    present = {target: version for target, version in facts["runtimes"].items() if version}
    found = []
    for target, row in BACKENDS.items():
        if target in present:
            found.append(Finding(True, f"{target}: {present[target]}"))
        else:
            found.append(
                _missing(row, f"{facts['system']} {facts['machine']}", install, bool(present))
            )
    return found


def _missing(row: Backend, platform: str, install: str, others: bool) -> Finding:
    if platform not in row.platforms:
        return Finding(True, f"{row.target}: no runtime; there are no packages for {platform}")
    command = f"{install} {row.distributions[0]}"
    if others:
        return Finding(
            True, f"{row.target}: no runtime, needed for {row.target} models only", command
        )
    return Finding(False, f"{row.target}: no runtime, and one at least is needed", command)


def _space(facts: dict[str, Any]) -> Finding:
    free = facts["free_bytes"]
    if free is None:
        return Finding(True, "free disk space is not shown")
    good = free >= FREE_BYTES
    return Finding(
        good,
        f"{free / 1e9:.1f} GB of disk space free",
        None if good else f"free {FREE_BYTES >> 20} MB of disk space",
    )
