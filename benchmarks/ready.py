"""``python -m benchmarks.ready --data WIDER``: makes the ready files that ship in
``edgeface/zoo/bundles``.

Exports every model with weights, checks each file against torch, and quantises it within the
accuracy budget, for the runtimes and sizes of KINDS. Existing files made of the same weights are
kept, so a stopped run resumes. At the end, files that the index lists for other weights are
removed; a folder that contains anything else is refused. Same weights, photos and tool versions
give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.common import MAX_DROP, Printed
from edgeface import zoo
from edgeface.backends import BACKENDS
from edgeface.bundle import MANIFEST, README, Bundle, write_bundle
from edgeface.bundle.readme import readme
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import BundleError, OptionError
from edgeface.files import read_file, write_text
from edgeface.options import Range, check_choice, check_ranges
from edgeface.zoo.ready import INDEX
from export import ExportRequest, export_model, load_source
from quantize.pipeline import QuantizeRequest, quantize_model

LANDSCAPE, PORTRAIT, SMALL = (640, 480), (480, 640), (320, 320)
KINDS = (
    ("onnx", "fp32", LANDSCAPE, True),
    ("tflite", "fp32", LANDSCAPE, False),
    *(
        (target, "int8", size, False)
        for size in (LANDSCAPE, PORTRAIT)
        for target in ("tflite", "openvino", "ncnn")
    ),
    ("tflite", "int8", SMALL, False),
)
"""(target, precision, size in px, whether it takes any size) of each ready file. A float file is
three times as large as an INT8 one, so it is made for one size or for any; SMALL is for phones"""
Kind = tuple[str, str, tuple[int, int], bool]
LARGE_KINDS = (("tflite", "int8", LANDSCAPE, False),)
SMALL_BYTES = 2_000_000
"""models whose weights are larger have LARGE_KINDS instead of KINDS: the wheel, which holds the
weights as well, has 12 MB"""


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder: its training photos calibrate, its validation photos hold the budget"""
    models: tuple[str, ...] = ()
    """networks to make; default: all that ship with weights"""
    targets: tuple[str, ...] = ()
    """make only files for these runtimes. Default: all"""
    max_drop: float = 0.5
    """AP points that the worst of easy, medium and hard may lose in INT8"""
    calibration_seed: int = 0
    """seed of the choice of calibration photos: with some, the budget is kept with fewer layers in
    float, and the file is smaller and faster"""
    work: Path = Path("dist/ready")
    """folder for the float files that INT8 files are made of, and for measurements"""
    out: Path = zoo.BUNDLES
    """folder that contains only the ready files and their index; files of other weights are
    removed from it"""
    again: bool = False
    """make all files again"""
    ranges: ClassVar[dict[str, Range]] = {"max_drop": MAX_DROP}

    def __post_init__(self) -> None:
        check_ranges(self)
        check_choice("targets", self.targets, BACKENDS)

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads, or that are the result."""
        return (self.out / INDEX.name,)


def make_ready(options: Options, terminal: Terminal) -> list[zoo.ReadyFile]:
    """Make all files, and return the index of ``options.out``.

    The index is written after each file, so that the files of a stopped run are usable. Raises
    OptionError if ``options.out`` holds folders that this command did not make.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    write_index(options.out)
    for model in options.models or zoo.names():
        for kind in kinds_of(model):
            wanted = not options.targets or kind[0] in options.targets
            if wanted and _make(model, kind, options, terminal):
                write_index(options.out)
    return remove_others(options.out)


def kinds_of(model: str) -> tuple[Kind, ...]:
    """Kinds of the ready files that ``model``, a zoo name with weights, ships with."""
    weights = zoo.FOLDER / zoo.get_entry(model).weights
    return KINDS if weights.stat().st_size <= SMALL_BYTES else LARGE_KINDS


def write_index(folder: Path) -> list[zoo.ReadyFile]:
    """Write ``index.json`` of the ready files in ``folder``. Files of other weights stay listed,
    which shows that this command made them. Raises OptionError."""
    rows = list(_rows(folder).values())
    write_text(folder / INDEX.name, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


def remove_others(folder: Path) -> list[zoo.ReadyFile]:
    """Remove the ready files of weights that do not ship from ``folder`` and its index. Raises
    OptionError."""
    for path, row in _rows(folder).items():
        if not _is_shipped(row.model, row.weights):
            shutil.rmtree(path)
    return write_index(folder)


def _rows(folder: Path) -> dict[Path, zoo.ReadyFile]:
    """Row of the index for each folder in ``folder``. Raises OptionError for one that this command
    did not make: not in the index, and not made by a run that was stopped before writing it."""
    listed = {row.name: row for row in zoo.read_ready(folder / INDEX.name)}
    rows = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        row = _row(path, listed.get(path.name))
        if row is None:
            raise OptionError(
                f"{path} was not made by this command: move it away, or give --out a folder that"
                " holds ready files alone"
            )
        rows[path] = row
    return rows


def _row(path: Path, listed: zoo.ReadyFile | None) -> zoo.ReadyFile | None:
    """Row of the ready file ``path``; None if this command did not make it."""
    try:
        digest = hashlib.sha256(read_file(path / MANIFEST, BundleError)).hexdigest()
        if listed and listed.manifest == digest:
            return listed
        bundle = Bundle.open(path)
    except BundleError:
        return None
    expected = {_name(model, kind) for model in zoo.names() for kind in kinds_of(model)}
    ours = path.name in expected and _is_current(bundle)
    return zoo.ready_file(bundle, digest) if ours else None


def _make(model: str, kind: Kind, options: Options, terminal: Terminal) -> bool:
    """Make one ready file; returns False if it was there already."""
    path = options.out / _name(model, kind)
    if not options.again and _is_there(path):
        _renew_readme(Bundle.open(path))
        return False
    terminal.line(f"making {path.name} ...")
    made = (
        _int8(model, kind, options, terminal) if kind[1] == "int8" else _float(model, kind, options)
    )
    if path.is_dir() and not _is_there(path):  # write_bundle refuses other weights
        shutil.rmtree(path)
    write_bundle(path, made.manifest, {name: made.read(name) for name in made.manifest.files})
    return True


def _name(model: str, kind: Kind) -> str:
    """Name of the ready file's folder."""
    target, precision, (width, height), dynamic = kind
    return f"{model}-{target}-{precision}-{width}x{height}{'-dynamic' * dynamic}"


def _float(model: str, kind: Kind, options: Options) -> Bundle:
    target, _, size, dynamic = kind
    request = ExportRequest(target, "fp32", *size, dynamic)
    return export_model(load_source(model), request, _work(model, options)).bundle


def _int8(model: str, kind: Kind, options: Options, terminal: Terminal) -> Bundle:
    target, _, (width, height), _ = kind
    request = QuantizeRequest(
        target,
        model,
        width,
        height,
        max_drop=options.max_drop,
        calibration_seed=options.calibration_seed,
    )
    done = quantize_model(
        request,
        _work(model, options),
        data=options.data,
        progress=terminal.tick,
        note=terminal.note,
    )
    return done.bundle


def _work(model: str, options: Options) -> Path:
    """Work folder of the current weights: files made from other weights are not replaced."""
    return options.work / zoo.get_entry(model).sha256[:12]


def _renew_readme(bundle: Bundle) -> None:
    """Rewrite the README if its text has changed since the file was made."""
    path, text = bundle.path / README, readme(bundle.manifest)
    if path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _is_there(path: Path) -> bool:
    try:
        return _is_current(Bundle.open(path))
    except BundleError:
        return False


def _is_current(bundle: Bundle) -> bool:
    manifest = bundle.manifest
    return manifest.contract is not None and _is_shipped(manifest.model, manifest.weights.sha256)


def _is_shipped(model: str, weights: str) -> bool:
    return model in zoo.names() and weights == zoo.get_entry(model).sha256


def _run(options: Options) -> int | None:
    with Terminal(steps=True) as terminal:
        rows = make_ready(options, terminal)
    text = table(("file", "bytes"), [(row.name, f"{row.bytes:,}") for row in rows])
    total = f"{sum(row.bytes for row in rows):,} bytes in all"
    emit([asdict(row) for row in rows], f"{text}\n{total}", options.format, options.save)
    return None


main = program_of(Options, "python -m benchmarks.ready", __doc__, _run, RESUMES)

if __name__ == "__main__":
    import sys

    sys.exit(main())
