"""``python -m benchmarks.vectors``: writes the golden vectors in ``examples/vectors``, with which
the decoders of every language are tested.

A file is a list of cases. Each has the ``contract`` of an exported file, the size of the ``photo``
(width, height in px), and ``fitted`` and ``canvas`` (the size of the scaled photo on the canvas,
and of the canvas). A case about pixels also has

- ``rgb``, the photo, and ``pixels``, the canvas, both uint8 [H, W, 3];

a case about faces has

- ``outputs``, little-endian arrays in the order of ``contract.outputs``, and the ``faces`` that the
  Detector gives for them.

Arrays are in base64. Outputs come from edgeface-n on two public-domain portraits, or are written by
hand for situations that are rare in photos. Same weights give the same cases; floats may differ in
their last bits between versions of torch.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Printed
from edgeface.architecture.registry import get_architecture
from edgeface.bundle import InputSpec, Manifest, Port, Ports, WeightsInfo
from edgeface.bundle.contract import Contract, contract_of
from edgeface.cli.flags import program_of
from edgeface.cli.output import emit, table
from edgeface.decode import HeadLayout
from edgeface.detector import Detector
from edgeface.files import write_text
from edgeface.images import Image, fit_size, place, read_image
from edgeface.runners.base import Heads, Runner
from edgeface.runners.torch import TorchRunner

MODEL = "edgeface-n"
POINTED = HeadLayout(landmarks=5)
SHAPES = [(512, 512), (640, 480), (1920, 1080), (1080, 1920), (1280, 721), (1280, 723), (31, 3001)]
SHAPES += [(3001, 31), (1, 1), (480, 640), (333, 500), (4000, 3000)]
"""photo sizes, (width, height) in px; 1280x721 halved has a side of 360.5 px"""
SMALL = [(48, 37), (64, 64), (13, 21), (32, 20), (25, 60), (192, 6)]
"""sizes of the photos whose pixels are compared, (width, height) in px"""
Case = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    out: Path = Path("examples/vectors")
    """folder that the files are written to"""


class Recorded(Runner):
    """A runner that returns given outputs."""

    def __init__(self, heads: Heads, layout: HeadLayout, size: Size | None) -> None:
        super().__init__(MODEL, layout, size, "recorded", 1)
        self.heads = heads

    def _run_one(self, batch: NDArray[np.uint8]) -> Heads:
        return self.heads

    def _close(self) -> None:
        pass


def vectors() -> dict[str, list[Case]]:
    """File name -> its cases."""
    return {
        "geometry.json": list(_geometry()),
        "pixels.json": list(_pixels()),
        "photos.json": list(_photos()),
        "by_hand.json": list(_by_hand()),
    }


def contract_for(
    layout: HeadLayout,
    spec: InputSpec,
    quantization: dict[str, tuple[float, ...]] | None = None,
    **results: Any,
) -> Contract:
    """The contract of a file with this layout and input; ``results`` replaces its thresholds."""
    nowhere = WeightsInfo("", "", "")
    network = get_architecture(MODEL)
    manifest = Manifest(
        MODEL, "onnx", "fp32", network, layout, spec, {}, "", {}, nowhere,
        output_quantization=quantization,
    )  # fmt: skip
    names = layout.output_names
    ports = Ports(None, Port("image", "image", 0), {n: Port(n, n, i) for i, n in enumerate(names)})
    contract = contract_of(manifest, ports)
    return replace(contract, results=replace(contract.results, **results))


def text_of(cases: list[Case]) -> str:
    """A JSON list, one case per line."""
    lines = (json.dumps(case, separators=(",", ":"), allow_nan=False) for case in cases)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _geometry() -> Iterator[Case]:
    for size, dynamic in (((640, 480), False), ((480, 640), False), ((640, 480), True)):
        contract = contract_for(POINTED, InputSpec(*size, dynamic))
        for photo in SHAPES:
            yield _case(f"{photo} in {size}" + " any size" * dynamic, contract, POINTED, photo)


def _pixels() -> Iterator[Case]:
    """Photos shrunk by area, by whole factors (2, 6) and others; enlarged; of the canvas's size.

    One is black and white noise: its sums are so near a half that fused multiply-adds round
    differently.
    """
    portrait = _portrait()
    noise = np.random.default_rng(7).choice(np.array([0, 255], np.uint8), (34, 37, 3))
    photos = [place(portrait, size, *size) for size in SMALL]
    for photo in (*photos, noise):
        height, width = photo.shape[:2]
        contract = contract_for(POINTED, InputSpec(32, 32, layout="NHWC"))
        case = _case(f"{width}x{height} in 32x32", contract, POINTED, (width, height))
        canvas = place(photo, case["fitted"], 32, 32)
        yield case | {"rgb": _base64(photo), "pixels": _base64(canvas)}


def _photos() -> Iterator[Case]:
    """Landscape and portrait photos, wide and high canvases, both layouts, int8, any size."""
    collins, hopper = _portrait(), read_image(_hopper())
    two = np.hstack((collins[:256, 96:352], hopper[40:296, 128:384]))
    band = np.pad(collins[:200], ((0, 0), (300, 300), (0, 0)))
    runner = TorchRunner.open(MODEL)
    for name, photo, size, layout in (
        ("square photo, landscape canvas", collins, (160, 128), "NHWC"),
        ("portrait photo, portrait canvas", hopper, (96, 128), "NCHW"),
        ("two faces in a landscape photo", two, (160, 96), "NHWC"),
        ("portrait photo, landscape canvas", hopper, (128, 96), "NHWC"),
        ("wide photo, much of the canvas is free", band, (256, 128), "NCHW"),
    ):
        yield _photo_case(
            name, photo, contract_for(POINTED, InputSpec(*size, layout=layout)), runner
        )
    anyhow = contract_for(POINTED, InputSpec(640, 480, True))
    small = replace(anyhow, fit=replace(anyhow.fit, long_side_px=120))
    yield _photo_case("any size, long side 120", hopper, small, runner)
    yield _int8_case("two faces, int8", two, (160, 96), runner)
    yield _photo_case(
        "no face", read_image(_hopper())[-120:], contract_for(POINTED, InputSpec(96, 64)), runner
    )


def _photo_case(name: str, photo: Image, contract: Contract, runner: Runner) -> Case:
    size = (photo.shape[1], photo.shape[0])
    fitted, canvas = _fit(contract, POINTED, size)
    heads = runner.run(place(photo, fitted, *canvas)[None])
    return _case(name, contract, POINTED, size, heads)


def _int8_case(name: str, photo: Image, size: Size, runner: Runner) -> Case:
    """A case with int8 outputs, each quantised over its own range."""
    shape = (photo.shape[1], photo.shape[0])
    plain = contract_for(POINTED, InputSpec(*size, layout="NHWC"))
    fitted, canvas = _fit(plain, POINTED, shape)
    heads = runner.run(place(photo, fitted, *canvas)[None])
    scales: dict[str, tuple[float, ...]] = {}
    for key, value in heads.items():
        scale = float(np.float32((value.max() - value.min()) / 255))
        scales[key] = (scale, float(np.rint(-128 - value.min() / scale)))
    spec = InputSpec(*size, layout="NHWC", dtype="int8")
    return _case(name, contract_for(POINTED, spec, scales), POINTED, shape, heads)


def _by_hand() -> Iterator[Case]:
    """Outputs written by hand for cases that photos rarely show, on a canvas of 96x64 px."""
    wide = InputSpec(96, 64, layout="NHWC")
    high = InputSpec(96, 64)
    for name, spec, faces in (
        ("overlapping: the second covers half of the first, the third only the second", wide,
         [(8, 3, 4, 3.0, (2,) * 4), (8, 3, 5, 2.0, (2,) * 4), (8, 3, 6, 1.0, (2,) * 4)]),
        ("at every edge, in the free part, inside out", high,
         [(32, 0, 0, 4.0, (3, 3, .2, .2)), (32, 1, 2, 3.5, (.1, .1, 4, 4)),
          (8, 7, 11, 3.0, (.2, .2, .2, .2)), (16, 1, 3, 2.5, (-1, 1, -1, 1)),
          (8, 7, 0, 2.0, (.3, .3, .3, 9))]),
        ("ties: equal scores in the order of level, row, column; equal boxes", wide,
         [(8, 1, 9, 1.5, (1, 1, 1, 1)), (8, 1, 1, 1.5, (1, 1, 1, 1)), (8, 6, 1, 1.5, (1, 1, 1, 1)),
          (16, 2, 3, 1.5, (.5, .5, .5, .5)), (16, 2, 4, 1.5, (1.5, .5, -.5, .5))]),
        ("logits that overflow exp; one just at the threshold", high,
         [(8, 1, 1, 1000.0, (1, 1, 1, 1)), (8, 1, 8, 0.0, (1, 1, 1, 1)),
          (16, 3, 1, -1000.0, (1, 1, 1, 1)), (16, 3, 3, -0.001, (1, 1, 1, 1))]),
    ):  # fmt: skip
        heads = _heads(POINTED, faces)
        for photo in ((96, 64), (150, 75)):
            yield _case(name, contract_for(POINTED, spec), POINTED, photo, heads)
    yield from _noises()


def _noises() -> Iterator[Case]:
    """Seeded noise: dozens of boxes of every coding; one case lets only 20 candidates enter NMS."""
    random = np.random.default_rng(7)
    ssd = HeadLayout((8, 16), coding="ssd", prior=(4.0, 3.0))
    paired = HeadLayout(anchors=2, offset=0.0, landmarks=5)
    for name, layout, form, results in (
        ("noise", POINTED, "NCHW", {"nms_iou": 0.3}),
        ("20 candidates, no landmarks", HeadLayout(), "NHWC", {"candidates": 20, "score": 0.0}),
        ("prior boxes", ssd, "NHWC", {}),
        ("two boxes a cell", paired, "NCHW", {"score": 0.7}),
        ("two boxes a cell, NHWC", paired, "NHWC", {"score": 0.7}),
    ):
        heads = _heads(layout, [])
        for key, value in heads.items():
            spread = {"cls": 1.5, "box": 0.5, "kps": 2.0}[key[:3]]
            value[:] = random.normal(0, spread, value.shape)
            value += 1.2 * (key.startswith("box") and layout.coding == "distance")
        contract = contract_for(layout, InputSpec(96, 64, layout=form), None, **results)
        yield _case(name, contract, layout, (301, 200), heads)


def _heads(layout: HeadLayout, faces: Sequence[tuple[int, int, int, float, Any]]) -> Heads:
    """Outputs for 96x64 px with only ``faces``, each (stride, row, column, logit, box values)."""
    heads = {
        f"{kind}_{s}": np.full((1, 64 // s, 96 // s, channels), -9 * (kind == "cls"), np.float32)
        for s in layout.strides
        for kind, channels in layout.channels.items()
    }
    for stride, row, column, logit, box in faces:
        heads[f"cls_{stride}"][0, row, column] = logit
        heads[f"box_{stride}"][0, row, column] = box
        heads[f"kps_{stride}"][0, row, column] = np.linspace(-1, 1, 10)
    return heads


def _fit(contract: Contract, layout: HeadLayout, photo: Size) -> tuple[Size, Size]:
    """(Size of the photo on the canvas, size of the canvas), as the Detector fits it."""
    side = contract.fit.long_side_px
    box = (side, side) if side else _sides(contract)
    assert box is not None
    canvas = _detector(contract, layout, {}).network_size(*photo)
    return fit_size(*photo, *box), canvas


def _sides(contract: Contract) -> Size | None:
    """Width and height of the input; None if it takes any size."""
    shape = contract.input.shape
    height, width = shape[2:] if contract.input.layout == "NCHW" else shape[1:3]
    return None if width is None or height is None else (width, height)


def _detector(contract: Contract, layout: HeadLayout, heads: Heads) -> Detector:
    rule = contract.results
    runner = Recorded(heads, layout, _sides(contract))
    return Detector(runner, rule.score, rule.nms_iou, contract.fit.long_side_px)


def _case(
    name: str, contract: Contract, layout: HeadLayout, photo: Size, heads: Heads | None = None
) -> Case:
    """One case; ``heads`` add its ``outputs``, as a file of ``contract`` gives them, and
    ``faces``."""
    fitted, canvas = _fit(contract, layout, photo)
    case = {"name": name, "photo": photo, "fitted": fitted, "canvas": canvas}
    if heads is None:
        return case | {"contract": asdict(contract)}
    stored, read = _stored(contract, heads)
    detector = _detector(contract, layout, read)
    white = np.full((photo[1], photo[0], 3), 255, np.uint8)
    found = detector.postprocess(
        read, detector.preprocess(white), top_k=contract.results.candidates
    )
    faces = [
        {
            "score": round(face.score, 6),
            "box": np.round(face.box.astype(float), 4).tolist(),
            "landmarks": None
            if face.landmarks is None
            else np.round(face.landmarks.astype(float), 4).tolist(),
        }
        for face in found
    ]
    return case | {"faces": faces, "contract": asdict(contract), "outputs": stored}


def _stored(contract: Contract, heads: Heads) -> tuple[list[str], Heads]:
    """(Outputs as a file gives them, in base64; the same as a runner reads them, in float32)."""
    stored, read = [], {}
    for output in contract.outputs:
        key = f"{output.kind}_{output.stride}"
        value = heads[key]
        if output.dtype == "int8":
            counts = np.clip(np.rint(value / output.scale + output.zero_point), -128, 127)
            read[key] = ((counts - output.zero_point) * output.scale).astype(np.float32)
            value = counts.astype(np.int8)
        else:
            read[key] = value
        stored.append(_base64(value.transpose(0, 3, 1, 2) if output.layout == "NCHW" else value))
    return stored, read


def _base64(array: NDArray[Any]) -> str:
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(data.tobytes()).decode()


def _portrait() -> Image:
    """Eileen Collins, by NASA: RGB [512, 512, 3]."""
    from skimage.data import astronaut

    photo: Image = np.ascontiguousarray(astronaut())  # type: ignore[no-untyped-call]
    return photo


def _hopper() -> Path:
    """Grace Hopper, by the US Navy."""
    from matplotlib.cbook import get_sample_data

    return Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


def _run(options: Options) -> int | None:
    made = vectors()
    rows = []
    for name, cases in made.items():
        text = text_of(cases)
        write_text(options.out / name, text)
        faces = sum(len(case.get("faces", ())) for case in cases)
        rows.append({"file": name, "cases": len(cases), "faces": faces, "bytes": len(text)})
    shown = table(("file", "cases", "faces", "bytes"), [tuple(row.values()) for row in rows])
    emit(rows, shown, options.format, options.save)
    return None


main = program_of(Options, "python -m benchmarks.vectors", __doc__, _run)

if __name__ == "__main__":
    import sys

    sys.exit(main())
