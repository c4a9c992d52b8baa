"""The first exponential that torch computes in a new process."""

from __future__ import annotations

import subprocess
import sys

import pytest

TWICE = """
import torch
import {module}
torch.set_num_threads(2)
x = (0.5 * torch.randn(20_000)).clamp(max=5)  # the threads are awake
print(torch.equal(x.exp(), x.exp()))
"""


@pytest.mark.parametrize("module", ["edgeface.models.blocks", "edgeface.training.assign"])
def test_the_first_exponential_is_as_exact_as_the_second(module: str) -> None:
    """Without the import, one process in six differed on two idle cores."""
    command = [sys.executable, "-c", TWICE.format(module=module)]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(6)
    ]
    assert said == ["True\n"] * 6
