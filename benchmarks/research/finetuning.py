"""``python -m benchmarks.research.finetuning --data WIDER``: what fine-tuning gains on photos that
differ from WIDER FACE.

Takes validation photos that the network was not trained on and changes them as other cameras would.
Half of them are used for fine-tuning, as docs/finetune.md describes; the others are kept aside and
measured before and after. Faces that WIDER FACE does not count as hard are marked invalid. Finished
trainings are kept, so a stopped run resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import Printed
from edgeface import zoo
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.evaluation import evaluate_model, load_ground_truth
from edgeface.evaluation.predict import present_images
from edgeface.evaluation.wider import ImageFaces
from edgeface.images import Image, read_image
from edgeface.images.marked import write_image
from edgeface.options import check_choice
from edgeface.training import TrainOptions, train_model
from edgeface.types import Doubles

LONG_SIDE = 640
"""long side in px of the photos that are written"""
LENS = 1.1
"""radians between the middle of a fisheye's picture and its nearest side"""
OUTLINE = np.linspace(0, 2 * np.pi, 64, endpoint=False)
Changed = tuple[Image, Doubles]
"""a photo, and its boxes [N, 4] x, y, w, h"""


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    data: Path
    """WIDER FACE folder with the validation images"""
    cameras: tuple[str, ...] = ()
    """names from CAMERAS; default: all"""
    samples: int = 6400
    """crops per fine-tuning, as in docs/finetune.md"""
    lr: float = 0.0005
    """initial learning rate, as in docs/finetune.md"""
    photos: int = 400
    """largest number of photos: half for fine-tuning, half for measuring"""
    seed: int = 0
    """seed of the trainings and of the noise"""
    out: Path = Path("runs/finetuning")
    """folder for the photos and trainings"""


@dataclass(frozen=True)
class Gain:
    """AP on the kept photos of one camera, of edgeface-n and of its fine-tuned weights."""

    camera: str
    before: float | None
    after: float | None
    faces: int


def as_it_is(photo: Image, boxes: Doubles, _: np.random.Generator) -> Changed:
    """Unchanged photos, like those edgeface-n was trained with."""
    return photo, boxes


def upside_down(photo: Image, boxes: Doubles, _: np.random.Generator) -> Changed:
    """A camera that hangs from a ceiling."""
    x, y, w, h = boxes.T
    height, width = photo.shape[:2]
    return photo[::-1, ::-1].copy(), np.stack((width - x - w, height - y - h, w, h), axis=1)


def night(photo: Image, boxes: Doubles, rng: np.random.Generator) -> Changed:
    """Infrared lamps beside the lens: grey, dark towards the sides, noisy."""
    height, width = photo.shape[:2]
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) / 255
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lit = 110 * grey**1.3 * np.exp(-1.5 * (x**2 + y**2)) + 8
    noisy = np.clip(lit + rng.normal(0, 8, grey.shape), 0, 255).astype(np.uint8)
    return np.repeat(noisy[..., None], 3, axis=2), boxes


def negative(photo: Image, boxes: Doubles, _: np.random.Generator) -> Changed:
    """A thermal camera that shows heat as black."""
    grey = 255 - cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    return np.repeat(grey[..., None], 3, axis=2), boxes


def fisheye(photo: Image, boxes: Doubles, _: np.random.Generator) -> Changed:
    """An equidistant lens, black where the photo ends. The new box of a face encloses the warped
    ellipse that filled its old box."""
    height, width = photo.shape[:2]
    middle, side = np.array((width, height)) / 2, min(width, height) / 2
    y, x = np.mgrid[0.5:height, 0.5:width]
    offsets = np.stack((x, y), axis=-1) - middle
    share = np.linalg.norm(offsets, axis=-1, keepdims=True) / side
    seen = np.tan(np.minimum(share * LENS, 1.5)) / np.tan(LENS)  # 1.5: beyond any photo
    source = middle + offsets * _ratio(seen, share) - 0.5
    maps = source.astype(np.float32)
    warped = np.asarray(cv2.remap(photo, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR), np.uint8)
    ellipse = np.stack((np.cos(OUTLINE), np.sin(OUTLINE)), axis=1) / 2
    points = boxes[:, None, :2] + boxes[:, None, 2:] * (ellipse + 0.5) - middle
    share = np.linalg.norm(points, axis=-1, keepdims=True) / side
    points = middle + points * _ratio(np.arctan(share * np.tan(LENS)) / LENS, share)
    low, high = points.min(axis=1), points.max(axis=1)
    return warped, np.concatenate((low, high - low), axis=1)


def _ratio(to: Doubles, share: Doubles) -> Doubles:
    """to / share; 1 in the middle, where both are 0."""
    return np.divide(to, share, out=np.ones_like(share), where=share > 0)


Camera = Callable[[Image, Doubles, np.random.Generator], Changed]
CAMERAS: Mapping[str, Camera] = {
    "as it is": as_it_is,
    "upside down": upside_down,
    "night": night,
    "negative": negative,
    "fisheye": fisheye,
}


def write_photos(camera: str, faces: dict[Path, ImageFaces], folder: Path, seed: int) -> None:
    """Write the changed photos to ``folder`` and their faces, in WIDER FACE's format, to
    learned.txt and kept.txt in turn."""
    texts: tuple[list[str], list[str]] = ([], [])
    for i, (path, annotated) in enumerate(faces.items()):
        photo = read_image(path)
        scale = LONG_SIDE / max(photo.shape[:2])
        small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        changed, boxes = CAMERAS[camera](
            np.asarray(small, np.uint8), annotated.boxes * scale, np.random.default_rng((seed, i))
        )
        name = f"{i:04d}.png"
        write_image(folder / name, changed)
        texts[i % 2].extend(_block(name, boxes, annotated.counts["hard"]))
    for name, lines in zip(("learned.txt", "kept.txt"), texts, strict=True):
        (folder / name).write_text("\n".join(lines) + "\n")


def _block(name: str, boxes: Doubles, counts: np.ndarray) -> list[str]:
    rows = [
        f"{x:.2f} {y:.2f} {w:.2f} {h:.2f} 0 0 0 {int(not counting)} 0 0"
        for (x, y, w, h), counting in zip(boxes.tolist(), counts.tolist(), strict=True)
    ]
    return [name, str(len(rows)), *(rows or ["0 0 0 0 0 0 0 0 0 0"])]


def measured(camera: str, o: Options, terminal: Terminal) -> Gain:
    """Fine-tune on half of the photos as ``camera`` sees them, and measure on the others."""
    folder = o.out / camera.replace(" ", "-")
    truth = load_ground_truth(o.data)
    paths = list(present_images(o.data, truth).items())[: o.photos]
    faces = {path: truth.images[key] for key, path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    write_photos(camera, faces, folder, o.seed)
    options = TrainOptions(
        samples=o.samples,
        batch=16,
        lr=o.lr,
        warmup=50,
        decay_share=1,
        late_share=0,
        ema=0.99,
        seed=o.seed,
    )
    run = folder / "run"
    train_model(
        zoo.get_entry("edgeface-n").architecture,
        options,
        folder,
        run,
        folder / "learned.txt",
        run / "cache",
        threads=1,
        init="edgeface-n",
        progress=terminal.tick,
        note=lambda text: None,
    )
    before, after = (
        evaluate_model(model, folder, annotations=folder / "kept.txt", progress=terminal.tick)
        for model in ("edgeface-n", str(run / "weights.safetensors"))
    )
    return Gain(camera, before.report.hard, after.report.hard, after.report.faces["hard"])


def as_table(rows: list[Gain]) -> str:
    """AP as fractions."""
    cells = [
        (
            row.camera,
            *(None if ap is None else f"{ap:.3f}" for ap in (row.before, row.after)),
            row.faces,
        )
        for row in rows
    ]
    return table(("photos", "edgeface-n", "fine-tuned", "faces"), cells)


def _run(o: Options) -> int | None:
    check_choice("cameras", o.cameras, CAMERAS)
    with Terminal() as terminal:
        rows = [measured(camera, o, terminal) for camera in o.cameras or CAMERAS]
    emit([asdict(row) for row in rows], as_table(rows), o.format, o.save)
    return None


main = program_of(Options, "python -m benchmarks.research.finetuning", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
