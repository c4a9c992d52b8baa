"""Check annotated photos without decoding them: are all there, and have they changed since?"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from edgeface.errors import DataError
from edgeface.files import read_regular
from edgeface.images.annotated import AnnotatedImage, named
from edgeface.types import Progress, unseen


def check_photos(root: Path, images: list[AnnotatedImage], annotations: Path) -> None:
    """Raise DataError if photos are missing below ``root``.

    The message names the first ones and their lines.
    """
    missing = [image for image in images if not (root / image.path).is_file()]
    if missing:
        raise DataError(
            f"{annotations}: {len(missing)} of {len(images)} photos are not in {root}:"
            f" {named(missing)}; accepted: paths below the folder of photos"
        )


def photos_digest(root: Path, images: list[AnnotatedImage]) -> str:
    """SHA-256 over size and time of change of each photo; it differs if one was replaced.

    Raises DataError for a missing photo.
    """
    digest = hashlib.sha256()
    for image in images:
        try:
            found = (root / image.path).stat()
        except OSError as error:
            raise DataError(
                f"cannot read photo {root / image.path}: {error.strerror or error}"
            ) from None
        digest.update(f"{image.path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def contents_digest(root: Path, images: list[AnnotatedImage], progress: Progress = unseen) -> str:
    """SHA-256 over the bytes of each photo; a copy of a dataset has the same.

    A photo that cannot be read is left out.
    """
    digest = hashlib.sha256()
    for done, image in enumerate(images):
        progress("comparing photos", done, len(images))
        with contextlib.suppress(OSError):
            content = read_regular(root / image.path)
            digest.update(f"{image.path} {hashlib.sha256(content).hexdigest()}\n".encode())
    progress("comparing photos", len(images), len(images))
    return digest.hexdigest()
