"""python detect.py BUNDLE PHOTO: faces with LiteRT or ONNX Runtime, NumPy and Pillow.

pip install numpy pillow ai-edge-litert (or onnxruntime)
"""

import json
import sys
from pathlib import Path

import numpy as np
from decoder import Decoder
from PIL import Image, ImageOps


def tflite(path, contract, tensor):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    run = interpreter.get_signature_runner(contract["signature"])
    found = run(**{contract["input"]["name"]: tensor})
    return [found[output["name"]] for output in contract["outputs"]]


def onnx(path, contract, tensor):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output["name"] for output in contract["outputs"]]
    return session.run(names, {contract["input"]["name"]: tensor})


def read(photo):
    """uint8 RGB [H, W, 3] as a viewer shows it: upright, 16 bits scaled to 8, transparency over
    white."""
    image = ImageOps.exif_transpose(Image.open(photo))
    if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


RUNTIMES = {"tflite": tflite, "onnx": onnx}


def main(folder, photo):
    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    decoder = Decoder(Path(folder) / "manifest.json")
    pixels = read(photo)
    tensor = decoder.tensor(decoder.letterbox(pixels))
    if manifest["target"] not in RUNTIMES:
        raise SystemExit(
            f"error: {folder} is for {manifest['target']}: name one for tflite or onnx"
        )
    run = RUNTIMES[manifest["target"]]
    outputs = run(Path(folder) / manifest["primary"], decoder.contract, tensor)
    boxes, scores, points = decoder.decode(outputs, pixels.shape[1], pixels.shape[0])
    for i, box in enumerate(boxes):
        landmarks = [] if points is None else points[i].ravel()
        print(f"{scores[i]:.4f}", *(f"{value:.3f}" for value in (*box, *landmarks)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python detect.py BUNDLE PHOTO")
    try:
        main(*sys.argv[1:])
    except KeyError as error:
        raise SystemExit(
            f"error: {sys.argv[1]}: its manifest has no {error}: export anew"
        ) from None
    except Exception as error:  # runtimes and Pillow have no common class
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
