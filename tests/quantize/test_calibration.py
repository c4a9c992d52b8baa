"""The calibration photos: the same ones on every file system, and a one-line error for every
unsuitable folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.errors import DataError, EdgefaceError, ImageError, OptionError
from edgeface.images import letterbox, read_image
from quantize.calibration import HELD_OUT, MAX_PHOTOS, left_out, read_calibration

SIZE = (96, 64)


def write_photos(folder: Path, names: list[str], seed: int = 0) -> list[Path]:
    """Write small pictures that all differ."""
    random = np.random.default_rng(seed)
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    return paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_photos(
        folder,
        [f"{album}/{i}.{suffix}" for album in "ab" for i in range(6) for suffix in ("png", "JPG")],
    )
    (folder / "notes.txt").write_text("not an image")
    return folder


def failure(folder: Path, count: int = 4) -> str:
    with pytest.raises(EdgefaceError) as caught:
        read_calibration(folder, count, *SIZE)
    text = str(caught.value)
    assert "\n" not in text
    return text


class TestSelection:
    def test_photos_are_letterboxed_and_listed_by_hash(self, folder: Path) -> None:
        found = read_calibration(folder, 5, *SIZE)
        files = {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in folder.rglob("*.*")}
        assert len(found.images) == len(found.sha256) == len(set(found.sha256)) == 5
        for image, digest in zip(found.images, found.sha256, strict=True):
            expected, _ = letterbox(read_image(files[digest]), *SIZE)
            assert np.array_equal(image, expected)

    def test_does_not_depend_on_the_file_system(self, folder: Path) -> None:
        """A copy of the folder, made in another order, gives the same photos."""
        expected = read_calibration(folder, 7, *SIZE).sha256
        copy = folder.parent / "elsewhere" / "copy"
        for path in sorted(folder.rglob("*.*"), reverse=True):
            target = copy / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        assert read_calibration(copy, 7, *SIZE).sha256 == expected

    def test_is_spread_and_depends_on_the_seed(self, folder: Path) -> None:
        first, second = (read_calibration(folder, 12, *SIZE, seed=seed) for seed in (0, 1))
        assert set(first.sha256) != set(second.sha256)
        albums = [
            p.parent.name
            for p in folder.rglob("*.*")
            if hashlib.sha256(p.read_bytes()).hexdigest() in first.sha256
        ]
        assert {"a", "b"} == set(albums)

    def test_fewer_are_the_first_of_more(self, folder: Path) -> None:
        assert (
            read_calibration(folder, 9, *SIZE).sha256[:4]
            == read_calibration(folder, 4, *SIZE).sha256
        )

    def test_same_content_counts_once(self, folder: Path) -> None:
        for path in list(folder.rglob("*.png")):
            shutil.copy(path, path.with_name(f"copy-{path.name}"))
        assert len(set(read_calibration(folder, 24, *SIZE).sha256)) == 24
        assert "has 24 different photos, 25 were asked for" in failure(folder, 25)

    def test_grey_transparent_and_rotated(self, tmp_path: Path, hopper_path: Path) -> None:
        """Calibration reads every kind of file that :func:`edgeface.images.read_image` reads."""
        photo = cv2.imread(str(hopper_path))
        assert photo is not None
        cv2.imwrite(str(tmp_path / "grey.png"), cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY))
        cv2.imwrite(
            str(tmp_path / "alpha.png"), np.dstack([photo, np.full(photo.shape[:2], 90, np.uint8)])
        )
        cv2.imwrite(str(tmp_path / "deep.tiff"), photo.astype(np.uint16) * 257)
        assert all(
            image.shape == (64, 96, 3) for image in read_calibration(tmp_path, 3, *SIZE).images
        )

    def test_wider_root_gives_its_training_photos(self, tmp_path: Path) -> None:
        training = write_photos(tmp_path, [f"WIDER_train/images/0--A/{i}.png" for i in range(3)])
        write_photos(tmp_path, [f"WIDER_val/images/0--A/{i}.png" for i in range(3)], seed=1)
        expected = {hashlib.sha256(path.read_bytes()).hexdigest() for path in training}
        assert set(read_calibration(tmp_path, 3, *SIZE).sha256) == expected
        assert (
            set(read_calibration(tmp_path / "WIDER_train" / "images", 3, *SIZE).sha256) == expected
        )

    def test_progress(self, folder: Path) -> None:
        ticks: list[tuple[int, int]] = []
        read_calibration(
            folder,
            2,
            *SIZE,
            progress=lambda what, done, total, note="": ticks.append((done, total)),
        )
        assert ticks == [(i, 2 + HELD_OUT) for i in range(HELD_OUT + 3)]

    def test_a_few_more_are_held_out_to_judge_the_file(self, folder: Path) -> None:
        found, more = (read_calibration(folder, count, *SIZE) for count in (12, 24))
        assert len(found.held_out) == HELD_OUT and found.judges is found.held_out
        assert all((a == b).all() for a, b in zip(found.held_out, more.images[12:], strict=False))
        assert more.held_out == () and more.judges == more.images[:HELD_OUT]

    def test_nobody_says_how_many(self, folder: Path) -> None:
        """Most photos of a small folder calibrate, the others are held out to judge the file."""
        found = read_calibration(folder, None, *SIZE)
        assert (len(found.images), len(found.held_out)) == (18, 6)
        assert found.sha256 == read_calibration(folder, 24, *SIZE).sha256[:18]

    def test_what_is_left_out_is_not_taken(self, folder: Path) -> None:
        drawn = read_calibration(folder, 24, *SIZE).sha256
        names = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.*")
            if hashlib.sha256(path.read_bytes()).hexdigest() in drawn[:6]
        }
        found = read_calibration(folder, 18, *SIZE, leave_out=names)
        assert len(names) == 6 and found.sha256 == drawn[6:]

    def test_a_judged_photo_is_left_out_however_the_folder_is_given(self, folder: Path) -> None:
        link = folder.with_name("link")
        link.symlink_to(folder)
        for judged in (folder, link, folder / "a" / ".."):
            for given in (folder, link, folder / "a" / ".."):
                assert "a/0.png" in left_out(given, (), [judged / "a" / "0.png"])

    def test_a_damaged_photo_is_told_and_another_taken(self, folder: Path) -> None:
        drawn = read_calibration(folder, 24, *SIZE)
        first = next(
            path
            for path in folder.rglob("*.*")
            if hashlib.sha256(path.read_bytes()).hexdigest() == drawn.sha256[0]
        )
        first.write_bytes(first.read_bytes()[:50])
        told: list[ImageError] = []
        found = read_calibration(folder, 5, *SIZE, on_error=told.append)
        assert found.sha256 == drawn.sha256[1:6] and str(first) in str(told[0])


class TestMistakes:
    def test_all_are_damaged(self, folder: Path) -> None:
        for path in folder.rglob("*.*"):
            path.write_bytes(path.read_bytes()[:50])
        told: list[ImageError] = []
        for count in (4, None):
            with pytest.raises(DataError, match=f"no photo in {folder} can be read: give"):
                read_calibration(folder, count, *SIZE, on_error=told.append)
        assert len(told) == 48

    def test_missing(self, tmp_path: Path) -> None:
        assert failure(tmp_path / "none").startswith(
            f"calibration folder {tmp_path / 'none'} does not exist: give a "
        )

    def test_a_file(self, hopper_path: Path) -> None:
        assert f"{hopper_path} is not a folder" in failure(hopper_path)

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "album").mkdir()
        assert f"calibration folder {tmp_path} is empty" in failure(tmp_path)

    def test_only_other_files(self, tmp_path: Path) -> None:
        for name in ("clip.mp4", "notes.txt"):
            (tmp_path / name).write_text("text")
        assert "has no photos: 2 files, such as clip.mp4" in failure(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
    def test_a_damaged_photo_is_named(self, tmp_path: Path, content: bytes) -> None:
        write_photos(tmp_path, ["0.png"])
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(
            ImageError, match=r"calibration photo .*bad\.png: .*: repair or remove it$"
        ):
            read_calibration(tmp_path, 2, *SIZE)

    def test_a_truncated_photo_is_named(self, tmp_path: Path, hopper_path: Path) -> None:
        (tmp_path / "cut.jpg").write_bytes(hopper_path.read_bytes()[:5000])
        assert "cut.jpg" in failure(tmp_path, 1)

    def test_too_few(self, folder: Path) -> None:
        line = failure(folder, 30)
        assert (
            line
            == f"{folder} has 24 different photos, 30 were asked for: add some, or ask for fewer"
            " with "
            "--images 24"
        )

    @pytest.mark.parametrize("count", [0, -1, MAX_PHOTOS + 1])
    def test_count(self, folder: Path, count: int) -> None:
        with pytest.raises(
            OptionError, match=f"--images {count}: give a number of photos from 1 to {MAX_PHOTOS}"
        ):
            read_calibration(folder, count, *SIZE)

    @pytest.mark.parametrize("place", [".", "WIDER_val", "WIDER_val/images/0--A"])
    def test_validation_photos_are_refused(self, tmp_path: Path, place: str) -> None:
        write_photos(tmp_path, ["WIDER_val/images/0--A/0.png"])
        with pytest.raises(DataError, match="which accuracy is measured on"):
            read_calibration(tmp_path / place, 1, *SIZE)

    @pytest.mark.skipif(
        os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind"
    )
    def test_unreadable(self, folder: Path) -> None:
        for path in folder.rglob("*.*"):
            path.chmod(0)
        assert "cannot read calibration photo" in failure(folder)
