"""What a network of a front becomes next: the commands that train it and make a file of it."""

from __future__ import annotations

import shlex

from edgeface.architecture.architecture import Architecture
from edgeface.search.options import StudyOptions
from edgeface.search.results import FrontNet


def train_command(model: str, network: Architecture) -> str:
    """``model``: what names the network, such as runs/pi/front.json#3."""
    return (
        f"edgeface train --model {shlex.quote(model)} --data PHOTOS --annotations FACES.csv"
        f" --out {run_of(network)}"
    )


def export_command(net: FrontNet, options: StudyOptions) -> str:
    """After :func:`train_command`: a file for what the search asked for."""
    trained = f"--size {net.size} --model {run_of(net.architecture)}/weights.safetensors"
    if options.precision == "int8":
        return (
            f"edgeface quantize --target {options.target} {trained} --data PHOTOS"
            " --annotations KEPT.csv"
        )
    return f"edgeface export --target {options.target} --precision {options.precision} {trained}"


def run_of(network: Architecture) -> str:
    """Run folder of its training."""
    return f"runs/{network.name}"
