"""A 64-bit ARM processor under qemu."""

from __future__ import annotations

from pathlib import Path

FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop"
    " asimddp"
)
"""those of the emulated Cortex-A76, as its kernel would show them: litert reads them and must not
be told x86's"""


def write_cpuinfo(root: Path) -> None:
    """Two such cores in ``proc/cpuinfo`` below the emulator's root."""
    cpu = (
        f"processor\t: 0\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU"
        " part\t: 0xd0b\n\n"
    )
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(cpu + cpu.replace(": 0\n", ": 1\n", 1))
