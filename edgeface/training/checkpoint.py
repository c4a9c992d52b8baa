"""Checkpoints: one safetensors file with everything that an exact resume needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgeface.errors import ModelError
from edgeface.files import atomic_write, require_regular
from edgeface.training.ema import EMA


def save_checkpoint(
    path: Path,
    model: nn.Module,
    ema: EMA | None,
    optimizers: list[torch.optim.Optimizer],
    meta: dict[str, Any],
) -> None:
    """Write model, average (if there is one), optimiser state and ``meta`` (JSON) in one file."""
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.shadow.state_dict().items()} if ema else {}
    for i, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{i}.{parameter}.{k}": torch.as_tensor(v) for k, v in state.items()
            }
    content = save({k: v.contiguous() for k, v in tensors.items()}, {"meta": json.dumps(meta)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_meta(path: Path) -> dict[str, Any]:
    """Return the ``meta`` of a checkpoint. Raises ModelError when the file is not one."""
    try:
        require_regular(path)
        with safe_open(str(path), framework="pt") as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})["meta"])
            return meta
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is not a training checkpoint ({error})") from None


def _read_groups(path: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors of a checkpoint by part: model, ema, optimizer. Raises ModelError."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    try:
        require_regular(path)
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                kind, name = key.split(".", 1)
                groups[kind][name] = file.get_tensor(key)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is not a training checkpoint ({error})") from None
    return groups


def load_checkpoint(
    path: Path, model: nn.Module, ema: EMA | None, optimizers: list[torch.optim.Optimizer]
) -> None:
    """Restore what :func:`save_checkpoint` wrote.

    Raises ModelError if it does not fit the network.
    """
    groups = _read_groups(path)
    try:
        model.load_state_dict(groups["model"])
        if ema:
            ema.shadow.load_state_dict(groups["ema"])
    except RuntimeError as error:
        raise ModelError(
            f"{path} is of another network: {str(error).splitlines()[-1].strip()}"
        ) from None
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, tensor in groups["optimizer"].items():
        i, parameter, key = name.split(".", 2)
        states[int(i)].setdefault(int(parameter), {})[key] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
