"""Reads face annotations: the official WIDER FACE text format, a plain CSV, RetinaFace's labels.

WIDER FACE: sizes in px, one block for each image (an image without faces has count 0 and one
all-zero line)::

    0--Parade/0_Parade_Parade_0_205.jpg
    2
    260 303 78 96 0 0 0 0 2 0       x y w h blur expression illumination invalid occlusion pose
    666 325 40 52 1 1 0 0 0 0

Plain CSV: one line for each face, the header line optional. An image named without a box is a photo
without faces. A repeated line, as in files merged from others, is one face::

    image,x1,y1,x2,y2
    party/one.jpg,260,303,338,399
    party/empty.jpg,,,,

Landmarks, x and y of five points, come in either of two ways. In the CSV they are ten more columns
behind the box, empty if a face has none. RetinaFace's labels have a line ``# path`` for each image,
then a line for each face: its box x y w h, each landmark with a flag, and a quality that is not
used; -1 stands for missing landmarks. The order of the landmarks: left eye (left in the image),
right eye, nose, left and right corner of the mouth::

    # 0--Parade/0_Parade_Parade_0_1019.jpg
    285.6 118.1 33.1 38.8 294.6 128.7 1 311.1 128.9 1 303.6 137.7 1 296.3 145.2 1 310.9 145.7 1 0.61
    258.1 125.0 32.5 35.6 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from edgeface.errors import DataError, counted
from edgeface.files import read_file
from edgeface.images.annotated import AnnotatedImage
from edgeface.options import whole_number

WIDER_COLUMNS = (
    "x",
    "y",
    "w",
    "h",
    "blur",
    "expression",
    "illumination",
    "invalid",
    "occlusion",
    "pose",
)
PLAIN_COLUMNS = ("image", "x1", "y1", "x2", "y2")
POINT_COLUMNS = tuple(
    f"{point}_{axis}"
    for point in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    for axis in "xy"
)
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
FEW_FACES = " (if faces are listed here, the face count above is too small)"
"""hint for a line of the WIDER FACE format that is no image path"""
LABEL_FIELDS = 20
"""numbers per face in RetinaFace's labels: box, five times x, y and flag, quality"""

LARGEST = 2.0**31
"""magnitudes in a file must be less than this: no photo has as many px, and float32 would overflow
for much larger ones"""

Fail = Callable[[int, str], DataError]
"""(line number from 1, what is wrong and what is accepted) -> the error to raise."""


def read_annotations(path: Path | str) -> list[AnnotatedImage]:
    """Read a file in any of the formats, in the order of the file.

    The format is plain CSV if the name ends in .csv or the first line has a comma, RetinaFace's if
    that line begins with #, else WIDER FACE's. Raises DataError, one line with file and line
    number, for a missing or undecodable file and for every breach of the format.
    """
    path = Path(path)
    lines = _read_lines(path)
    first = next((line for line in lines if line.strip()), "")
    _refuse_separator(path, first)
    plain = path.suffix.lower() == ".csv" or "," in first
    parse = _parse_plain if plain else _parse_labels if first.startswith("#") else _parse_wider
    images = parse(path, lines)
    if not images:
        raise DataError(
            f"{path}: names no image; accepted: the WIDER FACE text format, RetinaFace's labels, or"
            f" {','.join(PLAIN_COLUMNS)}"
        )
    return images


def _refuse_separator(path: Path, first: str) -> None:
    """Raise DataError for other separators than commas: unread columns would mean photos without
    faces."""
    for separator, name in SEPARATORS.items():
        if "," not in first and first.count(separator) >= len(PLAIN_COLUMNS) - 1:
            raise DataError(
                f"{path}: its columns are separated by {name}; accepted: commas, with the header"
                f" {','.join(PLAIN_COLUMNS)} or without one"
            )


def read_wider(path: Path | str) -> list[AnnotatedImage]:
    """Read the official WIDER FACE text format; see :func:`read_annotations`."""
    return _parse_wider(Path(path), _read_lines(Path(path)))


def _read_lines(path: Path) -> list[str]:
    """The file's lines, stripped at the right. Raises DataError."""
    content = read_file(path, DataError, "annotation file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"annotation file {path}, line {line}: this is not UTF-8 text; accepted: WIDER FACE"
            f" text, or CSV with {','.join(PLAIN_COLUMNS)}, saved as UTF-8"
        ) from error
    return [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def _failer(path: Path) -> Fail:
    return lambda line, what: DataError(f"{path}, line {line}: {what}")


def _parse_wider(path: Path, lines: list[str]) -> list[AnnotatedImage]:
    fail = _failer(path)
    images: list[AnnotatedImage] = []
    seen: set[str] = set()
    index = 0
    while index < len(lines):
        if not lines[index]:
            index += 1
            continue
        name = _image_name(lines[index], index + 1, fail, FEW_FACES)
        count = _face_count(lines, index + 1, fail)
        if name in seen:
            raise fail(
                index + 1, f"image {name} appears a second time; accepted: one block an image"
            )
        seen.add(name)
        first = index + 1
        index += 2
        rows = [_wider_row(lines, index + i, i, count, fail) for i in range(count)]
        index += count
        if count == 0 and index < len(lines) and lines[index].split() == ["0"] * len(WIDER_COLUMNS):
            index += 1
        images.append(replace(_from_wider(name, rows), line=first))
    return images


def _face_count(lines: list[str], index: int, fail: Fail) -> int:
    text = lines[index] if index < len(lines) else ""
    if not text:
        raise fail(
            index + 1,
            "the file ends or is blank where a face count is due; accepted: a whole number from 0",
        )
    count = whole_number(text)
    if count is None:
        raise fail(index + 1, f"face count {text[:40]!r}; accepted: a whole number from 0")
    return count


def _wider_row(lines: list[str], index: int, done: int, count: int, fail: Fail) -> list[float]:
    text = lines[index] if index < len(lines) else ""
    if not text:
        raise fail(
            index + 1,
            f"the file ends or is blank after {done} of {counted(count, 'face')};"
            " accepted: one line a face",
        )
    fields = text.split()
    if len(fields) != len(WIDER_COLUMNS):
        raise fail(
            index + 1,
            f"{text[:40]!r} is face {done + 1} of {count} but has {len(fields)} fields;"
            f" accepted: the 10 numbers {' '.join(WIDER_COLUMNS)}",
        )
    return _numbers(fields, index + 1, fail)


def _from_wider(name: str, rows: Sequence[Sequence[float]]) -> AnnotatedImage:
    # The official training file itself has faces of zero and of negative width: they are ignored,
    # not refused.
    table = np.array(rows, np.float64).reshape(-1, len(WIDER_COLUMNS))
    corner, size = table[:, :2], table[:, 2:4]
    boxes = np.hstack(
        [np.minimum(corner, corner + size), np.maximum(corner, corner + size)]
    ).astype(np.float32)
    traits = table[:, 4:].astype(np.int64)
    return AnnotatedImage(name, boxes, (table[:, 7] != 0) | (size <= 0).any(axis=1), traits=traits)


def _parse_plain(path: Path, lines: list[str]) -> list[AnnotatedImage]:
    fail = _failer(path)
    faces: dict[str, dict[tuple[float, ...], list[float]]] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        fields = _csv_fields(line, number, fail)
        if not any(fields) or (number == 1 and _is_header(fields, fail)):
            continue
        name = _image_name(fields[0], number, fail)
        first.setdefault(name, number)
        boxes = faces.setdefault(name, {})
        if any(fields[1:]):
            _add_face(boxes, _plain_box(fields, number, fail), number, fail)
    return [
        replace(_from_plain(name, list(boxes.values())), line=first[name])
        for name, boxes in faces.items()
    ]


def _add_face(
    faces: dict[tuple[float, ...], list[float]], face: list[float], number: int, fail: Fail
) -> None:
    """Add a face unless its box is there already: a face counted twice would be missed once.

    Raises DataError if the same box comes with other landmarks.
    """
    first = faces.setdefault(tuple(face[:4]), face)
    if not np.array_equal(_points_of(first), _points_of(face), equal_nan=True):
        raise fail(
            number,
            "a line above has this box of this image with other landmarks; accepted: one line a"
            " face",
        )


def _is_header(fields: Sequence[str], fail: Fail) -> bool:
    """True for a header. Raises DataError for a header with other columns or in another order."""
    if tuple(field.lower() for field in fields) in (
        PLAIN_COLUMNS,
        (*PLAIN_COLUMNS, *POINT_COLUMNS),
    ):
        return True
    if any(fields[1:]) and not any(_is_number_list(field) for field in fields[1:]):
        raise fail(
            1,
            f"the header {','.join(fields)[:80]!r}; accepted: {','.join(PLAIN_COLUMNS)}, in this"
            " order (then x and y of five landmarks), or no header",
        )
    return False


def _csv_fields(line: str, number: int, fail: Fail) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line]), [])]
    except csv.Error as error:
        raise fail(number, f"{error}; accepted: {','.join(PLAIN_COLUMNS)}") from error


def _plain_box(fields: Sequence[str], number: int, fail: Fail) -> list[float]:
    width = len(PLAIN_COLUMNS)
    if len(fields) not in (width, width + len(POINT_COLUMNS)):
        raise fail(
            number,
            f"{len(fields)} fields; accepted: {','.join(PLAIN_COLUMNS)}, these and x,y of five "
            "landmarks (15 fields), or an image name alone",
        )
    box = _numbers(fields[1:width], number, fail)
    x1, y1, x2, y2 = np.array(box, np.float32)  # the precision in which boxes are kept
    if x2 <= x1 or y2 <= y1:
        raise fail(
            number, f"box of {x2 - x1:g} x {y2 - y1:g} px; accepted: x2 above x1 and y2 above y1"
        )
    points = fields[width:]
    return box + (_numbers(points, number, fail) if any(points) else [math.nan] * len(points))


def _from_plain(name: str, faces: Sequence[Sequence[float]]) -> AnnotatedImage:
    """An image with faces of 4 numbers each, or of 14 with landmarks."""
    boxes = np.array([face[:4] for face in faces], np.float32).reshape(-1, 4)
    points = [_points_of(face) for face in faces]
    landmarks = (
        np.array(points, np.float32).reshape(-1, 5, 2)
        if any(len(face) > 4 for face in faces)
        else None
    )
    return AnnotatedImage(name, boxes, np.zeros(len(boxes), np.bool_), landmarks)


def _points_of(face: Sequence[float]) -> Sequence[float]:
    return face[4:] or [math.nan] * len(POINT_COLUMNS)


def _parse_labels(path: Path, lines: list[str]) -> list[AnnotatedImage]:
    """Parse RetinaFace's labels: ``# path`` before the faces of an image."""
    fail = _failer(path)
    images: dict[str, list[list[float]]] = {}
    first: dict[str, int] = {}
    rows: list[list[float]] | None = None
    for number, line in enumerate(lines, start=1):
        if line.startswith("#"):
            name = _image_name(line[1:].strip(), number, fail)
            if name in images:
                raise fail(
                    number, f"image {name} appears a second time; accepted: one block an image"
                )
            rows = images[name] = []
            first[name] = number
        elif line.strip():
            if rows is None:
                raise fail(
                    number,
                    "a face before the first image; accepted: a line '# path' before its faces",
                )
            rows.append(_label_row(line, number, fail))
    return [replace(_from_label(name, faces), line=first[name]) for name, faces in images.items()]


def _label_row(line: str, number: int, fail: Fail) -> list[float]:
    fields = line.split()
    if len(fields) != LABEL_FIELDS:
        raise fail(
            number,
            f"{line[:40]!r} has {len(fields)} numbers; accepted: {LABEL_FIELDS}, which are x y w h,"
            " five times x y flag, and the quality",
        )
    return _numbers(fields, number, fail)


def _from_label(name: str, rows: Sequence[Sequence[float]]) -> AnnotatedImage:
    table = np.array(rows, np.float64).reshape(-1, LABEL_FIELDS)
    image = _from_wider(
        name, [[*row[:4], *itertools.repeat(0.0, len(WIDER_COLUMNS) - 4)] for row in table]
    )
    points = table[:, 4:19].reshape(-1, 5, 3)
    known = (points != -1).any((1, 2))  # a face without landmarks has -1 in all places
    landmarks = np.where(known[:, None, None], points[..., :2], np.nan).astype(np.float32)
    return replace(image, landmarks=landmarks, traits=None)


def _image_name(text: str, number: int, fail: Fail, hint: str = "") -> str:
    """A path below the folder of images. It must have a suffix, to distinguish it from a stray line
    of numbers."""
    path = PurePosixPath(text.replace("\\", "/"))
    if not path.suffix or path.is_absolute() or ".." in path.parts or _is_number_list(text):
        raise fail(
            number,
            f"{text[:60]!r} is no image path; accepted: a path with a suffix, relative to the"
            f" folder of images{hint}",
        )
    return str(path)


def _is_number_list(text: str) -> bool:
    try:
        return bool([float(field) for field in text.split()])
    except ValueError:
        return False


def _numbers(fields: Sequence[str], number: int, fail: Fail) -> list[float]:
    values = []
    for field in fields:
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if "_" in field or not abs(value) < LARGEST:  # Python takes 1_0 for 10
            raise fail(
                number,
                f"{field[:40]!r} is not a number; accepted: decimal numbers, less than 2^31",
            )
        values.append(value)
    return values
