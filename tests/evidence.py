"""Two tiny networks for tests of benchmarks.research.evidence, and a check of its error message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.research.evidence import main
from edgeface.architecture import Architecture, PlainHeadSpec, PlainNetSpec, PyramidSpec

Trainings = Callable[..., Path]
TINY = tuple(
    Architecture(
        f"tiny-{i}",
        PlainNetSpec(
            f"SuperConvK6BNRELU(3,8,4,1)SuperConvK3BNRELU(8,{8 * i},2,1)"
            f"SuperConvK3BNRELU({8 * i},16,2,1)"
            "SuperConvK3BNRELU(16,16,2,1)"
        ),
        PyramidSpec("fpn", 8),
        PlainHeadSpec(8, 1),
    )
    for i in (1, 2)
)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text
