"""``python -m benchmarks.export_table --data WIDER``: every file of a model, proven, evaluated and
timed side by side.

Exports MODEL to every target in every precision (INT8 within the accuracy budget), evaluates each
file on the WIDER FACE validation photos, times all of them in turn in one process, and writes
docs/exports.md and docs/exports.png. Results are saved per file in OUT/bench/exports.json, so a
stopped run resumes; a file is measured again if its bytes, the photos or the protocol have changed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.common import MAX_DROP, Printed, environment, installed_runtimes, shown
from benchmarks.measured_on import measured_on, validation_photos
from benchmarks.results import read_records
from edgeface.backends import BACKENDS, combinations
from edgeface.bundle import Bundle
from edgeface.cli.flags import DEFAULT_MODEL, RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.evaluation import evaluate_model
from edgeface.files import write_text
from edgeface.latency.protocol import Job, Protocol
from edgeface.latency.session import measure
from edgeface.options import Range, check_ranges, parse_size
from edgeface.pages.figures import new_figure, save_figure
from edgeface.types import Progress
from export.pipeline import export_model
from export.request import ExportRequest
from export.source import load_source

SETTINGS = ("easy", "medium", "hard")
FAST = " fast"
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder"""
    model: str = DEFAULT_MODEL
    """network with weights, or a .safetensors file"""
    size: str = "640x480"
    """input WIDTHxHEIGHT in px"""
    out: Path = Path("dist")
    """folder of Bundles and results"""
    docs: Path = Path("docs")
    """folder for exports.md and exports.png"""
    max_drop: float = 0.5
    """accuracy budget of INT8 in AP points"""
    rounds: int = 34
    """number of rounds, each of three runs per file"""
    seed: int = 0
    """seed of the order of the rounds"""

    ranges: ClassVar[dict[str, Range]] = {
        "max_drop": MAX_DROP,
        **{name: Protocol.ranges[name] for name in ("rounds", "seed")},
    }

    def __post_init__(self) -> None:
        check_ranges(self)  # here, because the timing begins after hours

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads, or that are the result."""
        return (self.kept, self.docs / "exports.md", self.docs / "exports.png")

    @property
    def kept(self) -> Path:
        """File of the results so far."""
        return self.out / "bench" / "exports.json"


class Records:
    """JSON file of what was measured, by name; written after every step."""

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file is damaged."""
        self.path = path
        self.records: dict[str, Record] = read_records(path)

    def keep(self, name: str, record: Record) -> Record:
        """Remember ``record`` on disk."""
        self.records[name] = record
        write_text(self.path, json.dumps(self.records, indent=1) + "\n")
        return record

    def known(self, name: str, **wanted: Any) -> Record | None:
        """The record of ``name`` if it has all of ``wanted``."""
        record = self.records.get(name)
        return (
            record
            if record and all(record.get(key) == value for key, value in wanted.items())
            else None
        )


def make_file(o: Options, target: str, precision: str) -> Bundle:
    """The Bundle of one combination, made anew in ``o.out``."""
    width, height = parse_size(o.size)
    if precision != "int8":
        return export_model(
            load_source(o.model), ExportRequest(target, precision, width, height), o.out
        ).bundle
    from quantize.pipeline import QuantizeRequest, quantize_model

    request = QuantizeRequest(
        target=target, model=o.model, width=width, height=height, max_drop=o.max_drop
    )
    return quantize_model(request, o.out, data=o.data).bundle


def measure_file(
    o: Options, bundle: Bundle, results: Records, terminal: Terminal, fast: bool = False
) -> Record:
    """Size, parity and AP of one Bundle; ``fast``: in the runner's fast mode."""
    manifest = bundle.manifest
    name = bundle.path.name + FAST * fast
    wanted = {"files": manifest.files, "measured_on": measured_on(validation_photos(o.data))}
    measured = results.known(name, **wanted)
    if measured is None:
        report = evaluate_model(bundle.path, o.data, progress=terminal.tick, fast=fast).report
        measured = {setting: getattr(report, setting) for setting in SETTINGS}
        measured |= {
            "images": report.images,
            "by_height": report.by_height,
            "protocol": str(report.protocol),
        }
    accuracy = manifest.accuracy or {}
    return results.keep(
        name,
        measured
        | wanted
        | {
            "target": manifest.target,
            "precision": manifest.precision + FAST * fast,
            "weights": manifest.weights.sha256,
            "bytes": bundle.size_bytes,
            "parity": max(manifest.parity["max_abs"].values()) if manifest.parity else None,
            "snr_db": least_snr(accuracy) if accuracy.get("snr_db") else None,
            "reverted": accuracy.get("reverted_layers", []),
        },
    )


def least_snr(accuracy: Record) -> float:
    """SNR in dB of the worst head of an INT8 file, from the ``accuracy`` of its manifest."""
    return min(map(float, accuracy["snr_db"].values()))


def add_latency(o: Options, records: dict[str, Record], progress: Progress | None = None) -> None:
    """Time all files in turn and put the figures into ``records``."""
    jobs = [Job(str(o.out / name.removesuffix(FAST)), fast=name.endswith(FAST)) for name in records]
    protocol = Protocol(rounds=o.rounds, seed=o.seed, together=max(2, len(jobs)))
    for name, found in zip(records, measure(jobs, protocol, progress=progress), strict=True):
        records[name]["latency"] = {
            **found.network_ms.to_json(),
            "invalid_reasons": list(found.invalid_reasons),
        }


def float_of(records: dict[str, Record], record: Record) -> Record:
    """The fp32 record of the same target."""
    return next(
        r for r in records.values() if r["target"] == record["target"] and r["precision"] == "fp32"
    )


def own_table(records: dict[str, Record]) -> str:
    """Markdown: one row per file of the model."""
    lines = [
        (
            "| target | precision | bytes | of fp32 | from torch | easy | medium | hard | drop hard"
            " | ms | of fp32 |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records.values():
        base, latency = float_of(records, record), record["latency"]["median"]
        parity = (
            f"{record['parity']:.1e}"
            if record["parity"] is not None
            else f"{record['snr_db']:.1f} dB"
        )
        lines.append(
            f"| {record['target']} | {record['precision']} | {record['bytes']:,} | "
            f"{record['bytes'] / base['bytes']:.3f} | {parity} | "
            + " | ".join(shown(_points(record[s]), 2) for s in SETTINGS)
            + f" | {shown(_drop(base, record), 2)} | {latency:.2f} | "
            f"{latency / base['latency']['median']:.2f} |"
        )
    return "\n".join(lines)


def _points(ap: float | None) -> float | None:
    return None if ap is None else 100 * ap


def _drop(base: Record, record: Record) -> float | None:
    """Points of hard AP that ``record`` loses; None if no face counts there."""
    if base["hard"] is None or record["hard"] is None:
        return None
    return 100 * float(base["hard"] - record["hard"])


def plot(path: Path, records: dict[str, Record], title: str) -> None:
    """Plot hard AP against latency: one colour per runtime, one marker per precision."""
    figure = new_figure(7.5, 4.5)
    axes = figure.add_subplot()
    markers = dict(zip(("fp32", "fp16", "int8", "fp32" + FAST), "osD*", strict=True))
    for i, (target, row) in enumerate(BACKENDS.items()):
        for precision, marker in markers.items():
            for r in (
                r
                for r in records.values()
                if (r["target"], r["precision"]) == (target, precision) and r["hard"] is not None
            ):
                axes.plot(
                    r["latency"]["median"],
                    100 * r["hard"],
                    marker,
                    color=f"C{i}",
                    alpha=0.8,
                    label=f"{row.title} {precision}",
                    markersize=9,
                )
    axes.set(xlabel="network, median ms, one thread", ylabel="AP hard, points", title=title)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    save_figure(figure, path, dpi=110)


def document(o: Options, records: dict[str, Record], conditions: Record) -> str:
    """The text of docs/exports.md."""
    first = next(iter(records.values()))
    fast = "; ".join(f"{row.target}: {row.fast}" for row in BACKENDS.values() if row.fast)
    text = f"""# Every exported file

Size, parity, AP and latency of every exported file, written by `python -m benchmarks.export_table
--data WIDER`; nothing is typed by hand. [Another page](networks.md) has the parity of all networks.

## {o.model}, {o.size}

{own_table(records)}

The weights have the SHA-256 {first["weights"]}.
`from torch` is the largest absolute difference of any head from torch in float64, on noise and a
photo (fp16: from the trained float32 weights); for INT8 it is the signal-to-noise ratio of the
worst head. AP is in points, on {first["images"]} WIDER FACE validation photos
({first["protocol"].partition(", score")[0]}, official protocol).
`ms` is the median time of the network on one thread, a process for each file, all in turn,
{o.rounds} rounds ({_validity(records)}); quote only ratios within one run. `fast` is the same
file in the runner's fast mode (`--fast`), which changes the arithmetic where the CPU can:
{fast}.

Conditions: {conditions["cpu"]}, {conditions["cores"]} cores, load {conditions["load_1min"]} at the
end,
{", ".join(f"{k} {v}" for k, v in conditions.items() if k in installed_runtimes())}.

![AP against latency of every file](exports.png)
"""
    reverted = [
        f"- {r['target']}: {', '.join(r['reverted'])}" for r in records.values() if r["reverted"]
    ]
    if reverted:
        text += "\nLayers that the accuracy budget kept in float:\n\n" + "\n".join(reverted) + "\n"
    return text


def _validity(records: dict[str, Record]) -> str:
    """Whether the latency figures are valid, and the reasons if not."""
    reasons = [
        f"{name}: {'; '.join(r['latency']['invalid_reasons'])}"
        for name, r in records.items()
        if r["latency"]["invalid_reasons"]
    ]
    return "all valid by the protocol" if not reasons else "not valid: " + ", ".join(reasons)


def summary(records: dict[str, Record]) -> str:
    """The main figures as a table for the terminal."""
    return table(
        ("file", "bytes", *SETTINGS, "median ms"),
        [
            [
                name,
                r["bytes"],
                *(shown(r[s]) for s in SETTINGS),
                f"{r['latency']['median']:.2f}",
            ]
            for name, r in records.items()
        ],
    )


def _run(o: Options) -> int:
    results = Records(o.kept)
    records = {}
    with Terminal(steps=True) as terminal:
        for target, precision in combinations():
            terminal.line(f"{o.model} {target} {precision}")
            bundle = make_file(o, target, precision)
            records[bundle.path.name] = measure_file(o, bundle, results, terminal)
            if precision == "fp32" and BACKENDS[target].fast:
                records[bundle.path.name + FAST] = measure_file(
                    o, bundle, results, terminal, fast=True
                )
        add_latency(o, records, terminal.tick)
    conditions = environment(*installed_runtimes())
    write_text(o.docs / "exports.md", document(o, records, conditions))
    plot(o.docs / "exports.png", records, f"{o.model}, {o.size}: hard AP against latency")
    printed = {"files": records, "environment": conditions}
    emit(printed, summary(records), o.format, o.save)
    return 0


main = program_of(Options, "python -m benchmarks.export_table", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
