"""Saves aligned faces, one file for each."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeface.detections import Detections
from edgeface.errors import OptionError
from edgeface.files import check_writable, refuse_input
from edgeface.images.alignment import align
from edgeface.images.inputs import Input
from edgeface.images.marked import FRAME, not_taken, planned, write_image
from edgeface.images.scaling import Image


class Cropper:
    """Writes every face, aligned and 112x112 px in size, to ``folder``::

        photo.jpg      photo-face1.png, photo-face2.png, ...
        clip.mp4       clip-frame0-face1.png, ...

    Earlier crops of a camera or stream are kept: the next begin with ``<name>-2-frame0``. Raises
    OptionError if an input would be replaced or a camera or stream is named twice, OutputError if
    the folder cannot be written.
    """

    def __init__(self, folder: Path, inputs: Sequence[Input]) -> None:
        self._inputs = [source.name for source in inputs]
        live = Counter(source.name for source in inputs if source.live)
        for name in (name for name, count in live.items() if count > 1):
            raise OptionError(
                f"--crop {folder}: {name} is named {live[name]} times, and its later faces would"
                " replace the earlier ones: name it once"
            )
        whole = planned(folder, inputs, "--crop")
        for name in (source.name for source in inputs if source.live):
            whole[name] = not_taken(whole[name], _has_crops)
        short = {name: path.with_suffix("") for name, path in whole.items()}
        self._begins = short if len(set(short.values())) == len(short) else whole
        """name of each input -> start of the paths of its faces"""
        check_writable(folder, "--crop")

    def add(
        self, name: str, image: Image, faces: Detections, numbers: Iterable[int] | None = None
    ) -> None:
        """Write the faces of one frame; ``name``: as from :func:`edgeface.images.sources`.

        numbers: of the faces, for the file names; default from 1, the best face first. Raises
        OptionError if an input would be replaced, OutputError if a file cannot be written.
        """
        source, _, frame = name.rpartition(FRAME)
        begin = self._begins.get(name)
        if begin is None:
            begin = self._begins[source].with_name(f"{self._begins[source].name}-frame{frame}")
        called = range(1, len(faces) + 1) if numbers is None else numbers
        for number, face in zip(called, align(image, faces.landmarks), strict=True):
            path = begin.with_name(f"{begin.name}-face{number}.png")
            refuse_input(path, self._inputs, "--crop")
            write_image(path, face)


def _has_crops(video: Path) -> bool:
    """True if there are crops of the live input that would be saved as ``video``."""
    begins = (video.name, video.stem)
    return any(any(video.parent.glob(f"{glob.escape(begin)}-frame*")) for begin in begins)
