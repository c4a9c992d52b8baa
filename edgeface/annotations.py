"""Face annotations as people have them: the official WIDER FACE text format, and a plain CSV of one's own.

WIDER FACE, sizes in px, one block an image (an image without faces has count 0 and one all-zero line)::

    0--Parade/0_Parade_Parade_0_205.jpg
    2
    260 303 78 96 0 0 0 0 2 0              x y w h blur expression illumination invalid occlusion pose
    666 325 40 52 1 1 0 0 0 0

Plain, one line a face, the header line optional; an image named without a box is a photo without faces::

    image,x1,y1,x2,y2
    party/one.jpg,260,303,338,399
    party/empty.jpg,,,,
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import DataError

WIDER_COLUMNS = ("x", "y", "w", "h", "blur", "expression", "illumination", "invalid", "occlusion", "pose")
PLAIN_COLUMNS = ("image", "x1", "y1", "x2", "y2")

Fail = Callable[[int, str], DataError]
"""(line number from 1, what is wrong and what is accepted) -> the error to raise."""


@dataclass(frozen=True)
class AnnotatedImage:
    """The faces of one photo."""

    path: str
    """relative to the folder of images, with forward slashes"""
    boxes: NDArray[np.float32]
    """[N, 4] x1, y1, x2, y2 in px of the image"""
    invalid: NDArray[np.bool_]
    """[N] faces to ignore: marked invalid by the annotators, or of no positive size (the official file has some)"""


def read_annotations(path: Path | str) -> list[AnnotatedImage]:
    """Read either format, in the order of the file: plain if it ends in .csv or its first line has a comma.

    Raises DataError, one line with file and line number, for a missing or undecodable file and for every breach of
    the format.
    """
    path = Path(path)
    lines = _read_lines(path)
    plain = path.suffix.lower() == ".csv" or "," in next((line for line in lines if line.strip()), "")
    images = _parse_plain(path, lines) if plain else _parse_wider(path, lines)
    if not images:
        raise DataError(f"{path}: names no image; accepted: the WIDER FACE text format, or {','.join(PLAIN_COLUMNS)}")
    return images


def read_wider(path: Path | str) -> list[AnnotatedImage]:
    """Read the official WIDER FACE text format; see :func:`read_annotations`."""
    return _parse_wider(Path(path), _read_lines(Path(path)))


def read_plain(path: Path | str) -> list[AnnotatedImage]:
    """Read the plain CSV format; see :func:`read_annotations`."""
    return _parse_plain(Path(path), _read_lines(Path(path)))


def check_boxes(image: AnnotatedImage, width: int, height: int) -> AnnotatedImage:
    """Clip the boxes to an image of ``width`` x ``height`` px.

    Raises DataError naming the image if a box lies wholly outside, which means that boxes and image do not belong
    together. Boxes marked invalid are clipped without complaint.
    """
    x1, y1, x2, y2 = image.boxes.T
    outside = ~image.invalid & ((x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0))
    if outside.any():
        box = ", ".join(f"{value:g}" for value in image.boxes[np.argmax(outside)])
        raise DataError(
            f"{image.path}: box x1,y1,x2,y2 = {box} lies outside the image of {width}x{height} px;"
            " accepted: boxes that overlap the image; check that annotations and images have the same scale"
        )
    limits = np.array([width, height, width, height], np.float32)
    return replace(image, boxes=np.clip(image.boxes, 0, limits))


def _read_lines(path: Path) -> list[str]:
    """The file's lines, stripped at the right. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read annotation file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"annotation file {path} is not UTF-8 text") from error
    return [line.rstrip() for line in text.split("\n")]


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
        name, count = _image_name(lines[index], index + 1, fail), _face_count(lines, index + 1, fail)
        if name in seen:
            raise fail(index + 1, f"image {name} appears a second time; accepted: one block an image")
        seen.add(name)
        index += 2
        rows = [_wider_row(lines, index + i, i, count, fail) for i in range(count)]
        index += count
        if count == 0 and index < len(lines) and lines[index].split() == ["0"] * len(WIDER_COLUMNS):
            index += 1
        images.append(_from_wider(name, rows))
    return images


def _face_count(lines: list[str], index: int, fail: Fail) -> int:
    text = lines[index] if index < len(lines) else ""
    if not text:
        raise fail(index + 1, "the file ends or is blank where a face count is due; accepted: a whole number from 0")
    if not (text.isascii() and text.isdigit()):
        raise fail(index + 1, f"face count {text[:40]!r}; accepted: a whole number from 0")
    return int(text)


def _wider_row(lines: list[str], index: int, done: int, count: int, fail: Fail) -> list[float]:
    text = lines[index] if index < len(lines) else ""
    if not text:
        raise fail(index + 1, f"the file ends or is blank after {done} of {count} faces; accepted: one line a face")
    fields = text.split()
    if len(fields) != len(WIDER_COLUMNS):
        raise fail(
            index + 1,
            f"{text[:40]!r} is face {done + 1} of {count} but has {len(fields)} fields;"
            f" accepted: the 10 numbers {' '.join(WIDER_COLUMNS)}",
        )
    return _numbers(fields, index + 1, fail)


def _from_wider(name: str, rows: Sequence[Sequence[float]]) -> AnnotatedImage:
    # The official training file itself has faces of zero and of negative width: they are ignored, not refused.
    table = np.array(rows, np.float64).reshape(-1, len(WIDER_COLUMNS))
    corner, size = table[:, :2], table[:, 2:4]
    boxes = np.hstack([np.minimum(corner, corner + size), np.maximum(corner, corner + size)]).astype(np.float32)
    return AnnotatedImage(name, boxes, (table[:, 7] != 0) | (size <= 0).any(axis=1))


def _parse_plain(path: Path, lines: list[str]) -> list[AnnotatedImage]:
    fail = _failer(path)
    faces: dict[str, list[list[float]]] = {}
    for number, line in enumerate(lines, start=1):
        fields = _csv_fields(line, number, fail)
        if not any(fields) or (number == 1 and tuple(field.lower() for field in fields) == PLAIN_COLUMNS):
            continue
        boxes = faces.setdefault(_image_name(fields[0], number, fail), [])
        if any(fields[1:]):
            boxes.append(_plain_box(fields, number, fail))
    return [_from_plain(name, boxes) for name, boxes in faces.items()]


def _csv_fields(line: str, number: int, fail: Fail) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line]), [])]
    except csv.Error as error:
        raise fail(number, f"{error}; accepted: {','.join(PLAIN_COLUMNS)}") from error


def _plain_box(fields: Sequence[str], number: int, fail: Fail) -> list[float]:
    if len(fields) != len(PLAIN_COLUMNS):
        raise fail(number, f"{len(fields)} fields; accepted: {','.join(PLAIN_COLUMNS)}, or an image name alone")
    x1, y1, x2, y2 = box = _numbers(fields[1:], number, fail)
    if x2 <= x1 or y2 <= y1:
        raise fail(number, f"box of {x2 - x1:g} x {y2 - y1:g} px; accepted: x2 above x1 and y2 above y1")
    return box


def _from_plain(name: str, boxes: Sequence[Sequence[float]]) -> AnnotatedImage:
    return AnnotatedImage(name, np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.bool_))


def _image_name(text: str, number: int, fail: Fail) -> str:
    """A path below the folder of images; the suffix tells it from a stray line of numbers."""
    path = PurePosixPath(text.replace("\\", "/"))
    if not path.suffix or path.is_absolute() or ".." in path.parts or _is_number_list(text):
        raise fail(
            number,
            f"{text[:60]!r} is no image path; accepted: a path with a suffix below the folder of images"
            " (if faces are listed here, the face count above is too small)",
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
        if not math.isfinite(value):
            raise fail(number, f"{field[:40]!r} is not a number; accepted: finite decimal numbers")
        values.append(value)
    return values
