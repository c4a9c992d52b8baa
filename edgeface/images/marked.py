"""Annotated photos and videos out: one file for one input, a folder for many."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path, PurePath

import cv2

from edgeface.detections import Detections
from edgeface.errors import OptionError, OutputError
from edgeface.files import atomic_write
from edgeface.images.drawing import draw
from edgeface.images.reading import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Image, source_kind, video_fps

FRAME = "#"
"""separates the name of a video or camera from the number of a frame"""


def write_image(path: Path, image: Image) -> None:
    """Write an RGB image in the format of the path's suffix, whole or not at all. Raises
    OutputError."""
    try:
        good, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        good = False
    if not good:
        raise OutputError(
            f"cannot write {path}: an image of {image.shape[1]}x{image.shape[0]} px does not fit"
            f" the format {path.suffix}: save as .png"
        )
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())


class Saver:
    """Draws the faces of every frame and writes them to ``target``.

    target: an image file for one photo, a video file for one video or camera, otherwise a folder,
    which gets each photo under its own name and each video as ``<name>.mp4``. Raises OptionError
    where they do not go together.
    """

    def __init__(self, target: Path, inputs: Sequence[str]) -> None:
        self.target = target
        suffix = target.suffix.lower()
        kinds = [source_kind(text) for text in inputs]
        self.into_folder = not suffix or target.is_dir()
        if not self.into_folder:
            if len(inputs) != 1 or kinds[0] == "folder":
                raise OptionError(
                    f"--save {target}: several images need a folder, for example --save"
                    f" {target.stem}"
                )
            accepted = IMAGE_SUFFIXES if kinds[0] == "image" else VIDEO_SUFFIXES
            if suffix not in accepted:
                raise OptionError(
                    f"--save {target}: one {kinds[0]} is saved as one of"
                    f" {', '.join(sorted(accepted))}"
                )
        self._roots = [
            Path(text) for text, kind in zip(inputs, kinds, strict=True) if kind == "folder"
        ]
        self._clips = {
            text for text, kind in zip(inputs, kinds, strict=True) if kind in ("video", "camera")
        }
        self._video: _Video | None = None

    def add(self, name: str, image: Image, faces: Detections) -> None:
        """Save one frame as :func:`edgeface.images.sources` names it."""
        source, _, frame = name.rpartition(FRAME)
        drawn = draw(image, faces)
        if source in self._clips and frame.isdigit():
            if self._video is None or self._video.source != source:
                self._finish()
                self._video = _Video(source, self._video_path(source), drawn)
            self._video.add(drawn)
        else:
            write_image(self._image_path(Path(name)), drawn)

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Finish the video that is being written; after an error, drop it instead."""
        self._finish(error)

    def _finish(self, error: BaseException | None = None) -> None:
        if self._video is not None:
            video, self._video = self._video, None
            video.close(error)

    def _image_path(self, source: Path) -> Path:
        if not self.into_folder:
            return self.target
        for root in self._roots:
            if source.is_relative_to(root):
                return self.target / source.relative_to(root)
        return self.target / source.name

    def _video_path(self, source: str) -> Path:
        return (
            self.target / f"{PurePath(source.replace(':', '-')).stem}.mp4"
            if self.into_folder
            else self.target
        )


class _Video:
    """A video file under a temporary name until it is closed."""

    def __init__(self, source: str, path: Path, first: Image) -> None:
        self.source = source
        self._size = first.shape[1::-1]
        self._context = atomic_write(path)
        temporary = self._context.__enter__()
        self._writer = cv2.VideoWriter(
            str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), video_fps(source), self._size
        )
        if not self._writer.isOpened():
            error = OutputError(
                f"cannot write {path}: OpenCV has no encoder for it here: save as .mp4 or .avi"
            )
            self._context.__exit__(type(error), error, None)
            raise error

    def add(self, frame: Image) -> None:
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self, error: BaseException | None) -> None:
        self._writer.release()
        if error is None:
            self._context.__exit__(None, None, None)
            return
        with contextlib.suppress(
            type(error)
        ):  # the context removes the file and passes the error on: ours to raise
            self._context.__exit__(type(error), error, error.__traceback__)
