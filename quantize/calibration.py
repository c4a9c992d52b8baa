"""The photos that activation ranges are taken from: the same ones on every machine, and listed by
hash.

Which photos are taken depends on their paths inside the folder, on the seed and on nothing else:
not on the order in which a file system lists them. Two files with the same content count once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgeface.errors import DataError, ImageError, OptionError
from edgeface.images import Image
from edgeface.images.inputs import IMAGE_SUFFIXES
from edgeface.images.reading import ACCEPTED, decode_image
from edgeface.images.scaling import letterbox
from edgeface.types import Progress, unseen

MAX_PHOTOS = 4096
"""they are held in memory, 0.9 MB each at 640x480"""


@dataclass(frozen=True)
class CalibrationSet:
    """Photos as the model will see them."""

    images: tuple[Image, ...]
    """uint8 RGB [height, width, 3], letterboxed to the model's input"""
    sha256: tuple[str, ...]
    """of the content of each file, in the same order"""
    seed: int


def read_calibration(
    folder: Path | str,
    count: int,
    width: int,
    height: int,
    seed: int = 0,
    progress: Progress = unseen,
) -> CalibrationSet:
    """Choose ``count`` photos below ``folder`` by ``seed`` and letterbox them to ``width`` x
    ``height`` px.

    folder: photos at any depth, or a WIDER FACE root, of which the training photos are taken.
    Validation photos are refused: ranges fitted to them would flatter the accuracy that is measured
    on them. Raises, in one line, OptionError for a count out of range, DataError for a folder that
    is missing, without photos or with fewer than asked, ImageError naming a photo that is damaged.
    """
    if not 1 <= count <= MAX_PHOTOS:
        raise OptionError(
            f"--images {count}: give a number of photos from 1 to {MAX_PHOTOS}; some dozens do"
        )
    folder = Path(folder)
    images: list[Image] = []
    hashes: dict[str, None] = {}
    for path in _in_drawn_order(_photo_folder(folder), seed):
        content = _read(path)
        digest = hashlib.sha256(content).hexdigest()
        if digest in hashes:
            continue
        progress("reading the calibration photos", len(images), count)
        images.append(letterbox(_decode(path, content), width, height)[0])
        hashes[digest] = None
        if len(images) == count:
            progress("reading the calibration photos", count, count)
            return CalibrationSet(tuple(images), tuple(hashes), seed)
    raise DataError(
        f"{folder} has {len(images)} different photo{'s' * (len(images) != 1)}, {count} were asked"
        f" for: add some, or ask for fewer with --images {len(images)}"
    )


def _photo_folder(folder: Path) -> Path:
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


def _in_drawn_order(folder: Path, seed: int) -> list[Path]:
    """Image files below ``folder`` by the SHA-256 of seed and relative path."""
    try:
        files = [path for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
    if not files:
        raise DataError(
            f"calibration folder {folder} is empty: put photos there, or name another with"
            " --calibration"
        )
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not photos:
        raise DataError(
            f"calibration folder {folder} has no photos: {len(files)}"
            f" file{'s' * (len(files) != 1)}, such as {min(p.name for p in files)}, none with the"
            f" suffix of a {ACCEPTED} image"
        )

    def drawn(path: Path) -> tuple[bytes, str]:
        name = path.relative_to(folder).as_posix()
        return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest(), name

    return sorted(photos, key=drawn)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read calibration photo {path}: {error.strerror or error}"
        ) from None


def _decode(path: Path, content: bytes) -> Image:
    try:
        return decode_image(content)
    except ImageError as error:
        raise ImageError(f"calibration photo {path}: {error}: repair or remove it") from None
