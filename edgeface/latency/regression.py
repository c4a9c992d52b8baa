"""Compares two sets of records of the same models: which became faster, which slower.

It also tells whether two records can be compared: what else differs, and whether both are valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeface.errors import DataError
from edgeface.latency.measurement import Measurement
from edgeface.latency.statistics import Ratio, ratio_of_sessions

Key = tuple[str, str, int, bool]


@dataclass(frozen=True)
class Change:
    """One model that is in both sets."""

    old: Measurement
    new: Measurement
    ratio: Ratio
    """new network time over old"""
    notes: tuple[str, ...]
    """what else differs between the two"""

    @property
    def valid(self) -> bool:
        """Can both figures be used?"""
        return self.old.valid and self.new.valid

    @property
    def verdict(self) -> str:
        """``faster``, ``slower`` or ``tie``; ``unknown`` if one of the two must not be used."""
        return self.ratio.verdict if self.valid else "unknown"

    def reasons(self) -> list[str]:
        """Reasons why the old or the new figure must not be used."""
        return [
            f"{name}: {reason}"
            for name, record in (("old", self.old), ("new", self.new))
            for reason in record.invalid_reasons
        ]

    def to_json(self) -> dict[str, Any]:
        """Medians in ms, the ratio with its interval, reasons against it, and other differences."""
        bundle, device, threads, fast = self.new.key
        return {
            "bundle": bundle,
            "device": device,
            "threads": threads,
            "fast": fast,
            "old_ms": self.old.network_ms.median,
            "new_ms": self.new.network_ms.median,
            "ratio": {**self.ratio.to_json(), "verdict": self.verdict},
            "valid": self.valid,
            "invalid_reasons": self.reasons(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Regression:
    """The comparison of two sets."""

    changes: tuple[Change, ...]
    only_old: tuple[Key, ...]
    only_new: tuple[Key, ...]

    def to_json(self) -> dict[str, Any]:
        """``changes``, and the keys of records that are in one set only."""
        names = ("bundle", "device", "threads", "fast")
        return {
            "changes": [change.to_json() for change in self.changes],
            "only_old": [dict(zip(names, key, strict=True)) for key in self.only_old],
            "only_new": [dict(zip(names, key, strict=True)) for key in self.only_new],
        }


def compare_records(old: Sequence[Measurement], new: Sequence[Measurement]) -> Regression:
    """Pair the records by bundle, device, threads and fast mode.

    Raises DataError when a set has two records of one model, a record has no samples, or the sets
    share no model.
    """
    before, after = _by_key(old, "old"), _by_key(new, "new")
    changes = tuple(_change(before[key], after[key]) for key in after if key in before)
    if not changes:
        raise DataError(
            "the two files share no model: records are paired by bundle, device, threads and fast"
            f" mode; old: {_names(before)}; new: {_names(after)}"
        )
    return Regression(
        changes,
        tuple(k for k in before if k not in after),
        tuple(k for k in after if k not in before),
    )


def _by_key(records: Sequence[Measurement], which: str) -> dict[Key, Measurement]:
    found: dict[Key, Measurement] = {}
    for record in records:
        if record.key in found:
            raise DataError(
                f"the {which} file has two records of {record.bundle} on {record.device} with "
                f"{record.threads} thread(s): which one to compare is not clear"
            )
        if not record.samples:
            raise DataError(
                f"the {which} file has no samples: write it with `edgeface bench BUNDLE --save"
                " FILE`, or print it with --samples"
            )
        found[record.key] = record
    return found


def _change(old: Measurement, new: Measurement) -> Change:
    ratio = ratio_of_sessions(new.samples["network"].rounds(), old.samples["network"].rounds())
    return Change(old, new, ratio, tuple(_differences(old, new)))


def _differences(old: Measurement, new: Measurement) -> list[str]:
    """What differs besides the time: machine, runtime, input size, protocol, model files.

    If the machine or the protocol differs, the ratio says little.
    """
    was, now = old.environment, new.environment
    pairs = [
        ("another machine", was.machine.cpu, now.machine.cpu),
        ("another number of cores", was.machine.cores, now.machine.cores),
        ("another governor", was.machine.governor, now.machine.governor),
        ("another system", was.machine.system, now.machine.system),
        ("another runtime", old.runtime, new.runtime),
        ("another input size", f"{old.width}x{old.height}", f"{new.width}x{new.height}"),
    ]
    pairs += [
        (f"another protocol, {name}", value, getattr(new.protocol, name))
        for name, value in dataclasses.asdict(old.protocol).items()
    ]
    notes = [f"{what}: {one} -> {other}" for what, one, other in pairs if one != other]
    if old.files != new.files:
        notes.append("the model files differ")
    return notes


def _names(records: dict[Key, Measurement]) -> str:
    return ", ".join(dict.fromkeys(key[0] for key in records)) or "none"
