"""Which precision a run computes in."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from edgeface.errors import OptionError
from edgeface.training.checkpoint import read_meta
from edgeface.training.options import TrainOptions

CPU_BF16 = ("amx_bf16", "avx512_bf16")
"""torch's names for the instructions that compute bfloat16"""


def fast_bf16(device: torch.device) -> bool:
    """Does the processor compute bfloat16 faster than float32?

    CPUs with AMX or AVX-512 BF16 do, and GPUs with native bfloat16.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ask = getattr(torch.cpu, "get_capabilities", dict[str, bool])  # missing in an older torch
    able = ask()
    return device.type == "cpu" and any(able.get(name) for name in CPU_BF16)


def with_precision(
    options: TrainOptions, coarsest: int, checkpoint: Path, device: torch.device
) -> TrainOptions:
    """Replace precision ``auto`` by that of the run's checkpoint, or by the faster one here.

    A run that is resumed elsewhere keeps its precision: with another it would not be the same run.
    A 3x3 convolution of stride 2 on a map of one pixel has a wrong weight gradient in bf16 on CPUs
    (torch 2.13), so bf16 needs crops larger than half of the ``coarsest`` stride. Raises
    OptionError.
    """
    fast, large = fast_bf16(device), min(options.size, options.late_size) > coarsest // 2
    if options.precision == "bf16" and not large:
        raise OptionError(
            f"--precision bf16 needs crops of more than {coarsest // 2} px for a network with "
            f"stride {coarsest}: pass a larger --size and --late-size, or --precision fp32"
        )
    if options.precision == "bf16" and not fast:
        print(
            "note: --precision bf16 is slow here, a processor without AMX or AVX-512 BF16: "
            "--precision auto takes what is faster",
            file=sys.stderr,
        )
    if options.precision != "auto":
        return options
    if checkpoint.exists():
        taken = read_meta(checkpoint)["config"]["options"].get("precision", "fp32")
        return dataclasses.replace(options, precision=taken)
    return dataclasses.replace(options, precision="bf16" if fast and large else "fp32")
