"""The calibration photos: the same ones on every computer, and listed by hash.

The choice depends only on the seed and on the paths inside the folder, not on the order in which a
file system lists them. Two files with the same content count once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeface.errors import DataError, ImageError, OptionError, counted
from edgeface.files import read_regular
from edgeface.images import Image
from edgeface.images.annotated import NAMED
from edgeface.images.inputs import list_folder
from edgeface.images.reading import ACCEPTED, OnError, decode_image
from edgeface.images.scaling import letterbox
from edgeface.types import Progress, unseen

HELD_OUT = 8
"""number of photos on which the heads of a candidate are compared with the float heads"""
USUAL = 64
"""default number of calibration photos"""
ASIDE = 4
"""in a folder with too few photos, one photo in ASIDE is held out"""
MAX_PHOTOS = 4096
"""limit, because the photos are held in memory: 0.9 MB each at 640x480"""


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration photos as the model sees them."""

    images: tuple[Image, ...]
    """uint8 RGB [height, width, 3], letterboxed to the model's input"""
    sha256: tuple[str, ...]
    """SHA-256 of the content of each file, in the order of ``images``"""
    seed: int
    held_out: tuple[Image, ...] = ()
    """other photos of the same folder, to measure noise on; empty if the folder has no more"""

    @property
    def judges(self) -> tuple[Image, ...]:
        """Photos to measure noise on: those held out, or without any the first calibration
        photos."""
        return self.held_out or self.images[:HELD_OUT]


def read_calibration(
    folder: Path | str,
    count: int | None,
    width: int,
    height: int,
    seed: int = 0,
    progress: Progress = unseen,
    on_error: OnError | None = None,
    leave_out: Collection[str] = (),
) -> CalibrationSet:
    """Choose ``count`` photos below ``folder`` by ``seed`` and letterbox them to ``width`` x
    ``height`` px.

    folder: photos at any depth, or a WIDER FACE root, whose training photos are used; validation
    photos are refused, because ranges fitted to them would flatter the accuracy measured on them.
    count: None for 64, or for most photos of a smaller folder. The next few photos are held out, to
    measure noise on. leave_out: paths below the folder not to use. on_error: called with the
    ImageError of a damaged photo, which is then replaced by another. Raises, in one line,
    OptionError for a count out of range, DataError for a folder that is missing, without photos or
    with fewer than requested, and without ``on_error`` ImageError naming a damaged photo.
    """
    if count is not None and not 1 <= count <= MAX_PHOTOS:
        raise OptionError(
            f"--images {count}: give a number of photos from 1 to {MAX_PHOTOS}; some dozens do"
        )
    folder, wanted = Path(folder), count or USUAL
    images: list[Image] = []
    hashes: dict[str, None] = {}
    for path in _in_drawn_order(photo_folder(folder), seed, leave_out):
        progress("reading the calibration photos", len(images), wanted + HELD_OUT)
        try:
            content = _read(path)
            digest = hashlib.sha256(content).hexdigest()
            if digest not in hashes:
                images.append(letterbox(_decode(path, content), width, height)[0])
                hashes[digest] = None
        except ImageError as error:
            if on_error is None:
                raise
            on_error(error)
        if len(images) == wanted + HELD_OUT:
            break
    progress("reading the calibration photos", wanted + HELD_OUT, wanted + HELD_OUT)
    if not images:
        raise DataError(
            f"no photo in {folder} can be read: give a folder of whole ones with --calibration"
        )
    if count is None:
        wanted = min(wanted, len(images) - min(HELD_OUT, len(images) // ASIDE))
    elif len(images) < count:
        raise DataError(
            f"{folder} has {counted(len(images), 'different photo')}, {count} were"
            f" asked for: add some, or ask for fewer with --images {len(images)}"
        )
    taken, held_out = tuple(images[:wanted]), tuple(images[wanted:])
    return CalibrationSet(taken, tuple(hashes)[:wanted], seed, held_out)


def photo_folder(folder: Path) -> Path:
    """``folder`` itself, or the training photos of a WIDER FACE root."""
    try:
        if not folder.is_dir():
            raise DataError(
                f"calibration folder {folder}"
                f" {'is not a folder' if folder.exists() else 'does not exist'}: give a folder of"
                " photos, or a WIDER FACE root, with --calibration"
            )
        training = folder / "WIDER_train" / "images"
        if training.is_dir():
            return training
        validation = (folder / "WIDER_val").is_dir() or "WIDER_val" in folder.resolve().parts
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
    if validation:
        raise DataError(
            f"{folder} has the validation photos of WIDER FACE, which accuracy is measured on, and"
            " not WIDER_train/images: give other photos with --calibration"
        )
    return folder


def left_out(folder: Path | str, named: Collection[str], judged: Iterable[Path]) -> set[str]:
    """Paths, relative to the calibration ``folder``, of photos not to calibrate on: those ``named``
    and those ``judged`` that lie in the folder.

    Raises OptionError for a name that no photo has: the photo meant would be used otherwise.
    """
    inside = photo_folder(Path(folder)).absolute()
    unknown = sorted(set(named) - _names_in(inside)) if named else []
    if unknown:
        more = ", ..." * (len(unknown) > NAMED)
        raise OptionError(
            f"leave_out: no photo in {inside} is called {', '.join(unknown[:NAMED])}{more}: give"
            " paths of photos as they are below that folder"
        )
    # Both as written and without links and .., since the two folders may be given differently.
    folders = {inside, inside.resolve()}
    places = {
        place
        for photo in judged
        for place in (photo.absolute(), photo.parent.resolve() / photo.name)
    }
    return set(named) | {
        place.relative_to(folder).as_posix()
        for place in places
        for folder in folders
        if place.is_relative_to(folder)
    }


def _in_drawn_order(folder: Path, seed: int, leave_out: Collection[str]) -> list[Path]:
    """Image files below ``folder``, sorted by the SHA-256 of seed and relative path, without those
    in ``leave_out``. Raises DataError if none is left."""

    def drawn(name: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest(), name

    names = _names_in(folder) - set(leave_out)
    if not names:
        raise DataError(
            f"all photos in {folder} are kept for accuracy to be measured on, or left out: give"
            " others to take ranges from with --calibration"
        )
    return [folder / name for name in sorted(names, key=drawn)]


def _names_in(folder: Path) -> set[str]:
    """Relative paths of the image files below ``folder``. Raises DataError if there is none."""
    try:
        found = list_folder(folder)
    except ImageError as error:
        raise DataError(str(error)) from None
    if not found.photos and not found.others:
        raise DataError(
            f"calibration folder {folder} is empty: put photos there, or name another with"
            " --calibration"
        )
    if not found.photos:
        count, example = len(found.others), min(path.name for path in found.others)
        raise DataError(
            f"calibration folder {folder} has no photos: {counted(count, 'file')}, such as"
            f" {example}, none with the suffix of a {ACCEPTED} image"
        )
    return {path.relative_to(folder).as_posix() for path in found.photos}


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise ImageError(
            f"cannot read calibration photo {path}: {error.strerror or error}"
        ) from None


def _decode(path: Path, content: bytes) -> Image:
    try:
        return decode_image(content)
    except ImageError as error:
        raise ImageError(f"calibration photo {path}: {error}: repair or remove it") from None
