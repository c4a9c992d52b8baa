"""Training images, decoded once into a memory-mapped cache.

Cache folder:
    pixels.u32           every image as packed RGB0 pixels (4 bytes), then its 1/2 and 1/4
                         reductions; row-major
    index.safetensors    offset, height, width of each level of each image; boxes, landmarks,
                         face ranges
    source.json          the data that the cache was made from: a cache of other data, or of photos
                         that have changed since, is refused, not reused; if only the times of the
                         photos have changed, as in a copy, their bytes are compared once

Packing a pixel into one integer makes the crop of :mod:`edgeface.training.augment` one gather per
tap instead of three; the reductions let a strongly shrunk crop be sampled without aliasing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from edgeface.architecture.strides import LANDMARKS
from edgeface.errors import DataError, ImageError, OutputError, counted
from edgeface.files import atomic_folder, recover, write_text
from edgeface.images import read_image
from edgeface.images.annotated import AnnotatedImage, check_boxes
from edgeface.images.reading import OnError
from edgeface.images.scaling import resized
from edgeface.training.photos import contents_digest, photos_digest
from edgeface.types import Progress, unseen

LEVELS = 3
LONG_SIDE_PX = 640
CACHE_VERSION = 2
SOURCE = "source.json"
PHOTOS, CONTENTS = "photos", "contents"
"""keys of source.json: digests of the photos' sizes and times of change, and of their bytes"""
ANNOTATED = "sha256"
"""key of source.json: digest of paths, boxes, invalid marks and landmarks"""
LEFT_OUT = "left_out"
"""key of source.json: why some photos could not be read and are not in the cache"""


@dataclass(frozen=True)
class Cache:
    """Decoded images on one device.

    pixels: int32 [P] packed pixels; level_offset, level_height, level_width: int64 [N, 3]; boxes:
    float32 [F, 4] x1 y1 x2 y2 in px of level 0; landmarks: float32 [F, 5, 2] in the same px, NaN
    where a face has none; ignore: bool [F]; first, count: int64 [N] face ranges; data: digests of
    what was decoded.
    """

    pixels: Tensor
    level_offset: Tensor
    level_height: Tensor
    level_width: Tensor
    boxes: Tensor
    landmarks: Tensor
    ignore: Tensor
    first: Tensor
    count: Tensor
    data: dict[str, str]

    def __len__(self) -> int:
        return len(self.count)

    def to(self, device: torch.device) -> Cache:
        """Move everything, pixels included, to ``device``, so that no batch is copied to it."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def open_cache(
    folder: Path,
    image_root: Path,
    images: list[AnnotatedImage],
    in_memory: bool = False,
    progress: Progress = unseen,
    on_error: OnError | None = None,
) -> Cache:
    """Open the cache of these images in ``folder``, decoding them into it first if it is absent.

    The pixels are mapped from the file, or read into memory with ``in_memory``: if the system
    reclaims mapped pages for other uses, crops wait for the disk. Raises DataError if a photo is
    missing or does not fit its annotations, or if the folder holds a cache of other data or of
    photos that have changed since; ImageError for an image that cannot be read. With ``on_error``
    such images are left out, and reported there at every opening.
    """
    source = _source(image_root, images)
    with contextlib.suppress(OSError):
        recover(folder)
    if not folder.exists() or _is_empty(folder):
        _build(folder, image_root, images, source, progress, on_error)
    if not (folder / SOURCE).is_file():
        raise DataError(f"{folder} holds other files than an image cache: name another folder")
    try:
        found = json.loads((folder / SOURCE).read_text())
        _check_source(folder, found, source, lambda: contents_digest(image_root, images, progress))
        if on_error:
            for text in found.get(LEFT_OUT, ()):
                on_error(ImageError(text))
        index = load_file(str(folder / "index.safetensors"))
        path = folder / "pixels.u32"
        pixels = (
            np.fromfile(path, np.int32) if in_memory else np.memmap(path, dtype=np.int32, mode="c")
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{folder} is not a usable image cache ({error}): delete it and run again"
        ) from None
    if len(pixels) != source_pixels(index):
        raise DataError(f"{folder}/pixels.u32 is truncated: delete the folder and run again")
    data = {name: str(found[name]) for name in (ANNOTATED, CONTENTS) if name in found}
    return Cache(pixels=torch.from_numpy(pixels), data=data, **index)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _check_source(
    folder: Path,
    found: dict[str, object],
    source: dict[str, object],
    contents: Callable[[], str],
) -> None:
    """Raise DataError for a cache of other data.

    Caches of early versions have no digests of their photos.
    """
    advice = (
        "delete it or let another folder be the cache, and for a run that has begun another --out"
    )
    if any(found.get(key) != value for key, value in source.items() if key != PHOTOS):
        raise DataError(f"{folder} caches other images, boxes or landmarks: {advice}")
    if found.get(PHOTOS, source[PHOTOS]) == source[PHOTOS]:
        return
    if found.get(CONTENTS) != contents():
        raise DataError(f"{folder} caches photos that have changed since: {advice}")
    with contextlib.suppress(OutputError):  # so that the bytes are not compared again
        write_text(folder / SOURCE, json.dumps(found | {PHOTOS: source[PHOTOS]}, indent=1))


def source_pixels(index: dict[str, Tensor]) -> int:
    """Number of packed pixels that an index describes."""
    return int((index["level_height"] * index["level_width"]).sum())


def _source(root: Path, images: list[AnnotatedImage]) -> dict[str, object]:
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.path.encode() + image.boxes.tobytes() + image.invalid.tobytes())
        if image.landmarks is not None:
            digest.update(image.landmarks.tobytes())
    return {
        "version": CACHE_VERSION,
        "images": len(images),
        ANNOTATED: digest.hexdigest(),
        "long_side_px": LONG_SIDE_PX,
        PHOTOS: photos_digest(root, images),
    }


def _decode(root: Path, image: AnnotatedImage) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the packed levels, and boxes and landmarks in px of level 0."""
    pixels: np.ndarray = read_image(root / image.path)
    height, width = pixels.shape[:2]
    boxes = check_boxes(image, width, height).boxes
    points = (
        np.full((len(boxes), LANDMARKS, 2), np.nan, np.float32)
        if image.landmarks is None
        else image.landmarks
    )
    factor = LONG_SIDE_PX / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = resized(pixels, *size)
        factors = np.array([size[0] / width, size[1] / height], np.float32)
        boxes, points = boxes * np.tile(factors, 2), points * factors
    levels = []
    for _ in range(LEVELS):
        levels.append(_pack(pixels))
        half = (max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2))
        pixels = cv2.resize(pixels, half, interpolation=cv2.INTER_AREA)
    return levels, boxes.astype(np.float32), points.astype(np.float32)


def _pack(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> int32 [H, W] with R in the lowest byte."""
    packed = np.zeros((*pixels.shape[:2], 4), np.uint8)
    packed[..., :3] = pixels
    return packed.view("<i4")[..., 0]


def _build(
    folder: Path,
    root: Path,
    images: list[AnnotatedImage],
    source: dict[str, object],
    progress: Progress,
    on_error: OnError | None,
) -> None:
    if not images:
        raise DataError("no annotated image to train on")
    kept: list[AnnotatedImage] = []
    sizes: list[list[tuple[int, ...]]] = []
    boxes: list[np.ndarray] = []
    points: list[np.ndarray] = []
    left_out: list[str] = []
    chunks = [images[i : i + 32] for i in range(0, len(images), 32)]  # bounds the memory
    with atomic_folder(folder) as temporary:
        with (temporary / "pixels.u32").open("wb") as out, ThreadPoolExecutor() as pool:
            for done, chunk in enumerate(chunks):
                progress("decoding images", 32 * done, len(images))
                found = pool.map(lambda image: _decode_or_why(root, image, on_error), chunk)
                for image, decoded in zip(chunk, found, strict=True):
                    if isinstance(decoded, str):
                        left_out.append(decoded)
                        continue
                    for level in decoded[0]:
                        out.write(level.tobytes())
                    kept.append(image)
                    sizes.append([level.shape for level in decoded[0]])
                    boxes.append(decoded[1])
                    points.append(decoded[2])
        progress("decoding images", len(images), len(images))
        if not kept:
            raise DataError(
                f"none of {counted(len(images), 'photo')} in {root} can be read: {left_out[0]}"
            )
        if left_out and all(image.invalid.all() for image in kept):
            raise DataError(
                f"{root}: {len(left_out)} of {len(images)} photos cannot be read, and no other has"
                f" a face to learn from: {left_out[0]}"
            )
        index = save(_index(sizes, boxes, points, kept))
        (temporary / "index.safetensors").write_bytes(index)
        told = source | {CONTENTS: contents_digest(root, images, progress)}
        told |= {LEFT_OUT: left_out} if left_out else {}
        (temporary / SOURCE).write_text(json.dumps(told, indent=1))


def _decode_or_why(
    root: Path, image: AnnotatedImage, on_error: OnError | None
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray] | str:
    """Run :func:`_decode`; with ``on_error``, return the error message of an unreadable photo."""
    try:
        return _decode(root, image)
    except ImageError as error:
        if on_error is None:
            raise
        return str(error)


def _index(
    sizes: list[list[tuple[int, ...]]],
    boxes: list[np.ndarray],
    points: list[np.ndarray],
    images: list[AnnotatedImage],
) -> dict[str, Tensor]:
    hw = torch.tensor(sizes, dtype=torch.int64)
    area = hw.prod(2).flatten()
    count = torch.tensor([len(b) for b in boxes])
    return {
        "level_offset": (area.cumsum(0) - area).reshape(-1, LEVELS),
        "level_height": hw[..., 0].contiguous(),
        "level_width": hw[..., 1].contiguous(),
        "boxes": torch.from_numpy(np.concatenate(boxes).reshape(-1, 4)),
        "landmarks": torch.from_numpy(np.concatenate(points).reshape(-1, LANDMARKS, 2)),
        "ignore": torch.from_numpy(np.concatenate([i.invalid for i in images]).astype(bool)),
        "first": count.cumsum(0) - count,
        "count": count,
    }
