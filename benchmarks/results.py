"""The files of `make bench`: latency.json with the records, and context.json with accuracy, peers'
timings and what was left out.

Both are written after every step, so that a stopped run resumes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeface.bundle import Bundle
from edgeface.errors import DataError, EdgefaceError
from edgeface.files import write_text
from edgeface.latency.measurement import (
    Environment,
    Measurement,
    Relative,
    load_measurements,
    save_measurements,
)
from edgeface.latency.protocol import Protocol
from edgeface.latency.statistics import Summary
from edgeface.schema import from_fields

LATENCY, CONTEXT, REPORT = "latency.json", "context.json", "report.html"
SETTINGS = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Accuracy:
    """AP of one Bundle, 0 to 1; None for a setting without faces."""

    files: dict[str, str]
    """SHA-256 of the files that were evaluated"""
    easy: float | None
    medium: float | None
    hard: float | None
    images: int
    protocol: str


@dataclass(frozen=True)
class PeerTiming:
    """Network time of a peer's file, or of our file in the same rounds: both take turns in one
    process with ONNX Runtime."""

    model: str
    sha256: str
    width: int
    height: int
    threads: int
    runtime: str
    network_ms: Summary
    network_cpu_ms: Summary
    ratio: Relative
    """to our file in the same rounds"""
    protocol: Protocol
    environment: Environment
    valid: bool
    invalid_reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.valid != (not self.invalid_reasons):
            raise ValueError("a timing is valid exactly when it has no invalid_reasons")


@dataclass(frozen=True)
class Context:
    """The part of a report that does not come from the records."""

    accuracy: dict[str, Accuracy] = field(default_factory=dict)
    """name of a Bundle -> AP"""
    peers: tuple[PeerTiming, ...] = ()
    left_out: tuple[str, ...] = ()
    """what was to be measured and is missing, and why"""

    def accuracy_of(self, record: Measurement) -> Accuracy | None:
        """AP of exactly the files that ``record`` was measured with, or None."""
        found = self.accuracy.get(record.bundle)
        return found if found and found.files == record.files else None


class Results:
    """The folder of `make bench`; each file in it is read once, and written as a whole."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError if one of the files is damaged."""
        self.folder = folder
        self.records = load_measurements(folder / LATENCY) if (folder / LATENCY).is_file() else []
        self.context = load_context(folder / CONTEXT)

    def keep(self, record: Measurement) -> None:
        """Remember ``record`` on disk, in place of an earlier one of the same model and device.
        Raises OutputError."""
        self.records = sorted(
            (r for r in [*self.records, record] if r.key != record.key or r is record), key=order
        )
        save_measurements(self.folder / LATENCY, self.records)

    def known(
        self, bundle: Bundle, device: str, threads: int, protocol: Protocol
    ) -> Measurement | None:
        """The record of exactly these files, device, threads and protocol, not in fast mode."""
        for record in self.records:
            if (
                record.key == (bundle.path.name, device, threads, False)
                and record.protocol == protocol
                and record.files == bundle.manifest.files
            ):
                return record
        return None

    def note(self, **changes: Any) -> None:
        """Change fields of the context, on disk too. Raises OutputError."""
        self.context = dataclasses.replace(self.context, **changes)
        write_text(self.folder / CONTEXT, json.dumps(dataclasses.asdict(self.context)) + "\n")


def order(record: Measurement) -> tuple[Any, ...]:
    """Sort key of records: device, large inputs first, each size by itself, threads, file."""
    return (
        record.device,
        -record.width * record.height,
        record.width,  # 640x480 and 480x640 have as many px and are not compared
        record.threads,
        record.model,
        record.target,
        record.precision,
        record.fast,
        record.bundle,
    )


def load_context(path: Path) -> Context:
    """The context in ``path``, empty without a file. Raises DataError for a damaged one."""
    if not path.is_file():
        return Context()
    try:
        return from_fields(Context, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"cannot read {path} ({type(error).__name__}): remove it and run make bench again"
        ) from None
    except EdgefaceError as error:
        raise DataError(f"{error}: remove {path} and run make bench again") from None


def find_accuracy(bundles: Iterable[Bundle], exports: Path) -> dict[str, Accuracy]:
    """Name -> AP of each of ``bundles`` whose exact files were evaluated.

    AP comes from ``exports``, which `make bench-export` writes, or else from the manifests: that of
    an INT8 file has its own AP and the AP of the float file it was made from. Raises DataError if
    ``exports`` is damaged.
    """
    bundles = list(bundles)
    evaluated = read_records(exports)
    found = {}
    for bundle in bundles:
        record = evaluated.get(bundle.path.name)
        if record and record.get("files") == bundle.manifest.files:
            found[bundle.path.name] = _accuracy(bundle, record, record, str(exports))
            continue
        source, figures = _from_manifests(bundle, bundles)
        if isinstance(figures, dict):
            found[bundle.path.name] = _accuracy(bundle, figures, source, f"{bundle.path}: accuracy")
    return found


def _from_manifests(bundle: Bundle, bundles: list[Bundle]) -> tuple[dict[str, Any], Any]:
    """(``accuracy`` of the manifest that has AP of ``bundle``, that AP); ({}, None) without one."""
    own = bundle.manifest
    if own.precision == "int8":
        source = own.accuracy or {}
        return source, source.get("int8")
    if own.precision == "fp32":
        for other in (b.manifest for b in bundles):
            if (
                other.precision,
                other.model,
                other.target,
                other.input.width,
                other.input.height,
                other.weights.sha256,
            ) == (
                "int8",
                own.model,
                own.target,
                own.input.width,
                own.input.height,
                own.weights.sha256,
            ):
                source = other.accuracy or {}
                return source, source.get("float")
    return {}, None


def _accuracy(
    bundle: Bundle, figures: Mapping[str, Any], source: Mapping[str, Any], where: str
) -> Accuracy:
    data = {
        "files": bundle.manifest.files,
        "images": source.get("images"),
        "protocol": source.get("protocol"),
        **{name: figures.get(name) for name in SETTINGS},
    }
    try:
        return from_fields(Accuracy, data, where)
    except EdgefaceError as error:
        raise DataError(str(error)) from None


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Records by name, as benchmarks.export_table and benchmarks.export_matrix keep them; empty
    without a file. Raises DataError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not all(isinstance(each, dict) for each in data.values()):
        raise DataError(
            f"{path} is damaged, or not what benchmarks.export_table or benchmarks.export_matrix"
            " keeps there: remove it and run again"
        )
    return data
