"""Detector: boxes land at the right place in an image of any size, and every wrong use is refused
in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import edgeface
from edgeface import Bundle, Detector
from edgeface.decode import HeadLayout
from edgeface.errors import BundleError, ImageError, ModelError, OptionError
from edgeface.runners import Heads, Runner, RunnerClosedError

SHARES = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [1.5, -0.5]])
"""landmarks x, y as shares of the bright rectangle's sides; the last landmark lies outside of it"""


class Spotter(Runner):
    """A runner that finds the bright rectangle in its input: known geometry, no network.

    One cell at stride 8 fires; its box values are the distances of its anchor point to the edges.
    """

    def __init__(self, size: tuple[int, int] | None = None, landmarks: int = 0) -> None:
        super().__init__("spotter", HeadLayout(landmarks=landmarks), size, "numpy", 1)
        self.seen: list[tuple[int, int]] = []

    def _run_one(self, batch: Any) -> Heads:
        height, width = batch.shape[1:3]
        self.seen.append((width, height))
        outputs = {}
        for stride in self.layout.strides:
            outputs[f"cls_{stride}"] = np.full(
                (1, height // stride, width // stride, 1), -20, np.float32
            )
            outputs[f"box_{stride}"] = np.full(
                (1, height // stride, width // stride, 4), 0.25, np.float32
            )
            if self.layout.landmarks:
                cells = (1, height // stride, width // stride)
                outputs[f"kps_{stride}"] = np.zeros((*cells, 10), np.float32)
        # Edges with sub-pixel precision: the brightness of a resized edge pixel is the share of it
        # that the rectangle covers.
        bright = batch[0, :, :, 0] / 255.0
        if bright.max() > 0.5:
            edges = []
            for profile in (bright.max(axis=0), bright.max(axis=1)):
                inside = np.flatnonzero(profile > 0.98)
                low, high = inside[0], inside[-1] + 1
                edges.append((low - profile[:low].sum(), high + profile[high:].sum()))
            (x1, x2), (y1, y2) = edges
            row, column = int((y1 + y2) / 16), int((x1 + x2) / 16)
            outputs["cls_8"][0, row, column] = 4
            x, y = column + 0.5, row + 0.5
            outputs["box_8"][0, row, column] = (x - x1 / 8, y - y1 / 8, x2 / 8 - x, y2 / 8 - y)
            if self.layout.landmarks:
                points = SHARES * (x2 - x1, y2 - y1) + (x1, y1)
                outputs["kps_8"][0, row, column] = (points / 8 - (x, y)).ravel()
        return outputs

    def _close(self) -> None:
        pass


def scene(width: int, height: int) -> tuple[Any, list[int]]:
    """A black image with one white rectangle, and its box."""
    box = [width * 5 // 8, height * 5 // 8, width * 7 // 8, height * 7 // 8]
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image, box


SIZES = [
    (640, 480),
    (480, 640),
    (1280, 960),
    (2000, 1501),
    (333, 777),
    (100, 90),
    (3000, 400),
    (64, 64),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("fixed", "side"),
    [((640, 480), None), ((320, 320), None), (None, None), (None, 333), (None, "original")],
)
def test_boxes_land_on_the_object(
    size: tuple[int, int], fixed: tuple[int, int] | None, side: int | str | None
) -> None:
    image, box = scene(*size)
    found = Detector(Spotter(fixed), size=side).detect(image)
    assert len(found) == 1
    named: dict[int | str | None, int] = {None: 640, "original": max(size), 333: 333}
    longest = named[side] if fixed is None else max(fixed)
    tolerance = max(1.0, max(size) / longest)  # a pixel of the image or of the input, if larger
    np.testing.assert_allclose(found.boxes[0], box, atol=tolerance)
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-4)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("fixed", "side"), [((640, 480), None), (None, None), (None, 333), (None, "original")]
)
def test_landmarks_are_in_px_of_the_image(
    size: tuple[int, int], fixed: tuple[int, int] | None, side: int | str | None
) -> None:
    """Landmarks keep their place relative to the box at any x and y scale, also outside the box."""
    image, box = scene(*size)
    found = Detector(Spotter(fixed, 5), size=side).detect(image)
    assert found.landmarks is not None and found.landmarks.shape == (1, 5, 2)
    corner, extent = found.boxes[0, :2], found.boxes[0, 2:] - found.boxes[0, :2]
    np.testing.assert_allclose(found.landmarks[0], SHARES * extent + corner, rtol=1e-4, atol=1e-2)
    if side == "original":
        extent = np.array([box[2] - box[0], box[3] - box[1]])
        np.testing.assert_allclose(found.landmarks[0], SHARES * extent + box[:2], atol=1e-3)


def test_landmarks_follow_their_boxes_through_nms_and_clipping() -> None:
    class Three(Spotter):
        def _run_one(self, batch: Any) -> Heads:
            outputs = super()._run_one(batch)
            faces = (((0, 0), 3.0, 20.0, 7.0), ((0, 1), 2.0, 20.0, 5.0), ((-1, -1), 4.0, 0.4, 6.0))
            for (row, column), logit, side, point in faces:
                outputs["cls_32"][0, row, column] = logit
                outputs["box_32"][0, row, column] = side
                outputs["kps_32"][0, row, column] = point
            return outputs

    found = Detector(Three((640, 480), 5)).detect(np.zeros((240, 320, 3), np.uint8))
    # The second face overlaps the first; the third, at the bottom right, has the highest score.
    assert found.landmarks is not None and len(found) == 2
    # Both boxes have sides of 40 strides, one stride apart; scores are sigmoids of 3 and 2.
    weights = [0.952574 * (1 - 0.45), 0.880797 * (39 / 41 - 0.45)]
    mean = np.average([[7.5 * 16, 7.5 * 16], [6.5 * 16, 5.5 * 16]], axis=0, weights=weights)
    anchors = np.array([[(19 + 0.5 + 6) * 16, (14 + 0.5 + 6) * 16], mean])
    np.testing.assert_allclose(found.landmarks, np.repeat(anchors[:, None], 5, 1), rtol=1e-5)
    assert (found.landmarks[0] > (320, 240)).all(), "points of a face at the edge may lie outside"
    padded = Detector(Three((640, 480), 5)).detect(np.zeros((100, 200, 3), np.uint8))
    assert padded.landmarks is not None and len(padded) == len(padded.landmarks) == 1


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((1024, 683), None, (640, 448)),
        ((683, 1024), None, (448, 640)),
        ((100, 50), None, (640, 320)),
        ((1024, 683), 1024, (1024, 704)),
        ((500, 375), "original", (512, 384)),
        ((20000, 20), None, (640, 32)),
        ((20000, 20), "original", (20000, 32)),
        ((1, 1), "original", (32, 32)),
        ((1, 1), None, (640, 640)),
    ],
)
def test_network_size(
    size: tuple[int, int], side: int | str | None, expected: tuple[int, int]
) -> None:
    spotter = Spotter()
    detector = Detector(spotter, size=side)
    assert detector.network_size(*size) == expected
    detector.detect(np.zeros((size[1], size[0], 3), np.uint8))
    assert spotter.seen == [expected]


def test_original_scale_is_not_resized() -> None:
    """Padding to a multiple of 32 must not stretch the picture."""
    image, box = scene(500, 375)
    assert Detector(Spotter(), size="original").detect(image).boxes[0].tolist() == box


@pytest.mark.parametrize("shape", [(1, 1), (20, 20000), (20000, 20), (1, 5000), (10000, 10000)])
def test_extreme_images_are_looked_at(shape: tuple[int, int]) -> None:
    assert len(Detector(Spotter((640, 480))).detect(np.zeros(shape, np.uint8))) == 0


def test_boxes_are_clipped_and_those_in_the_padding_dropped() -> None:
    class Wide(Spotter):
        def _run_one(self, batch: Any) -> Heads:
            outputs = super()._run_one(batch)
            outputs["cls_32"][0, 0, 0], outputs["box_32"][0, 0, 0] = 3, 20  # far beyond all edges
            outputs["cls_32"][0, -1, -1], outputs["box_32"][0, -1, -1] = (
                2,
                0.4,
            )  # bottom right: padding
            return outputs

    found = Detector(Wide((640, 480))).detect(np.zeros((100, 200, 3), np.uint8))
    assert found.boxes.tolist() == [[0, 0, 200, 100]]


def test_thresholds_can_be_replaced_for_a_call() -> None:
    image, _ = scene(64, 64)
    detector = Detector(Spotter(), score_threshold=0.99)
    assert len(detector.detect(image)) == 0
    assert len(detector.detect(image, score_threshold=0.5)) == 1
    assert len(detector.detect(image, score_threshold=0, top_k=None)) > 1
    assert len(detector.detect(image, score_threshold=0, top_k=1)) == 1
    for name in ("score_threshold", "nms_iou"):
        for value in (-0.1, 1.5, float("nan"), "0.5"):
            bad: dict[str, Any] = {name: value}
            with pytest.raises(OptionError, match="is not a number between 0 and 1"):
                detector.detect(image, **bad)
            with pytest.raises(OptionError, match="is not a number between 0 and 1"):
                Detector(Spotter(), **bad)


def test_grey_and_colour_agree() -> None:
    image, _ = scene(640, 480)
    detector = Detector(Spotter((640, 480)))
    assert detector.detect(image) == detector.detect(image[..., 0])


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 0), np.uint8), None, 3]
)
def test_arrays_that_are_no_image(bad: Any) -> None:
    with pytest.raises(ImageError, match="expected a uint8 RGB array"):
        Detector(Spotter()).detect(bad)


def test_paths_and_displayed_orientation(tmp_path: Path) -> None:
    image, box = scene(320, 200)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(np.rot90(image)).save(tmp_path / "turned.png", exif=exif)
    for path in (tmp_path / "turned.png", str(tmp_path / "turned.png")):
        found = Detector(Spotter(landmarks=5), size="original").detect(path)
        assert found.boxes[0].tolist() == box
        assert found == Detector(Spotter(landmarks=5), size="original").detect(image)
    with pytest.raises(ImageError, match="no image at"):
        Detector(Spotter()).detect(tmp_path / "none.png")


def test_close_and_use_after_close() -> None:
    with Detector(Spotter()) as detector:
        pass
    detector.close()
    with pytest.raises(RunnerClosedError, match="closed"):
        detector.detect(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize("size", [0, 31, -640, 1.5, "640", "tiny", True, 1 << 20])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(OptionError, match="neither a long side in px"):
        Detector(Spotter(), size=size)


def test_whole_numbers_of_numpy(exported: Callable[..., Bundle]) -> None:
    made = exported("onnx")
    one: Any = np.int64(1)
    size: Any = np.int64(640)
    assert Detector(Spotter(), size=size).size == 640
    size = np.int32(made.manifest.input.width)
    with Detector.open(made.path, threads=one, size=size) as detector:
        assert type(detector.runner.threads) is type(detector.size) is int
    for size in (np.float64(640), np.array([640, 480])):
        with pytest.raises(OptionError, match="neither a long side in px"):
            Detector.open("edgeface-n", size=size)


def test_size_of_a_fixed_model() -> None:
    assert Detector(Spotter((640, 480)), size=640).size == 640
    for size in (320, "original"):
        with pytest.raises(OptionError, match="fixed at 640x480 px and cannot run at size"):
            Detector(Spotter((640, 480)), size=size)


def test_equal_across_processes(exported: Callable[..., Bundle], hopper_path: Path) -> None:
    program = (
        "import json, sys; from edgeface import"
        " Detector\nprint(json.dumps(Detector.open(sys.argv[1],"
        " score_threshold=0.3).detect(sys.argv[2]).to_json()))"
    )
    command = [sys.executable, "-c", program, str(exported("onnx").path), str(hopper_path)]
    texts = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)
    ]
    assert texts[0] == texts[1] and json.loads(texts[0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"score_threshold": "0.5"},
        {"nms_iou": None},
        {"score_threshold": float("nan")},
        {"nms_iou": True},
        {"size": "640"},
        {"size": 64.0},
    ],
)
def test_arguments_of_another_type_are_one_line(arguments: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        Detector(Spotter(None), **arguments)
    assert "\n" not in str(caught.value)


def test_a_call_with_arguments_of_another_type_is_one_line(astronaut: Any) -> None:
    detector = Detector(Spotter(None))
    for arguments in (
        {"score_threshold": "0.5"},
        {"nms_iou": [0.4]},
        {"top_k": "all"},
        {"top_k": 2.0},
        {"top_k": -1},
    ):
        with pytest.raises(OptionError):
            detector.detect(astronaut, **arguments)
    with Detector.open(Path("edgeface-s"), size=160) as named:
        assert named.runner.model == "edgeface-s"
    with pytest.raises(BundleError, match="File name too long"):
        Detector.open("x" * 5000)
    with pytest.raises(ModelError, match="embedded null"):
        Detector.open("edgeface-n", weights="a\0b")
    for model in (5, None, b"edgeface-n"):
        with pytest.raises(OptionError, match="must be a path or its text"):
            Detector.open(model)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="is not WIDTHxHEIGHT"):
        edgeface.export("edgeface-n", "onnx", size=640)  # type: ignore[arg-type]
