"""Compiling a network for training, and the errors of compilers in one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from edgeface.errors import OptionError, TrainingError
from edgeface.models.detector import FaceNet

COMPILED_FROM = 2000
"""backbone and head are compiled in runs of at least this many steps: they make up for the minute
that compiling takes"""


def check_compiler() -> None:
    """Raise OptionError if there is no C++ compiler."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise OptionError(
            "--compile needs a C++ compiler (g++, or what CXX names): or pass --no-compile"
        )


def compile_for_cpu(model: FaceNet, steps: int) -> None:
    """Have the parts of ``model`` compiled that gain by it in a run of ``steps`` steps.

    They are compiled when they first run, and again for each size of crops.
    """
    # Compiled: one pass over the largest tensor of a step instead of two.
    model.normalise.compile(dynamic=False)
    if steps >= COMPILED_FROM:
        # Not the neck: a compiled bilinear resize is slower than torch's own.
        model.backbone.compile(dynamic=False)
        model.head.compile(dynamic=False)


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turn errors of the compiler in the block into TrainingError."""
    try:
        yield
    except RuntimeError as error:
        from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

        if not isinstance(error, (CppCompileError, InductorError, InvalidCxxCompiler)):
            raise
        raise TrainingError(
            f"the network cannot be compiled ({_first_line(error)}): see that CXX names a C++"
            " compiler that works and that the folder of temporary files has room, or pass"
            " --no-compile"
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
