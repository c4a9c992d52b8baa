"""Peers: decoders against plain loops on random outputs, and detections with the given files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import peers_accuracy
from benchmarks.peer_decoders import RETINAFACE, ULTRA_LIGHT, decode_scrfd, decode_yunet
from benchmarks.peer_models import PEERS, Peer, PeerDetector, any_size, open_all
from edgeface.errors import BundleError, DataError
from edgeface.types import Doubles

SIZE = (96, 64)
"""width and height of the input: 12x8, 6x4, 3x2 cells; for stride 64, 2x1 cells reach beyond it"""
BY_NAME = {peer.name: peer for peer in PEERS}


def cells(stride: int) -> list[tuple[int, int]]:
    """(column, row) of each cell, row by row."""
    columns, rows = math.ceil(SIZE[0] / stride), math.ceil(SIZE[1] / stride)
    return [(column, row) for row in range(rows) for column in range(columns)]


def around(
    centre: tuple[float, float], width: float, height: float
) -> tuple[float, float, float, float]:
    """Corners of the box with this centre."""
    x, y = centre
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def five(x: float, y: float, coded: Any, width: float, height: float) -> list[tuple[float, float]]:
    """Five landmarks from offsets x, y, x, y, ... in units of ``width`` and ``height``."""
    return [(x + coded[2 * k] * width, y + coded[2 * k + 1] * height) for k in range(5)]


def test_yunet_against_loops() -> None:
    random = np.random.default_rng(0)
    outputs: dict[str, Doubles] = {}
    boxes, scores, points = [], [], []
    for stride in (8, 16, 32):
        count = len(cells(stride))
        cls, obj = random.uniform(0, 1, (2, 1, count, 1))
        box, kps = random.normal(0, 1, (1, count, 4)), random.normal(0, 1, (1, count, 10))
        outputs |= {
            f"cls_{stride}": cls,
            f"obj_{stride}": obj,
            f"bbox_{stride}": box,
            f"kps_{stride}": kps,
        }
        for i, (column, row) in enumerate(cells(stride)):
            x, y, w, h = box[0, i]
            centre = (column * stride + x * stride, row * stride + y * stride)
            boxes.append(around(centre, math.exp(w) * stride, math.exp(h) * stride))
            scores.append(math.sqrt(cls[0, i, 0] * obj[0, i, 0]))
            points.append(five(column * stride, row * stride, kps[0, i], stride, stride))
    decoded = decode_yunet(
        {name: value.astype(np.float32) for name, value in outputs.items()}, SIZE
    )
    np.testing.assert_allclose(decoded.boxes, boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(decoded.scores, scores, rtol=1e-5)
    assert decoded.landmarks is not None
    np.testing.assert_allclose(decoded.landmarks, points, rtol=1e-4, atol=1e-3)


def test_scrfd_against_loops() -> None:
    random = np.random.default_rng(1)
    found: dict[str, list[np.ndarray]] = {"scores": [], "boxes": [], "kps": []}
    boxes, scores, points = [], [], []
    for stride in (8, 16, 32):
        count = 2 * len(cells(stride))
        score, box, kps = (
            random.uniform(0, 1, (1, count, n)).astype(np.float32) for n in (1, 4, 10)
        )
        for name, value in zip(found, (score, box, kps), strict=True):
            found[name].append(value)
        for i in range(count):
            column, row = cells(stride)[i // 2]
            x, y = column * stride, row * stride
            left, top, right, bottom = box[0, i] * stride
            boxes.append((x - left, y - top, x + right, y + bottom))
            scores.append(score[0, i, 0])
            points.append(five(x, y, kps[0, i], stride, stride))
    values = found["scores"] + found["boxes"] + found["kps"]
    decoded = decode_scrfd({f"out{i}": value for i, value in enumerate(values)}, SIZE)
    np.testing.assert_allclose(decoded.boxes, boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(decoded.scores, scores, rtol=1e-6)
    assert decoded.landmarks is not None
    np.testing.assert_allclose(decoded.landmarks, points, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "sides", "outputs"),
    [
        ("Ultra-Light RFB", ULTRA_LIGHT, ("boxes", "scores", "")),
        ("RetinaFace mnet0.25", RETINAFACE, ("loc", "conf", "landms")),
    ],
)
def test_ssd_against_loops(
    name: str, sides: dict[int, tuple[int, ...]], outputs: tuple[str, str, str]
) -> None:
    random = np.random.default_rng(2)
    priors = [
        ((column + 0.5) * stride, (row + 0.5) * stride, min(side, SIZE[0]), min(side, SIZE[1]))
        for stride, level in sides.items()
        for column, row in cells(stride)
        for side in level
    ]
    box, kps = (random.normal(0, 1, (1, len(priors), n)).astype(np.float32) for n in (4, 10))
    score = random.uniform(0, 1, (1, len(priors), 2)).astype(np.float32)
    given = dict(zip(outputs, (box, score, kps), strict=True))
    decoded = BY_NAME[name].decode(given, SIZE)
    boxes, points = [], []
    for (x, y, w, h), coded, marks in zip(priors, box[0], kps[0], strict=True):
        centre = (x + coded[0] * 0.1 * w, y + coded[1] * 0.1 * h)
        boxes.append(around(centre, w * math.exp(coded[2] * 0.2), h * math.exp(coded[3] * 0.2)))
        points.append(five(x, y, marks, 0.1 * w, 0.1 * h))
    np.testing.assert_allclose(decoded.boxes, boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(decoded.scores, score[0, :, 1])
    if outputs[2]:
        assert decoded.landmarks is not None
        np.testing.assert_allclose(decoded.landmarks, points, rtol=1e-4, atol=1e-3)
    else:
        assert decoded.landmarks is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("YuNet_n", (3, 2, 1)),
        ("SCRFD-500M", ((1 - 127.5) / 128, (2 - 127.5) / 128, (3 - 127.5) / 128)),
        ("Ultra-Light slim", ((1 - 127) / 128, (2 - 127) / 128, (3 - 127) / 128)),
        ("RetinaFace mnet0.25", (3 - 104, 2 - 117, 1 - 123)),
    ],
)
def test_each_is_fed_its_own_colours(name: str, expected: tuple[float, ...]) -> None:
    tensor = BY_NAME[name].tensor(np.full((1, 4, 6, 3), (1, 2, 3), np.uint8))
    assert tensor.shape == (1, 3, 4, 6) and tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0, :, 2, 3], expected, rtol=1e-6)


def file_of(shared: Path, peer: Peer) -> Path:
    path = peer.find(shared / "peers")
    if path is None:
        pytest.skip(f"the file of {peer.name} is not there")
    return path


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_freed_of_its_size_a_file_gives_the_same(shared: Path, peer: Peer) -> None:
    """A file made size-free gives the same outputs at its old size, and decodes at another size."""
    ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    path = next((p for p in (shared / "peers").glob(f"{peer.file}_640x480.onnx")), None) or file_of(
        shared, peer
    )
    random = np.random.default_rng(0)
    fixed, free = (
        ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        for content in (path.read_bytes(), any_size(path.read_bytes()))
    )
    image = peer.tensor(random.integers(0, 256, (1, 480, 640, 3), dtype=np.uint8))
    for a, b in zip(
        *(s.run(None, {s.get_inputs()[0].name: image}) for s in (fixed, free)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    tall = peer.tensor(random.integers(0, 256, (1, 416, 224, 3), dtype=np.uint8))
    values = free.run(None, {free.get_inputs()[0].name: tall})
    outputs = dict(zip((o.name for o in free.get_outputs()), values, strict=True))
    decoded = peer.decode(outputs, (224, 416))
    assert len(decoded.boxes) == len(decoded.scores) > 1000


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("tall", [False, True])
def test_they_find_a_face(shared: Path, astronaut: np.ndarray, peer: Peer, tall: bool) -> None:
    """The portrait's face is found in a wide and a tall photo, with landmarks in our order."""
    margin = np.zeros((512, 340, 3), np.uint8)
    photo = (
        np.vstack((astronaut, margin.transpose(1, 0, 2)))
        if tall
        else np.hstack((astronaut, margin))
    )
    with PeerDetector(peer, file_of(shared, peer)) as detector:
        found = detector.detect(photo, score_threshold=0.7)
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], [178, 70, 270, 190], atol=22)
    assert (found.landmarks is not None) == peer.landmarks
    if found.landmarks is not None:
        left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
        assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_given_photos_give_the_known_errors(shared: Path) -> None:
    """Landmark errors on 20 photos. On all 240, YuNet_n has .075 of a face and SCRFD .056."""
    from edgeface.evaluation import labelled_photos, measure_landmarks

    photos = labelled_photos(
        shared / "wider" / "landmarks" / "landmarks_val.txt", shared / "wider"
    )[::12]
    errors = {}
    for name in ("YuNet_n", "SCRFD-500M"):
        with PeerDetector(BY_NAME[name], file_of(shared, BY_NAME[name])) as detector:
            done = measure_landmarks(detector, photos)
        assert done.nme is not None and done.matched > 0.85 * done.annotated > 40
        errors[name] = done.nme
    assert 0.03 < errors["SCRFD-500M"] < errors["YuNet_n"] < 0.12


def test_opening(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    with (
        pytest.raises(DataError, match=r"holds no peer's file; accepted: yunet_n_\*\.onnx"),
        open_all([], tmp_path, 0.5),
    ):
        pass
    (tmp_path / "yunet_n_640x480.onnx").write_bytes(b"not a model")
    with (
        pytest.raises(BundleError, match=r"yunet_n_640x480\.onnx is not a file of YuNet_n"),
        open_all([], tmp_path, 0.5),
    ):
        pass


@pytest.fixture
def data(tmp_path: Path, write_mat: Callable[..., Path], astronaut: np.ndarray) -> Path:
    """A WIDER FACE folder with one portrait."""
    root = write_mat(
        tmp_path / "wider",
        {"e/a": ([[180, 70, 90, 120]], {s: [0] for s in ("easy", "medium", "hard")})},
    )
    photo = root / "WIDER_val" / "images" / "e" / "a.png"
    photo.parent.mkdir(parents=True)
    cv2.imwrite(str(photo), astronaut[:, :, ::-1])
    return root


def test_accuracy_side_by_side(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    saved = tmp_path / "accuracy.json"
    assert peers_accuracy.main(["--data", str(data), "--format", "json", "--save", str(saved)]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result == json.loads(saved.read_text()) and "edgeface-n ..." in err
    (row,) = result["rows"]
    assert (row["model"], row["images"], row["easy"], row["hard"]) == ("edgeface-n", 1, 1.0, 1.0)
    assert (row["nme"], row["nme_faces"]) == (None, 0), "without --landmarks"


def test_accuracy_on_photos_with_annotations_of_their_own(
    data: Path, tmp_path: Path, astronaut: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the faces are found: one of the two photos is an empty corner of the portrait."""
    pytest.importorskip("torch", reason="torch is not installed")
    faces = tmp_path / "faces.csv"
    faces.write_text("image,x1,y1,x2,y2\ne/a.png,180,70,270,190\ne/b.png,0,0,60,60\n")
    cv2.imwrite(str(data / "WIDER_val" / "images" / "e" / "b.png"), astronaut[:64, :64, ::-1])
    arguments = ["--data", str(data), "--annotations", str(faces), "--format", "json"]
    assert peers_accuracy.main(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["images"], row["easy"]) == (2, None)
    assert 0.4 < row["hard"] <= 0.5, "one face of two"


def test_a_photo_that_cannot_be_read_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    faces = tmp_path / "faces.csv"
    faces.write_text("image,x1,y1,x2,y2\ne/a.png,180,70,270,190\ne/b.png,0,0,60,60\n")
    photo = data / "WIDER_val" / "images" / "e" / "a.png"
    photo.with_name("b.png").write_bytes(photo.read_bytes()[:2000])
    arguments = ["--data", str(data), "--annotations", str(faces), "--format", "json"]
    assert peers_accuracy.main(arguments) == 2
    out, err = capsys.readouterr()
    (row,) = json.loads(out)["rows"]
    assert (row["images"], row["hard"]) == (1, 1.0)
    assert "b.png: the image is truncated" in err and "1 photo could not be read" in err


def test_accuracy_of_peers_on_a_handful_of_photos(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight validation photos, and landmark labels of the training photos that the folder has."""
    pytest.importorskip("torch", reason="torch is not installed")
    root, source = tmp_path / "wider", shared / "wider"
    for photo in sorted((source / "WIDER_val" / "images").glob("*/*"))[::50]:
        link = root / "WIDER_val" / "images" / photo.parent.name / photo.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photo)
    (root / "eval_tools").symlink_to(source / "eval_tools")
    labels = (source / "landmarks" / "landmarks_val.txt").read_text().split("# ")[1:5]
    (root / "labels.txt").write_text("".join(f"# {label}" for label in labels))
    (root / "WIDER_train").symlink_to(source / "WIDER_train")
    files = tmp_path / "peers"
    files.mkdir()
    for name in ("YuNet_n", "Ultra-Light slim"):
        path = file_of(shared, BY_NAME[name])
        (files / path.name).symlink_to(path)
    arguments = [
        "--data",
        str(root),
        "--peers",
        str(files),
        "--landmarks",
        str(root / "labels.txt"),
    ]
    assert peers_accuracy.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line[:18].strip(): line[18:].split() for line in lines[1:4]}
    assert set(cells) == {"edgeface-n", "YuNet_n", "Ultra-Light slim"}
    assert all(0.3 < float(values[0]) <= 1 for values in cells.values())
    assert cells["Ultra-Light slim"][3:] == ["-", "-", "-"]
    for name in ("edgeface-n", "YuNet_n"):
        assert 0.02 < float(cells[name][3]) < 0.2 and "/" in cells[name][5]
    assert lines[-1].startswith("8 photos; WIDER FACE val, official protocol")


def test_stopping_and_mistakes_are_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers_accuracy.main(["--data", str(data / "nowhere")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no ground truth") and err.count("\n") == 1

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(peers_accuracy, "measure", stopped)
    assert peers_accuracy.main(["--data", str(data)]) == 130
    assert capsys.readouterr().err == "stopped: nothing is kept, the same command begins again\n"
