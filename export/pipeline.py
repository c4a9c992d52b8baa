"""One export from network to Bundle: fold, convert, write to a scratch folder, compare with torch,
and only then write the Bundle."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.backends import BACKENDS
from edgeface.bundle import Bundle, InputSpec, Manifest, write_bundle
from edgeface.decode import head_layout
from edgeface.files import check_writable, scratch_folder
from edgeface.quiet import quiet_stage
from edgeface.runners import read_contract
from edgeface.types import Stage
from export.request import INPUT_NAME, Converted, ExportRequest

if TYPE_CHECKING:
    from export.parity import Parity
    from export.source import Source


@dataclass(frozen=True)
class Exported:
    """The result of :func:`export_model`."""

    bundle: Bundle
    parity: Parity
    operators: dict[str, int]
    """operator -> number of times that the graph contains it"""

    def to_json(self) -> dict[str, Any]:
        """The result as ``--format json`` prints it."""
        return bundle_json(self.bundle) | {"operators": dict(sorted(self.operators.items()))}


def bundle_json(bundle: Bundle) -> dict[str, Any]:
    """Path, files and main manifest fields of a Bundle, JSON-ready."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "model": manifest.model,
        "target": manifest.target,
        "precision": manifest.precision,
        "width": manifest.input.width,
        "height": manifest.input.height,
        "dynamic": manifest.input.dynamic,
        "file": manifest.primary,
        "files": manifest.files,
        "bytes": bundle.size_bytes,
        "sha256": manifest.files[manifest.primary],
        "parity": manifest.parity,
        "weights": manifest.to_json()["weights"],
    }


def export_model(
    source: Source,
    request: ExportRequest,
    out: Path | str = "dist",
    *,
    stage: Stage = nullcontext,
    verbose: bool = False,
) -> Exported:
    """Export ``source`` as ``request`` says into ``out/<model>-<target>-<precision>-<W>x<H>/``.

    Raises ExportError if a converter fails or the file differs from torch, OutputError if ``out``
    cannot be written, MissingExtraError if a converter or the runtime is not installed. Then
    nothing is written.
    """
    from edgeface.models.detector import deployable
    from export.parity import check_parity

    check_writable(out)
    exporter = BACKENDS[request.target].load_exporter(request.precision)
    what = f"converting {source.name} to {request.target}"
    with stage(f"converting to {request.target}"), quiet_stage(what, verbose):
        converted: Converted = exporter(deployable(source.network), request)
    manifest = float_manifest(source, request, converted)
    files = {source.name + suffix: content for suffix, content in converted.files.items()}
    with stage("comparing the file with torch"), scratch_folder() as scratch:
        unproven = write_bundle(scratch / manifest.folder_name, manifest, files)
        with quiet_stage(f"running the {request.target} file", verbose):
            parity = check_parity(unproven, source.network)
            contract = read_contract(unproven)
    proven = replace(manifest, parity=parity.to_json(), contract=contract)
    bundle = write_bundle(Path(out) / manifest.folder_name, proven, files)
    return Exported(bundle, parity, converted.operators)


def float_manifest(source: Source, request: ExportRequest, converted: Converted) -> Manifest:
    """The manifest of a converted file, without parity and contract."""
    architecture = source.network.architecture
    return Manifest(
        model=source.name,
        target=request.target,
        precision=request.precision,
        architecture=architecture,
        head_layout=head_layout(architecture),
        input=InputSpec(
            request.width, request.height, request.dynamic, converted.layout, "float32", INPUT_NAME
        ),
        outputs=converted.outputs,
        primary=source.name + BACKENDS[request.target].suffix,
        tools=converted.tools,
        weights=source.weights,
    )
