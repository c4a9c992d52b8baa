"""The lock file of a release: made from pip's own report and accepted by pip as requirements."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lock import header, lock_lines
from edgeface.errors import DataError

WHEEL = "tiny-1.0-py3-none-any.whl"


def wheel(folder: Path) -> Path:
    """Write a wheel that pip accepts, which consists of metadata only."""
    import zipfile

    path, info = folder / WHEEL, "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--dry-run"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def test_what_pip_would_install_is_what_it_then_accepts(tmp_path: Path) -> None:
    """Real pip installs from the lock made of its report only while the wheel is unchanged."""
    pytest.importorskip("pip", reason="pip is not installed")
    path = wheel(tmp_path)
    links = ("--find-links", str(tmp_path))
    report = json.loads(pip(*links, "--ignore-installed", "--report", "-", "tiny").stdout)
    lines = lock_lines(report)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert lines == [f"tiny==1.0 --hash=sha256:{sha256}"]
    lock = tmp_path / "requirements.lock"
    lock.write_text("\n".join((*header(report), *lines)) + "\n")
    arguments = (*links, "--require-hashes", "-r", str(lock))
    assert pip(*arguments).returncode == 0
    path.write_bytes(path.read_bytes() + b"\0")
    assert "HASHES" in pip(*arguments).stderr


def test_a_package_without_a_hash_is_refused() -> None:
    item = {"metadata": {"name": "odd", "version": "1"}, "download_info": {"vcs_info": {}}}
    with pytest.raises(DataError, match="no SHA-256 of odd 1"):
        lock_lines({"install": [item]})
