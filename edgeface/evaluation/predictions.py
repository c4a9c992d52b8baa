"""Predictions in the text format of the official WIDER FACE tool.

There is one file per image, ``<folder>/<event>/<name>.txt``; for a user's own photos the files lie
at the same depth as the photos::

0--Parade/0_Parade_marchingband_1_20.jpg
2
541.5 354.25 36.0 46.5 0.9821              x y w h score, in px of the original image
800.0 100.0 20.5 25.0 0.4417
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError
from edgeface.evaluation.wider import as_table, image_key
from edgeface.files import atomic_folder, check_replaceable, read_regular
from edgeface.options import whole_number

if TYPE_CHECKING:
    from edgeface.detections import Detections


def save_predictions(
    folder: Path | str, predictions: Mapping[str, NDArray[Any] | Detections]
) -> None:
    """Write one text file per image by falling score, with all digits: loading gives the same AP.

    predictions: as for :func:`edgeface.evaluation.wider.evaluate`. The folder must be new, empty,
    or hold nothing but such files, which are replaced. Raises DataError otherwise, or for
    predictions of the wrong form; OutputError if the folder cannot be written.
    """
    folder = Path(folder)
    check_predictions(folder, predictions)
    with atomic_folder(folder) as temporary:
        for name, value in sorted(predictions.items()):
            key, table = image_key(name), as_table(name, value)
            path = _below(temporary, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [" ".join(map(repr, row)) for row in table.tolist()]
            path.write_text(
                "\n".join([f"{key}.jpg", str(len(rows)), *rows]) + "\n", encoding="utf-8"
            )


def check_predictions(folder: Path | str, names: Iterable[str]) -> None:
    """Make the checks of :func:`save_predictions` for images ``names``, before predictions exist.

    Raises DataError or OutputError as it does.
    """
    folder = Path(folder)
    check_replaceable(folder)
    for name in names:
        _below(folder, image_key(name))
    if folder.exists() and any(_foreign(path) for path in folder.rglob("*")):
        raise DataError(
            f"{folder} holds other files; accepted: a new folder, or one of earlier predictions"
        )


def load_predictions(folder: Path | str) -> dict[str, NDArray[np.float64]]:
    """Read predictions of this or another detector: key -> [n, 5] x, y, w, h, score.

    The key is the path of the file without suffix, ``event/name`` or of any depth. The first line
    of the file is ignored, as by the official tool. Raises DataError with file and line for a
    missing folder, a wrong count or a line that is not five finite numbers.
    """
    folder = Path(folder)
    # "**" follows no symbolic link, but an event folder may be one
    found = {*folder.rglob("*.txt"), *folder.glob("*/*.txt")}
    paths = sorted(path for path in found if not path.is_dir())
    if not paths:
        raise DataError(
            f"no predictions in {folder}; accepted: a folder with <event>/<name>.txt, or such files"
            " at any depth"
        )
    return {path.relative_to(folder).with_name(path.stem).as_posix(): _load(path) for path in paths}


def _load(path: Path) -> NDArray[np.float64]:
    try:
        lines = read_regular(path).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read predictions {path}: {error}") from error
    rows = [line for line in lines[2:] if line.strip()]
    count = lines[1].strip() if len(lines) > 1 else ""
    if whole_number(count) != len(rows):
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


def _foreign(path: Path) -> bool:
    """Is ``path`` a link or a file without predictions? A user's note can be a .txt file, too."""
    if path.is_dir() or path.is_symlink():
        return path.is_symlink()
    try:
        _load(path)
    except DataError:
        return True
    return path.suffix != ".txt"


def _below(folder: Path, key: str) -> Path:
    *above, name = key.split("/")
    if any(part in ("", ".", "..") for part in (*above, name)):
        raise DataError(f"predictions of {key!r}; accepted: keys event/name, or paths below")
    return folder.joinpath(*above, f"{name}.txt")
