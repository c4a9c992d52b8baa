"""Predictions in the official tool's folder layout: no digit is lost, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeface.errors import DataError, OutputError
from edgeface.evaluation.predictions import (
    check_predictions,
    load_predictions,
    save_predictions,
)


def test_every_digit_comes_back_by_falling_score(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(100, 40, (7, 5))
    save_predictions(tmp_path / "out", {"0--A/x.jpg": first, "1--B/y": np.zeros((0, 5))})
    loaded = load_predictions(tmp_path / "out")
    assert list(loaded) == ["0--A/x", "1--B/y"]
    np.testing.assert_array_equal(loaded["0--A/x"], first[np.argsort(-first[:, 4])])
    assert loaded["1--B/y"].shape == (0, 5)


def test_the_layout_is_the_official_one(tmp_path: Path) -> None:
    save_predictions(tmp_path, {"0--A/x": np.array([[1, 2, 3.5, 4, 0.25], [5, 6, 7, 8, 0.75]])})
    assert (
        tmp_path / "0--A" / "x.txt"
    ).read_text() == "0--A/x.jpg\n2\n5.0 6.0 7.0 8.0 0.75\n1.0 2.0 3.5 4.0 0.25\n"


def test_files_of_other_tools_are_read(tmp_path: Path) -> None:
    (tmp_path / "0--A").mkdir()
    (tmp_path / "0--A" / "x.txt").write_text("x\r\n1\r\n10 20 30 40 0.999 \r\n\r\n")
    assert load_predictions(tmp_path)["0--A/x"].tolist() == [[10, 20, 30, 40, 0.999]]


def test_earlier_predictions_are_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    save_predictions(out, {"a/x": np.zeros((1, 5)), "b/y": np.zeros((1, 5))})
    save_predictions(out, {"a/z": np.zeros((2, 5))})
    assert {key: len(rows) for key, rows in load_predictions(out).items()} == {"a/z": 2}
    for name in ("notes.txt", "a/notes.md", "a/deep.txt/notes.txt"):
        precious = out / name
        precious.parent.mkdir(exist_ok=True)
        precious.write_text("keep me")
        with pytest.raises(DataError, match="holds other files"):
            save_predictions(out, {"a/x": np.zeros((1, 5))})
        assert precious.read_text() == "keep me" and (out / "a" / "z.txt").exists()
        precious.unlink()


def test_photos_at_any_depth_and_in_a_flat_folder(tmp_path: Path) -> None:
    tables = {
        key: np.full((i, 5), i + 0.5) for i, key in enumerate(("x", "a/x", "a/b/x", "a/b/c.txt/x"))
    }
    for _ in range(2):  # the second time over the earlier files
        save_predictions(tmp_path / "out", tables)
    loaded = load_predictions(tmp_path / "out")
    assert loaded.keys() == tables.keys()
    for key, table in tables.items():
        np.testing.assert_array_equal(loaded[key], table)


def test_a_linked_folder_of_an_event_is_read(tmp_path: Path) -> None:
    save_predictions(tmp_path / "out", {"a/x": np.zeros((1, 5))})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "b").symlink_to(tmp_path / "out" / "a")
    assert list(load_predictions(tmp_path / "linked")) == ["b/x"]


@pytest.mark.parametrize("key", ["", "a/", "a//b", "./x", "../x", "a/..", "/x", "...jpg"])
def test_a_bad_key_writes_nothing(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="accepted: keys event/name"):
        check_predictions(tmp_path / "out", ["a/x", key])
    with pytest.raises(DataError, match="accepted: keys event/name"):
        save_predictions(tmp_path / "out", {"a/x": np.zeros((1, 5)), key: np.zeros((1, 5))})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        save_predictions(tmp_path / "file" / "out", {"a/x": np.zeros((1, 5))})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 2: count ''"),
        ("x", "line 2: count ''"),
        ("x\ntwo\n", "line 2: count 'two'"),
        ("x\n" + "9" * 5000 + "\n", "line 2: count '9"),
        ("x\n2\n1 2 3 4 .5\n", "line 2: count '2', but 1 lines follow"),
        ("x\n0\n1 2 3 4 .5\n", "line 2: count '0', but 1 lines follow"),
        ("x\n1\n1 2 3 4\n", "line 3: '1 2 3 4'; accepted: the 5 finite numbers"),
        ("x\n2\n1 2 3 4 .5\n1 2 3 4 x\n", "line 4: '1 2 3 4 x'"),
        ("x\n1\n1 2 3 4 nan\n", "line 3: '1 2 3 4 nan'"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        load_predictions(tmp_path)
    assert (
        "x.txt" in str(caught.value)
        and message in str(caught.value)
        and "\n" not in str(caught.value)
    )


def test_missing_and_undecodable(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="no predictions in"):
            load_predictions(folder)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot read predictions"):
        load_predictions(tmp_path)
