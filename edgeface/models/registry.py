"""Zoo names and the Architectures behind them: ours, and the nine networks published for DamoFD and SCRFD.

Each published network comes twice. ``damofd-0.5g`` is faithful: group normalisation in the head. ``damofd-0.5g-bn`` is
its deployable variant: batch normalisation instead, which folds into the convolutions on export. Variants are not
listed on their own (:func:`listed`): they have the same multiply-accumulates and within 0.4 % the same parameters.
"""

from __future__ import annotations

import dataclasses

from edgeface.errors import ModelError
from edgeface.models.architecture import Architecture, Backbone, Head, InputNorm, Neck

ARCHITECTURES: dict[str, Architecture] = {}
VARIANT_SUFFIX = "-bn"
"""Appended to the name of a published network for its deployable variant."""


def register(architecture: Architecture) -> Architecture:
    """Add ``architecture`` under its name; a name taken twice is a programming error."""
    if architecture.name in ARCHITECTURES:
        raise ValueError(f"architecture {architecture.name!r} is registered twice")
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def get_architecture(name: str) -> Architecture:
    """Return the Architecture called ``name``. Raises ModelError that lists the known names."""
    if name not in ARCHITECTURES:
        raise ModelError(f"unknown model {name!r} (known: {', '.join(listed())}; the published ones also with "
                         f"{VARIANT_SUFFIX} appended, for batch normalisation)")
    return ARCHITECTURES[name]


def listed() -> tuple[str, ...]:
    """Return the names worth a line in a listing: everything but the deployable variants of published networks."""
    return tuple(name for name in ARCHITECTURES if name.removesuffix(VARIANT_SUFFIX) not in PUBLISHED
                 or name in PUBLISHED)


register(Architecture(
    name="edgeface-n",
    backbone=Backbone(kind="convnet", widths=(32, 48, 64, 64), depths=(1, 1, 2)),
    neck=Neck(kind="fpn", channels=32),
    head=Head(kind="plain", channels=32, stack=1),
))


# Pyramid and head of each compute regime, the same for both families.
_REGIMES: dict[str, tuple[Neck, Head]] = {
    regime: (
        Neck(kind="pafpn", channels=pyramid),
        Head(kind="scrfd", channels=channels, stack=stack, norm="group", groups=groups, depthwise=depthwise,
             anchors=2, offset=0.0),
    )
    for regime, pyramid, stack, channels, groups, depthwise in (
        ("0.5g", 16, 2, 64, 16, True),
        ("1g", 24, 2, 96, 8, True),
        ("2.5g", 24, 2, 64, 16, False),
        ("10g", 56, 3, 80, 16, False),
        ("34g", 128, 2, 256, 32, False),
    )
}

_BACKBONES = {
    "damofd-0.5g": Backbone(kind="plainnet", structure=(
        "SuperConvK3BNRELU(3,32,2,1)SuperResIDWE1K3(32,32,2,8,1)SuperResIDWE1K7(32,64,2,40,1)"
        "SuperResIDWE1K7(64,120,2,40,2)SuperResIDWE1K5(120,160,2,120,1)")),
    "damofd-2.5g": Backbone(kind="plainnet", structure=(
        "SuperConvK3BNRELU(3,24,2,2)SuperResK3K3(24,32,2,24,4)SuperResK3K3(32,56,2,16,4)"
        "SuperResK5K5(56,88,2,8,5)SuperResK1K5K1(88,128,2,8,4)")),
    "damofd-10g": Backbone(kind="plainnet", structure=(
        "SuperConvK3BNRELU(3,56,2,2)SuperResK1K3K1(56,80,2,40,5)SuperResK1K5K1(80,112,2,32,5)"
        "SuperResK1K3K1(112,168,2,16,4)SuperResK7K7(168,256,2,8,1)")),
    "damofd-34g": Backbone(kind="plainnet", structure=(
        "SuperConvK3BNRELU(3,56,2,2)SuperResK1K3K1(56,224,2,80,5)SuperResK1K3K1(224,488,2,40,6)"
        "SuperResK1K3K1(488,624,2,72,4)SuperResK1K7K1(624,816,2,24,3)")),
    "scrfd-0.5g": Backbone(kind="mobilenetv1", widths=(16, 16, 40, 72, 152, 288), depths=(2, 3, 2, 6)),
    "scrfd-1g": Backbone(kind="mobilenetv1", widths=(32, 48, 48, 160, 216, 312), depths=(3, 2, 1, 5)),
    "scrfd-2.5g": Backbone(kind="resnetv1e", block="basic", widths=(24, 24, 48, 48, 80), depths=(3, 5, 3, 2)),
    "scrfd-10g": Backbone(kind="resnetv1e", block="basic", widths=(56, 56, 88, 88, 224), depths=(3, 4, 2, 3)),
    "scrfd-34g": Backbone(kind="resnetv1e", block="bottleneck", widths=(56, 224, 224, 576, 736),
                          depths=(17, 16, 2, 8)),
}

PUBLISHED = tuple(_BACKBONES)
"""Names of the nine published networks, as published."""


def _register_published() -> None:
    for name, backbone in _BACKBONES.items():
        neck, head = _REGIMES[name.partition("-")[2]]
        faithful = register(Architecture(name, backbone, neck, head, InputNorm(mean=127.5, std=128.0)))
        register(dataclasses.replace(faithful, name=name + VARIANT_SUFFIX,
                                     head=dataclasses.replace(head, norm="batch", groups=0)))


_register_published()
