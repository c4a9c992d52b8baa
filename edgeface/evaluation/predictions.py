"""Predictions as the official WIDER FACE tool reads them: ``<folder>/<event>/<name>.txt``, one file
an image::

0--Parade/0_Parade_marchingband_1_20.jpg
2
541.5 354.25 36.0 46.5 0.9821              x y w h score, in px of the original image
800.0 100.0 20.5 25.0 0.4417
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError
from edgeface.evaluation.wider import as_table, image_key
from edgeface.files import atomic_folder, read_regular

if TYPE_CHECKING:
    from edgeface.detections import Detections


def save_predictions(
    folder: Path | str, predictions: Mapping[str, NDArray[Any] | Detections]
) -> None:
    """Write one text file an image by falling score, with every digit, so that loading gives the
    same AP.

    predictions: as for :func:`edgeface.evaluation.wider.evaluate`. The folder must be new, empty,
    or hold nothing but such files, which are replaced. Raises DataError otherwise, or for
    predictions of the wrong form; OutputError if the place cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and any(_foreign(path, folder) for path in folder.rglob("*")):
        raise DataError(
            f"{folder} holds other files; accepted: a new folder, or one of earlier predictions"
        )
    with atomic_folder(folder) as temporary:
        for name, value in sorted(predictions.items()):
            key, table = image_key(name), as_table(name, value)
            path = _below(temporary, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [" ".join(map(repr, row)) for row in table.tolist()]
            path.write_text(
                "\n".join([f"{key}.jpg", str(len(rows)), *rows]) + "\n", encoding="utf-8"
            )


def load_predictions(folder: Path | str) -> dict[str, NDArray[np.float64]]:
    """Read such a folder, also one that another detector wrote: key ``event/name`` -> [n, 5] x, y,
    w, h, score.

    The key is the path of the file; its first line is not looked at, as the official tool does.
    Raises DataError with file and line for a missing folder, a wrong count or a line that is not
    five finite numbers.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*/*.txt"))
    if not paths:
        raise DataError(f"no predictions in {folder}; accepted: a folder with <event>/<name>.txt")
    return {path.relative_to(folder).with_name(path.stem).as_posix(): _load(path) for path in paths}


def _load(path: Path) -> NDArray[np.float64]:
    try:
        lines = read_regular(path).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read predictions {path}: {error}") from error
    rows = [line for line in lines[2:] if line.strip()]
    count = lines[1].strip() if len(lines) > 1 else ""
    if not (count.isascii() and count.isdigit()) or int(count) != len(rows):
        raise DataError(
            f"{path}, line 2: count {count[:40]!r}, but {len(rows)} lines follow; accepted: that"
            " number"
        )
    for number, row in enumerate(rows, start=3):
        if not _is_prediction(row):
            raise DataError(
                f"{path}, line {number}: {row[:60]!r}; accepted: the 5 finite numbers x y w h score"
            )
    return np.array([row.split() for row in rows], np.float64).reshape(-1, 5)


def _is_prediction(row: str) -> bool:
    fields = row.split()
    try:
        return len(fields) == 5 and bool(np.isfinite([float(field) for field in fields]).all())
    except ValueError:
        return False


def _foreign(path: Path, folder: Path) -> bool:
    """Neither an event's folder nor a text file in one; what lies deeper has a parent that is
    foreign."""
    event = path.parent == folder
    return path.is_symlink() or not (
        path.is_dir() if event else path.is_file() and path.suffix == ".txt"
    )


def _below(folder: Path, key: str) -> Path:
    parts = key.split("/")
    if len(parts) != 2 or any(part in ("", ".", "..") for part in parts):
        raise DataError(f"predictions of {key!r}; accepted: keys event/name")
    return folder / parts[0] / f"{parts[1]}.txt"
