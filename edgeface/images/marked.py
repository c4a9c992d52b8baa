"""Saves photos and videos with the faces drawn: one file for one input, a folder for many."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath

import cv2

from edgeface.detections import Detections
from edgeface.errors import OptionError, OutputError
from edgeface.files import atomic_write, check_writable, refuse_input
from edgeface.images.addresses import VIDEO_SUFFIXES
from edgeface.images.drawing import draw
from edgeface.images.inputs import IMAGE_SUFFIXES, Input
from edgeface.images.scaling import Image
from edgeface.images.silence import opencv_quiet
from edgeface.images.videos import opencv_path, stored_frames, video_fps
from edgeface.interrupts import put_off
from edgeface.quiet import quiet

FRAME = "#"
"""separates the name of a video or camera from the number of a frame"""
ENCODED_AS = {".jfif": ".jpg", ".jpe": ".jpg", ".pgm": ".ppm", ".pbm": ".ppm"}
"""suffix -> suffix to encode as, for suffixes that OpenCV does not write, or not in colour: readers
of PNM go by the first bytes, whatever the name"""
CODECS = {".webm": ("VP80", "VP90")}
"""VP8 and VP9, the only codecs of a .webm"""
FILE_CODECS = {**CODECS, **dict.fromkeys((".mp4", ".m4v", ".mov"), ("avc1",))}
"""codecs for inputs that are not live: also H.264, if OpenCV has an encoder. VP9 would play in
browsers as well, but takes 50 to 150 times as long as MPEG-4, longer than finding the faces"""
ANY_CODEC = "mp4v"
"""MPEG-4, which every OpenCV can write"""


def write_image(path: Path, image: Image) -> None:
    """Write an RGB image in the format of the path's suffix, whole or not at all. Raises
    OutputError."""
    suffix = ENCODED_AS.get(path.suffix.lower(), path.suffix)
    try:
        with opencv_quiet():
            good, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
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

    target: an image file for one photo, a video file for one video or camera, otherwise a folder.
    In the folder each photo keeps its name (with .png added if OpenCV writes no format of its
    suffix) and each video becomes ``<name>.mp4``; if two files would have the same name, all keep
    their subfolders below the inputs' common folder.
    Earlier recordings of a camera or stream are kept: the next is ``<name>-2.mp4``. Raises
    OptionError if target and ``inputs`` do not fit or an input would be replaced, OutputError if
    the target cannot be written.
    """

    def __init__(self, target: Path, inputs: Sequence[Input]) -> None:
        self.target = target
        self.into_folder = not target.suffix or target.is_dir()
        if not self.into_folder:
            _check_file(target, inputs)
        self.paths = {source.name: target for source in inputs}
        """name of each input -> its file; for a live one in a folder, before :func:`not_taken`"""
        if self.into_folder:
            self.paths = planned(target, inputs)
            for source in inputs:
                if source.kind == "image":
                    self.paths[source.name] = _encodable(self.paths[source.name])
            _refuse_shared(self.paths, target, "--save")
        for source in inputs:
            if not (source.live and self.into_folder):  # those replace nothing
                path = self.paths[source.name]
                refuse_input(path, (other.name for other in inputs), "--save")
        check_writable(target, "--save", folder=self.into_folder)
        self._clips = {source.name: source for source in inputs if source.kind != "image"}
        for name in self._clips:
            opencv_path(self.paths[name], OutputError)
        self._video: _Video | None = None

    def add(self, name: str, image: Image, faces: Detections) -> None:
        """Save one frame with its faces drawn; ``name``: as from :func:`edgeface.images.sources`.

        Raises OutputError; then the frame's file, or video, is not written.
        """
        self.write(name, draw(image, faces))

    def write(self, name: str, picture: Image) -> None:
        """Like :meth:`add`, for a picture that is drawn already."""
        source, _, frame = name.rpartition(FRAME)
        if source not in self._clips or not frame.isdigit():
            write_image(self.paths[name], picture)
            return
        clip = self._clips[source]
        if self._video is None or self._video.source != clip:
            self.finish()
            free = _unused if clip.live and self.into_folder else None
            self._video = _Video(clip, self.paths[source], picture, free)
        self._video.add(picture)

    def finish(self, error: BaseException | None = None) -> None:
        """Complete the current video, or drop it after an ``error``. Raises OutputError.

        After a Ctrl-C the video is kept up to there. A Ctrl-C during this call waits for its end.
        """
        if self._video is not None:
            with put_off():
                video, self._video = self._video, None
                video.close(None if isinstance(error, KeyboardInterrupt) else error)

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.finish(error)


def planned(folder: Path, inputs: Sequence[Input], option: str = "--save") -> dict[str, Path]:
    """Name of each input -> its file in ``folder``. Raises OptionError if two inputs would have the
    same file."""
    plain = {source.name: folder / _plain_name(source) for source in inputs}
    if len(set(plain.values())) < len(plain):
        plain = {s.name: folder / path for s, path in _apart(inputs).items()}
    _refuse_shared(plain, folder, option)
    return plain


def _refuse_shared(paths: Mapping[str, Path], folder: Path, option: str) -> None:
    """Raise OptionError if two of the inputs that ``paths`` names have the same file."""
    first: dict[Path, str] = {}
    for name, path in paths.items():
        if path in first:
            raise OptionError(
                f"{option} {folder}: {first[path]} and {name} would both be saved as"
                f" {path.name}: save them in two runs"
            )
        first[path] = name


def not_taken(path: Path, taken: Callable[[Path], bool]) -> Path:
    """``path``, or the first of ``path``-2, -3, ... that is not taken.

    For recordings of live sources: they cannot be repeated, and a supervisor may restart the same
    command.
    """
    others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([path], others) if not taken(each))


def _unused(path: Path) -> Path:
    return not_taken(path, Path.exists)


def _check_file(target: Path, inputs: Sequence[Input]) -> None:
    """Raise OptionError unless there is one input and the suffix of ``target`` fits it."""
    if len(inputs) != 1 or inputs[0].folder is not None:
        raise OptionError(
            f"--save {target}: several images need a folder, for example --save {target.stem}"
        )
    kind = inputs[0].kind
    accepted = IMAGE_SUFFIXES if kind == "image" else VIDEO_SUFFIXES
    if target.suffix.lower() not in accepted:
        raise OptionError(
            f"--save {target}: one {kind} is saved as one of {', '.join(sorted(accepted))}"
        )


def _plain_name(source: Input) -> PurePath:
    path = PurePath(source.name)
    if source.folder is not None:
        return path.relative_to(source.folder)
    if source.kind == "image":
        return PurePath(path.name)
    return PurePath(f"{PurePath(re.sub('[:?*&=%]', '-', source.name)).stem or 'video'}.mp4")


def _apart(inputs: Sequence[Input]) -> dict[Input, PurePath]:
    """Names relative to the common folder of all inputs; a video keeps its suffix before .mp4."""
    files = {source: os.path.abspath(source.name) for source in inputs}  # noqa: PTH100 - lexical
    try:
        parents = [os.path.dirname(path) for path in files.values()]  # noqa: PTH120
        common = os.path.commonpath(parents)
    except ValueError:  # two drives
        common = ""
    below = {source: PurePath(os.path.relpath(path, common)) for source, path in files.items()}
    return {
        source: path if source.kind == "image" else path.with_name(f"{path.name}.mp4")
        for source, path in below.items()
    }


def _encodable(path: Path) -> Path:
    """``path``, with .png added if OpenCV writes no format of its suffix, as for ``photo``."""
    suffix = ENCODED_AS.get(path.suffix.lower(), path.suffix)
    return path if cv2.haveImageWriter(f"a{suffix}") else path.with_name(f"{path.name}.png")


class _Video:
    """A video file under a temporary name until it is closed.

    The video of a live source plays in real time: frames are repeated or left out to match the
    times at which they came, however fast faces are found. An encoder too slow for that gets at
    most half of the time, and the video then becomes shorter.
    """

    def __init__(
        self, source: Input, path: Path, first: Image, free: Callable[[Path], Path] | None = None
    ) -> None:
        """free: see :func:`edgeface.files.atomic_write`."""
        self.source, self._path, self._frames = source, path, 0
        self._fps, self._began = video_fps(source.opens), time.monotonic()
        self._left = self._began
        self._context = atomic_write(path, free)
        self._temporary = self._context.__enter__()
        codecs = CODECS if source.live else FILE_CODECS
        writer = _open_writer(self._temporary, self._fps, first.shape[1::-1], codecs)
        if writer is None:
            error = OutputError(
                f"cannot write {path}: OpenCV has no encoder for it here: save as .mp4 or .avi"
            )
            self._context.__exit__(type(error), error, None)
            raise error
        self._writer = writer

    def add(self, frame: Image) -> None:
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        came = time.monotonic()
        due = self._frames + 1
        if self.source.live and self._frames:
            due = 1 + int((came - self._began) * self._fps)
        while self._frames < due:
            self._writer.write(bgr)
            self._frames += 1
            # Writing repeats takes time and so requires more repeats: stop when it has taken as
            # long as everything else since the last frame.
            if time.monotonic() - came > came - self._left:
                break
        self._left = time.monotonic()

    def close(self, error: BaseException | None) -> None:
        """Complete the file, or remove it after an ``error``.

        Raises OutputError if frames are missing: they are counted, since OpenCV does not tell.
        """
        self._writer.release()
        if error is None:
            written = stored_frames(self._temporary, self._frames)
            if written < self._frames:
                lost = OutputError(
                    f"cannot write {self._path}: {written} of {self._frames} frames were written:"
                    " is the disk full?"
                )
                self._context.__exit__(type(lost), lost, None)
                raise lost
            self._context.__exit__(None, None, None)
            return
        with contextlib.suppress(
            type(error)
        ):  # the context removes the file and raises the error again, which the caller does
            self._context.__exit__(type(error), error, error.__traceback__)


def _open_writer(
    path: Path, fps: float, size: tuple[int, ...], codecs: Mapping[str, Sequence[str]]
) -> cv2.VideoWriter | None:
    """A writer with the first available codec for the suffix; None without one."""
    for codec in (*codecs.get(path.suffix.lower(), ()), ANY_CODEC):
        with quiet():  # FFmpeg reports each missing codec
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
    return None
