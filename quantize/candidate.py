"""Bundles of untrained Architectures, to measure latency only.

Weights are random and ranges come from two synthetic photos; parity and accuracy are not measured,
as they would mean nothing with such weights. The latency of a network does not depend on its
weights, as long as none is zero, infinite or denormal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edgeface.architecture.architecture import Architecture
from edgeface.backends import get_backend
from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import BundleError, EdgefaceError, MissingExtraError, OptionError, OutputError
from edgeface.files import check_writable, scratch_folder
from edgeface.images import Image, letterbox
from edgeface.latency.photo import synthetic_photo
from edgeface.quiet import quiet_stage
from edgeface.types import Progress
from edgeface.workers.processes import Processes
from export.pipeline import float_manifest
from export.request import Converted, ExportRequest
from quantize.base import Quantizer
from quantize.measure import int8_manifest, named_files

PHOTO_PX = (1280, 960)
PHOTOS = 2


def candidate_bundles(
    architectures: Sequence[Architecture],
    kinds: Sequence[tuple[str, str]],
    width: int,
    height: int,
    out: Path,
    progress: Progress | None = None,
    processes: int | None = None,
) -> list[list[Path] | str]:
    """Make Bundles of ``architectures`` in ``out``.

    Returns for each Architecture the folders of its Bundles, one for each (target, precision) in
    ``kinds``, in that order; or one line that says why they cannot be made. An existing Bundle of
    the same Architecture is kept. processes: number of parallel conversions; None: one for each
    processor. Raises OutputError, MissingExtraError if a converter is not installed, and
    WorkerError if one repeatedly ends its process.
    """
    check_writable(out)
    if len({architecture.name for architecture in architectures}) < len(architectures):
        raise OptionError(
            "files are named after their networks, and two networks here have one name"
        )
    folders = {a.name: _folders(a, kinds, width, height, out) for a in architectures}
    outcomes: dict[str, list[Path] | str] = dict(folders)
    todo = [a for a in architectures if not all(_is_there(path, a) for path in folders[a.name])]
    done = len(architectures) - len(todo)
    items = [_item(a, kinds, width, height, out) for a in todo]

    def finished(index: int, wrong: str) -> None:
        nonlocal done
        done += 1
        if wrong:
            outcomes[todo[index].name] = wrong
        if progress:
            progress(
                f"making files for {', '.join(' '.join(kind) for kind in kinds)}",
                done,
                len(architectures),
            )

    with closing(Processes(processes or os.cpu_count() or 1)) as workers:
        workers.run(make_candidate, items, finished)
    return [outcomes[a.name] for a in architectures]


def _item(
    architecture: Architecture, kinds: Sequence[tuple[str, str]], width: int, height: int, out: Path
) -> dict[str, Any]:
    """Argument of :func:`make_candidate` for one Architecture."""
    return {
        "architecture": architecture.to_json(),
        "kinds": [list(kind) for kind in kinds],
        "width": width,
        "height": height,
        # Absolute: a worker process starts in the folder in which this process was started.
        "out": str(out.resolve()),
    }


def make_candidate(item: dict[str, Any]) -> str:
    """Task of a worker process: make the Bundles of one network. Returns why they cannot be made,
    or "" if they are made."""
    kinds = [(target, precision) for target, precision in item["kinds"]]
    try:
        _make_all(
            Architecture.from_json(item["architecture"]),
            kinds,
            item["width"],
            item["height"],
            Path(item["out"]),
        )
    except (OutputError, MissingExtraError):
        raise
    except EdgefaceError as error:
        return str(error)
    return ""


def _folders(
    architecture: Architecture, kinds: Sequence[tuple[str, str]], width: int, height: int, out: Path
) -> list[Path]:
    return [
        out / f"{architecture.name}-{target}-{precision}-{width}x{height}"
        for target, precision in kinds
    ]


def _make_all(
    architecture: Architecture, kinds: Sequence[tuple[str, str]], width: int, height: int, out: Path
) -> None:
    folders = dict(zip(kinds, _folders(architecture, kinds, width, height, out), strict=True))
    with scratch_folder() as scratch:
        for target, precision in sorted(
            kinds, key=lambda kind: kind[1] == "int8"
        ):  # int8 is made from fp32
            folder = folders[target, precision]
            if not _is_there(folder, architecture):
                _make(
                    architecture,
                    target,
                    precision,
                    width,
                    height,
                    folder,
                    folders.get((target, "fp32")),
                    scratch,
                )


def _is_there(folder: Path, architecture: Architecture) -> bool:
    try:
        return Bundle.open(folder).manifest.architecture == architecture
    except BundleError:
        return False


def _make(
    architecture: Architecture,
    target: str,
    precision: str,
    width: int,
    height: int,
    folder: Path,
    source: Path | None,
    scratch: Path,
) -> None:
    if precision != "int8":
        _float(architecture, ExportRequest(target, precision, width, height), folder)
        return
    bundle = (
        Bundle.open(source)
        if source
        else _float(
            architecture, ExportRequest(target, "fp32", width, height), scratch / folder.name
        )
    )
    photos: list[Image] = [
        letterbox(synthetic_photo(*PHOTO_PX, seed), width, height)[0] for seed in range(PHOTOS)
    ]
    kind: type[Quantizer] = get_backend(target).load_quantizer()  # type: ignore[assignment]
    with quiet_stage(f"quantising {architecture.name} for {target}"):
        quantized = kind(bundle, photos, kind.scales[0]).quantize()
    manifest = int8_manifest(bundle.manifest, quantized)
    write_bundle(folder, manifest, named_files(manifest, quantized))


def _float(architecture: Architecture, request: ExportRequest, folder: Path) -> Bundle:
    from edgeface.models.detector import deployable
    from export.source import random_source

    source = random_source(architecture, seed=0)
    exporter = get_backend(request.target).load_exporter(request.precision)
    with quiet_stage(f"converting {architecture.name} to {request.target}"):
        converted: Converted = exporter(deployable(source.network), request)
    files = {architecture.name + suffix: content for suffix, content in converted.files.items()}
    return write_bundle(folder, float_manifest(source, request, converted), files)
