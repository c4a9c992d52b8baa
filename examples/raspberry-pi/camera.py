"""Faces from a camera of a Raspberry Pi: one line of JSON per frame.

    venv/bin/python camera.py                 # the camera on the ribbon cable, by Picamera2
    venv/bin/python camera.py --usb 0         # /dev/video0, by OpenCV; also a video file

For a USB camera `edgeface detect camera:0 --format jsonl` does the same; copy this file to use the
faces in a program of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator

import cv2
import numpy as np

from edgeface import Detector, EdgefaceError, Tracker

Frame = np.ndarray
"""uint8 RGB [H, W, 3]"""


def ribbon_frames(width: int, height: int) -> Iterator[Frame]:
    """Frames of the Camera Module, from Picamera2 (apt install python3-picamera2)."""
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise EdgefaceError(
            f"Picamera2 cannot be imported ({error}): sudo apt install python3-picamera2, then"
            " rm -r venv and run install.sh again; or take a USB camera: --usb 0"
        ) from None
    try:
        camera = Picamera2()
    except (IndexError, RuntimeError) as error:
        raise EdgefaceError(
            f"no camera on the ribbon cable ({error}): rpicam-hello --list-cameras says which there"
            " are; does another program have it?"
        ) from None
    with camera:
        # Picamera2 names formats from the last byte: BGR888 is red, green, blue in memory.
        camera.configure(
            camera.create_video_configuration({"format": "BGR888", "size": (width, height)})
        )
        camera.start()
        while True:
            yield camera.capture_array("main")


def usb_frames(name: str, width: int, height: int) -> Iterator[Frame]:
    """Frames of a USB camera, given by its number, or of a video file."""
    numbered = name.isdecimal() and len(name) < 5
    capture = cv2.VideoCapture(int(name) if numbered else name)
    if not capture.isOpened():
        raise EdgefaceError(f"no video from {name}: is it there, and in use by no other program?")
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # only the latest frame
    while True:
        good, frame = capture.read()
        if not good:
            capture.release()
            if numbered:  # a file ends, a camera does not
                raise EdgefaceError(f"camera {name} gives no more frames: is it still there?")
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def main() -> int:
    parser = argparse.ArgumentParser(description="Faces from a camera, one line of JSON a frame.")
    parser.add_argument("--usb", metavar="N", help="number of a USB camera, or a video file")
    parser.add_argument("--model", default="edgeface-n", help="an exported folder, or a name")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--threads", type=int, default=4, help="a Pi has four cores")
    options = parser.parse_args()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our error line is enough
    size = options.width, options.height
    frames = ribbon_frames(*size) if options.usb is None else usb_frames(options.usb, *size)
    tracker, count, begun = Tracker(), 0, time.monotonic()
    try:
        with Detector.open(options.model, options.threads) as detector:
            for count, frame in enumerate(frames, 1):
                faces = detector.detect(frame)
                rows = faces.to_json()
                for row, number in zip(rows, tracker.update(faces).tolist(), strict=True):
                    row["id"] = number
                print(json.dumps({"frame": count - 1, "faces": rows}), flush=True)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # the reader has closed the pipe, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    took_s = time.monotonic() - begun
    print(f"{count} frame{'s' * (count != 1)}, {count / took_s:.1f} FPS", file=sys.stderr)
    return 0 if count else 2


if __name__ == "__main__":
    sys.exit(main())
