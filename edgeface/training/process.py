"""Settings of torch and of the C library for a process that trains."""

from __future__ import annotations

import contextlib
import ctypes

import torch

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""parameters of glibc's mallopt"""
CPU_BF16 = ("amx_bf16", "avx512_bf16")
"""torch's names for the instructions that compute bfloat16"""


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


def fast_bf16(device: torch.device) -> bool:
    """Does the processor compute bfloat16 faster than float32?

    CPUs with AMX or AVX-512 BF16 do, and GPUs with native bfloat16.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ask = getattr(torch.cpu, "get_capabilities", dict[str, bool])  # missing in an older torch
    able = ask()
    return device.type == "cpu" and any(able.get(name) for name in CPU_BF16)
