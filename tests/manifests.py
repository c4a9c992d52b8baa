"""A manifest for tests of Bundles."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgeface.architecture import get_architecture
from edgeface.bundle import InputSpec, Manifest, WeightsInfo
from edgeface.decode import HeadLayout


def a_manifest(**changes: Any) -> Manifest:
    layout = HeadLayout()
    manifest = Manifest(
        model="edgeface-n",
        target="onnx",
        precision="fp32",
        architecture=get_architecture("edgeface-n"),
        head_layout=layout,
        input=InputSpec(640, 480),
        outputs={name: name for name in layout.output_names},
        primary="model.onnx",
        tools={"torch": "2.13.0"},
        weights=WeightsInfo("0" * 64, "Apache-2.0", "none"),
        parity={"noise": {"cls_8": 1e-6}, "max_abs": {"cls_8": 1e-6}, "tolerance": 1e-4},
    )
    return dataclasses.replace(manifest, **changes)
