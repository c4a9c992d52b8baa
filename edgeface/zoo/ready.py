"""Ready files: Bundles of the models with weights, which ship in ``bundles/`` and need no torch.

``python -m benchmarks.ready`` makes them and ``bundles/index.json``. Files made from other weights
than the shipped ones are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from edgeface.backends import BACKENDS, PRECISIONS, has_module
from edgeface.bundle import MANIFEST, Bundle
from edgeface.errors import EdgefaceError, MissingExtraError, OptionError
from edgeface.schema import from_fields, read_packaged
from edgeface.zoo.index import FOLDER, get_entry, names

BUNDLES = FOLDER / "bundles"
INDEX = BUNDLES / "index.json"


@dataclass(frozen=True)
class ReadyFile:
    """One row of ``bundles/index.json``."""

    name: str
    """name of its folder, which ``--model`` accepts"""
    model: str
    target: str
    precision: str
    width: int
    """px of the input"""
    height: int
    """px of the input"""
    dynamic: bool
    """True: accepts images of any size"""
    bytes: int
    """size of its model files together"""
    manifest: str
    """SHA-256 of its manifest, which holds the SHA-256 of its files"""
    weights: str
    """SHA-256 of the weights that it was made from"""

    @property
    def path(self) -> Path:
        return BUNDLES / self.name

    @property
    def runs_here(self) -> bool:
        """True if its runtime is installed and new enough."""
        return BACKENDS[self.target].usable()

    @property
    def size(self) -> str:
        """Input size as text for users."""
        return "any size" if self.dynamic else f"{self.width}x{self.height}"

    def takes(self, size: int | str | None) -> bool:
        """True if a Detector of this size (see :meth:`Detector.open`) can use it."""
        return size is None or self.dynamic or size == max(self.width, self.height)


def ready_file(bundle: Bundle, manifest_sha256: str) -> ReadyFile:
    """The index row of a Bundle in the folder of ready files."""
    manifest = bundle.manifest
    spec = manifest.input
    return ReadyFile(
        bundle.path.name,
        manifest.model,
        manifest.target,
        manifest.precision,
        spec.width,
        spec.height,
        spec.dynamic,
        bundle.size_bytes,
        manifest_sha256,
        manifest.weights.sha256,
    )


def read_ready(path: Path = INDEX) -> tuple[ReadyFile, ...]:
    """All rows, best first: float before INT8, any size before fixed size. Raises ModelError for a
    damaged index."""
    if not path.is_file():
        return ()
    rows: list[object] = read_packaged(path, list)
    found = [from_fields(ReadyFile, row, f"{path}: {i}") for i, row in enumerate(rows)]
    return tuple(sorted(found, key=_rank))


def _rank(file: ReadyFile) -> tuple[object, ...]:
    area = file.width * file.height
    target = list(BACKENDS).index(file.target)
    precision = PRECISIONS.index(file.precision)
    return precision, not file.dynamic, target, -area, file.height > file.width


@cache
def _shipped() -> tuple[ReadyFile, ...]:
    models = names()
    return tuple(
        file
        for file in read_ready()
        if file.model in models
        and file.weights == get_entry(file.model).sha256
        and (file.path / MANIFEST).is_file()
    )


def ready_files(model: str | None = None) -> tuple[ReadyFile, ...]:
    """Ready files of the shipped weights, best first; only those of ``model``, if given."""
    return tuple(file for file in _shipped() if model in (None, file.model))


def bundle_folder(name: Path | str) -> Path:
    """The folder of the ready file ``name``; any other ``name``, and an existing path, is returned
    as a path."""
    files = () if Path(name).exists() else _shipped()
    return next((file.path for file in files if file.name == str(name)), Path(name))


def nearest_ready(text: str) -> tuple[str, ...]:
    """Names of ready files that begin with ``text`` or, if none does, are similar to it."""
    names = [file.name for file in _shipped() if text.startswith(f"{file.model}-")]
    return tuple(
        [name for name in names if name.startswith(text)] or get_close_matches(text, names)
    )


def find_ready(name: str, size: int | str | None = None) -> ReadyFile | None:
    """The ready file to run for ``name`` without ``--weights``: the one with that name, or the best
    of the model with that name at this size (see :meth:`Detector.open`) whose runtime is installed.

    None if there is none, or if torch is installed and only INT8 files run here, which torch
    surpasses.
    """
    for file in _shipped():
        if file.name == name:
            return file
        if file.model == name and file.runs_here and file.takes(size):
            return None if file.precision == "int8" and has_module("torch") else file
    return None


def cannot_run(model: str, size: int | str | None) -> EdgefaceError | None:
    """Why no ready file of ``model`` runs here at ``size``, and what to install, for users without
    torch; None if it has no ready files."""
    files = ready_files(model)
    if not files:
        return None
    able = [file for file in files if file.takes(size)]
    here = dict.fromkeys(file.size for file in files if file.runs_here)
    if here:
        advice = (
            f"'edgeface[{BACKENDS[able[0].target].extra}]', whose file takes it"
            if able
            else "'edgeface[zoo]', since torch takes any"
        )
        return OptionError(
            f"{model} cannot run at size {size!r} here: its ready files take {', '.join(here)}:"
            f" leave --size out, or run: pip install {advice}"
        )
    targets = list(dict.fromkeys(file.target for file in able))
    if not targets:
        return MissingExtraError("torch", "zoo", f"running {model} at size {size!r}")
    backend = BACKENDS[targets[0]]
    purpose = f"running {model} (ready for {', '.join(targets)}: any one of them will do)"
    return MissingExtraError(backend.distributions[0], backend.extra, purpose)
