"""python test.py [FOLDER]: checks the decoder against the golden vectors in FOLDER."""

import base64
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from decoder import Decoder


def array(text, dtype, shape):
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype).newbyteorder("<")).reshape(shape)


def outputs_of(case):
    """Output arrays of the case, in the order and with the shapes of the contract."""
    found = []
    for spec, text in zip(case["contract"]["outputs"], case["outputs"], strict=True):
        cells = [-(-case["canvas"][i] // spec["stride"]) for i in (1, 0)]
        _, *sides = spec["shape"]
        shape = [1, sides[0], *cells] if spec["layout"] == "NCHW" else [1, *cells, sides[2]]
        found.append(array(text, spec["dtype"], shape))
    return found


def near(name, found, wanted, most):
    found, wanted = np.asarray(found, float).ravel(), np.asarray(wanted, float).ravel()
    if found.shape != wanted.shape or np.abs(found - wanted).max(initial=0) > most:
        raise SystemExit(f"error: {name}: more than {most} apart")
    return 1


def check(name, case, folder):
    """Check one case; returns the number of checks."""
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"contract": case["contract"]}))
    decoder = Decoder(manifest)
    width, height = case["photo"]
    sides = [case["fitted"], case["canvas"]]
    count = near(f"{name}: fit", decoder.fit(width, height), sides, 0)
    if "pixels" in case:
        canvas = decoder.letterbox(array(case["rgb"], "u1", [height, width, 3]))
        count += near(f"{name}: pixels", canvas, array(case["pixels"], "u1", [-1]), 0)
    if "faces" in case:
        boxes, scores, points = decoder.decode(outputs_of(case), width, height)
        faces = case["faces"]
        count += near(f"{name}: scores", scores, [face["score"] for face in faces], 1e-4)
        count += near(f"{name}: boxes", boxes, [face["box"] for face in faces], 0.05)
        if points is not None:
            count += near(f"{name}: landmarks", points, [f["landmarks"] for f in faces], 0.05)
    return count


def main():
    source = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "vectors")
    files = sorted(source.glob("*.json"))
    if not files:
        raise SystemExit(f"error: no vectors in {source}")
    with tempfile.TemporaryDirectory() as folder:
        count = sum(
            check(f"{file.name}, {case['name']}", case, Path(folder))
            for file in files
            for case in json.loads(file.read_text())
        )
    print(f"Python: {count} checks passed")


if __name__ == "__main__":
    main()
