"""Measures networks on a device, for a :class:`~edgeface.predict.table.LatencyTable`.

Networks are measured in groups, with the same protocol as every other figure
(:mod:`edgeface.latency.session`): many rounds with two runs of each network, so that a round takes
a fraction of a second. What slows a shared machine lasts about as long, and slows the networks of a
round alike. Tukey's median polish over the logarithms (Exploratory Data Analysis, 1977, chapter 11)
therefore separates the time of each network from the disturbance of each round::

    log ms[network, round] = own[network] + disturbance[round] + rest

ms is the faster run of the network in the round. A record keeps the ratio
exp(own[network] - own[reference]), where the reference is a network of the zoo that is in every
group. In an hour in which medians of the same network differed by 16 %, these ratios differed by
2.4 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.registry import get_architecture
from edgeface.backends import load_candidate_maker
from edgeface.errors import DataError, DeviceError
from edgeface.latency.devices import Device
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.predict.table import LatencyTable, Record, Setting
from edgeface.types import Doubles, Progress

REFERENCE = "edgeface-n"
"""the network of the zoo that is measured in every group"""
PROTOCOL = Protocol(rounds=30, per_round=2, warm_up_s=0.5, photo_width=640, photo_height=480)
"""eleven networks and the reference are loaded at once"""
MEDIAN_REASONS = ("interval too wide", "too few samples")
"""beginnings of invalid reasons that concern a record's own median, which does not matter here"""
POLISHES = 20
RESAMPLES = 1000

Dropped = Callable[[Architecture, str], None]
"""(Architecture, why it has no record)"""


def measure(
    setting: Setting,
    architectures: Sequence[Architecture],
    device: Device,
    bundles: Path,
    table: LatencyTable | None = None,
    again: bool = False,
    progress: Progress | None = None,
    grown: Callable[[LatencyTable], None] | None = None,
    dropped: Dropped | None = None,
    protocol: Protocol = PROTOCOL,
) -> LatencyTable:
    """Measure the networks without a valid record in ``table``; returns it with the new records.

    bundles: folder where files are made and kept for later calls. again: also measure networks with
    a record. grown: called after each group with the table so far; if it is saved, an interruption
    costs one group. dropped: called for a network that cannot be made or measured; without it,
    DeviceError is raised. Raises DeviceError, too, if the reference fails or there is no table to
    return, DataError if setting, processor or runtime differs from that of ``table``.
    """
    if table is not None and table.setting != setting:
        raise DataError(f"the latency table is of {table.setting}, this is {setting}")
    todo = [a for a in architectures if again or table is None or table.find(a) is None]
    if not todo:
        assert table is not None
        return table
    reference = get_architecture(REFERENCE)
    paths = _make_files([reference, *todo], setting, bundles, progress, dropped)
    if reference not in paths:
        raise DeviceError(
            f"the reference network {REFERENCE} cannot be made for {setting.target}"
            f" {setting.precision}"
        )
    ready = [a for a in todo if a in paths]
    size = protocol.together - 1
    for start in range(0, len(ready), size):
        group = [reference, *ready[start : start + size]]
        if progress:
            progress(f"measuring {setting}", start, len(ready))
        begun = time.monotonic()
        records = _measure_group(
            device, group, [paths[a] for a in group], setting, protocol, dropped
        )
        table = _extended(table, setting, group, records, time.monotonic() - begun)
        if grown:
            grown(table)
    if progress:
        progress(f"measuring {setting}", len(ready), len(ready))
    if table is None:
        raise none_measured(setting, len(todo))
    return table


def none_measured(setting: Setting, count: int) -> DeviceError:
    """Error for ``count`` networks without any record, after the reason of each was reported."""
    return DeviceError(
        f"none of {count} networks could be measured ({setting}): the first line above says why"
    )


def _make_files(
    architectures: Sequence[Architecture],
    setting: Setting,
    bundles: Path,
    progress: Progress | None,
    dropped: Dropped | None,
) -> dict[Architecture, Path]:
    """Architecture -> folder of its Bundle, for the networks of which one can be made."""
    make, kind = load_candidate_maker(), (setting.target, setting.precision)
    made = make(architectures, [kind], setting.width, setting.height, bundles, progress)
    paths = {}
    for architecture, outcome in zip(architectures, made, strict=True):
        if isinstance(outcome, str):
            _drop(architecture, outcome, dropped)
        else:
            paths[architecture] = outcome[0]
    return paths


def _drop(architecture: Architecture, why: str, dropped: Dropped | None) -> None:
    if dropped is None:
        raise DeviceError(f"{architecture.name}: {why}")
    dropped(architecture, why)


def _measure_group(
    device: Device,
    group: Sequence[Architecture],
    paths: Sequence[Path],
    setting: Setting,
    protocol: Protocol,
    dropped: Dropped | None,
) -> dict[int, Measurement]:
    """Index in the group -> its record."""
    failures: dict[int, str] = {}

    def failed(index: int, why: str) -> None:
        failures[index] = why

    jobs = [Job(str(path), setting.threads) for path in paths]
    found = device.measure(jobs, protocol, failed=failed, whole=True)
    if 0 in failures:
        raise DeviceError(f"the reference network could not be measured: {failures[0]}")
    for index, why in failures.items():
        _drop(group[index], why, dropped)
    return dict(zip((i for i in range(len(group)) if i not in failures), found, strict=True))


def _extended(
    table: LatencyTable | None,
    setting: Setting,
    group: Sequence[Architecture],
    measured: dict[int, Measurement],
    device_s: float,
) -> LatencyTable:
    first = next(iter(measured.values()))
    found = LatencyTable(
        setting,
        first.environment.machine.cpu,
        first.runtime,
        tuple(_records(group, measured)),
        (measured[0].network_ms.median,),
        round(device_s, 1),
    )
    return table.joined(found) if table else found


def _records(group: Sequence[Architecture], measured: dict[int, Measurement]) -> list[Record]:
    """Records of all networks but the reference, which is the first."""
    logs = np.log(
        [[samples.min() for samples in m.samples["network"].rounds()] for m in measured.values()]
    )
    own, disturbance = polish(logs)
    picks = np.random.default_rng(0).integers(0, logs.shape[1], (RESAMPLES, logs.shape[1]))
    calm = logs - disturbance
    drawn = np.median(calm[:, picks], axis=2)  # the same resampled rounds for all networks
    records = []
    for row, (index, m) in enumerate(measured.items()):
        if index > 0:
            ratio = float(np.exp(own[row] - own[0]))
            low, high = (
                float(v) for v in np.exp(np.quantile(drawn[row] - drawn[0], (0.025, 0.975)))
            )
            wrong = tuple(
                reason for reason in m.invalid_reasons if not reason.startswith(MEDIAN_REASONS)
            )
            records.append(
                Record(
                    group[index],
                    round(ratio, 5),
                    round(min(low, ratio), 5),
                    round(max(high, ratio), 5),
                    m.network_ms.median,
                    wrong,
                )
            )
    return records


def polish(values: Doubles) -> tuple[Doubles, Doubles]:
    """Median polish: (one value per row, one per column); only their differences mean something."""
    own: Doubles = np.median(values, axis=1)
    for _ in range(POLISHES):
        disturbance: Doubles = np.median(values - own[:, None], axis=0)
        own = np.median(values - disturbance, axis=1)
    return own, disturbance
