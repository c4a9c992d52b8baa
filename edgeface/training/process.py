"""Settings of torch and of the C library for a process that trains."""

from __future__ import annotations

import contextlib
import ctypes

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""parameters of glibc's mallopt"""


def make_deterministic() -> None:
    """Make the same inputs give the same bytes from now on, as far as torch has such kernels.

    New tensors stay uninitialised: filling them takes a tenth of a step, and would only reveal
    reads of values that were never written.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def hold_freed_memory() -> None:
    """Keep freed memory for the next step, if the C library is glibc.

    Otherwise glibc returns the large tensors of every step to the system, which then hands them out
    again page by page, each cleared: this takes a quarter of a step in bf16.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, 64 << 20)):
            mallopt(parameter, value)
