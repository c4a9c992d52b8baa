"""``python -m benchmarks.export_matrix --data WIDER``: every published network to every target.

Exports each to every target in fp32 and fp16, and some as INT8, with random weights, and writes how
far the files are from torch to docs/networks.md. Takes hours. Results are saved per file in
OUT/bench/matrix.json, so a stopped run resumes; INT8 files are made again if the photos have
changed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Printed
from benchmarks.export_table import Record, Records, least_snr
from benchmarks.measured_on import calibration_photos
from edgeface.architecture.registry import listed
from edgeface.backends import BACKENDS, combinations
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import emit
from edgeface.cli.terminal import Terminal
from edgeface.errors import EdgefaceError
from edgeface.files import write_text
from edgeface.models.complexity import count
from edgeface.options import parse_size
from export.pipeline import export_model
from export.request import ExportRequest
from export.source import random_source

MOST_PARAMS = 10e6
"""larger networks are left out: ASFD-D2 to D6 would take hours each"""
QUANTISED = ("damofd-0.5g-bn", "damofd-2.5g-bn", "scrfd-0.5g-bn", "scrfd-2.5g-bn")
"""published networks whose INT8 files are made, in the variant whose heads have batch
normalisation"""


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder, whose photos calibrate the INT8 files"""
    size: str = "640x480"
    """input WIDTHxHEIGHT in px"""
    out: Path = Path("dist")
    """folder of Bundles and results"""
    docs: Path = Path("docs")
    """folder for networks.md"""

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads, or that are the result."""
        return (self.kept, self.docs / "networks.md")

    @property
    def kept(self) -> Path:
        """File of the results so far."""
        return self.out / "bench" / "matrix.json"


def matrix(o: Options, results: Records, terminal: Terminal) -> list[Record]:
    """Export every network of at most MOST_PARAMS to every target as fp32 and fp16, and some as
    INT8. A failure becomes a row, and the others go on."""
    width, height = parse_size(o.size)
    names = [name for name in listed() if count(name, width, height).params <= MOST_PARAMS]
    jobs = [
        (name, target, precision)
        for name in names
        for target, precision in combinations("fp32", "fp16")
    ]
    jobs += [(name, target, "int8") for name in QUANTISED for target, _ in combinations("int8")]
    rows, photos = [], _photos(o)
    for done, (name, target, precision) in enumerate(jobs):
        key = f"{name} {target} {precision} {o.size}"
        wanted = {"measured_on": photos} if precision == "int8" else {}
        row = results.known(key, ok=True, **wanted)
        if row is None:
            terminal.line(f"{done + 1} of {len(jobs)}: {name} {target} {precision}")
            row = results.keep(
                key,
                {"model": name, "target": target, "precision": precision}
                | wanted
                | _made(o, name, target, precision, (width, height)),
            )
        rows.append(row)
    return rows


def _photos(o: Options) -> str | None:
    """Count and digest of the calibration photos; None without photos: INT8 files then fail."""
    try:
        return calibration_photos(o.data)
    except EdgefaceError:
        return None


def _made(o: Options, name: str, target: str, precision: str, size: tuple[int, int]) -> Record:
    """Size and distance from torch of one file, or why it was not written."""
    try:
        if precision != "int8":
            done = export_model(
                random_source(name, 0), ExportRequest(target, precision, *size), o.out / "matrix"
            )
            parity = done.parity
            worst = max(max(case.values()) for case in (parity.rounded or parity.cases).values())
            return {"ok": True, "bytes": done.bundle.size_bytes, "parity": worst}
        from quantize.pipeline import QuantizeRequest, quantize_model

        request = QuantizeRequest(
            target=target, model=name, width=size[0], height=size[1], seed=0, images=16
        )
        bundle = quantize_model(request, o.out / "matrix", data=o.data).bundle
        accuracy = bundle.manifest.accuracy or {}
        return {
            "ok": True,
            "bytes": bundle.size_bytes,
            "snr_db": least_snr(accuracy),
            "float_layers": accuracy["float_layers"],
        }
    except EdgefaceError as error:
        return {"ok": False, "error": str(error)}


def matrix_table(rows: list[Record]) -> str:
    """Markdown: a line per network, a column per file: largest difference from torch, or the worst
    head's SNR."""
    columns = [(t, p) for t in BACKENDS for p in ("fp32", "fp16", "int8")]
    cells = {(r["model"], r["target"], r["precision"]): r for r in rows}
    lines = [
        "| network | " + " | ".join(f"{t} {p}" for t, p in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in dict.fromkeys(r["model"] for r in rows):
        texts = [_cell(cells.get((name, *column))) for column in columns]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _cell(row: Record | None) -> str:
    if row is None:
        return ""
    if not row["ok"]:
        return "FAILED"
    return f"{row['snr_db']:.0f} dB" if "snr_db" in row else f"{row['parity']:.0e}"


def document(size: str, rows: list[Record]) -> str:
    """The text of docs/networks.md."""
    failed = [
        f"- {r['model']} {r['target']} {r['precision']}: {r['error']}" for r in rows if not r["ok"]
    ]
    text = f"""# Every network to every target

How closely every exported network matches its reference, written by `python -m
benchmarks.export_matrix --data WIDER`; nothing is typed by hand.

{matrix_table(rows)}

{len(rows)} files at {size} with random weights (the published networks ship without weights),
{len(failed)} failures. fp32 and fp16: the largest difference of any head from torch in float64
(fp16: from the network with its weights rounded to float16); a file with more than 1e-4 is not
written. int8: the signal-to-noise ratio of the worst head against the float file.
"""
    return text + ("\n" + "\n".join(failed) + "\n" if failed else "")


def _run(o: Options) -> int:
    with Terminal(steps=True) as terminal:
        rows = matrix(o, Records(o.kept), terminal)
    write_text(o.docs / "networks.md", document(o.size, rows))
    emit({"matrix": rows}, matrix_table(rows), o.format, o.save)
    return int(any(not row["ok"] for row in rows))


main = program_of(Options, "python -m benchmarks.export_matrix", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
