"""PlainNet structure strings, as DamoFD publishes its backbones: text <-> tuple of SuperBlock.

Needs only the standard library.

Four published forms, written one after another without separators (K is 3, 5 or 7; E is 1, 2, 4 or
6):

    SuperConvK3BNRELU(in,out,stride,layers)             convolutions, the stem
    SuperResK3K3(in,out,stride,bottleneck,layers)       basic residuals
    SuperResK1K3K1(in,out,stride,bottleneck,layers)     bottleneck residuals
    SuperResIDWE1K3(in,out,stride,bottleneck,layers)    inverted depthwise residuals

and three of our own:

    SuperDWK3BNRELU(in,out,stride,layers)               depthwise K x K, then 1x1 (MobileNetV1)
    SuperConvResK3K3(in,out,stride,bottleneck,layers)   a convolution, then basic residuals that
                                                        have no projection (edgeface-n's stages)
    SuperConvK6BNRELU(in,out,4,1)                       a stem straight to stride 4

Parsing is strict (no spaces, no leading zeros), so that printing gives back the very same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from edgeface.errors import ModelError

KERNELS = (3, 5, 7)
EXPANSIONS = (1, 2, 4, 6)
STEM_KERNEL = 6
"""kernel size of the stem that goes straight to stride 4"""
KINDS = ("conv", "separable", "basic", "led", "bottleneck", "inverted")
PLAIN = ("conv", "separable")
"""kinds without a shortcut and without an inner width"""
MAX_CHANNELS = 9999
MAX_LAYERS = 99
ACCEPTED = (
    "SuperConvK3BNRELU or SuperDWK3BNRELU(in,out,stride,layers), SuperResK3K3, SuperConvResK3K3,"
    " SuperResK1K3K1 or SuperResIDWE1K3(in,out,stride,bottleneck,layers), K one of 3, 5, 7 and E"
    " one of 1, 2, 4, 6; SuperConvK6BNRELU(in,out,4,1)"
)

_NUMBER = r"([1-9]\d{0,3})"
_FORMS = {
    "conv": re.compile(rf"SuperConvK([3567])BNRELU\({_NUMBER},{_NUMBER},([124]),{_NUMBER}\)"),
    "separable": re.compile(rf"SuperDWK([357])BNRELU\({_NUMBER},{_NUMBER},([12]),{_NUMBER}\)"),
    "basic": re.compile(rf"SuperResK([357])K\1\({_NUMBER},{_NUMBER},([12]),{_NUMBER},{_NUMBER}\)"),
    "led": re.compile(
        rf"SuperConvResK([357])K\1\({_NUMBER},{_NUMBER},([12]),{_NUMBER},{_NUMBER}\)"
    ),
    "bottleneck": re.compile(
        rf"SuperResK1K([357])K1\({_NUMBER},{_NUMBER},([12]),{_NUMBER},{_NUMBER}\)"
    ),
    "inverted": re.compile(
        rf"SuperResIDWE([1246])K([357])\({_NUMBER},{_NUMBER},([12]),{_NUMBER},{_NUMBER}\)"
    ),
}


@dataclass(frozen=True)
class SuperBlock:
    """One super-block: ``layers`` inner layers of one kind.

    The first inner layer has the stride; in kind led, the convolution before the inner layers has
    it. ``str(block)`` is its structure string. Raises ModelError for a value that is not accepted.
    """

    kind: str
    """conv, separable, basic, led (a convolution, then basic), bottleneck or inverted"""
    kernel: int
    in_channels: int
    out_channels: int
    stride: int
    layers: int
    bottleneck: int = 0
    """inner width; 0 for conv and separable, which have none"""
    expansion: int = 0
    """inverted: factor by which the depthwise convolution is wider; 0 for the other kinds"""

    def __post_init__(self) -> None:
        residual, inverted = self.kind not in PLAIN, self.kind == "inverted"
        stem = self.kind == "conv" and self.kernel == STEM_KERNEL
        checks = {
            "kind": (self.kind in KINDS, ", ".join(KINDS)),
            "kernel": (stem or self.kernel in KERNELS, "3, 5 or 7"),
            "in_channels": (1 <= self.in_channels <= MAX_CHANNELS, f"1 to {MAX_CHANNELS}"),
            "out_channels": (1 <= self.out_channels <= MAX_CHANNELS, f"1 to {MAX_CHANNELS}"),
            "stride": (
                self.stride in ((4,) if stem else (1, 2)),
                "4 with kernel 6" if stem else "1 or 2",
            ),
            "layers": (
                1 <= self.layers <= (1 if stem else MAX_LAYERS),
                "1" if stem else f"1 to {MAX_LAYERS}",
            ),
            "bottleneck": (
                residual <= self.bottleneck <= residual * MAX_CHANNELS,
                f"1 to {MAX_CHANNELS}" if residual else "0",
            ),
            "expansion": (
                self.expansion in (EXPANSIONS if inverted else (0,)),
                "1, 2, 4 or 6" if inverted else "0",
            ),
        }
        for name, (accepted, what) in checks.items():
            if not accepted:
                raise ModelError(
                    f"{self.kind} block: {name} is {getattr(self, name)!r}, accepted: {what}"
                )

    def __str__(self) -> str:
        k = self.kernel
        names = {
            "conv": f"SuperConvK{k}BNRELU",
            "separable": f"SuperDWK{k}BNRELU",
            "basic": f"SuperResK{k}K{k}",
            "led": f"SuperConvResK{k}K{k}",
            "bottleneck": f"SuperResK1K{k}K1",
            "inverted": f"SuperResIDWE{self.expansion}K{k}",
        }
        inner = (self.layers,) if self.kind in PLAIN else (self.bottleneck, self.layers)
        arguments = (self.in_channels, self.out_channels, self.stride, *inner)
        return f"{names[self.kind]}({','.join(map(str, arguments))})"


def parse(text: str) -> tuple[SuperBlock, ...]:
    """Read a structure string; ``format_structure(parse(text)) == text``.

    Raises ModelError naming a block that is malformed, or whose input channels differ from the
    output channels of the block before it.
    """
    if not isinstance(text, str) or not text:
        raise ModelError(
            f"plainnet structure is empty; a structure is one or more blocks of: {ACCEPTED}"
        )
    pieces = re.findall(r"[^)]*\)|[^)]+", text)
    blocks = tuple(_parse_block(piece, number) for number, piece in enumerate(pieces, 1))
    for number, (before, block) in enumerate(pairwise(blocks), 2):
        if block.in_channels != before.out_channels:
            raise ModelError(
                f"plainnet structure: block {number}, {block}, takes {block.in_channels} channels"
                f" but block {number - 1} gives {before.out_channels}"
            )
    return blocks


def format_structure(blocks: Iterable[SuperBlock]) -> str:
    """Print super-blocks as the structure string that :func:`parse` reads."""
    return "".join(map(str, blocks))


def round8(value: float) -> int:
    """Round to a multiple of 8, at least 8; ties go to the even one, as in DamoFD's search."""
    return max(8, 8 * round(value / 8))


@lru_cache(maxsize=1 << 14)  # a search parses the same blocks again and again
def _parse_block(piece: str, number: int) -> SuperBlock:
    for kind, form in _FORMS.items():
        match = form.fullmatch(piece)
        if match:
            values = [int(group) for group in match.groups()]
            expansion = values.pop(0) if kind == "inverted" else 0
            bottleneck = values.pop(4) if kind not in PLAIN else 0
            kernel, in_channels, out_channels, stride, layers = values
            try:
                return SuperBlock(
                    kind, kernel, in_channels, out_channels, stride, layers, bottleneck, expansion
                )
            except ModelError as error:
                raise ModelError(f"plainnet structure: block {number}, {piece}: {error}") from None
    shown = piece if len(piece) <= 60 else piece[:57] + "..."
    raise ModelError(
        f"plainnet structure: block {number}, {shown!r}, is malformed; accepted: {ACCEPTED}"
    )
