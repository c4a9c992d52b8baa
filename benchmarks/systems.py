"""``python -m benchmarks.systems``: every system of the four papers, and ours, in one table.

Sizes are counted here. Published AP is copied from where the table says. What is measured comes
from files: AP that ``--measure`` wrote, latency and INT8 status from the folders that `make bench`,
``edgeface export`` and ``edgeface quantize`` wrote (``--records``). A cell without a record is
empty. To fill that folder::

    python -m benchmarks.systems --records FOLDER --export [--only NAME ...]
    edgeface bench FOLDER/*-fp32-640x480 --save FOLDER/latency.json

Published AP is of all 3226 validation photos, ours of the photos that --data holds, and input sizes
differ too: compare within a column. If the photos in --data change, models are evaluated again.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import Printed
from benchmarks.measured_on import different_photos, measured_on, photos_of, validation_photos
from benchmarks.published import PUBLISHED, Published
from benchmarks.results import LATENCY
from edgeface import zoo
from edgeface.architecture.registry import VARIANT_SUFFIX, listed
from edgeface.backends import BACKENDS, export_targets
from edgeface.bundle import MANIFEST, Bundle, Manifest
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError, EdgefaceError, OptionError
from edgeface.evaluation.predict import SCALES, evaluate_model
from edgeface.files import write_text
from edgeface.latency.measurement import Measurement, load_measurements
from edgeface.latency.protocol import LOCAL
from edgeface.models.complexity import count, count_as_extd
from edgeface.options import check_choice
from edgeface.schema import from_fields

SIZE = (640, 480)
EXTD_SIZE = (640, 640)
"""input size at which the EXTD paper counts multiply-accumulates"""
WEIGHTS_DIGITS = re.compile(r"-[0-9a-f]{8}$")
"""suffix of the network's name in files whose weights do not ship"""
SETTINGS = ("easy", "medium", "hard")


@dataclass(frozen=True)
class SystemAccuracy:
    """AP that ``--measure`` found, 0 to 1; None if no face counts in that setting."""

    easy: float | None
    medium: float | None
    hard: float | None
    images: int
    protocol: str
    weights: str
    """SHA-256 of the weights"""
    measured_on: str = ""
    """photos and protocol; empty in files of versions that did not record them"""


@dataclass
class System:
    """One row of the table."""

    name: str
    params: int
    macs: int
    """executed, at 640x480"""
    macs_as_published: int | None
    """EXTD networks: counted as in their paper, at 640x640, by
    :func:`edgeface.models.complexity.count_as_extd`; others: None"""
    published: Published | None
    ap: dict[str, SystemAccuracy] = field(default_factory=dict)
    """by scale of the photos"""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """median network time of valid records, by "target precision WxH threads device"; fast mode and
    the network's variant follow the precision"""
    export: dict[str, float] = field(default_factory=dict)
    """by "target precision WxH": largest absolute difference of any head from torch"""
    int8: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by "target WxH": ``accuracy`` of the manifest (AP before and after, SNR, layers in float)"""


def systems() -> list[System]:
    """All rows, with their sizes."""
    return [System(name, *_sizes(name), PUBLISHED.get(name)) for name in listed()]


@cache
def _sizes(name: str) -> tuple[int, int, int | None]:
    """Parameters, MACs, MACs as published."""
    size = count(name, *SIZE)
    return (
        size.params,
        size.macs,
        count_as_extd(name, *EXTD_SIZE) if name.startswith("extd-") else None,
    )


# -- Accuracy -----------------------------------------------------------------


def load_results(path: Path) -> dict[str, dict[str, SystemAccuracy]]:
    """Name -> scale -> AP; empty if there is no such file. Raises DataError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {
                scale: from_fields(SystemAccuracy, ap, f"{path}: {name}")
                for scale, ap in scales.items()
            }
            for name, scales in data.items()
        }
    except (OSError, ValueError, AttributeError, RecursionError, EdgefaceError) as error:
        raise DataError(
            f"{path} is not what benchmarks.systems --measure writes ({type(error).__name__}):"
            " remove it, or name another with --results"
        ) from None


def measure(rows: Sequence[System], o: Options, terminal: Terminal) -> str:
    """Evaluate every network that has weights, and save each figure at once. Figures of the same
    weights, photos and protocol are not measured again. Returns count and digest of the photos."""
    known, photos = load_results(o.results), validation_photos(o.data)
    for row in rows:
        path = o.weights / f"{row.name}.safetensors" if o.weights else None
        if path is None or not path.is_file():
            if row.name not in zoo.names():
                continue
            path = None
        digest = _weights_digest(row.name, path)
        for scale in o.scales:
            agreed_only = scale == "multi" and row.name.startswith("extd-")
            asked = (digest, measured_on(photos, scale, agreed_only))
            found = known.setdefault(row.name, {}).get(scale)
            if found is not None and (found.weights, found.measured_on) == asked:
                continue
            terminal.line(f"measuring {row.name} at scale {scale} ...")
            report = evaluate_model(
                row.name,
                o.data,
                scale,
                progress=terminal.tick,
                weights=path,
                agreed_only=agreed_only,
            ).report
            known[row.name][scale] = SystemAccuracy(
                report.easy,
                report.medium,
                report.hard,
                report.images,
                str(report.protocol),
                *asked,
            )
            _save_results(o.results, known)
    return photos


def _weights_digest(name: str, path: Path | None) -> str:
    if path is None:
        return zoo.get_entry(name).sha256
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _save_results(path: Path, known: Mapping[str, Mapping[str, SystemAccuracy]]) -> None:
    data = {name: {s: asdict(ap) for s, ap in scales.items()} for name, scales in known.items()}
    write_text(path, json.dumps(data, indent=1) + "\n")


def add_accuracy(rows: Sequence[System], path: Path, photos: str | None) -> None:
    """Fill in the AP that was measured on ``photos``, or on any if None. Raises DataError."""
    results = load_results(path)
    for row in rows:
        row.ap = {
            scale: ap
            for scale, ap in results.get(row.name, {}).items()
            if photos in (None, photos_of(ap.measured_on))
        }


# -- Records ------------------------------------------------------------------


def export_missing(rows: Sequence[System], o: Options, terminal: Terminal) -> None:
    """Write the fp32 Bundle of each row and target that ``o.records`` lacks; note those that cannot
    be exported."""
    from export import ExportRequest, export_model
    from export.source import load_source

    assert o.records is not None, "checked by Options"
    for done, (row, target) in enumerate(product(rows, export_targets())):
        terminal.tick("exporting", done, len(rows) * len(export_targets()))
        path = o.weights / f"{row.name}.safetensors" if o.weights else None
        try:
            source = load_source(row.name, path if path and path.is_file() else None)
            folder = o.records / f"{source.name}-{target}-fp32-{SIZE[0]}x{SIZE[1]}"
            if not (folder / MANIFEST).is_file():
                export_model(source, ExportRequest(target, "fp32", *SIZE), o.records)
        except EdgefaceError as error:
            terminal.note(f"left out: {row.name} for {target}: {error}")


def add_records(rows: Sequence[System], folder: Path) -> None:
    """Fill in latency, exports and INT8 from the records in ``folder`` and one level below. Raises
    DataError."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder: give one that make bench, edgeface export or edgeface"
            " quantize wrote to"
        )
    by_name = {row.name: row for row in rows}
    for path in sorted((*folder.glob(LATENCY), *folder.glob(f"*/{LATENCY}"))):
        _add_latency(by_name, load_measurements(path))
    for path in sorted((*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*/*/{MANIFEST}"))):
        manifest = Bundle.open(path.parent, verify=False).manifest
        row = by_name.get(manifest.architecture.name.removesuffix(VARIANT_SUFFIX))
        if row is not None:
            _add_bundle(row, manifest)


def _add_latency(rows: Mapping[str, System], records: Iterable[Measurement]) -> None:
    for record in records:
        model = WEIGHTS_DIGITS.sub("", record.model)
        row = rows.get(model.removesuffix(VARIANT_SUFFIX))
        if row is not None and record.valid:
            variant = model.removeprefix(row.name)
            key = (
                f"{record.target} {record.precision}{' fast' * record.fast}{variant}"
                f" {record.width}x{record.height} {record.threads} {record.device}"
            )
            row.latency_ms[key] = record.network_ms.median


def _add_bundle(row: System, manifest: Manifest) -> None:
    variant = manifest.architecture.name.removeprefix(row.name)
    size = f"{variant} {manifest.input.width}x{manifest.input.height}"
    if manifest.precision == "int8":
        row.int8[manifest.target + size] = {
            key: value for key, value in (manifest.accuracy or {}).items() if key != "by_height"
        }
    elif manifest.parity is not None:
        row.export[f"{manifest.target} {manifest.precision}{size}"] = max(
            manifest.parity["max_abs"].values()
        )


# -- Printing -----------------------------------------------------------------


def as_table(rows: Sequence[System], scales: Sequence[str]) -> str:
    """Plain text; AP as easy/medium/hard in points."""
    columns = (
        "system",
        "params",
        "MACs",
        "their MACs",
        "published AP",
        *(f"our AP {scale}" for scale in scales),
        *(f"{target} ms" for target in export_targets()),
        "exports",
        "INT8 drop",
    )
    lines = [
        (
            row.name,
            f"{row.params / 1e6:.3f} M",
            f"{row.macs / 1e9:.3f} G",
            "" if row.macs_as_published is None else f"{row.macs_as_published / 1e9:.2f} G",
            _points(row.published),
            *(_points(row.ap.get(scale)) for scale in scales),
            *(_milliseconds(row, target) for target in export_targets()),
            " ".join(sorted({key.partition(" ")[0] for key in row.export})),
            _drops(row),
        )
        for row in rows
    ]
    sources = sorted({row.published.source for row in rows if row.published})
    return "\n".join(
        (
            table(columns, lines),
            "",
            (
                "MACs at 640x480, executed; their MACs: EXTD at 640x640, each layer "
                "counted once, as its paper does."
            ),
            "ms: median of the network at 640x480, one thread, float32/INT8.",
            "Published AP: " + "; ".join(sources) + ".",
            *different_photos(
                (r.name, r.ap[s].measured_on) for r in rows for s in scales if s in r.ap
            ),
        )
    )


def _points(ap: Published | SystemAccuracy | None) -> str:
    if ap is None:
        return ""
    values = (getattr(ap, setting) for setting in SETTINGS)
    return "/".join("-" if value is None else f"{100 * value:.1f}" for value in values)


def _milliseconds(row: System, target: str) -> str:
    """Latency at :data:`SIZE` on one thread of this machine: float32, then /INT8 if measured."""

    def found(precision: str) -> str:
        ms = row.latency_ms.get(f"{target} {precision} {SIZE[0]}x{SIZE[1]} 1 {LOCAL}")
        return "" if ms is None else f"{ms:.1f}"

    return found("fp32") + (f"/{found('int8')}" if found("int8") else "")


def _drops(row: System) -> str:
    """Points of hard AP that INT8 loses, by target; without measured AP, the worst head's SNR."""
    found = []
    for key, accuracy in sorted(row.int8.items()):
        before, after = accuracy.get("float"), accuracy.get("int8")
        if before and after and before["hard"] is not None and after["hard"] is not None:
            found.append(f"{key.partition(' ')[0]} {100 * (before['hard'] - after['hard']):.2f}")
        elif accuracy.get("snr_db"):
            found.append(f"{key.partition(' ')[0]} {min(accuracy['snr_db'].values()):.0f} dB")
    return ", ".join(found)


def as_json(rows: Sequence[System]) -> dict[str, Any]:
    """What ``--format json`` prints."""
    return {
        "macs_at": "x".join(map(str, SIZE)),
        "macs_as_published_at": "x".join(map(str, EXTD_SIZE)),
        "targets": list(BACKENDS),
        "systems": [asdict(row) for row in rows],
    }


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    measure: bool = False
    """evaluate all models with weights on --data, and show AP only on these photos"""
    data: Path = Path("../shared/wider")
    """WIDER FACE folder"""
    weights: Path | None = None
    """folder of NAME.safetensors files from edgeface weights import"""
    scales: tuple[str, ...] = ("640", "original")
    """scales of the photos that AP is measured at: 640, original, multi"""
    results: Path = Path("dist/bench/systems.json")
    """file of measured AP, written by --measure"""
    records: Path | None = None
    """folder of latency.json and of exported Bundles, such as dist"""
    export: bool = False
    """first export what --records lacks, to every target; no weights: random ones"""
    only: tuple[str, ...] = ()
    """systems to show; default: all"""

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads."""
        return (self.results,)

    def __post_init__(self) -> None:
        check_choice("scales", self.scales, SCALES)
        check_choice("only", self.only, listed())
        if self.weights is not None and not self.weights.is_dir():
            raise OptionError(
                f"--weights {self.weights} is not a folder: give one that holds NAME.safetensors"
            )
        if self.export and self.records is None:
            raise OptionError("--export needs --records FOLDER, which it writes to")


def _run(o: Options) -> None:
    rows = [row for row in systems() if not o.only or row.name in o.only]
    with Terminal(steps=True) as terminal:
        if o.export:
            export_missing(rows, o, terminal)
        photos = measure(rows, o, terminal) if o.measure else None
    add_accuracy(rows, o.results, photos)
    if o.records is not None:
        add_records(rows, o.records)
    emit(as_json(rows), as_table(rows, o.scales), o.format, o.save)


main = program_of(Options, "python -m benchmarks.systems", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
