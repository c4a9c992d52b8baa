"""The verbs of the command line as functions, and the least arguments that each verb needs."""

from __future__ import annotations

import importlib
from typing import Any

from edgeface.backends import CHECKOUT_VERBS, load_verb

LEAST: dict[str, tuple[str, ...]] = {
    "detect": ("{photo}",),
    "demo": (),
    "export": ("--target", "onnx"),
    "quantize": ("--target", "onnx", "--calibration", "{photos}", "--no-accuracy"),
    "train": ("--data", "nowhere", "--out", "{out}"),
    "eval": ("--data", "nowhere"),
    "compare": ("{bundle}", "{bundle}", "--image", "{photo}"),
    "bench": ("{bundle}",),
    "search": ("--out", "{out}"),
    "score": ("damofd-0.5g",),
    "autofem": ("--data", "nowhere", "--out", "{out}"),
}
"""arguments without which a verb fails before it checks its other options"""


def function_of(verb: str) -> Any:
    if verb in CHECKOUT_VERBS:
        return load_verb(verb)
    return importlib.import_module(f"edgeface.cli.{verb.replace(' ', '_')}").command
