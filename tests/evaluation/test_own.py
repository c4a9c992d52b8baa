"""AP on the user's own photos: its value for known detections, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Command, failed

from edgeface.detections import Detections
from edgeface.errors import DataError
from edgeface.evaluation.own import ground_truth_of, in_photo, own_photos
from edgeface.evaluation.predictions import load_predictions, save_predictions
from edgeface.evaluation.wider import evaluate
from edgeface.images import read_image
from edgeface.images.annotations import read_annotations

FACES = "image,x1,y1,x2,y2\nin/astronaut.png,176,60,272,180\nhopper.png,181,49,383,337\n"
"""the faces of the two photos, drawn by hand"""


@pytest.fixture
def photos(tmp_path: Path, astronaut: np.ndarray, hopper_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    cv2.imwrite(str(folder / "in" / "astronaut.png"), astronaut[..., ::-1])
    cv2.imwrite(
        str(folder / "hopper.png"), cv2.cvtColor(read_image(hopper_path), cv2.COLOR_RGB2BGR)
    )
    return folder


def written(folder: Path, text: str) -> Path:
    path = folder / "faces.csv"
    path.write_text(text)
    return path


def test_ap_of_known_detections(tmp_path: Path) -> None:
    """One of two faces is found: precision is 1 up to recall 1/2, so AP is half of the area."""
    images = read_annotations(written(tmp_path, FACES))
    truth = ground_truth_of(images, "faces.csv")
    right = {i.path: Detections(i.boxes, np.full(1, 0.9, np.float32)) for i in images}
    found = evaluate(right, truth)
    assert (found.easy, found.medium, found.hard) == (None, None, 1.0) and found.faces["hard"] == 2
    assert evaluate({"hopper.png": right["hopper.png"]}, truth).hard == pytest.approx(0.5, abs=1e-3)


def test_what_is_found_on_a_photo_without_faces_is_false(tmp_path: Path) -> None:
    """False boxes on a photo without faces lower AP only if they outscore a found face.

    Three boxes above the second of two faces: precision is 1 up to recall 1/2, then 2/5."""
    images = read_annotations(written(tmp_path, FACES + "empty.jpg,,,,\n"))
    truth = ground_truth_of(images, "faces.csv")
    one, two, _ = images

    def found(score: float) -> dict[str, Detections]:
        boxes = np.array([[0, 0, 9, 9], [20, 0, 30, 9], [40, 0, 50, 9]], np.float32)
        return {
            one.path: Detections(one.boxes, np.full(1, 1.0, np.float32)),
            two.path: Detections(two.boxes, np.full(1, 0.5, np.float32)),
            "empty.jpg": Detections(boxes, np.full(3, score, np.float32)),
        }

    assert evaluate(found(0.8), truth).hard == pytest.approx(0.5 + 0.5 * 2 / 5, abs=1e-9)
    assert evaluate(found(0.1), truth).hard == pytest.approx(1.0, abs=1e-9)
    restricted = evaluate(found(0.8), truth.restrict(["empty", one.path, two.path]))
    assert restricted.hard == pytest.approx(0.7, abs=1e-9)
    assert restricted.by_height["96+"] == restricted.hard


def test_the_command(photos: Path, tmp_path: Path, edgeface: Command) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    arguments = ("eval", "--data", photos, "--annotations")
    code, out, _ = edgeface(*arguments, written(tmp_path, FACES), "--format", "json")
    report = json.loads(out)
    assert code == 0 and report["images"] == 2 and report["easy"] is None
    assert report["hard"] > 0.99 and report["evaluator"].startswith("own annotations")
    missing = written(tmp_path, FACES + "lost.jpg,1,1,9,9\n")
    failed(edgeface(*arguments, missing), "1 of 3 photos", "lost.jpg")
    failed(edgeface(*arguments, written(tmp_path, "hopper.png,,,,\n")), "no face to find")


def test_predictions_lie_as_the_photos_do(photos: Path, tmp_path: Path, edgeface: Command) -> None:
    """Prediction files lie in the photos' folders; one photo lies in no folder.

    Predictions that cannot be written are refused before the first photo."""
    pytest.importorskip("torch", reason="torch is not installed")
    out, faces = tmp_path / "out", written(tmp_path, FACES)
    arguments = ("eval", "--data", photos, "--annotations", faces, "--predictions", out)
    assert edgeface(*arguments)[0] == 0
    assert sorted(load_predictions(out)) == ["hopper", "in/astronaut"]
    (out / "notes.txt").write_text("keep me")
    (photos / "hopper.png").unlink()  # reported only once photos are looked for
    failed(edgeface(*arguments), "holds other files")
    assert (out / "notes.txt").read_text() == "keep me"
    names = written(tmp_path, FACES + "...jpg,1,1,9,9\n")
    failed(edgeface(*arguments[:-3], names, "--predictions", tmp_path / "new"), "'..'; accepted")


def test_boxes_are_those_of_the_photo(
    photos: Path, tmp_path: Path, edgeface: Command, astronaut: np.ndarray
) -> None:
    """As in training, a face that the photo's edge cuts counts with its part inside the photo.

    A box outside the photo is refused with the photo's name, and so are shares of the image."""
    pytest.importorskip("torch", reason="torch is not installed")
    cv2.imwrite(str(photos / "cut.png"), astronaut[:, 222:, ::-1])  # through the middle of the face
    arguments = ("eval", "--data", photos, "--annotations")
    cut = written(tmp_path, "image,x1,y1,x2,y2\ncut.png,-120,60,50,180\n")
    code, out, _ = edgeface(*arguments, cut, "--format", "json")
    assert code == 0 and json.loads(out)["hard"] > 0.99
    for text, words in {
        "hopper.png,.3,.1,.6,.6\n": "1 photo, 1 face, 0 that can be found, 1 of less than 3 px; "
        "are these shares of the image? accepted: boxes in px of the photo",
        "hopper.png,900,49,999,337\n": "hopper.png: box x1,y1,x2,y2 = 900, 49, 999, 337 lies "
        "outside the image of ",
    }.items():
        failed(edgeface(*arguments, written(tmp_path, text)), words)


def test_boxes_of_a_turned_photo_are_those_of_the_photo_as_it_is_seen(
    tmp_path: Path, astronaut: np.ndarray
) -> None:
    """The EXIF orientation says that the stored rows are columns."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(np.rot90(astronaut[:, 100:340])).save(tmp_path / "a.jpg", exif=exif)
    truth, photos = own_photos(written(tmp_path, "a.jpg,80,400,300,700\n"), tmp_path)
    image = read_image(photos["a"])
    assert image.shape[:2] == (512, 240)
    found = in_photo(truth.images["a"], image.shape[1], image.shape[0])
    assert found.boxes.tolist() == [[80, 400, 160, 112]]


def test_two_photos_of_one_name(photos: Path, tmp_path: Path) -> None:
    (photos / "hopper.jpg").write_bytes((photos / "hopper.png").read_bytes())
    with pytest.raises(DataError, match="differ in their suffix alone"):
        own_photos(written(tmp_path, FACES + "hopper.jpg,1,1,9,9\n"), photos)


def test_names_with_two_suffixes(photos: Path, tmp_path: Path) -> None:
    """A photo with two suffixes used to be looked for without both, or taken for another photo."""
    (photos / "hopper.png.jpg").write_bytes((photos / "hopper.png").read_bytes())
    faces = FACES.replace("hopper.png", "hopper.png.jpg")
    truth, found = own_photos(written(tmp_path, faces), photos)
    images = read_annotations(tmp_path / "faces.csv")
    right = {image.path: Detections(image.boxes, np.ones(1, np.float32)) for image in images}
    save_predictions(tmp_path / "out", right)
    loaded = load_predictions(tmp_path / "out")
    assert evaluate(loaded, truth.restrict(found)).hard == 1
    with pytest.raises(DataError, match="differ in their suffix alone"):
        own_photos(written(tmp_path, faces + "hopper.png,,,,\n"), photos)
