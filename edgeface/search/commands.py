"""Commands that train a network of a front and make a file of it."""

from __future__ import annotations

import shlex

from edgeface.architecture.architecture import Architecture
from edgeface.search.options import StudyOptions
from edgeface.search.results import FrontNet


def train_command(model: str, network: Architecture) -> str:
    """Command that trains ``network``. ``model``: its name, such as runs/pi/front.json#3."""
    return (
        f"edgeface train --model {shlex.quote(model)} --data PHOTOS --annotations FACES.csv"
        f" --out {run_of(network)}"
    )


def export_command(net: FrontNet, options: StudyOptions) -> str:
    """Command that makes a file for the search's target, after :func:`train_command`."""
    trained = f"--size {net.size} --model {run_of(net.architecture)}/weights.safetensors"
    if options.precision == "int8":
        return (
            f"edgeface quantize --target {options.target} {trained} --data PHOTOS"
            " --annotations KEPT.csv"
        )
    return f"edgeface export --target {options.target} --precision {options.precision} {trained}"


def run_of(network: Architecture) -> str:
    """Run folder of the training of ``network``."""
    return f"runs/{network.name}"
