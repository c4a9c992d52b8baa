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
    """true: both sides shrink or grow by s = min(input width / photo width, input height / photo
    height), and each is rounded to whole px (half to even), at least 1"""
    position: str = "top left"
    """where the photo lies; what is left free is at the right or below"""
    value: int = 0
    """of R, G and B of what is left free"""
    shrink: str = "area"
    """interpolation of a photo whose longer side becomes shorter: averages over the area that each
    new pixel covers"""
    enlarge: str = "bilinear"
    """interpolation of any other photo whose size changes"""
    long_side_px: int | None = None
    """of a file of any size: input width and height in s are both this, and the input is the photo
    rounded up to multiples of multiple_px; null: the input has one size"""
    multiple_px: int = 32
    """width and height of an input are multiples of this"""


@dataclass(frozen=True)
class InputTensor:
    """The one input: value = pixel / scale + zero_point, a pixel being 0 to 255."""

    name: str
    """see outputs"""
    tensor: str
    """see outputs"""
    index: int
    """see outputs"""
    shape: tuple[int | None, ...]
    """null: any multiple of fit.multiple_px"""
    layout: str
    """NCHW or NHWC"""
    dtype: str
    """float32 or int8"""
    colour: str
    """RGB: order of the channels"""
    scale: float
    """1 in all files so far"""
    zero_point: int
    """0, or -128 where dtype is int8"""


@dataclass(frozen=True)
class OutputTensor:
    """One output: a map of one kind at one stride, of which a cell is stride x stride px of the
    input. real value = (value - zero_point) * scale."""

    kind: str
    """cls: scores; box: boxes; kps: landmarks"""
    stride: int
    """px of the input"""
    name: str
    """what a runtime addresses it by: the name in the signature where there is one, else the name
    of the tensor"""
    tensor: str
    """name of the tensor in the graph"""
    index: int
    """position in the list of outputs that the runtime gives, from 0"""
    shape: tuple[int | None, ...]
    """null: depends on the size of the photo"""
    layout: str
    """NCHW or NHWC; channels are those of anchor 0, then of anchor 1, and so on"""
    dtype: str
    """float32 or int8"""
    scale: float
    """1 where dtype is float32"""
    zero_point: float
    """0 where dtype is float32"""


@dataclass(frozen=True)
class ScoreRule:
    """From a cls value to a score of 0 to 1."""

    activation: str
    """sigmoid: 1 / (1 + exp(-value))"""


@dataclass(frozen=True)
class BoxRule:
    """From box values to a box in px of the input, around the point x = (column + offset) * stride,
    y = (row + offset) * stride."""

    coding: str
    """distance: x1 = x - v0 * stride, y1 = y - v1 * stride, x2 = x + v2 * stride, y2 = y + v3 *
    stride; ssd: the centre is x + v0 * prior[0] * stride, y + v1 * prior[1] * stride, width and
    height are prior[0] * stride * exp(v2), prior[1] * stride * exp(v3)"""
    order: tuple[str, ...]
    """of the values v0, v1, v2, v3"""
    unit: str
    """of the values: stride, or prior (ssd)"""
    anchors: int
    """boxes per cell"""
    offset: float
    """of the point in a cell, in strides"""
    prior: tuple[float, ...]
    """width and height of a prior box in strides; empty with distance"""


@dataclass(frozen=True)
class LandmarkRule:
    """From kps values to points in px of the input: x = (column + offset + value) * stride, y
    likewise."""

    points: tuple[str, ...]
    """in this order"""
    order: tuple[str, ...]
    """of the values of a point"""
    unit: str
    """of the values: stride, from the point that the box is around"""


@dataclass(frozen=True)
class ResultRule:
    """From candidates to faces: drop those that score less than ``score``, keep the best
    ``candidates``, drop of two that overlap the one that scores less, divide x by fitted width /
    photo width and y by fitted height / photo height, clip boxes to the photo, and drop those of
    which nothing is left. Landmarks of a face are the mean of those of all candidates whose overlap
    with it exceeds ``nms_iou``, itself among them, weighted by score * (overlap - nms_iou)."""

    score: float = DEFAULT_SCORE
    """lowest that is reported, 0 to 1; an app may choose another"""
    nms_iou: float = DEFAULT_IOU
    """intersection over union above which two boxes are one face"""
    candidates: int = TOP_K
    """that enter that comparison, best first"""


@dataclass(frozen=True)
class Contract:
    """What goes into a file and what comes out, as its README.txt tells it."""

    signature: str | None
    """key of the signature that names are of (TFLite); null: the format has none"""
    fit: FitRule
    input: InputTensor
    outputs: tuple[OutputTensor, ...]
    """level by level, in the order cls, box, kps"""
    scores: ScoreRule
    boxes: BoxRule
    landmarks: LandmarkRule | None
    """null: the network finds boxes alone"""
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
