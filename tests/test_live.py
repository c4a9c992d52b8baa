"""Live use of ``edgeface detect``: files, and a camera on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import said
from mjpeg import Camera

from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import ImageError, counted
from edgeface.images.inputs import Input, sources
from edgeface.images.marked import Saver

Command = Callable[..., tuple[int, str, str]]
FLAGS = ("--size", "320", "--format", "jsonl")
PROGRAM = (sys.executable, "-m", "edgeface", "detect")


@pytest.fixture(scope="module")
def clip(astronaut: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 12 frames in which a face moves to the right."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    face = cv2.cvtColor(cv2.resize(astronaut[:300, 60:380], (160, 150)), cv2.COLOR_RGB2BGR)
    for i in range(12):
        frame = np.full((240, 320, 3), 90, np.uint8)
        frame[40:190, 6 * i : 6 * i + 160] = face
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture
def camera(astronaut: Any, clip: Path) -> Iterator[Camera]:
    photo = cv2.cvtColor(cv2.resize(astronaut, (256, 256)), cv2.COLOR_RGB2BGR)
    served = Camera(cv2.imencode(".jpg", photo)[1].tobytes(), clip.read_bytes())
    yield served
    served.close()


def test_rows_of_a_video_are_those_of_the_detector(edgeface: Command, clip: Path) -> None:
    code, out, err = edgeface("detect", clip, *FLAGS)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and said(err) == []
    assert "note: 12 frames in " in err and " FPS; finding faces took " in err
    with Detector.open("edgeface-n", size=320) as detector:
        for row, (name, frame) in zip(rows, sources([str(clip)]), strict=True):
            assert row["image"] == name
            assert Detections.from_json(row["faces"]) == detector.detect(frame)


@pytest.mark.parametrize("format", ["json", "table"])
def test_every_format_says_the_same(edgeface: Command, clip: Path, format: str) -> None:
    lines = edgeface("detect", clip, "--track", *FLAGS)[1].splitlines()
    rows = [json.loads(line) for line in lines]
    out = edgeface("detect", clip, "--track", *FLAGS[:2], "--format", format)[1]
    if format == "json":
        assert out == json.dumps(rows, indent=1) + "\n"
        return
    head, *body = [line.split() for line in out.splitlines()]
    assert head == ["image", "score", "x1", "y1", "x2", "y2", "id"]
    assert body == [
        [
            row["image"],
            f"{face['score']:.3f}",
            *(f"{v:.1f}" for v in face["box"]),
            str(face["id"]),
        ]
        for row in rows
        for face in row["faces"]
    ]
    starts = {line.index(f".mp4#{i}") for i, line in enumerate(out.splitlines()[1:])}
    assert len(starts) == 1 and len({len(line) for line in out.splitlines()}) == 1


def test_a_face_keeps_its_number_through_a_video(edgeface: Command, clip: Path) -> None:
    code, out, _ = edgeface("detect", clip, clip, "--track", *FLAGS)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 24
    assert [[face["id"] for face in row["faces"]] for row in rows] == [[1]] * 24
    assert rows[11]["faces"][0]["box"][0] - rows[0]["faces"][0]["box"][0] > 50


def test_a_file_of_a_server_is_read_whole(
    edgeface: Command, camera: Camera, clip: Path, tmp_path: Path
) -> None:
    """Only the server gets the password of the address."""
    address = f"http://me:secret@{camera.host}/private/clip.mp4"
    saved = tmp_path / "out"
    code, out, err = edgeface("detect", address, *FLAGS, "--save", saved)
    assert code == 0 and said(err) == [] and "secret" not in out + err
    assert any(camera.asked)
    local = edgeface("detect", clip, *FLAGS)[1].splitlines()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["faces"] for row in rows] == [json.loads(line)["faces"] for line in local]
    assert [row["image"] for row in rows] == [
        f"http://{camera.host}/private/clip.mp4#{i}" for i in range(12)
    ]
    assert [path.name for path in saved.iterdir()] == ["clip.mp4"]


def test_rows_of_a_stream_come_while_it_runs_and_its_end_is_told(camera: Camera) -> None:
    """When a camera vanishes, the rows found so far are printed with counts; the exit code is 2."""
    arguments = [*PROGRAM, f"http://{camera.host}/live", *FLAGS]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = json.loads(process.stdout.readline())
        assert not camera.gone.is_set() and len(first["faces"]) == 1
        camera.gone.set()
        rest = process.stdout.read().splitlines()
        err = process.stderr.read()
    assert process.returncode == 2 and all(json.loads(line)["faces"] for line in rest)
    assert f"note: {counted(1 + len(rest), 'frame')} in " in err
    (line,) = said(err)
    assert "no more frames came after" in line and "the camera or stream ended, or is gone" in line


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_stream_with_the_summary(
    camera: Camera, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    saved = tmp_path / "live.mp4"
    arguments = [*PROGRAM, f"http://{camera.host}/live", *FLAGS, "--save", str(saved)]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(3):  # when the third row comes, two frames are saved
            process.stdout.readline()
        process.send_signal(number)
        rows = 3 + len(process.stdout.read().splitlines())
        err = process.stderr.read()
    assert process.returncode == expected and "Traceback" not in err
    assert f"note: {counted(rows, 'frame')} in " in err
    assert f"stopped: {rows} images looked at" in err
    assert cv2.VideoCapture(str(saved)).get(cv2.CAP_PROP_FRAME_COUNT) >= 1
    assert list(tmp_path.iterdir()) == [saved]


CLOSED_UNDER_SIGNALS = """
import signal, sys
from pathlib import Path
import numpy as np
from edgeface.images import marked
from edgeface.images.inputs import Input
from edgeface.interrupts import as_ctrl_c

look = marked.stored_frames

def pressed(path, expected):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    return look(path, expected)

marked.stored_frames = pressed
source, saved = Input("camera:0", "camera"), Path(sys.argv[1])
try:
    with as_ctrl_c() as came, marked.Saver(saved, [source]) as saver:
        saver.write("camera:0#0", np.zeros((64, 64, 3), np.uint8))
except KeyboardInterrupt:
    print(came == [signal.SIGTERM], signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("again")
"""


def test_a_signal_while_a_recording_is_closed_waits_for_it(tmp_path: Path) -> None:
    """Runs in a separate process, in which nothing else has set signal handlers."""
    saved = tmp_path / "out.mp4"
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_UNDER_SIGNALS, str(saved)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.stdout == "True True\nagain\n", done.stderr
    assert list(tmp_path.iterdir()) == [saved]


def test_ctrl_c_keeps_what_was_saved_and_an_error_drops_it(astronaut: Any, tmp_path: Path) -> None:
    kept, dropped = tmp_path / "kept.avi", tmp_path / "dropped.avi"
    for path, error in ((kept, KeyboardInterrupt()), (dropped, ValueError())):
        with pytest.raises(type(error)), Saver(path, [Input("camera:0", "camera")]) as saver:
            saver.write("camera:0#0", astronaut)
            raise error
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_or_treated_is_left_alone(number: signal.Signals) -> None:
    """Runs in a separate process: a library loaded by other tests may end it at such a signal."""
    program = """
import signal, sys
from edgeface.interrupts import as_ctrl_c, put_off
number, treated = int(sys.argv[1]), []
for handler in (signal.SIG_IGN, lambda number, _: treated.append(number)):
    signal.signal(number, handler)
    with as_ctrl_c() as came, put_off():
        signal.raise_signal(number)
    assert came == [] and signal.getsignal(number) is handler
assert treated == [number]
print("left alone")
"""
    arguments = [sys.executable, "-c", program, str(int(number))]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "left alone\n"), done.stderr


def test_what_a_camera_cannot_save_is_told_while_it_runs(camera: Camera, tmp_path: Path) -> None:
    """Such errors used to be printed only at the end of the stream, which may be weeks away, and
    never if a signal ended it."""
    faces, there = tmp_path / "faces", tmp_path / "there"
    there.mkdir()
    faces.symlink_to(there)
    arguments = [*PROGRAM, f"http://{camera.host}/live", *FLAGS, "--crop", str(faces)]
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        ended = threading.Timer(60, camera.gone.set)
        ended.start()
        while not any(there.iterdir()) and not camera.gone.is_set():
            time.sleep(0.05)
        (tmp_path / "next").symlink_to(__file__)
        (tmp_path / "next").replace(faces)  # a file stands where the faces should go
        line = next(line for line in process.stderr if line.startswith("error: "))
        ended.cancel()
        assert "cannot write" in line and not camera.gone.is_set()
        process.terminate()
        rest = process.stderr.read()
    assert process.returncode == 143 and "error: " not in rest and "stopped: " in rest


def test_head_ends_a_stream(camera: Camera) -> None:
    arguments = [*PROGRAM, f"http://{camera.host}/live", *FLAGS]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["faces"]
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0 and said(err) == []


def test_max_frames_ends_a_stream(edgeface: Command, camera: Camera) -> None:
    code, out, err = edgeface("detect", f"http://{camera.host}/live", *FLAGS, "--max-frames", "3")
    assert code == 0 and len(out.splitlines()) == 3 and said(err) == []


def test_memory_does_not_grow_with_the_length(clip: Path) -> None:
    """Compares the peak memory of a process for 4 and for 40 times the clip."""
    program = (
        "import resource, sys; from edgeface.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    most = []
    for times in (4, 40):
        arguments = [sys.executable, "-c", program, "detect", *[str(clip)] * times]
        done = subprocess.run([*arguments, "--size", "64"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        most.append(int(done.stderr.splitlines()[-1]))
    assert most[1] < most[0] * 1.05


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".m4v", ".mov"])
def test_a_saved_stream_lasts_as_long_as_it_did(
    astronaut: Any, tmp_path: Path, suffix: str
) -> None:
    """The video lasts as long as the stream at any frame rate: here three frames, half a second
    apart. Writing takes less than 0.5 s of CPU time."""
    source, saved = Input("camera:0", "camera"), tmp_path / f"out{suffix}"
    began, worked = time.monotonic(), time.process_time()
    with Saver(saved, [source]) as saver:
        for i in range(2):
            saver.write(f"camera:0#{i}", astronaut)
            time.sleep(0.5)
        saver.write("camera:0#9", astronaut)
        lasted_s = time.monotonic() - began
    assert time.process_time() - worked < 0.5
    written = cv2.VideoCapture(str(saved)).get(cv2.CAP_PROP_FRAME_COUNT)
    assert 26 <= written <= lasted_s * 25 + 1


class SlowWriter:
    """An encoder that takes longer to write a frame than the frame lasts."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, bgr: Any) -> None:
        time.sleep(0.1)
        self.written += 1

    def release(self) -> None:
        pass


def test_an_encoder_that_cannot_keep_pace_does_not_stop_a_stream(
    astronaut: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit, frames repeated to fill the time spent on writing repeats would become ever
    more."""
    writer = SlowWriter()
    monkeypatch.setattr("edgeface.images.marked._open_writer", lambda *_: writer)
    saver = Saver(tmp_path / "out.avi", [Input("camera:0", "camera")])
    at_once = []
    for i in range(6):
        time.sleep(0.15)
        before = writer.written
        saver.write(f"camera:0#{i}", astronaut)
        at_once.append(writer.written - before)
    saver.finish(ImageError("dropped"))
    assert max(at_once) <= 3 and min(at_once) >= 1


def test_what_does_not_open_is_one_line(edgeface: Command) -> None:
    for name, words in (
        ("http://127.0.0.1:9/live", "is the address right"),
        ("http://u:secret@127.0.0.1:9/clip.mp4", "no video comes from there"),
        ("/dev/video77", "in use by no other program"),
    ):
        code, out, err = edgeface("detect", name, *FLAGS)
        (line,) = said(err)
        assert code == 2 and out == "" and words in line and "secret" not in line


def test_a_window_needs_a_screen(edgeface: Command, clip: Path) -> None:
    """The OpenCV installed for the tests has no windows; see the manual of --show."""
    code, out, err = edgeface("detect", clip, "--show", *FLAGS)
    assert code == 2 and out == ""
    assert "this OpenCV has no windows: run: pip uninstall" in err or "display" in err
