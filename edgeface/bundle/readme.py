"""``README.txt`` of a Bundle: the contract in words, for users of the file without this library."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeface.bundle.contract import (
    BoxRule,
    Contract,
    FitRule,
    InputTensor,
    LandmarkRule,
    OutputTensor,
    ResultRule,
)

if TYPE_CHECKING:
    from edgeface.bundle.manifest import Manifest

WIDTH = 96
CALLS = {
    "opencv": """\
detector = cv2.FaceDetectorYN.create("{file}", "", ({width}, {height}), 0.5, 0.45, 5000)
detector.setInputSize((photo.shape[1], photo.shape[0]))   # any size; photo: uint8 BGR, as read
_, faces = detector.detect(photo)   # rows: x, y, width, height, five points x, y, score; in px

Score threshold and NMS IoU must be given: OpenCV's own defaults are .9 and .3. Points: right eye, \
left eye, nose, right and left corner of the mouth, of the person. OpenCV resizes nothing: scale \
large photos to about 640 px first.""",
    "mediapipe": """\
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ObjectDetectorOptions(BaseOptions("{file}"), score_threshold=0.5)
with vision.ObjectDetector.create_from_options(options) as detector:
    faces = detector.detect(image).detections   # bounding_box in px

MediaPipe stretches an image to {width}x{height}, whatever its aspect: use the file whose aspect \
is that of your camera (portrait: 480x640), or letterbox first. The anchors and the rules for \
decoding are in the file's metadata; MediaPipe suppresses overlapping boxes itself. Landmarks come \
as keypoints, 0 to 1: eyes, nose, corners of the mouth, left in the image first.""",
    "task-library": """\
ObjectDetector of the TFLite Task Library, or of MediaPipe Tasks, created from {file}. Outputs, as \
these expect them: boxes [1, 100, 4] (ymin, xmin, ymax, xmax, 0 to 1), classes, scores, count.

Both stretch an image to {width}x{height}, whatever its aspect: use the file whose aspect is that \
of your camera (portrait: 480x640), or letterbox first. Overlapping boxes are suppressed inside, \
by the operator TFLite_Detection_PostProcess.""",
}
"""api -> how to call it"""


def readme(manifest: Manifest) -> str:
    """The text for a manifest with a contract or an API; it ends with a line break."""
    if manifest.api is not None:
        call = CALLS[manifest.api].format(
            file=manifest.primary, width=manifest.input.width, height=manifest.input.height
        )
        parts = [_title(manifest), call]
    else:
        assert manifest.contract is not None, "asked only for a manifest that has one"
        parts = [_title(manifest), *_contract(manifest.contract)]
    return "\n\n".join(_wrapped(part) for part in (*parts, _provenance(manifest))) + "\n"


def _title(manifest: Manifest) -> str:
    spec = manifest.input
    size = f"{spec.width}x{spec.height} px" + " or any multiples of 32" * spec.dynamic
    return f"{manifest.model}, a face detector: {manifest.target} {manifest.precision}, {size}"


def _contract(contract: Contract) -> Iterator[str]:
    yield "All of this is also in manifest.json, under contract."
    yield "1. FIT THE PHOTO\n" + _fit(contract.fit, contract.input)
    yield "2. FILL THE INPUT\n" + _input(contract)
    yield "3. READ THE OUTPUTS\n" + "\n".join(_output(output) for output in contract.outputs)
    yield "4. DECODE\n" + _decode(contract.boxes, contract.landmarks)
    yield "5. CHOOSE\n" + _choose(contract.results, contract.landmarks)


def _fit(fit: FitRule, source: InputTensor) -> str:
    if fit.long_side_px is None:
        height, width = source.shape[2:] if source.layout == "NCHW" else source.shape[1:3]
        canvas = f"The input is W = {width}, H = {height} px."
    else:
        canvas = (
            f"W = H = {fit.long_side_px} (another long side is possible); afterwards the input is "
            f"w x h, each rounded up to a multiple of {fit.multiple_px}."
        )
    return (
        f"{canvas} With s = min(W / photo width, H / photo height), resize the photo to w = "
        "round(photo width * s), h = round(photo height * s), both at least 1: by averages over "
        f"areas ({fit.shrink}) where that makes its longer side shorter, else {fit.enlarge}. Put "
        f"it at the {fit.position} and fill the rest with {fit.value}."
    )


def _input(contract: Contract) -> str:
    source = contract.input
    signature = f", signature {contract.signature!r}" if contract.signature else ""
    value, zero = "pixel", source.zero_point
    if (source.scale, zero) != (1, 0):
        value = f"pixel - {-zero} (scale {source.scale:g}, zero point {zero})"
    return (
        f"Tensor {source.name!r} (input {source.index}{signature}; in the graph "
        f"{source.tensor!r}), {source.dtype} {_shape(source.shape)} {source.layout}, "
        f"{source.colour}: value = {value}, a pixel being 0 to 255. Normalisation is inside the"
        " file."
    )


def _output(output: OutputTensor) -> str:
    real = (
        ""
        if output.dtype == "float32"
        else f", real = (value - ({output.zero_point:g})) * {output.scale!r}"
    )
    return (
        f"  {output.kind}, stride {output.stride}: {output.name!r} (output {output.index}; in the "
        f"graph {output.tensor!r}), {output.dtype} {_shape(output.shape)} {output.layout}{real}"
    )


def _decode(boxes: BoxRule, landmarks: LandmarkRule | None) -> str:
    if boxes.coding == "distance":
        box = (
            f"Its box values are {', '.join(boxes.order)} in strides: x1 = x - left * stride, y1 = "
            "y - top * stride, x2 = x + right * stride, y2 = y + bottom * stride."
        )
    else:
        box = (
            f"Its box values are v0 to v3: with p = {boxes.prior[0]:g} * stride, q = "
            f"{boxes.prior[1]:g} * stride, the centre is x + v0 * p, y + v1 * q, width and height "
            "are p * exp(v2), q * exp(v3)."
        )
    several = f" Channels are those of its {boxes.anchors} boxes, one after the other."
    points = (
        ""
        if landmarks is None
        else " Its kps values are x, y of five points from x, y, in strides: "
        f"{'; '.join(landmarks.points)}."
    )
    return (
        f"A cell of a map is at x = (column + {boxes.offset:g}) * stride, y = (row + "
        f"{boxes.offset:g}) * stride, px of the input.{several * (boxes.anchors > 1)} Its score is "
        f"1 / (1 + exp(-cls)). {box}{points}"
    )


def _choose(results: ResultRule, landmarks: LandmarkRule | None) -> str:
    mean = (
        ""
        if landmarks is None
        else " Points of a face are the mean of those of all candidates that overlap it by more "
        "than that, itself among them, weighted by score * (overlap - "
        f"{results.nms_iou:g})."
    )
    return (
        f"Keep scores of at least {results.score:g} (yours to choose), the best "
        f"{results.candidates} of them; best first, drop every box whose intersection over union "
        f"with a kept one exceeds {results.nms_iou:g}.{mean} Divide x by w / photo width and y by "
        "h / photo height, clip boxes to the photo, and drop those of which nothing is left (found "
        "in what was filled)."
    )


def _provenance(manifest: Manifest) -> str:
    files = "\n".join(f"  {name}: SHA-256 {digest}" for name, digest in manifest.files.items())
    return (
        f"FILES\n{files}\n\nWEIGHTS\nSHA-256 {manifest.weights.sha256}. Licence: "
        f"{manifest.weights.licence}. Data: {manifest.weights.data_terms}"
    )


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if side is None else str(side) for side in shape)}]"


def _wrapped(text: str) -> str:
    """Wrap every line to at most WIDTH characters; a line that begins with two spaces continues
    indented by four."""
    return "\n".join(
        textwrap.fill(
            line,
            WIDTH,
            subsequent_indent="    " if line.startswith("  ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    )
