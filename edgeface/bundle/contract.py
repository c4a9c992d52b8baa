"""Contract: all that an app must know to feed a model file and to read its outputs.

    photo --fit--> pixels --scale, zero point--> input --> outputs --> boxes, landmarks

It spells out what the head layout and the input of a manifest imply, so that its reader needs
neither this library nor its source. Only :func:`contract_of` makes contracts, and a manifest with a
different contract is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeface.architecture.strides import LANDMARKS
from edgeface.decode import DEFAULT_IOU, DEFAULT_SCORE, TOP_K
from edgeface.options import DEFAULT_LONG_SIDE_PX

if TYPE_CHECKING:
    from edgeface.bundle.manifest import Manifest

POINTS = (
    "eye on the left of the image",
    "eye on the right of the image",
    "nose",
    "left corner of the mouth, as the image has it",
    "right corner of the mouth, as the image has it",
)
PIXEL_IN_INT8 = (1.0, -128)
"""(scale, zero point) of an int8 input: pixel - 128, which flips the top bit and loses nothing"""


@dataclass(frozen=True)
class Port:
    """Name and position of one input or output of a file in its runtime."""

    name: str
    """name in the signature, or the tensor's name if the file has no signature"""
    tensor: str
    """name of the tensor in the graph"""
    index: int
    """position in the runtime's list of inputs or outputs, from 0"""


@dataclass(frozen=True)
class Ports:
    """Inputs and outputs of a file, as a runtime lists them."""

    signature: str | None
    """key of the signature that the names belong to; None if the format has no signatures"""
    input: Port
    outputs: dict[str, Port]
    """our output name -> its port"""


@dataclass(frozen=True)
class FitRule:
    """How a photo becomes the pixels of the input."""

    keep_aspect: bool = True
    """true: both sides are scaled by s = min(input width / photo width, input height / photo
    height), and each is rounded to whole px (half to even), at least 1"""
    position: str = "top left"
    """where the scaled photo lies in the input; the rest of the input, at the right or below, is
    padding"""
    value: int = 0
    """value of R, G and B in the padding"""
    shrink: str = "area"
    """interpolation if the longer side of the photo becomes shorter: average over the area that
    each new pixel covers"""
    enlarge: str = "bilinear"
    """interpolation in all other cases in which the size changes"""
    long_side_px: int | None = None
    """for a file that accepts any size: s is computed with this value as input width and
    height, and the input is as large as the scaled photo, rounded up to multiples of
    multiple_px; null: the input has a fixed size"""
    multiple_px: int = 32
    """input width and height are multiples of this number of px"""


@dataclass(frozen=True)
class InputTensor:
    """The only input: value = pixel / scale + zero_point, with pixels from 0 to 255."""

    name: str
    """name in the signature, or the tensor's name if the file has no signature"""
    tensor: str
    """name of the tensor in the graph"""
    index: int
    """position in the runtime's list of inputs, from 0"""
    shape: tuple[int | None, ...]
    """null for a side that may be any multiple of fit.multiple_px"""
    layout: str
    """NCHW or NHWC"""
    dtype: str
    """float32 or int8"""
    colour: str
    """order of the channels: RGB"""
    scale: float
    """1 in all files of this format version"""
    zero_point: int
    """0, or -128 if dtype is int8"""


@dataclass(frozen=True)
class OutputTensor:
    """One output: a map of one kind at one stride. A cell covers stride x stride px of the input.
    real value = (value - zero_point) * scale."""

    kind: str
    """cls: scores; box: boxes; kps: landmarks"""
    stride: int
    """px of the input"""
    name: str
    """name in the signature, or the tensor's name if the file has no signature"""
    tensor: str
    """name of the tensor in the graph"""
    index: int
    """position in the runtime's list of outputs, from 0"""
    shape: tuple[int | None, ...]
    """null for a side that depends on the size of the photo"""
    layout: str
    """NCHW or NHWC; all channels of anchor 0 come first, then those of anchor 1, and so on"""
    dtype: str
    """float32 or int8"""
    scale: float
    """1 if dtype is float32"""
    zero_point: float
    """0 if dtype is float32"""


@dataclass(frozen=True)
class ScoreRule:
    """How a cls value becomes a score from 0 to 1."""

    activation: str
    """sigmoid: 1 / (1 + exp(-value))"""


@dataclass(frozen=True)
class BoxRule:
    """How box values become a box in px of the input. The anchor point of a cell is
    x = (column + offset) * stride, y = (row + offset) * stride."""

    coding: str
    """distance: x1 = x - v0 * stride, y1 = y - v1 * stride, x2 = x + v2 * stride, y2 = y + v3 *
    stride; ssd: the centre is x + v0 * prior[0] * stride, y + v1 * prior[1] * stride, width and
    height are prior[0] * stride * exp(v2), prior[1] * stride * exp(v3)"""
    order: tuple[str, ...]
    """what the values v0, v1, v2, v3 stand for"""
    unit: str
    """unit of the values: stride, or prior (ssd)"""
    anchors: int
    """boxes per cell"""
    offset: float
    """of the anchor point within its cell, in strides"""
    prior: tuple[float, ...]
    """width and height of a prior box, in strides; empty for coding distance"""


@dataclass(frozen=True)
class LandmarkRule:
    """How kps values become points in px of the input: x = (column + offset + value) * stride,
    and y likewise with the row."""

    points: tuple[str, ...]
    """names of the points, in the order of the values"""
    order: tuple[str, ...]
    """order of the two values of a point"""
    unit: str
    """unit of the values: stride, measured from the anchor point of the cell"""


@dataclass(frozen=True)
class ResultRule:
    """How candidates become faces: drop those that score less than ``score``; keep the best
    ``candidates``; of two whose overlap exceeds ``nms_iou``, drop the one that scores less;
    divide x by scaled width / photo width and y by scaled height / photo height; clip boxes to
    the photo; drop boxes that are then empty. Landmarks of a face are the weighted mean over
    all candidates whose overlap with the face exceeds ``nms_iou``, the face itself included;
    weights are score * (overlap - nms_iou)."""

    score: float = DEFAULT_SCORE
    """lowest score that is reported, 0 to 1; an app may choose another"""
    nms_iou: float = DEFAULT_IOU
    """intersection over union above which two boxes are the same face"""
    candidates: int = TOP_K
    """largest number of candidates compared with each other, best first"""


@dataclass(frozen=True)
class Contract:
    """What goes into a file and what comes out; README.txt says the same in words."""

    signature: str | None
    """key of the signature that the names belong to (TFLite); null: the format has no signatures"""
    fit: FitRule
    input: InputTensor
    outputs: tuple[OutputTensor, ...]
    """level by level, in the order cls, box, kps"""
    scores: ScoreRule
    boxes: BoxRule
    landmarks: LandmarkRule | None
    """null: the network has no landmarks"""
    results: ResultRule

    @property
    def ports(self) -> Ports:
        """The part of the contract that comes from the file and not from the manifest."""
        where = {f"{o.kind}_{o.stride}": Port(o.name, o.tensor, o.index) for o in self.outputs}
        source = self.input
        return Ports(self.signature, Port(source.name, source.tensor, source.index), where)


def contract_of(manifest: Manifest, ports: Ports) -> Contract:
    """The contract of ``manifest`` for a file with these ``ports``. Raises KeyError unless every
    output of the manifest has a port."""
    spec, layout = manifest.input, manifest.head_layout
    sides = (None, None) if spec.dynamic else (spec.height, spec.width)
    scale, zero_point = PIXEL_IN_INT8 if spec.dtype == "int8" else (1.0, 0)
    ssd = layout.coding == "ssd"
    return Contract(
        signature=ports.signature,
        fit=FitRule(
            value=spec.pad_value,
            long_side_px=DEFAULT_LONG_SIDE_PX if spec.dynamic else None,
            multiple_px=layout.multiple_px,
        ),
        input=InputTensor(
            **vars(ports.input),
            shape=_shape(spec.layout, 3, sides),
            layout=spec.layout,
            dtype=spec.dtype,
            colour=spec.colour,
            scale=scale,
            zero_point=zero_point,
        ),
        outputs=tuple(
            _output(manifest, ports, kind, stride)
            for stride in layout.strides
            for kind in layout.channels
        ),
        scores=ScoreRule(layout.activation),
        boxes=BoxRule(
            layout.coding,
            ("x", "y", "width", "height") if ssd else ("left", "top", "right", "bottom"),
            "prior" if ssd else "stride",
            layout.anchors,
            layout.offset,
            layout.prior,
        ),
        landmarks=(
            LandmarkRule(POINTS[:LANDMARKS], ("x", "y"), "stride") if layout.landmarks else None
        ),
        results=ResultRule(),
    )


def _output(manifest: Manifest, ports: Ports, kind: str, stride: int) -> OutputTensor:
    spec, layout = manifest.input, manifest.head_layout
    name = f"{kind}_{stride}"
    cells = (None, None) if spec.dynamic else (-(-spec.height // stride), -(-spec.width // stride))
    quantization = manifest.output_quantization
    scale, zero_point = quantization[name] if quantization else (1.0, 0)
    return OutputTensor(
        kind,
        stride,
        **vars(ports.outputs[name]),
        shape=_shape(spec.layout, layout.channels[kind], cells),
        layout=spec.layout,
        dtype="int8" if quantization else "float32",
        scale=scale,
        zero_point=zero_point,
    )


def _shape(
    layout: str, channels: int, sides: tuple[int | None, int | None]
) -> tuple[int | None, ...]:
    return (1, *sides, channels) if layout == "NHWC" else (1, channels, *sides)
