"""Frames of video files and cameras."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgeface.errors import ImageError
from edgeface.images.scaling import Image
from edgeface.images.silence import opencv_quiet

VIDEO_SUFFIXES = frozenset(
    (
        ".3gp",
        ".asf",
        ".avi",
        ".f4v",
        ".flv",
        ".h264",
        ".h265",
        ".hevc",
        ".m2ts",
        ".m4v",
        ".mjpeg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    )
)
CAMERA = "camera:"
COUNTED = (".avi", ".m4v", ".mov", ".mp4")
"""formats that state how many frames there are"""
TIMED = (".flv", ".mkv", ".webm", ".wmv")
"""formats that state how long they are, sound included"""
TIMED_SHARE = 0.9
"""of the frames that such a duration makes, which sound may be longer than"""
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
"""FFmpeg, too, leaves it to our one line"""
_STREAM = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video(\d+)")


def video_frames(text: str) -> Iterator[tuple[str, Image]]:
    """Yield (``text#index``, uint8 RGB frame) of a video file or of ``camera:N``, until it ends.

    Raises ImageError where there is none, and after the last frame where some could not be decoded.
    """
    capture = _open_capture(text)
    least, stated = _stated_frames(capture, text)
    index = 0
    try:
        while True:
            with opencv_quiet():
                good, frame = capture.read()
            if not good:
                break
            yield (
                f"{text}#{index}",
                np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8),
            )
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise ImageError(f"{text}: no frame could be decoded")
    if index < least:
        raise ImageError(
            f"{text}: {index} of {stated} frames could be decoded: the video is cut or damaged"
        )


def video_fps(text: str) -> float:
    """Frames per second that a video file or camera states; 25 where it states none."""
    capture = _open_capture(text)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return fps if 0 < fps < 1000 else 25.0


def frame_count(text: str) -> int:
    """Frames that a video file states; 0 where it states none or cannot be opened, and of a
    camera."""
    if text.startswith(CAMERA):
        return 0
    try:
        capture = _open_capture(text)
    except ImageError:
        return 0
    stated = _stated_frames(capture, text)[1]
    capture.release()
    return stated


def decodable_frames(path: Path) -> int:
    """Frames of a video file that can be decoded, which takes their decoding."""
    with opencv_quiet():
        capture = cv2.VideoCapture(str(path.absolute()))
        count = 0
        while capture.grab():
            count += 1
        capture.release()
    return count


def refuse_stream(text: str) -> None:
    """Raise ImageError for what is a camera or a stream under another name, with the name to
    use."""
    device = _DEVICE.fullmatch(text)
    if device:
        raise ImageError(f"{text} is a camera: write camera:{device[1]}")
    if text.isascii() and text.isdigit() and not Path(text).exists():
        raise ImageError(f"no image at {text}: for a camera write camera:{text}")
    if _STREAM.match(text) and not Path(text).exists():
        raise ImageError(
            f"{text}: streams are not read: save a part of it first, for example with: ffmpeg -i"
            " ADDRESS -t 60 -c copy clip.mkv"
        )


def _stated_frames(capture: cv2.VideoCapture, text: str) -> tuple[int, int]:
    """(fewest frames of a whole video, frames that it states); zeros where it states none."""
    suffix = Path(text).suffix.lower()
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    if suffix not in COUNTED + TIMED or not 0 < count < 1 << 31:
        return 0, 0
    # The last frame of some files is one that only marks the end.
    least = count - 1 if suffix in COUNTED else TIMED_SHARE * count
    return int(least), int(count)


def _open_capture(text: str) -> cv2.VideoCapture:
    if text.startswith(CAMERA):
        number = text.removeprefix(CAMERA)
        if not (number.isascii() and number.isdigit() and len(number) <= 3):
            raise ImageError(f"{text!r} is not a camera: write camera:0 for the first one")
        target: int | str = int(number)
    else:
        path = Path(text)
        if not path.is_file():
            raise ImageError(
                f"{text} is not a regular file" if path.exists() else f"no video at {text}"
            )
        target = str(path.absolute())  # a colon in a relative path would name a protocol
    with opencv_quiet():
        capture = cv2.VideoCapture(target)
    if not capture.isOpened():
        capture.release()
        what = (
            "no camera opens" if isinstance(target, int) else "not a video that OpenCV can decode"
        )
        raise ImageError(f"{text}: {what}")
    return capture
