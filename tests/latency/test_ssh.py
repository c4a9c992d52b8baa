"""Measuring behind a real OpenSSH server on loopback, and everything that can go wrong on the
way."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import wait_for
from loopback import Loopback, need_sshd

from edgeface.bundle import Bundle
from edgeface.errors import DeviceError
from edgeface.latency.devices import open_device, remote, shell, ssh, staging
from edgeface.latency.devices import session as session_module
from edgeface.latency.devices.session import Session
from edgeface.latency.devices.ssh import SshAddress, SshDevice
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.latency.session import measure

QUICK = Protocol(
    rounds=2, per_round=2, warm_up_s=0, photo_width=320, photo_height=240, time_limit_s=120
)


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    need_sshd()
    with Loopback(tmp_path / "device") as server:
        yield server
        wait_for(lambda: not server.running())


@pytest.fixture
def jobs(exported: Callable[..., Bundle]) -> list[Job]:
    return [Job(str(exported("onnx").path)), Job(str(exported("ncnn").path))]


def refused(device: SshDevice, *parts: str) -> str:
    """The one line that ``check`` fails with; it holds ``parts``."""
    with pytest.raises(DeviceError) as caught:
        device.check()
    text = str(caught.value)
    assert "\n" not in text and text.startswith(device.url), text
    for part in parts:
        assert part in text, text
    return text


class Steps:
    """Hears what ``measure`` tells."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, what: str, *_: object) -> None:
        self.seen.append(what)

    def sent(self) -> list[str]:
        """Files that were sent, below the device's cache folder."""
        return [what.removeprefix("sent ") for what in self.seen if what.startswith("sent ")]


# -- addresses ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://raspberrypi.local", SshAddress("raspberrypi.local")),
        ("ssh://pi@raspberrypi.local:2222/", SshAddress("raspberrypi.local", "pi", 2222)),
        ("ssh://My-Alias", SshAddress("My-Alias")),
        ("ssh://a.b@[fe80::1%eth0]:22", SshAddress("fe80::1%eth0", "a.b", 22)),
        (
            "ssh://pi@10.0.0.7?python=~/venv/bin/python&config=/a%20b",
            SshAddress("10.0.0.7", "pi", None, "~/venv/bin/python", "/a b"),
        ),
    ],
)
def test_addresses(url: str, expected: SshAddress) -> None:
    assert SshAddress.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://-l@host",
        "ssh://pi@-host",
        "ssh://pi@host:0",
        "ssh://pi@host:99999",
        "ssh://pi@host:x",
        "ssh://pi@host/path",
        "ssh://host name",
        "ssh://host;id",
        "ssh://$(id)",
        "ssh://`id`",
        "ssh://pi@ho\nst",
        "ssh://p i@host",
        "ssh://@host",
        "ssh://[not-ipv6]",
        "ssh://[::1",
        "ssh://host#x",
        "ssh://host?shell=sh",
        "ssh://host?python=",
        "ssh://host?python=-c",
        "ssh://host?config=-x",
        "ssh://[fe80::1%;id]",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(DeviceError) as caught:
        open_device(url)
    assert "\n" not in str(caught.value)


def test_passwords_are_refused_and_not_repeated() -> None:
    with pytest.raises(DeviceError, match="ssh-copy-id pi@host") as caught:
        open_device("ssh://pi:secret@host")
    assert "secret" not in str(caught.value)


def test_nothing_after_the_options_is_an_option() -> None:
    arguments = SshDevice("ssh://pi@raspberrypi.local:2222").arguments("true")
    assert arguments[:3] == ["ssh", "-p", "2222"]
    assert arguments[-3:] == ["--", "pi@raspberrypi.local", "true"]
    assert "-oBatchMode=yes" in arguments and "-oServerAliveInterval=10" in arguments


def test_records_name_the_device_without_what_belongs_to_this_machine() -> None:
    assert open_device("ssh://pi@[::1]:22?python=/p&config=/c").url == "ssh://pi@[::1]:22"


# -- measuring ----------------------------------------------------------------


def test_measures_as_local_does(loopback: Loopback, jobs: list[Job]) -> None:
    device, steps, finished = loopback.device(), Steps(), list[Measurement]()
    found = device.measure(jobs, QUICK, 0, steps, finished.append)
    assert found == finished
    for here, there in zip(measure(jobs, QUICK, 0), found, strict=True):
        ours, theirs = here.to_json(), there.to_json()
        assert theirs["device"] == loopback.url
        assert list(ours) == list(theirs)
        same = (
            "bundle",
            "files",
            "model",
            "target",
            "precision",
            "runtime",
            "threads",
            "fast",
            "width",
            "height",
            "faces",
            "protocol",
        )
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
        assert ours["environment"]["runtimes"] == theirs["environment"]["runtimes"]
        assert ours["ratio"]["to"] == theirs["ratio"]["to"] == jobs[0].name
        for stage, samples in theirs["samples"].items():
            assert [len(part) for part in samples["wall_ms"]] == [2, 2], stage
    assert len(steps.sent()) == 6  # model files: onnx 1, ncnn 2; two manifests; the agent
    assert not list((loopback.folder / "journals").glob("*"))


def test_from_the_command_line(loopback: Loopback, jobs: list[Job]) -> None:
    url = f"{loopback.url}?python={sys.executable}&config={loopback.config}"
    environment = {**os.environ, "XDG_CACHE_HOME": str(loopback.folder)}

    def edgeface(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "edgeface", *words, "--format", "json"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert edgeface("device", "check", url)[0]["what"].startswith("Python 3.")
    (row,) = edgeface(
        "bench",
        jobs[0].bundle,
        "--device",
        url,
        "--rounds",
        "2",
        "--per-round",
        "2",
        "--warm-up-s",
        "0",
    )
    assert (
        row["device"] == loopback.url
        and row["ratio"]["verdict"] == "reference"
        and not row["valid"]
    )


def test_a_second_run_sends_nothing_and_a_damaged_file_is_sent_again(
    loopback: Loopback, jobs: list[Job]
) -> None:
    device = loopback.device()
    device.measure(jobs, QUICK)
    steps = Steps()
    device.measure(jobs, QUICK, progress=steps)
    assert steps.sent() == []
    assert not list(loopback.cache.rglob("*.part"))
    damaged = next(loopback.cache.rglob("*.onnx"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    device.measure(jobs, QUICK, progress=steps)
    assert steps.sent() == [str(damaged.relative_to(loopback.cache))]


def test_no_name_reaches_a_shell(loopback: Loopback, jobs: list[Job], tmp_path: Path) -> None:
    name = "it's; touch gone $(touch gone) `touch gone` & é"
    shutil.copytree(jobs[0].bundle, tmp_path / name)
    (record,) = loopback.device().measure([Job(str(tmp_path / name))], QUICK)
    assert record.bundle == name
    assert not (loopback.home / "gone").exists()


def test_resumes_after_a_cut_connection(loopback: Loopback, jobs: list[Job]) -> None:
    four = [Job(job.bundle, threads) for job in jobs for threads in (1, 2)]
    protocol = dataclasses.replace(QUICK, together=2)
    device, first = loopback.device(), list[Measurement]()

    def cut_in_the_middle(what: str, *_: object) -> None:
        if len(first) == 2 and loopback.running():
            loopback.cut()

    with pytest.raises(
        DeviceError, match=r"connection was lost.*2 of 4 models were measured and are kept"
    ) as caught:
        device.measure(four, protocol, progress=cut_in_the_middle, finished=first.append)
    assert "\n" not in str(caught.value)
    wait_for(lambda: not loopback.running())
    steps, second = Steps(), list[Measurement]()
    found = device.measure(four, protocol, progress=steps, finished=second.append)
    assert found == second and found[:2] == first
    assert steps.seen.count("loading") == 2 and steps.sent() == []
    assert [(r.bundle, r.threads) for r in found] == [(job.name, job.threads) for job in four]
    assert not list((loopback.folder / "journals").glob("*"))


def test_a_reference_is_measured_again_beside_what_was_missing(
    loopback: Loopback, jobs: list[Job]
) -> None:
    three = [*jobs, Job(jobs[0].bundle, 2)]
    protocol = dataclasses.replace(QUICK, together=2)
    first = list[Measurement]()

    def cut(record: Measurement) -> None:
        first.append(record)
        if len(first) == 2:
            loopback.cut()

    with pytest.raises(DeviceError, match="2 of 3"):
        loopback.device().measure(three, protocol, 1, finished=cut)
    steps = Steps()
    found = loopback.device().measure(three, protocol, 1, steps)
    assert steps.seen.count("loading") == 2
    assert sum(record == kept for record in found for kept in first) == 2
    assert all(record.ratio and record.ratio.to == jobs[1].name for record in found)


def test_what_stops_the_caller_stops_the_device(loopback: Loopback, jobs: list[Job]) -> None:
    def stop(what: str, *_: object) -> None:
        if what == "measuring":
            assert loopback.running()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loopback.device().measure(jobs, QUICK, progress=stop)
    wait_for(lambda: not loopback.running())


def test_a_caller_that_was_killed_leaves_nothing_running(
    loopback: Loopback, jobs: list[Job]
) -> None:
    code = (
        "import sys; from edgeface.latency.devices.ssh import SshDevice\n"
        "from edgeface.latency.protocol import Job\n"
        "SshDevice(*sys.argv[1:4]).measure([Job(sys.argv[4])])"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code, loopback.url, sys.executable, loopback.config, jobs[0].bundle],
        env={**os.environ, "XDG_CACHE_HOME": str(loopback.folder)},
    )
    try:
        wait_for(loopback.running)
    finally:
        caller.kill()
        caller.wait()
    wait_for(lambda: not loopback.running())


# -- what can go wrong --------------------------------------------------------


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
    """A system Python without packages, as a fresh board has it; then the virtual environment that
    is advised."""
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
    """A Python whose module ``module`` is ``text`` instead."""
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
    ):  # and what was measured is not repeated
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
    """A Python whose cache folder is a disk of a few KiB."""
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
        """Waits as long as it should until an agent has been stopped."""

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
    """Neither side hears of the other any more: both notice, and the device ends by itself."""
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
