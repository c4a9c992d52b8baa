"""Open mutated models: ``python open_mutated.py MODEL KIND FIRST COUNT PLACE``.

MODEL is the folder of a Bundle or a weights file, whose mutated copies appear at PLACE one after
the other. KIND: ``file`` (a file is changed), ``signed`` (a file is changed, and its SHA-256 in the
manifest with it), ``values`` and ``text`` (of the manifest), ``weights``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mutations import BYTES
from skimage import data
from workers_apart import ended, items, limit_memory, one_line

from edgeface import Detector
from edgeface.bundle import MANIFEST
from edgeface.detections import Detections
from edgeface.errors import EdgefaceError

MEMORY = 12 << 30
"""limit of the address space in bytes; torch and OpenVINO reserve much that they never use"""
LIMIT_S = 60.0
SCORE = 0.3
TOLERANCE_PX = 1e-3
"""of boxes in px, and of scores; tight, as equal files are computed with the same arithmetic"""
STRANGE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 8, 10**30, 0.5, 1e-30, 1e308),
    *("", "\x1b[2J\n", "9" * 10_000, "../../etc/passwd", "edgeface-n", "int8", "NHWC", "onnx"),
    *([], [[]], [0.5, 0], {}, {"a": 1}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values that can be changed, at any depth."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    below = [place for key in keys for place in places(value[key], (*path, key))]
    return ([path] if path else []) + below


def mutated_values(manifest: Any, rng: random.Random) -> Any:
    """A copy with one or two values deleted, added, scaled, strange or copied from elsewhere."""
    changed = copy.deepcopy(manifest)
    for _ in range(rng.choice((1, 1, 2))):
        found = places(changed)
        path = rng.choice(found)
        owner = _at(changed, path[:-1])
        how = rng.randrange(5)
        if how == 0:
            del owner[path[-1]]
        elif how == 1 and isinstance(owner, dict):
            owner[rng.choice(("extra", "sha256", "weights"))] = rng.choice(STRANGE)
        elif how == 2 and type(owner[path[-1]]) in (int, float):
            owner[path[-1]] *= rng.choice((-1, 2, 3, 1000))
        elif how == 3:
            owner[path[-1]] = copy.deepcopy(_at(changed, rng.choice(found)))
        else:
            owner[path[-1]] = rng.choice(STRANGE)
    return changed


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def mutate(folder: Path, kind: str, rng: random.Random) -> bool:
    """Change the Bundle in ``folder``; return False if the result is the same as before."""
    path = folder / MANIFEST
    text = path.read_bytes()
    manifest = json.loads(text)
    if kind == "values":
        new = json.dumps(mutated_values(manifest, rng)).encode()
        path.write_bytes(new)
        return bool(json.loads(new) != manifest)
    if kind == "text":
        new = rng.choice(BYTES)(text, rng)
        path.write_bytes(new)
        return bool(new != text)
    model = folder / rng.choice(sorted(manifest["files"]))
    content = model.read_bytes()
    new = rng.choice(BYTES)(content, rng)
    model.write_bytes(new)
    if kind == "signed":
        manifest["files"][model.name] = hashlib.sha256(new).hexdigest()
        path.write_text(json.dumps(manifest))
    return bool(new != content)


def mutated_weights(content: bytes, rng: random.Random) -> bytes:
    """Mutate a safetensors file, mostly its header, which says where each tensor lies."""
    size = int.from_bytes(content[:8], "little") + 8
    if rng.random() < 0.1:
        return rng.choice(BYTES)(content, rng)
    header = rng.choice(BYTES)(content[:size], rng)
    if rng.random() < 0.5:  # make the stated length right again
        header = (max(0, len(header) - 8)).to_bytes(8, "little") + header[8:]
    return header + content[size:]


def same(found: Detections, wanted: Detections) -> bool:
    """Are the boxes and scores equal within ``TOLERANCE_PX``?"""
    return found.boxes.shape == wanted.boxes.shape and bool(
        np.allclose(found.boxes, wanted.boxes, atol=TOLERANCE_PX)
        and np.allclose(found.scores, wanted.scores, atol=TOLERANCE_PX)
    )


def main() -> None:
    model, kind, first, count, target = sys.argv[1:]
    whole, place = Path(model), Path(target) / Path(model).name
    astronaut: Any = data.astronaut
    photo = np.ascontiguousarray(astronaut())[:256, :256]
    size = 160 if kind == "weights" else None
    with Detector.open(model, size=size, score_threshold=SCORE) as detector:
        wanted = detector.detect(photo)
    limit_memory(MEMORY)
    counts = {"refused": 0, "opened": 0, "other": 0, "unchanged": 0}
    for item in items(int(first), int(count), LIMIT_S):
        rng = random.Random(item)
        if kind == "weights":
            place.write_bytes(mutated_weights(whole.read_bytes(), rng))
        else:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(whole, place)
            counts["unchanged"] += not mutate(place, kind, rng)
        try:
            with Detector.open(place, size=size, score_threshold=SCORE) as detector:
                found = detector.detect(photo)
        except EdgefaceError as error:
            assert one_line(error), (item, str(error))
            counts["refused"] += 1
        else:
            assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all(), item
            counts["opened"] += 1
            if not same(found, wanted):
                counts["other"] += 1
                print("other boxes", item, flush=True)
    ended(counts)


if __name__ == "__main__":
    main()
