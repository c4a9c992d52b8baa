"""What a user names as input: photos, folders of them, videos and cameras."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeface.errors import ImageError
from edgeface.images.reading import MAX_PIXELS, OnError, read_image
from edgeface.images.scaling import Image
from edgeface.images.videos import (
    CAMERA,
    VIDEO_SUFFIXES,
    frame_count,
    refuse_stream,
    video_frames,
)

IMAGE_SUFFIXES = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
OTHER_PHOTOS = frozenset(
    (".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".orf", ".raf", ".rw2")
)
"""that OpenCV cannot decode"""
FINDER = "._"
"""begins the name of a file that macOS puts beside each other one, with no photo in it"""


@dataclass(frozen=True)
class Input:
    """One file or camera."""

    name: str
    """as it was given, or its path"""
    kind: str
    """image, video or camera"""
    folder: Path | None = None
    """the one it was found in, where a folder was given"""

    def frames(self, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[str, Image]]:
        """Yield (name, uint8 RGB frame); a video's or camera's frames are ``clip.mp4#0``,
        ``clip.mp4#1``, ... Raises ImageError."""
        if self.kind == "image":
            yield self.name, read_image(self.name, max_pixels)
        else:
            yield from video_frames(self.name)

    @property
    def count(self) -> int:
        """Frames, as far as is known; 0: not known."""
        return 1 if self.kind == "image" else frame_count(self.name)


@dataclass(frozen=True)
class Folder:
    """What lies in a folder, at any depth."""

    photos: list[Path]
    """sorted"""
    skipped: str
    """what else a user might have expected to be looked at; empty: nothing"""
    others: list[Path]
    """files that are no photos"""


def source_kind(text: str) -> str:
    """'camera', 'folder', 'video' or 'image': how :func:`sources` takes this input. A file's suffix
    decides."""
    if text.startswith(CAMERA):
        return "camera"
    if Path(text).is_dir():
        return "folder"
    return "video" if Path(text).suffix.lower() in VIDEO_SUFFIXES else "image"


def is_photo(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(FINDER)


def list_folder(folder: Path | str) -> Folder:
    """Look through ``folder``; links to other folders are not followed. Raises ImageError where it
    cannot be read."""
    folder = Path(folder)
    unread: list[OSError] = []
    skipped: Counter[str] = Counter()
    photos, others = [], []
    for place, folders, names in os.walk(folder, onerror=unread.append):
        skipped["links to folders"] += sum(Path(place, name).is_symlink() for name in folders)
        for path in (Path(place, name) for name in names):
            suffix = path.suffix.lower()
            if is_photo(path) and path.is_file():
                photos.append(path)
                continue
            others.append(path)
            if is_photo(path):
                skipped["links that lead nowhere, pipes and devices"] += 1
            elif suffix in VIDEO_SUFFIXES:
                skipped["videos (name each)"] += 1
            elif suffix in OTHER_PHOTOS and not path.name.startswith(FINDER):
                skipped[f"{suffix} (convert them to .jpg)"] += 1
    if unread and not photos:
        raise ImageError(f"cannot read {folder}: {unread[0].strerror or unread[0]}")
    skipped["folders that cannot be read"] = len(unread)
    listed = ", ".join(f"{count} {what}" for what, count in skipped.items() if count)
    return Folder(sorted(photos), listed, others)


def folder_images(folder: Path | str) -> list[Path]:
    """Image files under ``folder``, by suffix, at any depth, sorted. ImageError if there is
    none."""
    return _photos_of(Path(folder)).photos


def _photos_of(folder: Path) -> Folder:
    found = list_folder(folder)
    if not found.photos:
        besides = f"; skipped: {found.skipped}" if found.skipped else ""
        raise ImageError(
            f"no images in {folder}: expected files such as .jpg, .png or .webp{besides}"
        )
    return found


def expand(
    inputs: Sequence[str],
    on_error: OnError | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Input]:
    """The files and cameras that ``inputs`` mean, in order; of a folder its photos.

    note: told, once a folder, what was skipped. An input that is none raises ImageError, or, with
    ``on_error``, is handed there and left out.
    """
    found: list[Input] = []
    for text in inputs:
        try:
            found += _expanded(text, note)
        except ImageError as error:  # noqa: PERF203 - one bad input must not end the run
            _report(error, on_error)
    return found


def _expanded(text: str, note: Callable[[str], None]) -> list[Input]:
    kind = source_kind(text)
    if kind != "folder":
        refuse_stream(text)
        return [Input(text, kind)]
    listed = _photos_of(Path(text))
    if listed.skipped:
        note(f"{text}: skipped {listed.skipped}")
    return [Input(str(path), "image", Path(text)) for path in listed.photos]


def sources(
    inputs: Sequence[str | Input], on_error: OnError | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[str, Image]]:
    """Yield (name, frame) of each image file, folder, video file or camera (``camera:0``); frames
    are uint8 RGB.

    Names are the paths; a video's or camera's frames are ``clip.mp4#0``, ``clip.mp4#1``, ... Memory
    holds one frame at a time. An input that cannot be read, or not to its end, raises ImageError,
    or, with ``on_error``, is handed there and skipped. max_pixels: see
    :func:`edgeface.images.read_image`.
    """
    for given in inputs:
        for source in [given] if isinstance(given, Input) else expand([given], on_error):
            try:
                yield from source.frames(max_pixels)
            except ImageError as error:  # noqa: PERF203 - one bad file must not end the run
                _report(error, on_error)


def _report(error: ImageError, on_error: OnError | None) -> None:
    if on_error is None:
        raise error
    on_error(error)
