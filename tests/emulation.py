"""A 64-bit ARM processor under qemu: aarch64 wheels, and a Debian whose commands run as root."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from debian import cache_folder

FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop"
    " asimddp"
)
"""CPU features of the emulated Cortex-A76, as its kernel would list them: litert reads them, and
must not see those of x86"""

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
PLATFORMS = (
    "manylinux_2_35_aarch64",
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux2014_aarch64",
)

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
HANDLERS = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc"
IN_ROOT = rf"""set -e
qemu=$1 root=$2 cpuinfo=$3
shift 3
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
{HANDLERS}
printf %s ":arm:M::$magic:$mask:$qemu:OCF" > /proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$cpuinfo" "$root/proc/cpuinfo"
exec chroot "$root" /usr/bin/env -i \
  PATH=/usr/bin HOME=/home/pi LANG=C.UTF-8 QEMU_CPU=cortex-a76 "$@"
"""
"""Script that runs a command in a namespace where the kernel starts aarch64 programs with qemu.
Linux 6.7 and later have such handlers per namespace, so it needs no root, and the handlers of the
machine stay unchanged."""


def write_cpuinfo(root: Path) -> None:
    """Write two emulated cores to ``proc/cpuinfo`` below the emulator's root."""
    cpu = (
        f"processor\t: 0\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU"
        " part\t: 0xd0b\n\n"
    )
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(cpu + cpu.replace(": 0\n", ": 1\n", 1))


def pip_for_arm(verb: str, python: str, *words: object) -> None:
    """``pip install --target`` or ``pip download`` of aarch64 wheels for CPython ``python``, in the
    pinned releases. Skips the test without a package index."""
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command += [word for name in PLATFORMS for word in ("--platform", name)]
    command += ["-c", str(CONSTRAINTS), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "connection" in done.stderr.lower():
        pytest.skip("the aarch64 wheels cannot be had: no package index can be reached")
    assert done.returncode == 0, done.stderr


def wheel_for_arm(package: str) -> Path:
    """Folder of the unpacked aarch64 wheel of the installed release; kept between test runs."""
    home = cache_folder(f"{package}-{version(package)}-arm64")
    if not home.is_dir():
        words = ("--no-deps", "--target", home, f"{package}=={version(package)}")
        pip_for_arm("install", platform.python_version(), *words)
    return home


def need_namespace() -> str:
    """Path of qemu. Skips the test if ``run_in_root`` cannot work."""
    qemu = shutil.which("qemu-aarch64-static")
    if qemu is None:
        pytest.skip("qemu-aarch64-static is not installed: apt install qemu-user-static")
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt install util-linux")
    done = subprocess.run([*NAMESPACE, "sh", "-c", HANDLERS], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no namespace with programs of other CPUs: {done.stderr.strip()}")
    return qemu


def run_in_root(root: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command of the Debian for arm64 below ``root`` as its root user."""
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    cpuinfo = root.with_name(root.name + "-cpuinfo")
    cpuinfo.mkdir(exist_ok=True)
    write_cpuinfo(cpuinfo)
    words = [need_namespace(), root, cpuinfo / "proc" / "cpuinfo", *command]
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", IN_ROOT, "run_in_root", *map(str, words)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
    )
