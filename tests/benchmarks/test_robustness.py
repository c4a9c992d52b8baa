"""Robustness: where the faces of each frame lie, thresholds worked out by hand, and the command."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.research import mistakes
from benchmarks.robustness import Recall, Tally
from benchmarks.robustness_frames import (
    FILLS,
    ROLLS,
    VALUES,
    Frame,
    fill_frames,
    photo_frame,
    roll_frames,
    turned_half,
)
from edgeface.detections import Detections
from edgeface.images import letterbox
from edgeface.images.annotated import AnnotatedImage

GROUPS = [(kind, value) for kind, values in VALUES.items() for value in values]
FACE = np.array([180.0, 70, 270, 190])
"""the portrait's face x1, y1, x2, y2 in px"""


class Scripted:
    """A detector that returns given detections, one list per frame."""

    def __init__(self, *found: Sequence[tuple[Sequence[float], float]]) -> None:
        self.found = [
            Detections(
                np.array([box for box, _ in boxes], np.float32).reshape(-1, 4),
                np.array([score for _, score in boxes], np.float32),
            )
            for boxes in found
        ]

    def detect(self, image: object) -> Detections:
        return self.found.pop(0)


def frame(boxes: Sequence[Sequence[float]], complete: bool = True, **groups: list[bool]) -> Frame:
    named = {(name, "x"): np.array(members, np.bool_) for name, members in groups.items()}
    return Frame(
        np.zeros((480, 640, 3), np.uint8),
        np.array(boxes, np.float64).reshape(-1, 4),
        named,
        complete,
    )


def test_best_score_of_each_face_and_the_boxes_on_none() -> None:
    face, other, nowhere = [0, 0, 10, 10], [100, 100, 150, 150], [300, 300, 310, 310]
    tally = Tally(
        "x",
        Scripted(  # type: ignore[arg-type]
            [(face, 0.5), ([0, 0, 10, 11], 0.75), ([0, 0, 10, 4], 0.9), (nowhere, 0.25)],
            [(nowhere, 0.8)],
            [],
            [(face, 0.4)],
        ),
    )
    tally.look(frame([face, other], all=[True, True], some=[False, True]))
    tally.look(frame([face], complete=False, all=[True]))
    tally.look(frame([face], all=[True]))
    tally.look(frame([]))
    assert tally.found[("all", "x")] == [0.75, 0, 0, 0] and tally.found[("some", "x")] == [0]
    np.testing.assert_allclose(
        tally.false, [0.9, 0.25, 0.4], rtol=1e-6
    )  # a cropped frame counts no false boxes


@pytest.mark.parametrize(
    ("allowed", "above", "recall"),
    [(0, 0.9, 0), (1, 0.5, 1 / 3), (2, 0.5, 1 / 3), (3, 0.3, 1), (4, 0.1, 1)],
)
def test_threshold_leaves_as_many_false_boxes(allowed: int, above: float, recall: float) -> None:
    """The false boxes score .9, .5, .5 and .3.

    Of two equal scores, neither is allowed if both are too many."""
    tally = Tally("x", Scripted())  # type: ignore[arg-type]
    tally.false = [0.5, 0.3, 0.9, 0.5]
    tally.found["faces", "all"] = [0.7, 0.4, 0.5]
    threshold = tally.threshold(allowed)
    assert sum(score >= threshold for score in tally.false) <= allowed
    assert threshold == pytest.approx(above, abs=1e-6) and (threshold > above or above == 0.1)
    (row,) = tally.rows(allowed)
    assert row == Recall("faces", "all", "x", row.recall, 3) and row.recall == pytest.approx(recall)


def test_conditions_and_sizes_of_faces(astronaut: np.ndarray) -> None:
    """Traits: blur, expression, light, invalid, occlusion, pose. The face of 300 px is invalid."""
    heights = [120, 120, 23, 24, 300, 60, 60]
    boxes = np.array([[10, 10, 50, 10 + h] for h in heights], np.float32)
    traits = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [2, 0, 1, 0, 0, 0],
            [0] * 6,
            [0, 1, 0, 0, 0, 0],
            [0, 0, 0, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 2, 1],
        ]
    )
    whole = photo_frame(astronaut, AnnotatedImage("a.png", boxes, traits[:, 3] == 1, None, traits))
    members = {
        f"{kind} {value}": np.flatnonzero(faces).tolist()
        for (kind, value), faces in whole.groups.items()
    }
    assert members == {
        "size 0-16": [],
        "size 16-32": [2, 3],
        "size 32-64": [5, 6],
        "size 64-128": [0, 1],
        "size 128-256": [],
        "size 256+": [],
        "faces all": [0, 1, 3, 5, 6],
        "faces clean": [0, 3],
        "blur clear": [0, 3, 6],
        "blur normal": [5],
        "blur heavy": [1],
        "light normal": [0, 3, 5, 6],
        "light extreme": [1],
        "occlusion none": [0, 1, 3],
        "occlusion partial": [5],
        "occlusion heavy": [6],
        "pose typical": [0, 1, 3, 5],
        "pose atypical": [6],
    }
    assert whole.complete and set(whole.groups) < set(GROUPS)
    np.testing.assert_allclose(whole.boxes, boxes * 480 / 512, rtol=1e-6)
    np.testing.assert_array_equal(whole.image, letterbox(astronaut, 640, 480)[0])


def test_a_face_fills_the_frame_as_it_is_asked(astronaut: np.ndarray) -> None:
    frames = list(fill_frames(astronaut, FACE))
    assert [next(iter(f.groups)) for f in frames] == [("fill", str(percent)) for percent in FILLS]
    for percent, (image, (box,), _, complete) in zip(FILLS, frames, strict=True):
        assert image.shape == (480, 640, 3) and not complete
        assert box[3] - box[1] == pytest.approx(480 * min(percent, 100) / 100, abs=3)
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, (320, 240), atol=3)
        left, top, right, bottom = (round(v) for v in box.tolist())
        shown = (120 * 100 / percent if percent > 100 else 120) / 2
        middle = (FACE[1] + FACE[3]) / 2
        inside = astronaut[round(middle - shown) : round(middle + shown), 180:270]
        there = cv2.resize(
            image[top:bottom, left:right], inside.shape[1::-1], interpolation=cv2.INTER_AREA
        )
        assert np.abs(there.astype(float) - inside).mean() < 8, "what the box shows is the face"


def test_a_face_at_the_edge_moves_off_the_middle_and_a_low_photo_is_left_out(
    astronaut: np.ndarray,
) -> None:
    corner = np.array([0.0, 0, 90, 120])
    first = next(iter(fill_frames(astronaut, corner)))
    np.testing.assert_allclose(first.boxes[0], [0, 0, 216, 288], atol=1)
    low = fill_frames(astronaut[60:200], FACE - (0, 60, 0, 60))
    assert [next(iter(f.groups))[1] for f in low] == ["90", "100", "125"]
    narrow = next(iter(fill_frames(astronaut[:, 170:290], FACE - (170, 0, 170, 0))))
    assert not narrow.image[:, 290:].any() and narrow.image[:, 280].any(), (
        "120 of 267 columns, the rest is black"
    )
    assert narrow.boxes[0, 3] - narrow.boxes[0, 1] == pytest.approx(288, abs=2)


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, -60])
def test_box_around_a_turned_ellipse(degrees: float) -> None:
    angles, turn = np.linspace(0, 2 * np.pi, 3601), math.radians(degrees)
    x, y = 3 * np.cos(angles), 4 * np.sin(angles)
    expected = [
        np.abs(x * math.cos(turn) - y * math.sin(turn)).max(),
        np.abs(x * math.sin(turn) + y * math.cos(turn)).max(),
    ]
    np.testing.assert_allclose(turned_half(np.array([3.0, 4.0]), degrees), expected, rtol=1e-5)


def test_the_photo_turns_around_the_face(astronaut: np.ndarray) -> None:
    image, scale = letterbox(astronaut, 640, 480)
    box = np.array([176, 70, 264, 190]) * scale  # 82.5 x 112.5 px
    frames = list(roll_frames(image, box, (480, 480)))
    assert [int(next(iter(f.groups))[1]) for f in frames] == [
        0,
        *(d for d in ROLLS[1:] for _ in range(2)),
    ]
    np.testing.assert_array_equal(frames[0].image, image)
    np.testing.assert_allclose(frames[0].boxes[0], box)
    centre = (box[:2] + box[2:]) / 2
    for turned in frames:
        np.testing.assert_allclose(
            (turned.boxes[0, :2] + turned.boxes[0, 2:]) / 2, centre, atol=1e-9
        )
    for quarter, turns in zip(frames[-2:], (-1, 1), strict=True):
        side = 40
        x, y = (int(v) for v in np.round(centre))
        upright = image[y - side : y + side, x - side : x + side]
        there = quarter.image[y - side : y + side, x - side : x + side]
        assert np.abs(there.astype(float) - np.rot90(upright, turns)).mean() < 12
        np.testing.assert_allclose(
            quarter.boxes[0, 2:] - quarter.boxes[0, :2], (box[2:] - box[:2])[::-1]
        )


@pytest.mark.parametrize(
    "box", [[10, 10, 40, 57], [0, 100, 80, 200], [200, 0, 300, 60], [400, 100, 478, 210]]
)
def test_small_faces_and_those_that_a_turn_cuts_do_not_turn(
    astronaut: np.ndarray, box: list[float]
) -> None:
    image, _ = letterbox(astronaut, 640, 480)
    assert not list(roll_frames(image, np.array(box, np.float64), (480, 480)))


@pytest.fixture
def data(tmp_path: Path, astronaut: np.ndarray, hopper_path: Path) -> Path:
    """A WIDER FACE folder with two portraits, one enlarged; a third annotated photo is missing."""
    root = tmp_path / "wider"
    folder = root / "WIDER_val" / "images" / "e"
    folder.mkdir(parents=True)
    large = cv2.resize(astronaut, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "a.png"), large[:, :, ::-1])
    (folder / "b.jpg").write_bytes(hopper_path.read_bytes())
    text = (
        "e/a.png\n1\n360 140 180 240 0 0 0 0 0 0\ne/b.jpg\n1\n165 100 190 250 0 0 0 0 0 0\n"
        "e/absent.png\n1\n1 1 90 90 0 0 0 0 0 0\n"
    )
    (root / "wider_face_split").mkdir()
    (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text(text)
    return root


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    saved, drawn = tmp_path / "rows.json", tmp_path / "rows.png"
    arguments = shlex.split(f"--data {data} --false-boxes 1 --save {saved} --plot {drawn}")
    assert robustness.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    result: dict[str, Any] = json.loads(saved.read_text())
    rows = {(row["kind"], row["value"]): row for row in result["rows"]}
    assert list(rows) == [group for group in GROUPS if group in rows], "in the order of the result"
    assert (result["photos"], result["false_boxes"], set(result["thresholds"])) == (
        2,
        2,
        {"edgeface-n"},
    )
    assert all(set(row) == {"kind", "value", "model", "recall", "faces"} for row in result["rows"])
    assert (
        rows["faces", "clean"] | {"recall": 1.0} == rows["faces", "clean"]
        and rows["faces", "clean"]["faces"] == 2
    )
    assert (
        ("blur", "heavy") not in rows
        and rows["roll", "0"]["faces"] == 2
        and rows["roll", "45"]["faces"] == 4
    )
    assert rows["roll", "0"]["recall"] == rows["roll", "15"]["recall"] == 1.0
    assert rows["fill", "60"] == {
        "kind": "fill",
        "value": "60",
        "model": "edgeface-n",
        "recall": 1.0,
        "faces": 2,
    }
    assert lines[-1].startswith(
        "recall on 2 photos where each model has 2 boxes on no face: scores from edgeface-n "
    )
    assert len(lines) == len(rows) + 2 and drawn.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--false-boxes", "-1"], "--false-boxes -1: give boxes a photo, 0 or more"),
        (["--models", "nonsense"], "unknown model"),
        (["--peers", "nowhere"], "nowhere holds no peer's file"),
    ],
)
def test_mistakes_are_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert robustness.main(["--data", str(data), *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_no_photos_and_stopping_are_one_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data / "WIDER_val"
    folder.rename(data / "elsewhere")
    assert robustness.main(["--data", str(data)]) == 2
    assert "no annotated photo in" in capsys.readouterr().err

    def stopped(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(robustness, "read_photos", stopped)
    assert robustness.main(["--data", str(data)]) == 130
    assert capsys.readouterr().err == "stopped: nothing is kept, the same command begins again\n"


@pytest.mark.parametrize("command", [robustness.main, mistakes.main])
def test_a_damaged_photo_is_told_and_the_others_judged(
    data: Path, command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    first, second = sorted((data / "WIDER_val" / "images" / "e").iterdir())
    second.write_bytes(second.read_bytes()[:5000])
    assert command(["--data", str(data), "--format", "json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["photos"] == 1
    assert "b.jpg: the image is truncated" in err and "1 photo could not be read" in err
    first.write_bytes(b"")
    assert command(["--data", str(data)]) == 2
    assert "none of the 2 photos can be read" in capsys.readouterr().err


def test_given_photos(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four validation photos, with YuNet_n as the only peer."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    root, source, files = tmp_path / "wider", shared / "wider", tmp_path / "peers"
    (root / "WIDER_val" / "images").mkdir(parents=True)
    (root / "wider_face_split").symlink_to(source / "wider_face_split")
    for photo in sorted((source / "WIDER_val" / "images" / "13--Interview").glob("*"))[:4]:
        link = root / "WIDER_val" / "images" / photo.parent.name / photo.name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(photo)
    peer = next((shared / "peers").glob("yunet_n_*.onnx"), None)
    if peer is None:
        pytest.skip("the file of YuNet_n is not there")
    files.mkdir()
    (files / peer.name).symlink_to(peer)
    assert robustness.main(["--data", str(root), "--peers", str(files), "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["false_boxes"] == 1
    recall = {row["model"]: row["recall"] for row in result["rows"] if row["value"] == "clean"}
    assert set(recall) == {"edgeface-n", "YuNet_n"} and min(recall.values()) > 0.7
