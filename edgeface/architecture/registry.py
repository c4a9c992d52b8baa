"""Zoo names and their Architectures: our own networks and published ones.

Each of the nine networks of DamoFD and SCRFD has two entries. ``damofd-0.5g`` is the published
network, with group normalisation in the head. ``damofd-0.5g-bn`` is its deployable variant, with
batch normalisation instead, which export folds into the convolutions. :func:`listed` leaves out the
variants: they have the same multiply-accumulates and, within 0.4 %, the same number of parameters.

Seven were also published with landmarks (:data:`WITH_LANDMARKS`). ``damofd-0.5g-kps`` and
``damofd-0.5g-kps-bn`` add one output to the same head. SCRFD's authors also changed the head: it
has batch normalisation, and each level has its own tower and outputs. ``scrfd-0.5g-kps`` has this
head, needs no variant, and folds to the graph that they released. Their factor on the boxes of each
level is left out, since it only scales that level's own convolution. The parameters that they state
for 2.5G and 10G (0.82 M, 4.23 M) match ours. For 0.5G they state 0.57 M, the figure of the network
without landmarks; the file that they released has 0.63 M, as ours has.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from difflib import get_close_matches

from edgeface.architecture.architecture import Architecture, InputNorm
from edgeface.architecture.genotype import DEFAULT_GENOTYPE, Genotype
from edgeface.architecture.searched import read_searched
from edgeface.architecture.specs import (
    ASFDSpec,
    AutoFEMSpec,
    Backbone,
    ConvNetSpec,
    EResNetSpec,
    EXTDSpec,
    MobileNetSpec,
    PlainHeadSpec,
    PlainNetSpec,
    PyramidSpec,
    ResNetSpec,
    S3FDHeadSpec,
    SCRFDHeadSpec,
)
from edgeface.architecture.strides import LANDMARKS
from edgeface.errors import ModelError
from edgeface.schema import short

ARCHITECTURES: dict[str, Architecture] = {}
VARIANT_SUFFIX = "-bn"
"""Appended to the name of a published network for its deployable variant."""
LANDMARK_SUFFIX = "-kps"
"""Appended to the name of a published network for its form with landmarks."""
S3FD_INPUT = InputNorm(mean=(123.0, 117.0, 104.0), std=1.0)
"""input normalisation of the S3FD family: RGB means of ImageNet, rounded as by its authors"""
SUGGESTED = 4
"""largest number of similar names in the error message about an unknown name"""


def register(architecture: Architecture) -> Architecture:
    """Add ``architecture`` under its name. Raises ValueError if the name is taken (a bug)."""
    if architecture.name in ARCHITECTURES:
        raise ValueError(f"architecture {architecture.name!r} is registered twice")
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def get_architecture(name: str) -> Architecture:
    """Return the Architecture called ``name``. Raises ModelError, with suggestions, if unknown."""
    if name not in ARCHITECTURES:
        raise ModelError(f"unknown model {short(name)} ({suggestions(name)})")
    return ARCHITECTURES[name]


def with_genotype(architecture: Architecture, genotype: Genotype) -> Architecture:
    """``architecture`` with ``genotype`` in its neck, under a new name if this changes the network.

    Raises ModelError if its neck is not autofem.
    """
    neck = architecture.neck
    if not isinstance(neck, AutoFEMSpec):
        raise ModelError(
            f"{architecture.name} has neck {neck.kind}, a genotype is for neck autofem"
        )
    changed = replace(architecture, neck=replace(neck, genotype=genotype))
    return architecture if changed == architecture else changed.named_by_content(architecture.name)


def suggestions(name: str) -> str:
    """Text for an error about an unknown ``name``: known names, and the command that lists all.

    Gives the nearest known names, or one of each family if none is near.
    """
    begun = [known for known in listed() if name and known.startswith(name.lower())]
    near = begun[:SUGGESTED] or get_close_matches(name.lower(), ARCHITECTURES, SUGGESTED)
    one_of_each = {known.partition("-")[0]: known for known in reversed(listed())}
    names = (
        f"nearest: {', '.join(near)}"
        if near
        else f"known: {', '.join(reversed(one_of_each.values()))} and others"
    )
    return f"{names}; `edgeface models` lists all {len(listed())}"


def listed() -> tuple[str, ...]:
    """Return the names for listings: all but the deployable variants of DamoFD and SCRFD."""
    return tuple(name for name in ARCHITECTURES if not name.endswith(VARIANT_SUFFIX))


for _name, _widths, _depths, _channels in (
    ("edgeface-n", (32, 48, 64, 64), (1, 1, 2), 32),
    ("edgeface-s", (32, 64, 80, 96), (1, 2, 2), 64),
):
    register(
        Architecture(
            name=_name,
            backbone=ConvNetSpec(widths=_widths, depths=_depths),
            neck=PyramidSpec("fpn", _channels),
            head=PlainHeadSpec(channels=_channels, stack=1, landmarks=LANDMARKS),
        )
    )

for _entry in read_searched():
    register(_entry.architecture)


# Pyramid and head of each compute regime; DamoFD and SCRFD share them.
_REGIMES: dict[str, tuple[PyramidSpec, SCRFDHeadSpec]] = {
    regime: (
        PyramidSpec("pafpn", pyramid),
        SCRFDHeadSpec(channels, stack, "group", groups, depthwise, anchors=2, offset=0.0),
    )
    for regime, pyramid, stack, channels, groups, depthwise in (
        ("0.5g", 16, 2, 64, 16, True),
        ("1g", 24, 2, 96, 8, True),
        ("2.5g", 24, 2, 64, 16, False),
        ("10g", 56, 3, 80, 16, False),
        ("34g", 128, 2, 256, 32, False),
    )
}

_BACKBONES: dict[str, Backbone] = {
    "damofd-0.5g": PlainNetSpec(
        "SuperConvK3BNRELU(3,32,2,1)SuperResIDWE1K3(32,32,2,8,1)SuperResIDWE1K7(32,64,2,40,1)"
        "SuperResIDWE1K7(64,120,2,40,2)SuperResIDWE1K5(120,160,2,120,1)"
    ),
    "damofd-2.5g": PlainNetSpec(
        "SuperConvK3BNRELU(3,24,2,2)SuperResK3K3(24,32,2,24,4)SuperResK3K3(32,56,2,16,4)"
        "SuperResK5K5(56,88,2,8,5)SuperResK1K5K1(88,128,2,8,4)"
    ),
    "damofd-10g": PlainNetSpec(
        "SuperConvK3BNRELU(3,56,2,2)SuperResK1K3K1(56,80,2,40,5)SuperResK1K5K1(80,112,2,32,5)"
        "SuperResK1K3K1(112,168,2,16,4)SuperResK7K7(168,256,2,8,1)"
    ),
    "damofd-34g": PlainNetSpec(
        "SuperConvK3BNRELU(3,56,2,2)SuperResK1K3K1(56,224,2,80,5)SuperResK1K3K1(224,488,2,40,6)"
        "SuperResK1K3K1(488,624,2,72,4)SuperResK1K7K1(624,816,2,24,3)"
    ),
    "scrfd-0.5g": MobileNetSpec(widths=(16, 16, 40, 72, 152, 288), depths=(2, 3, 2, 6)),
    "scrfd-1g": MobileNetSpec(widths=(32, 48, 48, 160, 216, 312), depths=(3, 2, 1, 5)),
    "scrfd-2.5g": ResNetSpec(widths=(24, 24, 48, 48, 80), depths=(3, 5, 3, 2), block="basic"),
    "scrfd-10g": ResNetSpec(widths=(56, 56, 88, 88, 224), depths=(3, 4, 2, 3), block="basic"),
    "scrfd-34g": ResNetSpec(
        widths=(56, 224, 224, 576, 736), depths=(17, 16, 2, 8), block="bottleneck"
    ),
}

PUBLISHED = tuple(_BACKBONES)
"""Names of the nine published networks in their published form."""
WITH_LANDMARKS = tuple(
    name + LANDMARK_SUFFIX for name in PUBLISHED if name not in ("scrfd-1g", "scrfd-34g")
)
"""Names, with suffix, of the seven of these networks that were also published with landmarks."""


def _register_published(name: str, head: PlainHeadSpec | SCRFDHeadSpec) -> None:
    """Register ``name`` with ``head``; if it has group normalisation, also a ``-bn`` variant."""
    base = name.removesuffix(LANDMARK_SUFFIX)
    neck, _ = _REGIMES[base.partition("-")[2]]
    faithful = register(
        Architecture(name, _BACKBONES[base], neck, head, InputNorm(mean=127.5, std=128.0))
    )
    if head.norm == "group":
        register(
            replace(
                faithful, name=name + VARIANT_SUFFIX, head=replace(head, norm="batch", groups=0)
            )
        )


def _with_landmarks(name: str) -> PlainHeadSpec | SCRFDHeadSpec:
    """The head of a published network with landmarks.

    SCRFD's authors did more than add an output: their head with landmarks is another one.
    """
    head = _REGIMES[name.partition("-")[2]][1]
    if name.startswith("damofd"):
        return replace(head, landmarks=LANDMARKS)
    return PlainHeadSpec(
        head.channels,
        head.stack,
        depthwise=head.depthwise,
        anchors=head.anchors,
        offset=head.offset,
        landmarks=LANDMARKS,
        kernel=3,
    )


for _name in PUBLISHED:
    _register_published(_name, _REGIMES[_name.partition("-")[2]][1])
for _name in WITH_LANDMARKS:
    _register_published(_name, _with_landmarks(_name.removesuffix(LANDMARK_SUFFIX)))


def _register_extd() -> None:
    """Register ``extd-fpn-32-prelu`` to ``extd-ssd-64-relu``: 2 forms, 3 widths, 3 activations."""
    for form, width, activation in itertools.product(
        ("fpn", "ssd"), (32, 48, 64), ("prelu", "lrelu", "relu")
    ):
        register(
            Architecture(
                f"extd-{form}-{width}-{activation}",
                EXTDSpec((width,), activation),
                PyramidSpec("extd" if form == "fpn" else "none", width),
                S3FDHeadSpec(width, stack=0, prior=(4.0, 4.0), kernel=3, maxout="out"),
                S3FD_INPUT,
            )
        )


_register_extd()


def eresfd(width: int) -> Architecture:
    """EResFD with maps of ``width`` channels, a multiple of 4.

    The authors' width multiplier is width / 256.
    """
    return Architecture(
        f"eresfd-{width}",
        EResNetSpec(widths=(width // 2, width), depths=(3, 3, 3, 2, 2)),
        PyramidSpec("sepfpn", width),
        S3FDHeadSpec(width, stack=0, prior=(4.0, 5.0), maxout="out"),
        S3FD_INPUT,
    )


register(eresfd(16))
register(eresfd(32))


_RESNETS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "basic": ((64, 64, 128, 256, 512), (256, 256)),
    "bottleneck": ((64, 256, 512, 1024, 2048), (512, 256)),
}
"""Block kind -> widths of the stem and c2 to c5, widths of c6 and c7."""
_MOBILE_DEPTHS = (2, 2, 6, 2)


def _register_asfd() -> None:
    """Register ``asfd-d0`` (smallest) to ``asfd-d6``. Sources of the figures: docs/asfd.md."""
    side = math.sqrt(1.5)
    for size, (block, widths, depths, channels, stack, repeats) in enumerate(
        (
            ("depthwise", (24, 48, 96, 200, 408), _MOBILE_DEPTHS, 16, 1, 1),
            ("depthwise", (64, 128, 256, 512, 1024), _MOBILE_DEPTHS, 40, 1, 1),
            ("basic", (), (2, 2, 2, 2), 144, 2, 1),
            ("basic", (), (3, 4, 6, 3), 232, 2, 1),
            ("bottleneck", (), (3, 4, 6, 3), 232, 3, 2),
            ("bottleneck", (), (3, 4, 23, 3), 288, 3, 3),
            ("bottleneck", (), (3, 8, 36, 3), 312, 3, 3),
        )
    ):
        base, extra = _RESNETS.get(block, (widths, (channels, channels)))
        register(
            Architecture(
                f"asfd-d{size}",
                ASFDSpec((*base, *extra), depths, block),
                AutoFEMSpec(channels, DEFAULT_GENOTYPE, repeats),
                S3FDHeadSpec(
                    channels,
                    stack,
                    depthwise=True,
                    prior=(4 / side, 4 * side),
                    maxout="in-out",
                    dual=True,
                ),
                S3FD_INPUT,
            )
        )


_register_asfd()
