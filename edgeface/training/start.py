"""Start a run from weights that fit, or from the whole state of another run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgeface import zoo
from edgeface.architecture import Architecture, S3FDHeadSpec
from edgeface.errors import ModelError
from edgeface.files import read_regular
from edgeface.models.detector import FaceNet
from edgeface.schema import from_fields
from edgeface.training.checkpoint import read_meta
from edgeface.training.options import TrainOptions
from edgeface.types import Floats

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
LEAST_SHARE = 0.5
"""least share of the backbone's tensors that must fit: with fewer, the file is of another network
and was given by mistake"""
NAMED = 3
"""tensors that do not fit and that a message names, at most"""


@dataclass(frozen=True)
class Fit:
    """Which tensors a network took from a file."""

    sha256: str
    fitting: tuple[str, ...]
    missing: tuple[str, ...]
    """tensors of the network that the file lacks or has larger"""
    grown: tuple[str, ...] = ()
    """those of ``fitting`` that are larger than in the file"""

    def __str__(self) -> str:
        text = f"{len(self.fitting)} of {len(self.fitting) + len(self.missing)} tensors fit"
        if self.grown:
            text += f", {len(self.grown)} of them as part of a larger one"
        if self.missing:
            more = ", ..." if len(self.missing) > NAMED else ""
            text += (
                f", {len(self.missing)} begin at random: {', '.join(self.missing[:NAMED])}{more}"
            )
        return text


def init_sha256(init: str) -> str:
    """SHA-256 of the weights that ``init`` names: a model of the zoo, or a file.

    Raises ModelError.
    """
    return hashlib.sha256(_read(init)).hexdigest()


def _read(init: str) -> bytes:
    path = zoo.FOLDER / zoo.get_entry(init).weights if init in zoo.names() else Path(init)
    try:
        return read_regular(path)
    except OSError as error:
        raise ModelError(
            f"cannot read --init {init}: {error.strerror or error}; accepted: a .safetensors file, "
            f"or one of {', '.join(zoo.names())}"
        ) from None


def fill(model: FaceNet, init: str) -> Fit:
    """Give ``model`` the tensors of ``init`` (see :func:`init_sha256`) that fit by name and shape.

    A tensor of a narrower network fits, too, except in some networks (see :func:`_fits`). The old
    channels get nothing from the new ones at first, so a network that is only wider, or deeper by
    residuals that begin as their shortcut, begins with the same outputs. Raises ModelError, and
    leaves the model unchanged, for a file that is damaged, holds values that are not finite, or has
    less than half of the backbone.
    """
    sha256 = init_sha256(init)
    weights = zoo.load_weights(init) if init in zoo.names() else zoo.load_weights_file(init)
    own = {k: v for k, v in model.state_dict().items() if not k.endswith(zoo.COUNTER)}
    shapes = {k: (weights[k].shape, tuple(v.shape)) for k, v in own.items() if k in weights}
    fitting = [k for k, (old, new) in shapes.items() if _fits(model.architecture, k, old, new)]
    grown = [k for k in fitting if shapes[k][0] != shapes[k][1]]
    fit = Fit(sha256, tuple(fitting), tuple(k for k in own if k not in fitting), tuple(grown))
    body = [k for k in own if k.startswith("backbone.")]
    common = sum(k in fitting for k in body)
    if common < LEAST_SHARE * len(body):
        hint = (
            f"{init} is a checkpoint, pass the weights.safetensors beside it"
            if any(k.startswith("model.backbone.") for k in weights)
            else "pass weights of a network with this backbone"
        )
        raise ModelError(
            f"--init {init} is of another network: {common} of {len(body)} tensors of the backbone "
            f"of {model.architecture.name} fit, accepted: half of them; {hint}"
        )
    values = {k: np.array(weights[k], np.float32) for k in fitting}
    for key, value in values.items():
        if not np.isfinite(value).all():
            raise ModelError(f"--init {init} holds values that are not finite: {key}")
    values |= {k: _grown(values[k], own[k].cpu().numpy()) for k in grown}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()}, strict=False)
    return fit


def _fits(architecture: Architecture, key: str, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether a tensor of shape ``old`` fits into ``key`` of shape ``new``, which may have more
    channels, but no larger kernel.

    More channels fit only where the old ones keep their meaning. In the S3FD family they do not:
    wider EXTD have other blocks, and EResFD and ASFD concatenate maps. Nor do they in a head with
    group normalisation, whose groups get other members.
    """
    head = architecture.head
    if isinstance(head, S3FDHeadSpec) or (head.norm == "group" and key.startswith("head.")):
        return old == new
    channels = zip(old[:2], new[:2], strict=False)
    return len(old) == len(new) and old[2:] == new[2:] and all(a <= b for a, b in channels)


def _grown(old: Floats, new: Floats) -> Floats:
    """``new`` with the values of ``old`` in its first channels, and zeros in the weights from new
    input channels to old output channels."""
    grown = new.copy()
    if old.ndim > 1:
        grown[: len(old)] = 0
    grown[tuple(map(slice, old.shape))] = old
    return grown


def checkpoint_of(run: Path) -> Path:
    """The checkpoint of ``run``, a run folder or a checkpoint file. Raises ModelError."""
    path = run / CHECKPOINT if run.is_dir() else run
    if not path.is_file():
        raise ModelError(
            f"no checkpoint at {path}: pass the --out folder of a training, or a copy of its "
            f"{CHECKPOINT}"
        )
    return path


def options_of(run: Path) -> tuple[Architecture, TrainOptions]:
    """Network and options of the run that left a checkpoint in ``run``. Raises ModelError."""
    config = read_meta(checkpoint_of(run))["config"]
    return (
        Architecture.from_json(config["architecture"]),
        from_fields(TrainOptions, config["options"], "options"),
    )


def branch_options(run: Path, out: Path) -> tuple[Architecture, TrainOptions]:
    """Network and options that a branch of ``run`` begins with.

    They are those of the run, but the learning rate falls from the start, without warm-up. If
    ``out`` holds the branch already, its own options are returned. Raises ModelError.
    """
    if (out / CHECKPOINT).exists():
        return options_of(out)
    architecture, options = options_of(run)
    return architecture, replace(options, warmup=0, decay_share=1.0, drops="")
