"""What a user names as input: photos, folders of them, videos, cameras and streams."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeface.errors import ImageError
from edgeface.images.addresses import (
    VIDEO_SUFFIXES,
    address_scheme,
    camera_number,
    is_live,
    is_there,
    refuse_address,
    shown,
    video_suffix,
)
from edgeface.images.reading import MAX_PIXELS, OnError, read_image
from edgeface.images.scaling import Image
from edgeface.images.videos import frame_count, video_frames
from edgeface.types import Note, unnoted

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
    """One file, camera or stream."""

    name: str
    """as it was given, or its path; of an address without name and password"""
    kind: str
    """image, video, camera or stream"""
    folder: Path | None = None
    """the one it was found in, where a folder was given"""
    address: str = field(default="", repr=False)
    """all of it, of a video or stream in a network"""

    @property
    def opens(self) -> str:
        """What is opened."""
        return self.address or self.name

    @property
    def live(self) -> bool:
        """Does it go on without end, and wait for nobody?"""
        return self.kind in ("camera", "stream")

    def frames(self, max_pixels: int = MAX_PIXELS) -> Generator[tuple[str, Image], None, None]:
        """Yield (name, uint8 RGB frame); a video's or camera's frames are ``clip.mp4#0``,
        ``clip.mp4#1``, ... Raises ImageError."""
        if self.kind == "image":
            yield self.name, read_image(self.name, max_pixels)
        else:
            yield from video_frames(self.opens)

    @property
    def count(self) -> int:
        """Frames, as far as is known; 0: not known."""
        return 1 if self.kind == "image" else frame_count(self.opens)


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
    """'camera', 'stream', 'folder', 'video' or 'image': how :func:`sources` takes this input. A
    file's suffix decides. Raises ImageError for a camera that is none."""
    if camera_number(text) is not None:
        return "camera"
    if address_scheme(text):
        return "stream" if is_live(text) else "video"
    if is_there(text) and Path(text).is_dir():
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
    note: Note = unnoted,
) -> list[Input]:
    """The files, cameras and streams that ``inputs`` mean, in order; of a folder its photos.

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


def _expanded(text: str, note: Note) -> list[Input]:
    kind = source_kind(text)
    if kind != "folder":
        refuse_address(text)
        if kind == "stream" and video_suffix(text) in IMAGE_SUFFIXES:
            raise ImageError(
                f"{shown(text)}: photos are not fetched: save it first, for example with: curl -O"
                " ADDRESS"
            )
        name = shown(text)
        return [Input(name, kind, address="" if name == text else text)]
    listed = _photos_of(Path(text))
    if listed.skipped:
        note(f"{text}: skipped {listed.skipped}")
    return [Input(str(path), "image", Path(text)) for path in listed.photos]


def sources(
    inputs: Sequence[str | Path | Input] | str | Path,
    on_error: OnError | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[str, Image]]:
    """Yield (name, frame) of each image file, folder, video file, camera (``camera:0``) or stream
    (``rtsp://...``), of several or of one; frames are uint8 RGB.

    Names are the paths; a video's or camera's frames are ``clip.mp4#0``, ``clip.mp4#1``, ... Memory
    holds one frame at a time. An input that cannot be read, or not to its end, raises ImageError,
    or, with ``on_error``, is handed there and skipped. max_pixels: see
    :func:`edgeface.images.read_image`.
    """
    for given in [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs:
        for source in [given] if isinstance(given, Input) else expand([str(given)], on_error):
            try:
                yield from source.frames(max_pixels)
            except ImageError as error:  # noqa: PERF203 - one bad file must not end the run
                _report(error, on_error)


def _report(error: ImageError, on_error: OnError | None) -> None:
    if on_error is None:
        raise error
    on_error(error)
