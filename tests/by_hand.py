"""Made-up measurements, and functions that watch processes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeface.latency.environment import Machine, Moment
from edgeface.latency.measurement import (
    STAGES,
    Environment,
    Measurement,
    Relative,
    Stage,
    invalid_reasons,
)
from edgeface.latency.session import Protocol

MACHINE = Machine("Test CPU", "x86_64", ("avx2",), 4, "performance", 1 << 30, "Linux 6.1", "3.11.7")
CALM = Moment(1000.0, 40.0, None, 3, 0.1, 100.0)


def calm(**changes: Any) -> Moment:
    """A Moment at which nothing disturbs a measurement, with ``changes`` applied."""
    return dataclasses.replace(CALM, **changes)


def environment(
    *during: Moment, before: Moment = CALM, after: Moment = CALM, **changes: Any
) -> Environment:
    """Environment of a calm machine with 4 cores, one of them used."""
    return dataclasses.replace(
        Environment(
            MACHINE, before, during or (CALM,) * 20, after, 0.1, {"onnxruntime": "1.0"}, (3,), {}
        ),
        **changes,
    )


def stages(rounds_ms: Sequence[Sequence[float]]) -> dict[str, Stage]:
    """The same samples for every stage and clock."""
    samples = tuple(tuple(part) for part in rounds_ms)
    return dict.fromkeys(STAGES, Stage(samples, samples))


def steady(
    median_ms: float = 10.0, rounds: int = 20, per_round: int = 10, spread: float = 0.02
) -> list[list[float]]:
    """Samples around a median, without an outlier."""
    random = np.random.default_rng(1)
    return [
        [round(median_ms * (1 + spread * v), 4) for v in random.standard_normal(per_round)]
        for _ in range(rounds)
    ]


def record(
    median_ms: float = 10.0,
    where: Environment | None = None,
    protocol: Protocol | None = None,
    samples: dict[str, Stage] | None = None,
    **fields: Any,
) -> Measurement:
    """A record with these ``fields``; its validity is decided as for a real record."""
    where, protocol = where or environment(), protocol or Protocol()
    samples = samples or stages(steady(median_ms))
    reasons = invalid_reasons(protocol, where, samples, fields.get("threads", 1))
    summary = samples["network"].summary()
    values: dict[str, Any] = {
        "bundle": "net-onnx-fp32-64x64",
        "files": {"net.onnx": "0" * 64},
        "model": "net",
        "device": "local",
        "target": "onnx",
        "precision": "fp32",
        "runtime": "onnxruntime 1.0",
        "threads": 1,
        "fast": False,
        "width": 64,
        "height": 64,
        **dict.fromkeys((f"{name}_ms" for name in (*STAGES, "network_cpu")), summary),
        "load_ms": 5.0,
        "import_ms": 100.0,
        "peak_memory_bytes": 1 << 27,
        "faces": 6,
        "ratio": Relative("other", 1, 0.5, 0.4, 0.6, "faster"),
        "protocol": protocol,
        "environment": where,
        "valid": not reasons,
        "invalid_reasons": reasons,
        "samples": samples,
    }
    return Measurement(**{**values, **fields})


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Call ``what`` until its result is true, and return that; fails after ``seconds``, more than
    any healthy machine needs."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def children(pid: int) -> list[int]:
    """Processes that ``pid`` started."""
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
