"""Recognises texts that name a video file, a camera or a network address."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from edgeface.errors import ImageError
from edgeface.options import whole_number

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
ENDLESS = (".h264", ".h265", ".hevc", ".mjpeg", ".ts")
"""video suffixes that, from a server, are often streams: cameras and stations send them without
end"""
COUNTED = (".avi", ".m4v", ".mov", ".mp4")
"""formats that state their number of frames"""
TIMED = (".flv", ".mkv", ".webm", ".wmv")
"""formats that state their duration, which includes sound"""
SCHEMES = ("http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
"""accepted address schemes; FFmpeg knows more, some of which read files or start other schemes"""
CAMERA = "camera:"
_DEVICE = re.compile(r"/dev/video(\d{1,3})", re.ASCII)
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_HOST = re.compile(r"(\[.*\]|[^:]*)(:\d*)?")
"""host and port of an address"""


def is_there(text: str) -> bool:
    """True if the path exists; False also for a name that the system refuses, such as a too long
    one, so that reading it reports the error and the run continues."""
    return os.path.exists(text)  # noqa: PTH110 - Path.exists raises OSError there


def camera_number(text: str) -> int | None:
    """N of ``camera:N`` and ``/dev/videoN``, None for anything else. Raises ImageError for an
    invalid ``camera:``."""
    device = _DEVICE.fullmatch(text)
    if device:
        return int(device[1])
    if not text.startswith(CAMERA):
        return None
    number = whole_number(text.removeprefix(CAMERA), 3)
    if number is None:
        raise ImageError(f"{text!r} is not a camera: write camera:0 for the first one")
    return number


def address_scheme(text: str) -> str:
    """``rtsp`` of ``rtsp://...``; empty if ``text`` is no address or a file has that name."""
    found = _ADDRESS.match(text)
    return found[1].lower() if found and not is_there(text) else ""


def video_suffix(text: str) -> str:
    """Lower-case suffix of a file or an address, such as ``.mp4``."""
    path = text
    if address_scheme(text):
        path = re.split("[?#]", shown(text).partition("://")[2])[0].partition("/")[2]
    return PurePosixPath(path).suffix.lower()


def shown(text: str) -> str:
    """An address without its user name and password; any other text unchanged."""
    if not address_scheme(text):
        return text
    scheme, _, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    if "@" not in host and not _HOST.fullmatch(host):  # what precedes a "/" in a password
        return f"{scheme}://{rest.rpartition('@')[2]}"
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def is_live(text: str) -> bool:
    """True for a camera, and for an address that does not name a video file with an end
    (``.../clip.mp4``): frames arrive in real time and without end."""
    if address_scheme(text):
        suffix = video_suffix(text)
        return suffix not in VIDEO_SUFFIXES or suffix in ENDLESS
    return camera_number(text) is not None


def refuse_address(text: str) -> None:
    """Raise ImageError for a bare camera number, saying how to write it, and for an address whose
    scheme is not accepted."""
    if text.isascii() and text.isdigit() and not is_there(text):
        raise ImageError(f"no image at {text}: for a camera write camera:{text}")
    scheme = address_scheme(text)
    if scheme and scheme not in SCHEMES:
        raise ImageError(
            f"{shown(text)}: {scheme}:// is not read; accepted:"
            f" {', '.join(f'{known}://' for known in SCHEMES)}; save others first, for example"
            " with: ffmpeg -i ADDRESS -t 60 -c copy clip.mkv"
        )
