"""Opens and checks the folder of a Bundle, and writes it atomically."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeface.bundle.manifest import (
    APIS,
    MANIFEST,
    RANDOM_WEIGHTS,
    README,
    Manifest,
    WeightsInfo,
)
from edgeface.bundle.readme import readme
from edgeface.errors import BundleError
from edgeface.files import atomic_folder, read_file, read_regular, recover
from edgeface.options import as_path
from edgeface.schema import short

MAX_MANIFEST_BYTES = 4 << 20
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
"""files that file managers leave behind"""


@dataclass(frozen=True)
class Bundle:
    """A Bundle's folder, opened and checked."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> Bundle:
        """Read the manifest of the folder ``path``; with ``verify``, check the SHA-256 of every
        file now.

        :meth:`read` checks a file again each time, so that a runtime loads only verified content.
        Raises BundleError.
        """
        path = as_path("a Bundle", path)
        with contextlib.suppress(OSError):
            recover(path)
        bundle = cls(path, _read_manifest(path))
        for name in bundle.manifest.files:
            if verify:
                bundle.read(name)
            else:
                bundle.file(name)
        return bundle

    def require_heads(self) -> None:
        """Raise BundleError for a file without heads, made for the API of another library."""
        api = self.manifest.api
        if api is not None:
            raise BundleError(
                f"{self.path} is made for {APIS[api]}: open its {self.manifest.primary} with that, "
                f"see its {README}; for edgeface, export without --for"
            )

    @property
    def primary(self) -> Path:
        """Path of the file that the runtime opens."""
        return self.file(self.manifest.primary)

    @property
    def size_bytes(self) -> int:
        """Size of all model files together, without the manifest."""
        return sum(self.file(name).stat().st_size for name in self.manifest.files)

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists. Raises BundleError for a file that is not listed,
        missing or, by a link, outside the folder."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: the manifest lists no file {name!r}")
        path = self.path / name
        try:
            inside = path.resolve().parent == self.path.resolve()
            regular = path.is_file()
        except (OSError, RuntimeError) as error:
            raise BundleError(f"cannot read {path}: {error}") from None
        if not inside:
            raise BundleError(f"{self.path}: manifest names a file outside its folder: {name!r}")
        if not regular:
            raise BundleError(f"{self.path}: file {name!r} is missing: export the model again")
        return path

    def read(self, name: str | None = None) -> bytes:
        """Content of a listed file (default: the primary). Raises BundleError if its SHA-256 is not
        the manifest's."""
        name = self.manifest.primary if name is None else name
        path = self.file(name)
        content = read_file(path, BundleError)
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BundleError(
                f"{path} is truncated or altered: its SHA-256 differs from the manifest's: "
                "export the model again"
            )
        return content


def write_bundle(path: Path | str, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write the folder ``path`` atomically, replacing an existing Bundle, and return it opened.

    files: file name -> content, or path to copy from; ``manifest.files`` is filled in from them.
    Raises OutputError if the folder cannot be written; BundleError if manifest and files do not
    fit, or if the folder holds other weights that are not random, or foreign files.
    """
    contents = {
        name: data if isinstance(data, bytes) else Path(data).read_bytes()
        for name, data in files.items()
    }
    hashes = {
        name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())
    }
    manifest = dataclasses.replace(manifest, files=hashes)
    text = manifest.dumps()
    Manifest.from_json(json.loads(text))
    path = Path(path)
    _refuse_others_files(path, contents)
    refuse_other_weights(path, manifest.weights)
    with atomic_folder(path) as temporary:
        for name, content in contents.items():
            (temporary / name).write_bytes(content)
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        if manifest.contract is not None or manifest.api is not None:
            (temporary / README).write_text(readme(manifest), encoding="utf-8")
    return Bundle.open(path)


def refuse_other_weights(path: Path, weights: WeightsInfo) -> None:
    """Raise BundleError if the Bundle in ``path`` has other weights than ``weights``.

    A Bundle with random weights, or without a statement of its weights, may be replaced.
    """
    found = _loose_manifest(path).get("weights")
    there = found if isinstance(found, dict) else {}
    sha256 = there.get("sha256")
    random = str(there.get("licence", "")).startswith(RANDOM_WEIGHTS)
    if isinstance(sha256, str) and sha256 != weights.sha256 and not random:
        raise BundleError(
            f"{path} holds other weights (SHA-256 {short(sha256[:12])}, these are"
            f" {weights.sha256[:12]}): choose another folder with --out, or delete that one"
        )


def _refuse_others_files(path: Path, names: Iterable[str]) -> None:
    """Raise BundleError if ``path`` holds more than a Bundle: a new one with the files ``names``
    would replace it."""
    if not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    found = _loose_manifest(path) if (path / MANIFEST).is_file() else {"of": "something else"}
    if found and "format_version" not in found:  # such as the manifest.json of a web app
        raise BundleError(f"{path} exists and is not a Bundle: choose another output folder")
    files = found.get("files")
    own = {MANIFEST, README, *LITTER, *names, *(files if isinstance(files, dict) else ())}
    # A Bundle holds no folders, whatever its manifest calls a file.
    others = sorted(x.name for x in path.iterdir() if x.name not in own or x.is_dir())
    if others:
        raise BundleError(
            f"{path} holds {short(others[0])}, which is not of the Bundle that would be replaced:"
            " move it, or choose another folder with --out"
        )


def _loose_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest, of any version and unchecked; empty if it is missing or damaged.
    Raises BundleError if it cannot be read."""
    with contextlib.suppress(OSError):
        recover(path)
    try:
        text = read_regular(path / MANIFEST)
        found = json.loads(text) if len(text) <= MAX_MANIFEST_BYTES else None
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BundleError(f"cannot read {path / MANIFEST}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {"of": "something else"}


def _read_manifest(folder: Path) -> Manifest:
    try:
        if folder.is_file() and (folder.parent / MANIFEST).is_file():
            raise BundleError(f"{folder} is a file of a Bundle: give its folder, {folder.parent}")
        if not folder.is_dir():
            of = f" --model {shlex.quote(str(folder))}" if folder.suffix == ".safetensors" else ""
            raise BundleError(
                f"no Bundle at {folder}: expected a folder with {MANIFEST}; make one with: "
                f"edgeface export --target tflite{of}, or take one of: edgeface models"
            )
        path = folder / MANIFEST
        if not path.is_file():
            raise BundleError(f"{folder} is not a Bundle: it has no {MANIFEST}")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB: not a manifest"
            )
        data = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise BundleError(f"cannot read {folder / MANIFEST}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST} is not valid JSON: {short(str(error))}") from None
    try:
        return Manifest.from_json(data)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
