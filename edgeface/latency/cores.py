"""Choice of the processors that a worker is pinned to: the fastest, on separate physical cores."""

from __future__ import annotations

import os

from edgeface.latency.environment import CPU


def allowed() -> tuple[int, ...]:
    """Processors that this process may use; empty if the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def pick(threads: int) -> tuple[int, ...]:
    """``threads`` of the :func:`allowed` processors, ascending; all of them if there are fewer.

    The fastest are preferred (phones and boards mix fast and slow cores), then one processor of
    each physical core (two hardware threads of a core share its arithmetic units), then high
    numbers (the first core serves most interrupts).
    """
    seen: set[str] = set()
    ranked = []
    for core in reversed(allowed()):
        physical = _read(core, "topology/thread_siblings_list") or str(core)
        ranked.append((-_max_frequency(core), physical in seen, -core))
        seen.add(physical)
    return tuple(sorted(-core for _, _, core in sorted(ranked)[:threads]))


def _max_frequency(core: int) -> int:
    text = _read(core, "cpufreq/cpuinfo_max_freq")
    return int(text) if text.isdigit() else 0


def _read(core: int, name: str) -> str:
    try:
        return (CPU / f"cpu{core}" / name).read_text().strip()
    except OSError:
        return ""
