"""Running a detector over images: geometry of each scale, what is reported, what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface.decode import HeadLayout
from edgeface.detector import Detector
from edgeface.errors import DataError, ImageError, OptionError
from edgeface.evaluation import evaluate_detector, evaluate_model, load_ground_truth, present_images
from edgeface.evaluation.predict import predict
from edgeface.runners import Runner

FACES = {
    "0--A/wide": (320, 200, [100, 60, 120, 80]),
    "0--A/tall": (300, 900, [20, 700, 80, 760]),
    "1--B/large": (1280, 720, [1000, 400, 1160, 560]),
}
"""width, height and the only white square x1, y1, x2, y2 of each image"""


class WhiteSquareRunner(Runner):
    """A runner that finds the bright pixels, so that only geometry decides."""

    def __init__(self, input_size: tuple[int, int] | None = None) -> None:
        super().__init__("white", HeadLayout(), input_size, "fake 1.0", 1)
        self.canvases: list[tuple[int, int]] = []

    def _close(self) -> None:
        pass

    def _run_one(self, batch: Any) -> dict[str, Any]:
        height, width = batch.shape[1:3]
        self.canvases.append((width, height))
        outputs = {}
        for stride in self.layout.strides:
            shape = (1, height // stride, width // stride)
            outputs[f"cls_{stride}"] = np.full((*shape, 1), -9, np.float32)
            outputs[f"box_{stride}"] = np.ones((*shape, 4), np.float32)
        rows, columns = np.nonzero(batch[0, :, :, 0] > 127)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 8
        column, row = int(edges[[0, 2]].mean()), int(edges[[1, 3]].mean())
        point = np.array([column, row, column, row]) + 0.5
        outputs["cls_8"][0, row, column] = 2
        outputs["box_8"][0, row, column] = (edges - point) * [-1, -1, 1, 1]
        return outputs


@pytest.fixture
def root(tmp_path: Path, write_mat: Callable[..., Path]) -> Path:
    """The images above with their faces, an annotated image without a file, and the reverse."""
    folder = tmp_path / "WIDER_val" / "images"
    faces = {}
    for key, (width, height, (x1, y1, x2, y2)) in FACES.items():
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2] = 255
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{key}.png"), image)
        faces[key] = ([[x1, y1, x2 - x1, y2 - y1]], {s: [0] for s in ("easy", "medium", "hard")})
    faces["1--B/absent"] = faces["1--B/large"]
    cv2.imwrite(str(folder / "1--B" / "unknown.png"), image)
    (folder / "0--A" / "notes.txt").write_text("not an image")
    (folder / "1--B" / "absent").mkdir()
    return write_mat(tmp_path, faces)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, WhiteSquareRunner]:
    """Make Detector.open use a fake runner, whose input size follows from the model's name.

    The fixture holds the runners opened, by model."""
    runners: dict[str, WhiteSquareRunner] = {}

    def open_fake(
        model: Any,
        threads: int,
        score: float,
        iou: float,
        size: int | str | None,
        fast: bool,
        weights: Any,
    ) -> Detector:
        fixed = {"fixed": (640, 480), "small": (320, 256)}.get(Path(model).name)
        runners[str(model)] = WhiteSquareRunner(fixed)
        return Detector(runners[str(model)], score, iou, size)

    monkeypatch.setattr(Detector, "open", staticmethod(open_fake))
    return runners


SIZES = {
    ("any", "640"): ("640", [(640, 416), (224, 640), (640, 384)], "padded to multiples of 32"),
    ("any", "original"): (
        "original",
        [(320, 224), (320, 928), (1280, 736)],
        "padded to multiples of 32",
    ),
    ("fixed", "640"): ("640", [(640, 480)] * 3, "letterboxed into 640x480"),
    ("small", "640"): ("320", [(320, 256)] * 3, "letterboxed into 320x256"),
}


@pytest.mark.parametrize(("model", "scale"), SIZES)
def test_every_scale_and_kind_of_model(
    root: Path, opened: dict[str, WhiteSquareRunner], model: str, scale: str
) -> None:
    stated, canvases, given = SIZES[model, scale]
    evaluation = evaluate_model(model, root, scale)
    assert opened[model].canvases == canvases
    report = evaluation.report.to_json()
    assert report["model"] == model and report["images"] == 3 and report["runtime"] == "fake 1.0"
    assert (report["scale"], report["input"]) == (stated, given)
    assert (report["score_threshold"], report["nms"]) == (0.02, 0.45)
    assert (report["easy"], report["medium"], report["hard"]) == (1.0, 1.0, 1.0)
    assert report["faces"]["hard"] == 3, "the absent image's face is not waited for"
    for key, (_, _, square) in FACES.items():
        found = evaluation.predictions.detections[key]
        np.testing.assert_allclose(found.boxes, [square], atol=4)
        np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2))], rtol=1e-6)


def test_heights_annotated_or_evaluated(root: Path, opened: dict[str, WhiteSquareRunner]) -> None:
    """Squares of 20, 60 and 160 px; at long side 640 they are 40, 42.7 and 80 px."""
    annotated = evaluate_model("any", root)
    evaluated = evaluate_model("any", root, heights="evaluated")
    assert annotated.report.by_height == {"0-16": None, "16-32": 1.0, "32-96": 1.0, "96+": 1.0}
    assert evaluated.report.by_height == {"0-16": None, "16-32": None, "32-96": 1.0, "96+": None}
    assert list(evaluated.predictions.scales.values()) == [2.0, 640 / 900, 0.5]
    assert [e.report.protocol.heights for e in (annotated, evaluated)] == ["annotated", "evaluated"]
    fixed = evaluate_model("fixed", root, heights="evaluated").predictions.scales
    sizes = [(width, height) for width, height, _ in FACES.values()]
    assert list(fixed.values()) == [min(640 / width, 480 / height) for width, height in sizes]
    assert list(fixed.values()) != list(evaluated.predictions.scales.values())
    original = evaluate_model("any", root, "original", heights="evaluated")
    assert set(original.predictions.scales.values()) == {1.0}
    assert original.report.by_height == annotated.report.by_height


@pytest.mark.parametrize(("agreed_only", "stated"), [(False, "multi"), (True, "multi-agreed")])
def test_several_sizes_and_a_flip(
    root: Path, opened: dict[str, WhiteSquareRunner], agreed_only: bool, stated: str
) -> None:
    evaluation = evaluate_model("any", root, "multi", heights="evaluated", agreed_only=agreed_only)
    # 320x200: unscaled, mirrored, small (205x128, not 160x100), twice, four and 5.6 times as large.
    assert opened["any"].canvases[:6] == [(320, 224)] * 2 + [
        (224, 128),
        (640, 416),
        (1280, 800),
        (1824, 1152),
    ]
    report = evaluation.report
    assert (report.easy, report.medium, report.hard) == (1.0, 1.0, 1.0)
    assert (report.protocol.scale, report.protocol.score_threshold, report.protocol.nms) == (
        stated,
        0.05,
        0.3,
    )
    assert str(report.protocol).startswith("several sizes and a flip, boxes ")
    assert set(evaluation.predictions.scales.values()) == {1.0}, (
        "heights are those of the plain view"
    )


def test_thresholds_are_passed_on_and_reported(
    root: Path, opened: dict[str, WhiteSquareRunner]
) -> None:
    report = evaluate_model("any", root, score_threshold=0.95, nms_iou=0.3).report
    assert (report.protocol.score_threshold, report.protocol.nms) == (0.95, 0.3)
    assert report.hard == 0.0, "the fake's scores of .88 are below the threshold"


def test_present_images_are_the_annotated_ones(root: Path) -> None:
    ground_truth = load_ground_truth(root)
    assert set(ground_truth.images) == {*FACES, "1--B/absent"}
    images = present_images(root, ground_truth)
    assert list(images) == list(FACES)
    assert all(path.is_file() for path in images.values())


def test_progress_is_told_from_the_first_image_to_the_last(root: Path) -> None:
    told: list[tuple[str, int, int]] = []
    images = present_images(root, load_ground_truth(root))
    with Detector(WhiteSquareRunner(), 0.02) as detector:
        watched = predict(
            detector, images, lambda what, done, total, note="": told.append((what, done, total))
        )
        assert watched == predict(detector, images)
    assert told == [("evaluating", done, len(images)) for done in range(len(images) + 1)]


def test_refusals(root: Path, opened: dict[str, WhiteSquareRunner], tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match="scale '320' is not known; accepted: 640, original, multi"
    ):
        evaluate_model("any", root, "320")
    with pytest.raises(OptionError, match="fixed at 640x480"):
        evaluate_model("fixed", root, "original")
    with pytest.raises(
        OptionError, match="fixed at 640x480 px and cannot look at a photo in several sizes"
    ):
        evaluate_model("fixed", root, "multi")
    with pytest.raises(OptionError, match="--agreed-only is for --scale multi"):
        evaluate_model("any", root, agreed_only=True)
    with pytest.raises(OptionError, match="heights 'px' are not known"):
        evaluate_model("any", tmp_path / "nowhere", heights="px")  # before anything is read
    with pytest.raises(DataError, match="no ground truth"):
        evaluate_model("any", tmp_path / "nowhere")
    with (
        Detector(WhiteSquareRunner()) as detector,
        pytest.raises(DataError, match="not in the ground truth"),
    ):
        evaluate_detector(detector, "x", load_ground_truth(root), {"0--A/unknown": root})


def test_no_images_and_damaged_images(root: Path, opened: dict[str, WhiteSquareRunner]) -> None:
    folder = root / "WIDER_val" / "images"
    (folder / "0--A" / "wide.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(ImageError, match=r"wide\.png"):
        evaluate_model("any", root)
    folder.rename(root / "elsewhere")
    with pytest.raises(DataError, match="no annotated image in"):
        evaluate_model("any", root)


def test_importing_costs_neither_torch_nor_scipy_nor_matplotlib() -> None:
    code = (
        "import sys, edgeface.evaluation, edgeface.images.annotations;print([name for name in"
        " ('torch', 'scipy', 'matplotlib', 'rich', 'onnxruntime') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
