"""What a latency depends on besides the model: processor, clock, temperature and other load.

Everything is read from Linux's ``/proc`` and ``/sys``. A value that the system does not show is
None, never a guess.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CPU = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")
PLATFORM = Path("/sys/devices/platform")
RASPBERRY_THROTTLE = "soc*/soc*:firmware/get_throttled"
"""pattern below :data:`PLATFORM`: soc/soc:firmware up to the Raspberry Pi 4,
soc@107c000000/soc@107c000000:firmware on the Raspberry Pi 5"""
NOTED_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""instruction sets that decide how fast a network runs, as ``/proc/cpuinfo`` names them"""


@dataclass(frozen=True)
class Machine:
    """Properties of a machine that do not change during a measurement."""

    cpu: str
    architecture: str
    """as ``uname -m`` says: x86_64, aarch64, armv7l"""
    flags: tuple[str, ...]
    """those of :data:`NOTED_FLAGS` that the processor has"""
    cores: int
    governor: str | None
    """cpufreq governor of the first core"""
    memory_bytes: int | None
    system: str
    python: str

    @classmethod
    def read(cls) -> Machine:
        """Read those of this machine."""
        info = _cpuinfo()
        flags = set((info.get("flags") or info.get("features") or "").split())
        return cls(
            _cpu_name(info),
            platform.machine(),
            tuple(f for f in NOTED_FLAGS if f in flags),
            os.cpu_count() or 1,
            _text(CPU / "cpu0/cpufreq/scaling_governor"),
            _memory_bytes(),
            f"{platform.system()} {platform.release()}",
            platform.python_version(),
        )

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {**asdict(self), "flags": list(self.flags)}


@dataclass(frozen=True)
class Moment:
    """Properties of a machine that change; read before, during and after a measurement."""

    frequency_mhz: float | None
    """mean over the cores passed to :meth:`read`"""
    temperature_c: float | None
    """of the hottest thermal zone"""
    throttled: bool | None
    """Raspberry Pi: the firmware caps or slows the processor now; None elsewhere"""
    throttle_count: int | None
    """x86: thermal throttle events so far; Raspberry Pi: kinds of throttling (0 to 3) that have
    occurred since boot"""
    load: float | None
    """load average of the last minute"""
    busy_s: float | None
    """CPU seconds used by all processes since boot"""

    @classmethod
    def read(cls, cores: Collection[int] = ()) -> Moment:
        """Read those of this machine; the frequency is that of ``cores``, if empty of all cores."""
        return cls(_frequency_mhz(cores), _temperature_c(), *_throttling(), _load(), _busy_s())

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def other_load(first: Moment, last: Moment, own_s: float, wall_s: float) -> float | None:
    """Number of cores that other processes kept busy between two moments.

    The moments are ``wall_s`` apart; our own processes used ``own_s`` of CPU time in between. None
    if the system does not show it, or shows less than half of ``own_s``, as in a sandbox where the
    counter stands still.
    """
    if first.busy_s is None or last.busy_s is None or wall_s <= 0:
        return None
    busy_s = last.busy_s - first.busy_s
    return None if busy_s < own_s / 2 else round(max(0.0, busy_s - own_s) / wall_s, 3)


def load_now(looks: int = 3, each_s: float = 0.5) -> float | None:
    """Number of cores that other processes keep busy: the least of ``looks`` samples.

    A sample takes ``each_s`` seconds. None if the system does not show it.
    """
    found = []
    for _ in range(looks):
        first, own, start = Moment.read(), time.process_time(), time.monotonic()
        time.sleep(each_s)
        wall_s = time.monotonic() - start
        found.append(other_load(first, Moment.read(), time.process_time() - own, wall_s))
    return min((load for load in found if load is not None), default=None)


def _cpuinfo() -> dict[str, str]:
    """First value of each key in ``/proc/cpuinfo``, keys in lower case.

    Instruction sets are called ``flags`` on x86, ``Features`` on ARM.
    """
    info: dict[str, str] = {}
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip().lower(), value.strip())
    return info


def _cpu_name(info: dict[str, str]) -> str:
    board = (_text(Path("/proc/device-tree/model")) or "").rstrip("\0")
    return (
        info.get("model name")
        or board
        or info.get("hardware")
        or platform.processor()
        or platform.machine()
    )


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _frequency_mhz(cores: Collection[int] = ()) -> float | None:
    names = [f"cpu{core}" for core in cores] or ["cpu[0-9]*"]
    kilohertz = [
        int(text)
        for name in names
        for path in CPU.glob(f"{name}/cpufreq/scaling_cur_freq")
        if (text := _text(path)) and text.isdigit()
    ]
    if kilohertz:
        return round(sum(kilohertz) / len(kilohertz) / 1000, 1)
    lines = (_text(Path("/proc/cpuinfo")) or "").splitlines()
    megahertz = [
        float(line.partition(":")[2]) for line in lines if line.lower().startswith("cpu mhz")
    ]
    megahertz = [mhz for core, mhz in enumerate(megahertz) if core in cores] or megahertz
    return round(sum(megahertz) / len(megahertz), 1) if megahertz else None


def _temperature_c() -> float | None:
    values = [
        int(text) / 1000
        for path in THERMAL.glob("thermal_zone*/temp")
        if (text := _text(path)) and text.lstrip("-").isdigit()
    ]
    return max(values) if values else None


def _throttling() -> tuple[bool | None, int | None]:
    """(throttled now, events so far)."""
    said = map(_text, sorted(PLATFORM.glob(RASPBERRY_THROTTLE)))
    if firmware := next(filter(None, said), None):
        # Bits 1 to 3: frequency capped, throttled, too warm now; 17 to 19: the same since boot.
        bits = int(firmware, 16)
        return bits & 0xE != 0, (bits >> 17 & 7).bit_count()
    counts = [
        int(text)
        for path in CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        if (text := _text(path))
    ]
    return None, sum(counts) if counts else None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):  # Windows has none
        return None


def _busy_s() -> float | None:
    """user + nice + system + irq + softirq + steal of the first line of ``/proc/stat``."""
    fields = (_text(Path("/proc/stat")) or "").partition("\n")[0].split()
    if len(fields) < 9:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(v) for v in fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
