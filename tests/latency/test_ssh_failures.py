"""Failures on a device behind ssh: each gives one line that says what to do."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import wait_for
from loopback import QUICK, Loopback, Steps, need_sshd

from edgeface.errors import DeviceError
from edgeface.latency.devices import remote, shell, ssh, staging
from edgeface.latency.devices import session as session_module
from edgeface.latency.devices.session import Session
from edgeface.latency.devices.ssh import SshDevice
from edgeface.latency.protocol import Job


def refused(device: SshDevice, *parts: str) -> str:
    """Return the one-line error of ``check``, which must contain ``parts``."""
    with pytest.raises(DeviceError) as caught:
        device.check()
    text = str(caught.value)
    assert "\n" not in text and text.startswith(device.url), text
    for part in parts:
        assert part in text, text
    return text


def test_nobody_answers(loopback: Loopback) -> None:
    refused(
        loopback.device(url="ssh://pi@127.0.0.1:1"),
        "connection refused",
        "is an ssh server running",
    )
    refused(
        loopback.device(url="ssh://pi@no-such-host.invalid"), "no such host 'no-such-host.invalid'"
    )


def test_unknown_host_key(loopback: Loopback) -> None:
    (loopback.folder / "known_hosts").write_text("")
    text = refused(
        loopback.device(), "its host key is not in known_hosts", "accept it once with: ssh -F "
    )
    assert text.endswith("127.0.0.1 true")


def test_changed_host_key(loopback: Loopback) -> None:
    loopback.trust("other_key")
    refused(
        loopback.device(),
        "not the one in known_hosts",
        f"ssh-keygen -R '[127.0.0.1]:{loopback.port}'",
    )


def test_wrong_key(loopback: Loopback) -> None:
    loopback.log_in_with("other_key")
    refused(loopback.device(), "permission denied", "run: ssh-copy-id -F ")


def test_ssh_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(
        SshDevice("ssh://host"),
        "ssh is not installed here: run: sudo apt-get install openssh-client",
    )


def test_no_python(tmp_path: Path, jobs: list[Job]) -> None:
    need_sshd()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    with Loopback(tmp_path / "device", path=str(tmp_path / "bin")) as bare:
        (finding,) = bare.device(python=None).check()
        assert not finding.ok and "no Python on the device" in finding.what
        assert re.fullmatch(
            r"ssh -t -F \S+ -p \d+ \S+@127\.0\.0\.1 sudo apt-get install -y python3 python3-venv",
            finding.fix or "",
        )
        with pytest.raises(DeviceError, match=r"no Python on the device.*: run: ssh"):
            bare.device(python=None).measure(jobs, QUICK)


def test_the_python_that_was_named_is_none(loopback: Loopback) -> None:
    refused(loopback.device("/no/such/python"), "/no/such/python is no Python", "?python=PATH")
    foreign = loopback.folder / "foreign"
    foreign.write_bytes(b"\x7fELF\x01\x02\x01" + bytes(60))
    foreign.chmod(0o755)
    refused(
        loopback.device(str(foreign)), "is no Python that the device can run", "xec format error"
    )


def test_old_python(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    old = loopback.folder / "stage.py"
    old.write_text(
        staging.STAGE.read_text().replace(
            "sys.version_info < (3, 10)", "sys.version_info < (3, 99)"
        )
    )
    monkeypatch.setattr(shell, "STAGE", old)
    (finding,) = loopback.device().check()
    assert not finding.ok and "is too old, 3.10 is the oldest" in finding.what


def test_check_names_what_is_missing_with_commands_that_work(tmp_path: Path) -> None:
    """A fresh board has a system Python without packages.

    The test then makes the virtual environment that is advised and checks again.
    """
    need_sshd()
    device_path = tmp_path / "bin"
    device_path.mkdir()
    with Loopback(tmp_path / "device", path=f"{device_path}:/usr/bin:/bin") as board:
        python = sys._base_executable  # type: ignore[attr-defined]
        shutil.move(board.script("python3", f'exec {python} -S "$@"'), device_path)
        device = board.device(python=None)
        found = device.check()
        assert found[0].ok and found[0].what.startswith("Python 3.")
        venv, numpy, opencv, *runtimes, _space = found[1:]
        login = f"ssh -F {board.config} -p {board.port} {device.address.user}@127.0.0.1"
        pip = f"{login} .cache/edgeface/venv/bin/python -m pip install"
        assert not venv.ok and venv.fix == f"{login} python3 -m venv .cache/edgeface/venv"
        assert not numpy.ok and numpy.fix == f"{pip} numpy"
        assert not opencv.ok and opencv.fix == f"{pip} opencv-python-headless"
        assert {runtime.fix for runtime in runtimes} == {
            f"{pip} {name}" for name in ("onnxruntime", "ai-edge-litert", "openvino", "ncnn")
        }
        subprocess.run(venv.fix.split(), check=True, stdout=subprocess.DEVNULL)
        again = device.check()
        assert [finding.fix for finding in again if not finding.ok] == [
            f.fix for f in (numpy, opencv, *runtimes)
        ]
        help_text = subprocess.run(
            [*pip.split(), "--help"], check=True, capture_output=True, text=True
        ).stdout
        assert "pip install" in help_text


def hidden(loopback: Loopback, module: str, text: str) -> str:
    """Path of a Python for which ``module`` has the source ``text``."""
    folder = loopback.folder / "hidden"
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(text)
    return loopback.script("python", f'PYTHONPATH={folder} exec {sys.executable} "$@"')


def test_missing_runtime_fails_alone(loopback: Loopback, jobs: list[Job]) -> None:
    folder = loopback.folder / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nclass Hide:\n  def find_spec(self, name, path=None, target=None):\n"
        "    if name == 'ncnn': raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, Hide())\n"
    )
    python = loopback.script("python", f'PYTHONPATH={folder} exec {sys.executable} "$@"')
    device, failed = loopback.device(python), list[tuple[int, str]]()
    found = device.measure(jobs, QUICK, failed=lambda index, why: failed.append((index, why)))
    assert [record.target for record in found] == ["onnx"]
    ((index, why),) = failed
    assert index == 1 and why.startswith(f"{jobs[1]}: ncnn is missing on the device: run: ssh -F ")
    assert why.endswith(f"{python} -m pip install ncnn")
    steps = Steps()
    with pytest.raises(
        DeviceError, match="ncnn is missing on the device"
    ):  # and the measured model is not repeated
        device.measure(jobs, QUICK, progress=steps)
    assert "loading" not in steps.seen


def test_runtime_of_another_architecture(loopback: Loopback, jobs: list[Job]) -> None:
    library = loopback.folder / "libncnn.so"
    library.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(200))
    python = hidden(loopback, "ncnn", f"import ctypes\nctypes.CDLL({str(library)!r})\n")
    with pytest.raises(DeviceError) as caught:
        loopback.device(python).measure(jobs[1:], QUICK)
    text = str(caught.value)
    assert (
        "wrong ELF class" in text
        and "ncnn was built for another processor" in text
        and "\n" not in text
    )
    assert text.endswith("-m pip install --force-reinstall ncnn")


def test_no_numpy(loopback: Loopback, jobs: list[Job]) -> None:
    python = hidden(loopback, "numpy", "raise ImportError('no')")
    with pytest.raises(
        DeviceError, match=r"numpy is missing on the device: run: ssh .* -m pip install numpy"
    ):
        loopback.device(python).measure(jobs, QUICK)


def small_disk(loopback: Loopback, kilobytes: int) -> str:
    """Path of a Python whose cache folder is on a disk of ``kilobytes`` KiB."""
    loopback.cache.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {loopback.cache}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk (unshare -rm)")
    return loopback.script(
        "python", f'exec unshare -rm sh -c \'{mount} && exec {sys.executable} "$@"\' - "$@"'
    )


def test_full_disk_is_told_before_anything_is_sent(loopback: Loopback, jobs: list[Job]) -> None:
    with pytest.raises(
        DeviceError, match=r"disk is full.* bytes to send, .* free.*rm -r \.cache/edgeface/bundles"
    ):
        loopback.device(small_disk(loopback, 64)).measure(jobs, QUICK)


def test_disk_that_fills_up(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    lying = loopback.folder / "stage.py"
    lying.write_text(staging.STAGE.read_text().replace("shutil.disk_usage(root).free", "1 << 50"))
    monkeypatch.setattr(shell, "STAGE", lying)
    refused(
        loopback.device(small_disk(loopback, 64)),
        "the device's disk is full",
        "No space left on device",
    )


def test_folder_that_cannot_be_written(loopback: Loopback) -> None:
    (loopback.home / ".cache").write_text("")
    refused(loopback.device(), "cannot write", "Not a directory")


def test_device_that_hangs(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "ANSWER_S", 1.5)
    refused(
        loopback.device(loopback.script("python", "exec cat > /dev/null")),
        "nothing was heard for too long",
    )


def test_agent_that_hangs_in_mid_run(
    loopback: Loopback, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    class Impatient(Session):
        """A Session that has its normal time limit until an agent has been stopped, then 1 s."""

        def lines(self) -> Iterator[dict[str, Any]]:
            for line in super().lines():
                yield line
                if stopped:
                    self._silence_s = 1.0

    def stop(what: str, *_: object) -> None:
        if what == "measuring" and not stopped:
            stopped.extend(
                pid for pid, words in loopback.running().items() if ".pyz" in words.split()[2]
            )
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    monkeypatch.setattr(shell, "Session", Impatient)
    with pytest.raises(
        DeviceError, match=r"nothing was heard for too long.*0 of 2 models were measured"
    ):
        loopback.device().measure(jobs, QUICK, progress=stop)
    assert len(stopped) == 1
    os.kill(stopped[0], signal.SIGCONT)
    wait_for(lambda: not loopback.running())


def test_line_that_dies_without_a_word(
    loopback: Loopback, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the line has died silently, both sides notice, and the device ends its processes."""
    dead = [
        option.replace("Interval=10", "Interval=1").replace("Max=3", "Max=2")
        for option in ssh.FIXED
    ]
    monkeypatch.setattr(ssh, "FIXED", tuple(dead))
    monkeypatch.setattr(remote, "SILENCE_S", 3.0)
    monkeypatch.setattr(session_module, "BEAT_S", 0.2)
    stopped: list[int] = []

    def freeze(what: str, *_: object) -> None:
        if what == "measuring" and not stopped:
            stopped.extend(loopback.sessions())
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    try:
        with pytest.raises(DeviceError, match=r"connection was lost \(no answer in time"):
            loopback.device().measure(
                jobs, dataclasses.replace(QUICK, rounds=1000), progress=freeze
            )
        assert stopped
        wait_for(lambda: not loopback.running())
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
