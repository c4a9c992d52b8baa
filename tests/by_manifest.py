"""Finds faces with a Bundle as an app in another language would, by ``contract`` in manifest.json.

It uses no code of edgeface, and does NMS box by box.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import edgeface  # noqa: F401 - first: it stops runtimes from reporting to their makers

Array = NDArray[Any]
Face = tuple[float, list[float], list[list[float]]]
"""score, x1 y1 x2 y2, points"""


def find(folder: Path, photo: Array, score: float | None = None) -> list[Face]:
    """Faces in px of ``photo`` (uint8 RGB), best first."""
    manifest = json.loads((folder / "manifest.json").read_text())
    contract = manifest["contract"]
    canvas, factors = _fit(photo, contract)
    spec = contract["input"]
    values = canvas / spec["scale"] + spec["zero_point"]
    tensor = values.astype(spec["dtype"])[None]
    if spec["layout"] == "NCHW":
        tensor = tensor.transpose(0, 3, 1, 2)
    run = {"tflite": _tflite, "onnx": _onnx, "openvino": _openvino, "ncnn": _ncnn}
    outputs = run[manifest["target"]](folder / manifest["primary"], contract, tensor)
    rule = contract["results"]
    candidates = _decode(contract, outputs, rule["score"] if score is None else score)
    candidates.sort(key=lambda face: -face[0])
    candidates = candidates[: rule["candidates"]]
    kept = _suppress(candidates, rule["nms_iou"])
    if contract["landmarks"]:
        kept = [(*face[:2], _points(face, candidates, rule["nms_iou"])) for face in kept]
    faces = [_in_photo(face, factors, photo) for face in kept]
    return [(s, b, points) for s, b, points in faces if b[2] > b[0] and b[3] > b[1]]


def _fit(photo: Array, contract: Any) -> tuple[Array, tuple[float, float]]:
    fit, (height, width) = contract["fit"], photo.shape[:2]
    shape = contract["input"]["shape"]
    box = shape[2:] if contract["input"]["layout"] == "NCHW" else shape[1:3]
    sides = [fit["long_side_px"] or side for side in box]
    assert fit["keep_aspect"] and fit["position"] == "top left"
    scale = min(sides[1] / width, sides[0] / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    if fit["long_side_px"]:
        box = [math.ceil(side / fit["multiple_px"]) * fit["multiple_px"] for side in (h, w)]
    canvas = np.full((*box, 3), fit["value"], np.float32)
    how = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}
    name = fit["shrink"] if max(w, h) < max(width, height) else fit["enlarge"]
    canvas[:h, :w] = (
        photo if (w, h) == (width, height) else cv2.resize(photo, (w, h), None, 0, 0, how[name])
    )
    return canvas, (w / width, h / height)


def _tflite(path: Path, contract: Any, tensor: Array) -> list[Array]:
    """Outputs by index, as Android's Interpreter gives them; the signature must agree."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    spec, details = contract["input"], interpreter.get_output_details()
    assert interpreter.get_input_details()[spec["index"]]["name"] == spec["tensor"]
    interpreter.set_tensor(interpreter.get_input_details()[spec["index"]]["index"], tensor)
    interpreter.invoke()
    found = [interpreter.get_tensor(details[o["index"]]["index"]) for o in contract["outputs"]]
    named = interpreter.get_signature_runner(contract["signature"])(**{spec["name"]: tensor})
    for output, value in zip(contract["outputs"], found, strict=True):
        assert details[output["index"]]["name"] == output["tensor"]
        assert np.array_equal(named[output["name"]], value)
    return found


def _onnx(path: Path, contract: Any, tensor: Array) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {contract["input"]["name"]: np.ascontiguousarray(tensor)})
    names = [output.name for output in session.get_outputs()]
    assert all(names[o["index"]] == o["name"] for o in contract["outputs"])
    return [found[o["index"]] for o in contract["outputs"]]


def _openvino(path: Path, contract: Any, tensor: Array) -> list[Array]:
    import openvino

    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model({contract["input"]["name"]: np.ascontiguousarray(tensor)})
    assert all(found[o["index"]] is not None for o in contract["outputs"])
    for o in contract["outputs"]:
        assert np.array_equal(found[o["name"]], found[o["index"]])
    return [found[o["index"]] for o in contract["outputs"]]


def _ncnn(path: Path, contract: Any, tensor: Array) -> list[Array]:
    import ncnn

    net = ncnn.Net()
    assert net.load_param(str(path)) == net.load_model(str(path.with_suffix(".bin"))) == 0
    extractor = net.create_extractor()
    image = np.ascontiguousarray(tensor[0])  # ncnn.Mat does not keep its array alive
    extractor.input(contract["input"]["name"], ncnn.Mat(image).clone())
    names = net.output_names()
    assert all(names[o["index"]] == o["name"] for o in contract["outputs"])
    return [np.array(extractor.extract(o["name"])[1])[None] for o in contract["outputs"]]


def _decode(contract: Any, outputs: list[Array], lowest: float) -> list[Face]:
    maps: dict[int, dict[str, Array]] = {}
    for output, value in zip(contract["outputs"], outputs, strict=True):
        assert value.dtype == output["dtype"] and len(value.shape) == len(output["shape"])
        assert all(b in (None, a) for a, b in zip(value.shape, output["shape"], strict=True))
        real = (value.astype(np.float64) - output["zero_point"]) * output["scale"]
        level = real[0].transpose(1, 2, 0) if output["layout"] == "NCHW" else real[0]
        maps.setdefault(output["stride"], {})[output["kind"]] = level
    assert contract["scores"]["activation"] == "sigmoid"
    return [
        _face(contract, level, stride, *cell)
        for stride, level in maps.items()
        for cell in np.argwhere(1 / (1 + np.exp(-level["cls"])) >= lowest).tolist()
    ]


def _face(
    contract: Any, level: dict[str, Array], stride: int, row: int, column: int, anchor: int
) -> Face:
    rule = contract["boxes"]
    x, y = (column + rule["offset"]) * stride, (row + rule["offset"]) * stride
    score = 1 / (1 + math.exp(-level["cls"][row, column, anchor]))
    v = level["box"][row, column, 4 * anchor : 4 * anchor + 4]
    if rule["coding"] == "distance":
        assert rule["order"] == ["left", "top", "right", "bottom"] and rule["unit"] == "stride"
        box = [x - v[0] * stride, y - v[1] * stride, x + v[2] * stride, y + v[3] * stride]
    else:
        assert rule["coding"] == "ssd"
        p, q = (side * stride for side in rule["prior"])
        cx, cy, w, h = x + v[0] * p, y + v[1] * q, p * math.exp(v[2]), q * math.exp(v[3])
        box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
    points: list[list[float]] = []
    if contract["landmarks"]:
        k = level["kps"][row, column, 10 * anchor : 10 * anchor + 10]
        points = [[x + k[2 * i] * stride, y + k[2 * i + 1] * stride] for i in range(5)]
    return score, box, points


def _suppress(faces: list[Face], most: float) -> list[Face]:
    kept: list[Face] = []
    for face in faces:
        if all(_iou(face[1], other[1]) <= most for other in kept):
            kept.append(face)
    return kept


def _points(face: Face, candidates: list[Face], most: float) -> list[list[float]]:
    shares = [max(_iou(face[1], box) - most, 0) * score for score, box, _ in candidates]
    if not any(shares):
        return face[2]
    points = np.array([points for _, _, points in candidates])
    mean: list[list[float]] = np.average(points, axis=0, weights=shares).tolist()
    return mean


def _iou(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    areas = sum(max(c[2] - c[0], 0) * max(c[3] - c[1], 0) for c in (a, b))
    return shared / (areas - shared) if areas > shared else 0


def _in_photo(face: Face, factors: tuple[float, float], photo: Array) -> Face:
    (fx, fy), (height, width) = factors, photo.shape[:2]
    score, (x1, y1, x2, y2), points = face
    box = [
        min(max(v, 0), most)
        for v, most in zip((x1 / fx, y1 / fy, x2 / fx, y2 / fy), (width, height) * 2, strict=True)
    ]
    return score, box, [[x / fx, y / fy] for x, y in points]
