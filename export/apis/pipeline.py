"""Adapts a Bundle to an API: convert, run, compare, and only then write the new Bundle."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeface.bundle import APIS, FORMAT_VERSION, Bundle, Manifest, write_bundle
from edgeface.decode import HeadLayout, head_layout
from edgeface.errors import ExportError, OptionError
from edgeface.files import check_writable, scratch_folder
from edgeface.options import check_choice
from edgeface.quiet import quiet_stage
from edgeface.runners import open_runner
from edgeface.types import Stage
from export.apis.base import Adapted, Adapter
from export.apis.google import MediaPipe, TaskLibrary
from export.apis.opencv import OpenCV
from export.pipeline import export_model
from export.request import ExportRequest

if TYPE_CHECKING:
    from export.source import Source

ADAPTERS: dict[str, Adapter] = {
    "mediapipe": MediaPipe(),
    "task-library": TaskLibrary(),
    "opencv": OpenCV(),
}
assert ADAPTERS.keys() == APIS.keys()


def check_api(api: str, target: str, layout: HeadLayout, precision: str) -> Adapter:
    """The adapter to ``api``. Raises OptionError for a target, network or precision that the API
    cannot use."""
    check_choice("for", (api,), ADAPTERS)
    adapter = ADAPTERS[api]
    if target != adapter.target:
        raise OptionError(f"--for {api}: its files are {adapter.target}: give that as --target")
    if wrong := adapter.refusal(layout, precision):
        raise OptionError(f"--for {api}: {wrong}")
    return adapter


def export_for(
    api: str,
    source: Source,
    request: ExportRequest,
    out: Path | str = "dist",
    *,
    stage: Stage = nullcontext,
    verbose: bool = False,
) -> Bundle:
    """Like :func:`export.export_model`, for ``api``. Raises the errors of that and of
    :func:`adapt`."""
    layout = head_layout(source.network.architecture)
    adapter = check_api(api, request.target, layout, request.precision)
    with scratch_folder() as scratch:
        request = replace(request, dynamic=adapter.dynamic)
        plain = export_model(source, request, scratch, stage=stage, verbose=verbose).bundle
        with stage(f"adapting it to {APIS[api]}"):
            return adapt(plain, api, out, verbose)


def adapt(bundle: Bundle, api: str, out: Path | str = "dist", verbose: bool = False) -> Bundle:
    """Adapt the file of ``bundle``, float or INT8, to ``api`` and write it as a new Bundle in
    ``out``.

    Raises OptionError for a Bundle that the API cannot use, ExportError if the outputs of the file
    differ from those of ``bundle``. Then nothing is written.
    """
    check_writable(out)
    bundle.require_heads()
    manifest = bundle.manifest
    adapter = check_api(api, manifest.target, manifest.head_layout, manifest.precision)
    if adapter.dynamic and not manifest.input.dynamic:
        raise OptionError(f"--for {api}: {bundle.path} takes one size: export it with --dynamic")
    with quiet_stage(f"making a file for {APIS[api]}", verbose):
        adapted = adapter.convert(bundle)
        parity = _prove(bundle, adapter, adapted, api)
    manifest = _manifest(manifest, adapted, api, parity)
    return write_bundle(
        Path(out) / manifest.folder_name, manifest, {manifest.primary: adapted.content}
    )


def _prove(bundle: Bundle, adapter: Adapter, adapted: Adapted, api: str) -> dict[str, Any]:
    """The ``parity`` field: largest differences from ``bundle``, which was compared with torch
    before."""
    from export.parity import TOLERANCE, sample_inputs

    spec = bundle.manifest.input
    worst: dict[str, float] = {}
    with open_runner(bundle) as runner:
        for batch in sample_inputs(spec.width, spec.height, spec.dynamic).values():
            expected = adapter.expected(runner.run(batch), bundle.manifest)
            found = adapter.run(adapted.content, batch)
            for name, value in adapter.differences(found, expected).items():
                worst[name] = float(np.maximum(worst.get(name, 0.0), value))  # NaN stays
    wrong = [f"{name} {value:.2g}" for name, value in worst.items() if not value <= TOLERANCE]
    if wrong:
        raise ExportError(
            f"the file for {APIS[api]} differs from the {bundle.manifest.target} file it is made of"
            f": {'; '.join(wrong)} > {TOLERANCE:g}: nothing was written"
        )
    return {
        "tolerance": TOLERANCE,
        "max_abs": {name: float(f"{value:.3g}") for name, value in worst.items()},
    }


def _manifest(manifest: Manifest, adapted: Adapted, api: str, parity: dict[str, Any]) -> Manifest:
    return replace(
        manifest,
        api=api,
        contract=None,
        format_version=FORMAT_VERSION,
        input=replace(manifest.input, dtype="float32", colour=adapted.colour),
        outputs={name: name for name in adapted.outputs},
        output_quantization=None,
        parity=parity,
    )
