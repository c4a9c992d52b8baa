"""The inputs that a user names: photos, folders of photos, videos, cameras and streams."""

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
"""suffixes of photos that OpenCV cannot decode"""
FINDER = "._"
"""start of the names of files that macOS puts beside others; they contain no photo"""


@dataclass(frozen=True)
class Input:
    """One file, camera or stream."""

    name: str
    """the text given, or the path of the file; an address without user name and password"""
    kind: str
    """image, video, camera or stream"""
    folder: Path | None = None
    """the folder given, in which the file was found; None if the file itself was given"""
    address: str = field(default="", repr=False)
    """the complete address of a network video or stream, if ``name`` is not complete"""

    @property
    def opens(self) -> str:
        """The path, camera or complete address to open."""
        return self.address or self.name

    @property
    def live(self) -> bool:
        """True for a camera or stream: it has no end and does not wait for its reader."""
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
        """Number of frames; 0 if not known."""
        return 1 if self.kind == "image" else frame_count(self.opens)


@dataclass(frozen=True)
class Folder:
    """The files in a folder, at any depth."""

    photos: list[Path]
    """sorted"""
    skipped: str
    """one line on skipped files and folders that a user may have expected to be read; may be
    empty"""
    others: list[Path]
    """files that are not photos"""


def source_kind(text: str) -> str:
    """'camera', 'stream', 'folder', 'video' or 'image': how :func:`sources` reads this input.

    The suffix decides between video and image. Raises ImageError for an invalid ``camera:``.
    """
    if camera_number(text) is not None:
        return "camera"
    if address_scheme(text):
        return "stream" if is_live(text) else "video"
    if is_there(text) and Path(text).is_dir():
        return "folder"
    return "video" if Path(text).suffix.lower() in VIDEO_SUFFIXES else "image"


def is_photo(path: Path) -> bool:
    """True if the file's name is that of a photo."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(FINDER)


def list_folder(folder: Path | str) -> Folder:
    """List ``folder``; links to other folders are not followed. Raises ImageError if it cannot be
    read."""
    folder = Path(folder)
    unread: list[OSError] = []
    skipped: Counter[str] = Counter()
    photos, others = [], []
    for place, folders, names in os.walk(folder, onerror=unread.append):
        try:
            os.stat(f"{place}/.")  # noqa: PTH116 - a Path has no "." at its end
        except OSError as error:  # its names can be listed, but nothing in it can be opened
            unread.append(error)
            folders.clear()
            continue
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
    """The files, cameras and streams that ``inputs`` name, in order, with the photos of folders.

    note: called for each folder in which files were skipped. on_error: called with the ImageError
    of an invalid input, which is then left out; without ``on_error`` it is raised.
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
    """Yield (name, uint8 RGB frame) for one or several image files, folders, video files, cameras
    (``camera:0``) or streams (``rtsp://...``).

    Names are the paths; a video's or camera's frames are ``clip.mp4#0``, ``clip.mp4#1``, ... Memory
    holds one frame at a time. on_error: called with the ImageError of an input that cannot be read,
    or not to its end; without ``on_error`` it is raised. max_pixels: see
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
