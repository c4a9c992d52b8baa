"""Debian packages unpacked into a folder: no root, nothing installed, the system's own apt state
untouched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"


def cache_folder(name: str) -> Path:
    """Folder that keeps unpacked packages between test runs, below EDGEFACE_TEST_CACHE or the
    user's cache."""
    base = os.environ.get("EDGEFACE_TEST_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "edgeface-tests" / name


def unpack(
    packages: Sequence[str], suite: str, architecture: str, root: Path, alone: bool = False
) -> None:
    """Unpack ``packages`` and, unless ``alone``, all their dependencies below ``root``, which
    appears once it is complete. Skips the test without apt or a network."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: this needs Debian's packages")
    if not KEYRING.is_file():
        pytest.skip(f"{KEYRING} is not there (Debian: apt-get install debian-archive-keyring)")
    state = root.with_name(root.name + "-apt")
    for folder in ("state", "lists/partial", "cache/archives/partial", "parts"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    (state / "apt.conf").write_text(
        "".join(
            f'{name} "{value}";\n'
            for name, value in {
                "Dir::State": f"{state}/state",
                "Dir::State::Lists": f"{state}/lists",
                "Dir::State::Status": f"{state}/status",
                "Dir::Cache": f"{state}/cache",
                "Dir::Etc::SourceList": f"{state}/sources.list",
                "Dir::Etc::SourceParts": "-",
                "Dir::Etc::Parts": f"{state}/parts",
                "Dir::Etc::PreferencesParts": f"{state}/parts",
                "APT::Architecture": architecture,
                "APT::Architectures": architecture,
                "APT::Sandbox::User": "",
                "Debug::NoLocking": "true",
            }.items()
        )
    )
    install = ("install", "-qq", "-y", "-d", "--no-install-recommends")
    for command in (("update", "-qq"), (*(("download",) if alone else install), *packages)):
        done = subprocess.run(
            ["apt-get", *command],
            cwd=state / "cache/archives",
            env={**os.environ, "APT_CONFIG": f"{state}/apt.conf"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(
                "Debian's packages cannot be had:"
                f" {(done.stderr.strip().splitlines() or ['no reason'])[-1]}"
            )
    for package in sorted((state / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, state / "root"], check=True)
    (state / "root").rename(root)
    shutil.rmtree(state)
