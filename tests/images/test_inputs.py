"""What a user may name as input: every input is read or reported."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import said

from edgeface.errors import ImageError, OptionError, OutputError
from edgeface.images import read_image
from edgeface.images.addresses import camera_number, is_live, shown
from edgeface.images.crops import Cropper
from edgeface.images.inputs import (
    IMAGE_SUFFIXES,
    Input,
    expand,
    list_folder,
    source_kind,
    sources,
)
from edgeface.images.marked import Saver, write_image
from edgeface.images.videos import frame_count, stored_frames


def write_clip(path: Path, frames: int = 30, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (160, 128))
    for i in range(frames):
        writer.write(np.random.default_rng(i).integers(0, 256, (128, 160, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture
def photo(astronaut: Any) -> bytes:
    return cv2.imencode(".jpg", cv2.resize(astronaut, (64, 64)))[1].tobytes()


def test_what_a_folder_skips_is_said_once(tmp_path: Path, photo: bytes) -> None:
    album = tmp_path / "album"
    (album / "deep").mkdir(parents=True)
    for name in ("a.jpg", "b.JFIF", "deep/c.jpg"):
        (album / name).write_bytes(photo)
    for name in ("._a.jpg", "IMG.HEIC", "deep/x.heic", "clip.mp4", "notes.txt"):
        (album / name).write_bytes(b"x")
    (album / "elsewhere").symlink_to(tmp_path)
    (album / "gone.jpg").symlink_to(tmp_path / "none.jpg")
    (album / "link.png").symlink_to(album / "a.jpg")
    notes: list[str] = []
    names = [Path(source.name).name for source in expand([str(album)], note=notes.append)]
    assert names == ["a.jpg", "b.JFIF", "c.jpg", "link.png"]
    assert len(notes) == 1
    for words in (
        "2 .heic (convert them to .jpg)",
        "1 videos (name each)",
        "1 links to folders",
        "1 links that lead nowhere",
    ):
        assert words in notes[0]
    assert "notes" not in notes[0] and len(list_folder(album).others) == 6


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has no such folders")
def test_a_folder_whose_files_cannot_be_opened_does_not_end_the_run(
    tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode 444: the names can be listed, and nothing else."""
    shut = tmp_path / "album" / "shut"
    shut.mkdir(parents=True)
    for path in (tmp_path / "album" / "a.jpg", shut / "b.jpg"):
        path.write_bytes(photo)
    (shut / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    shut.chmod(0o444)
    user = os.geteuid()
    try:
        if user == 0:  # nothing is shut for root
            os.seteuid(65534)
        found = list_folder("album")
        with pytest.raises(ImageError, match="cannot read album/shut: Permission denied"):
            list_folder("album/shut")
    finally:
        os.seteuid(user)
        shut.chmod(0o755)
    assert found.photos == [Path("album/a.jpg")]
    assert found.skipped == "1 folders that cannot be read"


def test_a_folder_of_nothing_but_heic_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"no images in .*skipped: 1 \.heic \(convert"):
        expand([str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("0", "for a camera write camera:0"),
        ("camera:x", "write camera:0 for the first one"),
        ("https://host/a.jpg", "curl -O"),
        ("file:///etc/passwd.mp4", "file:// is not read; accepted: http://"),
        ("ftp://me:secret@host/a.mp4", "^ftp://host/a.mp4: ftp:// is not read"),
    ],
)
def test_other_names_of_cameras_and_streams_get_the_right_one(text: str, hint: str) -> None:
    with pytest.raises(ImageError, match=hint):
        expand([text])


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a: b.avi", "MJPG"),
        ("rtsp:x.avi", "MJPG"),
        ("x%03d.avi", "MJPG"),
        ("a.flv", "FLV1"),
        ("a.mts", "MPG2"),
        ("a.h264", "mp4v"),
        ("a.ogv", "mp4v"),
    ],
)
def test_videos_of_every_name_are_opened(
    tmp_path: Path, name: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_clip(tmp_path / ("made.mkv" if codec == "mp4v" else f"made{name[-4:]}"), 5, codec)
    if not made.is_file() or not made.stat().st_size:
        pytest.skip(f"OpenCV has no encoder of {codec} here")
    made.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [frame for frame, _ in sources([name])] == [f"{name}#{i}" for i in range(5)]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text of Unicode there")
def test_a_video_whose_name_is_no_unicode_ends_no_run(
    edgeface: Any, tmp_path: Path, photo: bytes
) -> None:
    """OpenCV would end the process at a name in Latin-1, as some disks have; photos are read."""
    latin = tmp_path / os.fsdecode(b"caf\xe9")
    latin.mkdir()
    clip = write_clip(tmp_path / "clip.avi", 2).rename(latin / "clip.avi")
    (latin / "a.jpg").write_bytes(photo)
    with pytest.raises(ImageError, match="valid UTF-8: rename it"):
        next(sources([str(clip)]))
    code, out, err = edgeface("detect", clip, latin / "a.jpg", "--format", "jsonl")
    assert code == 2 and "valid UTF-8" in err and "1 of 2 inputs" in err
    assert len(out.splitlines()) == 1
    plain = write_clip(tmp_path / "plain.avi", 2)
    with pytest.raises(OutputError, match="valid UTF-8"):
        Saver(latin / "out.mp4", [Input(str(plain), "video")])
    assert sorted(path.name for path in latin.iterdir()) == ["a.jpg", "clip.avi"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_video_that_is_cut_says_frames_of_frames(tmp_path: Path, share: float) -> None:
    content = write_clip(tmp_path / "whole.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: int(share * len(content))])
    errors: list[ImageError] = []
    frames = list(sources([str(cut)], errors.append))
    assert 0 < len(frames) < 30 and len(errors) == 1
    assert f"{len(frames)} of 30 frames could be decoded" in str(errors[0])


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v")]
)
def test_a_whole_video_has_all_its_frames(tmp_path: Path, suffix: str, codec: str) -> None:
    path = str(write_clip(tmp_path / f"a{suffix}", 30, codec))
    assert len(list(sources([path]))) == frame_count(path) == 30


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v"), (".webm", "VP80")]
)
def test_frames_that_were_written_are_counted_without_decoding(
    tmp_path: Path, suffix: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header of a cut AVI still states all frames."""
    whole = write_clip(tmp_path / f"a{suffix}", 30, codec)
    assert stored_frames(whole, 30) == 30 and stored_frames(whole, 20) == 20
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert stored_frames(cut, 30) < 20
    monkeypatch.setattr("edgeface.images.videos.READ_S", -1.0)
    assert stored_frames(whole, 40) == 40


def planned(target: Path, *inputs: Path) -> list[str]:
    saver = Saver(target, expand([str(path) for path in inputs]))
    return sorted(path.relative_to(target).as_posix() for path in saver.paths.values())


def test_two_photos_of_one_name_keep_their_folders(tmp_path: Path, photo: bytes) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo)
    a, b = tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg"
    assert planned(tmp_path / "out", a, tmp_path / "b" / "2.jpg") == ["1.jpg", "2.jpg"]
    assert planned(tmp_path / "out", a, b) == ["a/1.jpg", "b/1.jpg"]
    assert planned(tmp_path / "out", tmp_path / "a", tmp_path / "b") == [
        "a/1.jpg",
        "b/1.jpg",
        "b/2.jpg",
    ]


def test_two_videos_of_one_name_keep_their_suffix(tmp_path: Path) -> None:
    for name in ("b.avi", "b.mkv"):
        write_clip(tmp_path / name, 3, "MJPG")
    assert planned(tmp_path / "out", tmp_path / "b.avi", tmp_path / "b.mkv") == [
        "b.avi.mp4",
        "b.mkv.mp4",
    ]


def test_a_photo_without_a_suffix_is_saved_into_a_folder_as_png(
    edgeface: Any, tmp_path: Path, photo: bytes
) -> None:
    for name in ("photo", "scan.DAT", "b.jfif"):
        (tmp_path / name).write_bytes(photo)
    inputs = [tmp_path / name for name in ("photo", "scan.DAT", "b.jfif")]
    code, _, err = edgeface("detect", *inputs, "--save", tmp_path / "out")
    assert code == 0 and not said(err)
    names = ["b.jfif", "photo.png", "scan.DAT.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    (tmp_path / "photo.png").write_bytes(photo)
    with pytest.raises(OptionError, match=r"would both be saved as photo\.png"):
        Saver(tmp_path / "out", expand([str(inputs[0]), str(tmp_path / "photo.png")]))


def test_two_inputs_that_cannot_be_kept_apart_are_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a/1\.jpg and \./a/1\.jpg would both be saved"):
        Saver(tmp_path / "out", [Input("a/1.jpg", "image"), Input("./a/1.jpg", "image")])


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "1" * 300, "http://" + "x" * 300 + ".mp4",
                                  "x" * 300 + ".mp4", "x/" * 3000])  # fmt: skip
def test_a_name_that_no_file_can_have_ends_no_run(
    edgeface: Any, tmp_path: Path, photo: bytes, name: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(photo)
    inputs = [str(tmp_path / "a.jpg"), name]
    errors: list[ImageError] = []
    assert len(list(sources(inputs, errors.append))) == 1 and len(errors) == 1
    code, out, err = edgeface("detect", *inputs, "--format", "jsonl", "--save", tmp_path / "out")
    assert code == 2 and len(out.splitlines()) == 1
    assert said(err)[0].startswith("error: ") and "1 of 2 inputs" in said(err)[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_never_the_place_to_save(tmp_path: Path, photo: bytes, link: bool) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "a.jpg").write_bytes(photo)
    clip = write_clip(album / "clip.avi", 3)
    seen = tmp_path / "seen"
    seen.symlink_to(album) if link else album.rename(seen)
    for inputs, target in (
        ([seen / "a.jpg"], seen / "a.jpg"),
        ([seen], seen),
        ([seen / "a.jpg"], seen),
        ([seen / clip.name], seen / clip.name),
    ):
        with pytest.raises(OptionError, match="is the input"):
            Saver(target, expand([str(path) for path in inputs]))
    Saver(seen / "marked", expand([str(seen)]))


def test_a_place_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, photo: bytes
) -> None:
    (tmp_path / "a.jpg").write_bytes(photo)
    with pytest.raises(OutputError, match="is not a folder"):
        Saver(tmp_path / "a.jpg" / "b.jpg", expand([str(tmp_path / "a.jpg")]))


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [(".webm", ("VP80", "VP90")), (".mp4", ("avc1", "h264")), (".mov", ("avc1", "h264"))],
)
def test_a_saved_video_plays_in_browsers(
    tmp_path: Path, suffix: str, codecs: tuple[str, ...]
) -> None:
    from edgeface.detections import Detections

    source, saved = str(write_clip(tmp_path / "clip.avi", 3)), tmp_path / f"out{suffix}"
    with Saver(saved, expand([source])) as saver:
        for name, frame in sources([source]):
            saver.add(name, frame, Detections.empty())
    capture = cv2.VideoCapture(str(saved))
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
    if suffix != ".webm" and codec in ("FMP4", "mp4v"):
        pytest.skip("OpenCV has no encoder of H.264 here")
    assert codec in codecs


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_a_photo_of_every_format_is_saved(
    suffix: str, tmp_path: Path, astronaut: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    """In colour, although OpenCV itself writes PGM and PBM only from grey pixels."""
    path = tmp_path / f"out{suffix}"
    write_image(path, astronaut[:200, 150:300])
    error = np.abs(read_image(path).astype(float) - astronaut[:200, 150:300]).mean()
    assert error < 20 and capfd.readouterr().err == ""


def test_a_photo_that_a_format_cannot_hold_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OutputError, match=r"does not fit the format \.webp: save as"):
        write_image(tmp_path / "out.webp", np.zeros((2, 1 << 15, 3), np.uint8))
    assert capfd.readouterr().err == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "kind", "live"),
    [
        ("camera:0", "camera", True),
        ("/dev/video2", "camera", True),
        ("rtsp://me:p@ss@host:554/a?b=1", "stream", True),
        ("http://host/video.mjpeg", "stream", True),
        ("http://host/live.m3u8", "stream", True),
        ("http://host/live.ts", "stream", True),
        ("http://host/clip.mpg", "video", False),
        ("http://host/clip.3gp", "video", False),
        ("https://host/clip.m2ts", "video", False),
        ("https://host/clip.MP4?token=1", "video", False),
        ("https://me:p@ss@host/clip.mp4#t=10", "video", False),
        ("https://host/?clip.mp4", "stream", True),
        ("rtsp://me:p@ss[@host/a", "stream", True),
        ("rtsp://[host/a", "stream", True),
        ("rtsp://ho\u2100st/a", "stream", True),
        ("clip.mp4", "video", False),
        ("photo.jpg", "image", False),
    ],
)
def test_what_a_name_means(text: str, kind: str, live: bool) -> None:
    assert source_kind(text) == kind and is_live(text) == live
    (found,) = expand([text])
    assert found.kind == kind and found.live == live and found.opens == text
    assert "p@ss" not in found.name and "p@ss" not in repr(found)


def test_names_of_addresses_and_cameras() -> None:
    assert shown("rtsp://me:secret@host:554/a@b") == "rtsp://host:554/a@b"
    assert shown("rtsp://me:se/c@ret@host:554/a") == "rtsp://host:554/a"
    assert shown("rtsp://[::1]:554/a@b") == "rtsp://[::1]:554/a@b"
    assert shown("rtsp://host/a") == "rtsp://host/a" and shown("a@b.jpg") == "a@b.jpg"
    assert camera_number("/dev/video12") == 12 and camera_number("photo.jpg") is None


def test_two_streams_of_one_name_are_two_files(tmp_path: Path) -> None:
    inputs = expand(["rtsp://a/live", "rtsp://b/live", "camera:0"])
    paths = Saver(tmp_path / "out", inputs).paths
    assert len(set(paths.values())) == 3
    twice = expand(["rtsp://me:secret@a/live", "rtsp://you:secret@a/live"])
    with pytest.raises(OptionError, match="rtsp://a/live is named 2 times"):
        Cropper(tmp_path / "out", twice)
    with pytest.raises(OptionError, match="one camera is saved as one of"):
        Saver(tmp_path / "a.png", inputs[2:])
