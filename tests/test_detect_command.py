"""``edgeface detect`` prints what it has found, whatever ends the command or one of its inputs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from commands import Command, said

from edgeface.detections import Detections
from edgeface.errors import counted

if TYPE_CHECKING:
    pass


def test_one_bad_image_does_not_end_the_run(
    edgeface: Command, bundle: str, damaged: dict[str, str], hopper_path: Path
) -> None:
    code, out, err = edgeface(
        "detect", damaged["cut"], str(hopper_path), "--model", bundle, "--format", "json"
    )
    assert code == 2 and "truncated" in said(err)[0] and "1 of 2 inputs" in said(err)[1]
    assert [item["image"] for item in json.loads(out)] == [str(hopper_path)]


def test_a_file_that_cannot_be_written_does_not_end_the_run(
    edgeface: Command, bundle: str, hopper_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(hopper_path.read_bytes())
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)
    arguments = ("--model", bundle, "--save", tmp_path / "out", "--format", "json")
    code, out, err = edgeface("detect", tmp_path / "in", *arguments)
    assert code == 2 and len(json.loads(out)) == 2
    assert "a.jpg: it is a folder" in said(err)[0] and "1 of 2 inputs" in said(err)[1]
    assert (tmp_path / "out" / "b.jpg").is_file()


def test_a_cut_video_is_told_and_its_frames_are_printed(
    edgeface: Command, bundle: str, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 128))
    for i in range(10):
        writer.write(np.random.default_rng(i).integers(0, 256, (128, 160, 3), np.uint8))
    writer.release()
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    saved = tmp_path / "out.mp4"
    code, out, err = edgeface(
        "detect", whole, "--model", bundle, "--save", saved, "--format", "json"
    )
    frames = len(json.loads(out))
    assert code == 2 and 0 < frames < 10 and f"{frames} of 10 frames" in said(err)[0]
    assert cv2.VideoCapture(str(saved)).get(cv2.CAP_PROP_FRAME_COUNT) == frames


def test_random_weights_are_said(edgeface: Command, bundle: str, hopper_path: Path) -> None:
    assert (
        "has random weights: the boxes mean nothing"
        in edgeface("detect", hopper_path, "--model", bundle)[2]
    )
    assert "random" not in edgeface("detect", hopper_path)[2]


def test_what_was_found_is_printed_whatever_ends_it(hopper_path: Path, tmp_path: Path) -> None:
    """The second photo needs more memory than the process may use; the first does not."""
    huge = tmp_path / "huge.png"
    cv2.imwrite(str(huge), np.zeros((11_000, 12_000), np.uint8))
    arguments = ("--size", "original", "--format", "json")
    code, out, err = _with_memory("detect", hopper_path, huge, *arguments)
    assert code == 2 and [item["image"] for item in json.loads(out)] == [str(hopper_path)]
    assert "memory" in said(err)[-1]


def _with_memory(*arguments: object) -> tuple[int, str, str]:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30));"
        "from edgeface.cli import main; raise SystemExit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_ctrl_c_prints_what_was_found(
    edgeface: Command,
    bundle: str,
    hopper_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgeface.detector import Detector

    whole, seen = Detector.detect, []

    def stop(self: Detector, image: np.ndarray) -> Detections:
        seen.append(image)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(self, image)

    monkeypatch.setattr(Detector, "detect", stop)
    code, out, err = edgeface(
        "detect",
        hopper_path,
        hopper_path,
        "--model",
        bundle,
        "--format",
        "json",
        "--save",
        tmp_path / "marked",
    )
    assert code == 130 and len(json.loads(out)) == 1
    assert said(err) == ["stopped: 1 image looked at, what was found there is printed"]
    assert len(list((tmp_path / "marked").iterdir())) == 1


def detect_for_nobody(*arguments: str) -> tuple[int, bytes]:
    """Exit code and stderr of a detection whose stdout nobody reads from the start."""
    with subprocess.Popen(
        [sys.executable, "-m", "edgeface", "detect", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        return process.wait(), err


def test_a_closed_pipe_hides_no_failure(bundle: str, hopper_path: Path) -> None:
    code, err = detect_for_nobody(str(hopper_path), "none.jpg", "--model", bundle)
    assert b"no image at none.jpg" in err
    assert code == 2


def test_a_closed_pipe_ends_a_video(bundle: str, tmp_path: Path) -> None:
    """A video file ends as a camera does: it could go on for hours though nobody reads the rows.
    With --save, all of it is processed and saved."""
    clip, saved = tmp_path / "clip.avi", tmp_path / "saved.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(20):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    for more, frames in ([], 1), (["--save", str(saved)], 20):
        code, err = detect_for_nobody(str(clip), "--model", bundle, *more)
        assert f"note: {counted(frames, 'frame')} in ".encode() in err
        assert code == 0
    assert cv2.VideoCapture(str(saved)).get(cv2.CAP_PROP_FRAME_COUNT) == 20


@pytest.mark.parametrize("moment_s", [0.2, 0.5, 1, 2, 4])
def test_ctrl_c_at_any_moment_leaves_no_traceback(hopper_path: Path, moment_s: float) -> None:
    """The moments are counted from when Python is up and begins to import the command."""
    program = (
        "import sys; sys.argv[0] = 'edgeface'; print('up', flush=True)\n"
        "from edgeface.cli import main; raise SystemExit(main())"
    )
    arguments = [sys.executable, "-c", program, "detect", *[str(hopper_path)] * 500]
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # pytest may ignore it
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        time.sleep(moment_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in err, err
