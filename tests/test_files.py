"""Files and folders appear whole or not at all: killed at any moment, on a full disk, beside links
and devices."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, failed

from edgeface.errors import DataError, EdgefaceError, OptionError, OutputError
from edgeface.evaluation.predictions import check_predictions
from edgeface.files import (
    LEFT,
    _tidy,
    atomic_folder,
    atomic_write,
    check_writable,
    read_file,
    recover,
    refuse_input,
    scratch_folder,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_the_umask_is_honoured(
    tmp_path: Path, umask: Callable[[int], int], mask: int, file: int, folder: int
) -> None:
    umask(mask)
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    with atomic_folder(tmp_path / "b") as temporary:
        (temporary / "c").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == file
    assert (tmp_path / "b").stat().st_mode & 0o777 == folder


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    path.write_text("old")
    path.chmod(0o600)
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("folder", "it is a folder"), ("pipe", "not a regular file")):
        with pytest.raises(OutputError, match=word), atomic_write(tmp_path / name):
            pass
        with pytest.raises(OutputError, match=word):
            check_writable(tmp_path / name, "--save", folder=False)
    assert names(tmp_path) == ["folder", "pipe"]


def test_a_place_is_checked_without_making_anything(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "a.png", "--plot", folder=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file is not a folder"):
        check_writable(tmp_path / "file" / "a.png", "--plot", folder=False)
    for folder in (False, True):  # the path cannot even be inspected, as in another user's folder
        with pytest.raises(OutputError, match=r"too long: choose another \w+ with --save"):
            check_writable(tmp_path / ("a" * 300) / "a.png", "--save", folder=folder)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("place", [".", "..", "./", "link", "../inside"])
def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(".")
    monkeypatch.chdir(inside)
    with pytest.raises(OutputError, match="name another folder"):
        check_predictions(place, ["a/b.jpg"])
    with pytest.raises(OutputError, match="name another folder"), atomic_folder(place):
        pass
    with atomic_folder("below") as folder:
        (folder / "file").write_text("")
    assert sorted(names(inside)) == ["below", "link"]


def test_an_input_is_known_through_links(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(photo)
    (tmp_path / "folder").symlink_to(tmp_path)
    for target in (photo, tmp_path / "link.jpg", tmp_path / "folder" / "photo.jpg"):
        with pytest.raises(OptionError, match=r"--save .* is the input .*photo\.jpg"):
            refuse_input(target, ["elsewhere", photo], "--save")
    refuse_input(tmp_path / "new.jpg", [photo, tmp_path / "new.jpg"], "--save")


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for name, suffix in (("old.txt", ".csv"), ("new.txt", ".csv"), ("sub/new", ".png")):
        link = tmp_path / f"{Path(name).name}{suffix}"
        link.symlink_to(there / name)
        if name == "old.txt":
            (there / name).write_text("old")
        check_writable(link, folder=False)
        with atomic_write(link) as temporary:
            assert temporary.suffix == suffix, "of the name given: writers go by it"
            temporary.write_text("x")
        assert link.is_symlink() and (there / name).read_text() == "x"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="cannot write"), atomic_folder(tmp_path / "loop"):
        pass


def test_a_folder_is_replaced_on_a_way_through_itself(tmp_path: Path) -> None:
    for path in (tmp_path / "a", tmp_path / "a" / ".." / "a"):
        with atomic_folder(path) as folder:
            (folder / "file").write_text(str(path))
    assert (tmp_path / "a" / "file").read_text() == str(path) and names(tmp_path) == ["a"]


def test_a_pipe_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path, word in (
        (tmp_path / "pipe.csv", "not a regular file"),
        (tmp_path, "a folder, not a file"),
        (tmp_path / "none", "No such file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(DataError, match=f"cannot read annotations {path}: .*{word}"):
            read_file(path, DataError, "annotations")


# Killed: an audit hook kills the process by SIGKILL right before the n-th change of a file name.
KILLED = """
    import os, signal, sys
    from pathlib import Path
    from edgeface.files import atomic_folder

    left = int(sys.argv[1])
    def hook(event, arguments):
        global left
        if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.mkdir"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    with atomic_folder(sys.argv[2]) as temporary:
        for name in "ab":
            (temporary / name).write_text("new")
    print("done")
"""


def test_killed_at_any_moment_the_old_or_the_new_folder_is_there(tmp_path: Path) -> None:
    found = set()
    for moment in range(1, 30):
        folder = tmp_path / str(moment) / "bundle"
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / name).write_text("old")
        arguments = [sys.executable, "-c", textwrap.dedent(KILLED), str(moment), str(folder)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        recover(folder)
        contents = {(folder / name).read_text() for name in "ab"}
        assert len(contents) == 1 and names(folder) == ["a", "b"]
        found |= contents
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        pytest.fail("it never came to its end")
    assert found == {"old", "new"} and moment > 4


def test_what_a_killed_writer_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    killed = """
        import os, signal, sys
        from edgeface.files import atomic_folder, atomic_write
        with atomic_write(sys.argv[1] + "/a.png"), atomic_folder(sys.argv[1] + "/b") as folder:
            (folder / "c").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(killed), str(tmp_path)], check=False)
    (tmp_path / ".mine-edgeface-x.png").write_text("not ours")
    left = [path for path in tmp_path.iterdir() if path.name.startswith((".a-", ".b-"))]
    assert len(left) == 2
    with atomic_write(tmp_path / "young") as writing:
        past = time.time() - 3600
        for path in (*left, *left[0].parent.glob(".mine*"), writing):
            os.utime(path, (past, past))
        _tidy.cache_clear()
        with atomic_write(tmp_path / "next"):
            pass
        assert writing.exists(), "its writer lives"
    assert names(tmp_path) == [".mine-edgeface-x.png", "next", "young"]


def test_what_is_left_of_a_folder_with_a_dot_in_its_name_is_known(tmp_path: Path) -> None:
    """For example that of scrfd-0.5g-onnx-fp32-640x480."""
    with atomic_folder(tmp_path / "scrfd-0.5g-onnx") as folder:
        assert LEFT.fullmatch(folder.name)
    with atomic_write(tmp_path / "a.b.png") as file:
        assert LEFT.fullmatch(file.name) and file.suffix == ".png"


def test_a_reader_waits_for_the_writer_that_lives(tmp_path: Path) -> None:
    script = """
        import fcntl, os, sys, time
        from pathlib import Path
        aside, path = Path(sys.argv[1], ".b-edgeface-old"), Path(sys.argv[1], "b")
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        path.rename(aside)
        print("aside", flush=True)
        time.sleep(1)
        path.mkdir()
        (path / "new").write_text("x")
    """
    (tmp_path / "b").mkdir()
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "aside\n"
        recover(tmp_path / "b")
    assert names(tmp_path) == ["b"] and names(tmp_path / "b") == ["new"]


# Full disk: the process may write only a limited number of bytes to a file; beyond that it gets an
# OSError like that of a full disk.
@pytest.fixture
def full() -> Iterator[Callable[[int], None]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _weights(path: Path) -> None:
    from edgeface.models import build
    from edgeface.zoo import save_weights

    save_weights(build("edgeface-n"), path)


def _checkpoint(path: Path) -> None:
    from edgeface.models import build
    from edgeface.training.checkpoint import save_checkpoint

    save_checkpoint(path, build("edgeface-n"), None, [], {"step": 1})


def _image(path: Path) -> None:
    from edgeface.images.marked import write_image

    write_image(path.with_suffix(".png"), _noise())


def _bundle(path: Path) -> None:
    from manifests import a_manifest

    from edgeface.bundle import write_bundle

    write_bundle(path, a_manifest(), {"model.onnx": bytes(100_000)})


def _video(path: Path) -> None:
    from edgeface.detections import Detections
    from edgeface.images.inputs import expand
    from edgeface.images.marked import Saver

    source = path.with_name("clip.avi")
    with Saver(path.with_suffix(".mp4"), expand([str(source)])) as saver:
        for i in range(10):
            saver.add(f"{source}#{i}", _noise(), Detections.empty())


def _predictions(path: Path) -> None:
    from edgeface.evaluation import save_predictions

    save_predictions(path, {"event/name": np.random.default_rng(0).random((1000, 5))})


def _plot(path: Path) -> None:
    from edgeface.cli.output import emit

    emit([list(range(10_000))], "", "table", path)


WRITERS = (_weights, _checkpoint, _image, _bundle, _video, _predictions, _plot)


def _noise() -> Any:
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[1:])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    write: Callable[[Path], None], tmp_path: Path, full: Callable[[int], None]
) -> None:
    _clip(tmp_path / "clip.avi")
    before = _content(tmp_path)
    full(4096)
    with pytest.raises(EdgefaceError) as caught:
        write(tmp_path / "out")
    assert "cannot write" in str(caught.value) and "\n" not in str(caught.value)
    full(resource.RLIM_INFINITY)
    assert _content(tmp_path) == before
    write(tmp_path / "out")
    before = _content(tmp_path)
    full(4096)
    with pytest.raises(EdgefaceError):
        write(tmp_path / "out")
    assert _content(tmp_path) == before


def test_a_full_disk_while_detecting_costs_the_file_alone(
    edgeface: Command, tmp_path: Path, hopper_path: Path, full: Callable[[int], None]
) -> None:
    full(4096)
    code, out, err = edgeface(
        "detect", hopper_path, "--save", tmp_path / "a.png", "--format", "json"
    )
    full(resource.RLIM_INFINITY)
    assert code == 2 and '"score"' in out and f"cannot write {tmp_path}" in err
    assert not names(tmp_path)


def _clip(path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(10):
        writer.write(_noise())
    writer.release()


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_commands_say_so_in_one_line(edgeface: Command, hopper_path: Path) -> None:
    failed(edgeface("detect", hopper_path, "--save", "/dev/null/a.png"), "cannot write /dev/null")


def test_no_place_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch_folder() as folder:
        (folder / "a").touch()
    assert not folder.exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="cannot write a temporary folder: No such file"):
        scratch_folder().__enter__()
