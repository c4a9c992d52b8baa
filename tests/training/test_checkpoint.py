"""Reading a checkpoint, and refusing files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from edgeface.errors import ModelError
from edgeface.models import build
from edgeface.training.checkpoint import load_checkpoint, read_meta, save_checkpoint


@pytest.mark.parametrize("kind", ["pipe", "folder", "cut"])
def test_what_is_no_checkpoint_is_refused_before_it_is_opened(kind: str, tmp_path: Path) -> None:
    """Opening a pipe to read it would wait for ever."""
    path, model = tmp_path / "checkpoint.safetensors", build("edgeface-n")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        save_checkpoint(path, model, None, [], {"step": 1})
        path.write_bytes(path.read_bytes()[:-9])
    for read in (read_meta, lambda path: load_checkpoint(path, model, None, [])):
        with pytest.raises(ModelError, match=r"^\S+ is not a training checkpoint \([^\n]+\)$"):
            read(path)
