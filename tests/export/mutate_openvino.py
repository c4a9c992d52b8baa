"""Open mutated .xml files of a Bundle: ``python mutate_openvino.py BUNDLE COUNT`` counts the files
refused and those that ran.

It runs in a process of its own, since it looks for crashes and hangs of OpenVINO.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from edgeface.bundle import Bundle
from edgeface.errors import EdgefaceError
from edgeface.runners.openvino import OpenVinoRunner

NUMBERS = (
    "0",
    "1",
    "-1",
    "99999999999",
    "4294967296",
    "18446744073709551615",
    "2147483648",
    "",
    "3",
)


class Mutated:
    """The part of a Bundle that a runner uses, with other bytes."""

    def __init__(self, bundle: Bundle, xml: bytes, weights: bytes) -> None:
        self.path, self.manifest = bundle.path, bundle.manifest
        self._xml, self._weights = xml, weights

    def read(self, name: str | None = None) -> bytes:
        return self._weights if name is not None and name.endswith(".bin") else self._xml


def mutate(xml: bytes, rng: random.Random) -> bytes:
    """``xml`` with a few bytes, numbers or ends of edges changed, or a piece removed or doubled."""
    kind = rng.random()
    if kind < 0.3:
        changed = bytearray(xml)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    text = xml.decode()
    if kind < 0.7:
        for _ in range(rng.randint(1, 3)):
            number = rng.choice(list(re.finditer(r"\d+", text)))
            text = (
                text[: number.start()]
                + rng.choice((*NUMBERS, str(rng.randrange(200))))
                + text[number.end() :]
            )
    elif kind < 0.9:
        end = rng.choice(list(re.finditer(r'(from|to)-(layer|port)="(\d+)"', text)))
        text = (
            text[: end.start(3)]
            + str(rng.randrange(135 if end[2] == "layer" else 4))
            + text[end.end(3) :]
        )
    else:
        start = rng.randrange(len(text))
        stop = min(len(text), start + rng.randrange(400))
        text = text[:start] + text[stop:] if rng.random() < 0.5 else text[:stop] + text[start:]
    return text.encode()


def main() -> None:
    bundle, count = Bundle.open(sys.argv[1]), int(sys.argv[2])
    spec = bundle.manifest.input
    image = np.zeros((1, spec.height, spec.width, 3), np.uint8)
    weights = bundle.read(f"{bundle.manifest.model}.bin")
    refused = ran = 0
    for seed in range(count):
        rng = random.Random(seed)
        xml = mutate(bundle.read(), rng)
        cut = weights[: rng.randrange(len(weights))] if rng.random() < 0.1 else weights
        try:
            with OpenVinoRunner(Mutated(bundle, xml, cut)) as runner:  # type: ignore[arg-type]
                runner.run(image)
            ran += 1
        except EdgefaceError as error:
            assert "\n" not in str(error)
            refused += 1
    print(f"refused {refused}\nran {ran}")


if __name__ == "__main__":
    main()
