"""Aligned faces, against scikit-image and on real faces that were rotated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from edgeface import align
from edgeface.bundle import Bundle
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import ImageError, OptionError, OutputError
from edgeface.images import read_image
from edgeface.images.alignment import MAX_SIDE_PX, TEMPLATE, _reached, similarity
from edgeface.images.crops import Cropper
from edgeface.images.inputs import Input, expand
from edgeface.images.marked import Saver


def test_the_template_is_the_published_one() -> None:
    """``arcface_src`` of insightface, in px of 112: other points make recognition worse."""
    assert TEMPLATE.tolist() == [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_similarity_is_scikit_images(seed: int) -> None:
    random = np.random.default_rng(seed)
    source = random.uniform(-200, 900, (5, 2))
    target = TEMPLATE + random.normal(0, 3, (5, 2))
    expected = SimilarityTransform.from_estimate(source, target).params[:2]
    np.testing.assert_allclose(similarity(source, target), expected, rtol=1e-9, atol=1e-9)


def test_a_mirrored_face_is_turned_and_not_mirrored_back() -> None:
    mirrored = TEMPLATE * (-1, 1)
    matrix = similarity(mirrored, TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0
    expected = SimilarityTransform.from_estimate(mirrored, TEMPLATE).params[:2]
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-9)


def test_points_come_to_lie_on_the_template() -> None:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    moved = TEMPLATE @ (3.5 * turn).T + (40, -70)
    matrix = similarity(moved, TEMPLATE)
    np.testing.assert_allclose(moved @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


@pytest.mark.parametrize("degrees", [-25, 0, 20])
def test_a_turned_portrait_is_upright_again(astronaut: Any, degrees: float) -> None:
    """The shipped network finds the landmarks; the aligned eyes are level and in their place."""
    turn = cv2.getRotationMatrix2D((224, 120), degrees, 1)
    photo: Any = cv2.warpAffine(astronaut, turn, (512, 512))
    with Detector.open("edgeface-n") as detector:
        faces = detector.detect(photo)
        (face,) = align(photo, faces.landmarks)
        assert face.shape == (112, 112, 3) and face.dtype == np.uint8
        again = detector.detect(cv2.copyMakeBorder(face, 56, 56, 56, 56, cv2.BORDER_CONSTANT))
    assert again.landmarks is not None and len(again) == 1
    points = again.landmarks[0] - 56
    # Faces differ in how far nose and mouth lie below the eyes: both networks put this nose 4 to
    # 5 px farther down than the template's. Only the eyes and the nose's x must be in place.
    assert np.abs(points[:2] - TEMPLATE[:2]).max() < 4
    assert abs(points[2, 0] - TEMPLATE[2, 0]) < 4
    assert abs(points[0, 1] - points[1, 1]) < 5


def test_it_is_warped_as_opencv_does_it_with_that_matrix(astronaut: Any) -> None:
    points = np.array([[180, 100], [240, 95], [215, 130], [190, 150], [245, 146]], np.float32)
    matrix = SimilarityTransform.from_estimate(points.astype(float), TEMPLATE * 2).params[:2]
    expected = cv2.warpAffine(astronaut, matrix, (224, 224))
    (face,) = align(astronaut, points, size=224)
    assert np.abs(face.astype(int) - expected).max() <= 1
    assert align(astronaut, np.zeros((0, 5, 2), np.float32)).shape == (0, 112, 112, 3)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("left", [0, 20_000, 32_500, 39_488])
def test_faces_of_a_panorama(astronaut: Any, left: int, upright: bool) -> None:
    """OpenCV 4 warps no image with a side of 32,767 px or more."""
    points = np.array([[180, 100], [240, 95], [215, 130], [190, 150], [245, 146]], float)
    photo = np.zeros((512, 40_000, 3), np.uint8)
    photo[:, left : left + 512] = astronaut
    shift = np.array([left, 0])
    if upright:
        astronaut, points = np.rot90(astronaut), np.column_stack((points[:, 1], 511 - points[:, 0]))
        photo, shift = np.rot90(photo), np.array([0, 40_000 - 512 - left])
    (expected,) = align(astronaut, points)
    points = points + shift
    part, _ = _reached(photo, similarity(points, TEMPLATE), 112)
    assert part.size and max(part.shape) < 512
    (face,) = align(photo, points)
    assert np.abs(face.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("side", [32_766, 32_767])
def test_photos_at_the_limit_of_opencv(astronaut: Any, side: int) -> None:
    """OpenCV 4 warps images whose sides are below 32,767 px; OpenCV 5 has no limit."""
    points = np.array([[180, 100], [240, 95], [215, 130], [190, 150], [245, 146]], float)
    photo = np.zeros((300, side, 3), np.uint8)
    photo[:, :512] = astronaut[:300]
    part, _ = _reached(photo, similarity(points, TEMPLATE), 112)
    assert max(part.shape) < 32_767
    assert np.abs(align(photo, points).astype(int) - align(astronaut[:300], points)).max() <= 1


def test_a_face_of_a_whole_panorama() -> None:
    photo = np.zeros((600, 70_000, 3), np.uint8)
    photo[:, 30_000:] = 200
    part, _ = _reached(photo, similarity(TEMPLATE * 600, TEMPLATE), 112)
    assert part.size and max(part.shape) <= MAX_SIDE_PX
    (face,) = align(photo, TEMPLATE * 600)
    assert (face[0, :49] == 0).all() and (face[0, 51:] == 200).all()
    beyond = align(photo, TEMPLATE + 90_000)
    assert beyond.shape == (1, 112, 112, 3) and not beyond.any()


def test_what_cannot_be_aligned_is_said(astronaut: Any) -> None:
    with pytest.raises(OptionError, match="this network has none: take one that has"):
        align(astronaut, None)
    with pytest.raises(ImageError, match="all in one place"):
        align(astronaut, np.full((5, 2), 7, np.float32))
    with pytest.raises(OptionError, match="size 0"):
        align(astronaut, np.zeros((0, 5, 2), np.float32), size=0)
    some: dict[str, Any] = {r"\[2, 5\]": np.ones((2, 5)), r"\[5\]": np.ones(5), "str": "points"}
    for got, wrong in some.items():
        with pytest.raises(OptionError, match=rf"landmarks must be \[N, 5, 2\] .* got {got}"):
            align(astronaut, wrong)
    with pytest.raises(OptionError, match="landmarks must be finite numbers"):
        align(astronaut, np.full((5, 2), np.nan, np.float32))
    sizes: Any = (112.5, "112", None)
    for size in sizes:
        with pytest.raises(OptionError, match=r"size .* is not a whole number"):
            align(astronaut, np.zeros((0, 5, 2), np.float32), size=size)


Command = Callable[..., tuple[int, str, str]]


def test_crop_writes_every_face_once(
    edgeface: Command, hopper_path: Path, astronaut: Any, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    (album / "deep").mkdir(parents=True)
    pair = np.concatenate((astronaut, astronaut), 1)
    cv2.imwrite(str(album / "pair.png"), cv2.cvtColor(pair, cv2.COLOR_RGB2BGR))
    (album / "deep" / "pair.jpg").write_bytes(hopper_path.read_bytes())
    code, _, err = edgeface("detect", album, "--crop", tmp_path / "faces")
    written = {p.relative_to(tmp_path / "faces").as_posix() for p in tmp_path.rglob("*-face*")}
    assert code == 0, err
    assert written == {"pair-face1.png", "pair-face2.png", "deep/pair-face1.png"}
    with Detector.open("edgeface-n") as detector:
        faces = detector.detect(pair)
    for number, expected in enumerate(align(pair, faces.landmarks), 1):
        found = read_image(tmp_path / "faces" / f"pair-face{number}.png")
        assert (found == expected).all()


def test_crop_needs_landmarks(
    edgeface: Command, exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    plain = exported("onnx").path
    code, out, err = edgeface("detect", hopper_path, "--model", plain, "--crop", tmp_path / "faces")
    assert code == 2 and out == "" and "finds none: take a model that does" in err
    assert not (tmp_path / "faces").exists()


def test_no_input_is_replaced_and_no_two_photos_share_a_file(
    astronaut: Any, tmp_path: Path
) -> None:
    points = np.array([[[180, 100], [240, 95], [215, 130], [190, 150], [245, 146]]], np.float32)
    faces = Detections(np.array([[150, 60, 260, 180]], np.float32), np.ones(1, np.float32), points)
    names = ["a.jpg", "a.png", "b-face1.png", "b.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"a photo")
    inputs = expand([str(tmp_path / name) for name in names])
    cropper = Cropper(tmp_path / "faces", inputs)
    for source in inputs[:2]:
        cropper.add(source.name, astronaut, faces)
    assert {p.name for p in (tmp_path / "faces").iterdir()} == {
        "a.jpg-face1.png",
        "a.png-face1.png",
    }
    beside = Cropper(tmp_path, inputs[2:])
    with pytest.raises(OptionError, match=r"is the input .*b-face1\.png, which it would replace"):
        beside.add(inputs[3].name, astronaut, faces)
    assert (tmp_path / "b-face1.png").read_bytes() == b"a photo"
    with pytest.raises(OutputError, match="is not a folder"):
        Cropper(tmp_path / "a.jpg" / "faces", inputs)


def test_what_was_cropped_of_a_camera_before_stays(astronaut: Any, tmp_path: Path) -> None:
    """A supervisor may restart a command, whose camera frames then count from 0 again.

    Crops of a camera are kept; those of the same video are replaced."""
    points = np.array([[[180, 100], [240, 95], [215, 130], [190, 150], [245, 146]]], np.float32)
    faces = Detections(np.array([[150, 60, 260, 180]], np.float32), np.ones(1, np.float32), points)
    for _ in range(3):
        Cropper(tmp_path, [Input("camera:0", "camera")]).add("camera:0#0", astronaut, faces)
        Cropper(tmp_path, [Input("clip.mp4", "video")]).add("clip.mp4#0", astronaut, faces)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "camera-0-2-frame0-face1.png",
        "camera-0-3-frame0-face1.png",
        "camera-0-frame0-face1.png",
        "clip-frame0-face1.png",
    ]


def test_what_was_recorded_of_a_camera_before_stays(astronaut: Any, tmp_path: Path) -> None:
    """Also what another run, or an earlier input of this one, recorded since the command began."""
    camera = Input("camera:0", "camera")
    (tmp_path / "camera-0.mp4").touch()
    with Saver(tmp_path, [camera]) as one, Saver(tmp_path, [camera, camera]) as other:
        for saver in (one, other):
            saver.write("camera:0#0", astronaut)
        other.finish()
        other.write("camera:0#0", astronaut)
    names = ["camera-0-2.mp4", "camera-0-3.mp4", "camera-0-4.mp4", "camera-0.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "camera-0.mp4").stat().st_size == 0
