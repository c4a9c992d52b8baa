"""The real ``adb`` client against Debian's ``adbd`` on loopback, and layers that need neither."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import wait_for
from debian import cache_folder, unpack
from loopback import processes_about

from edgeface.bundle import Bundle
from edgeface.errors import DeviceError
from edgeface.latency.devices import open_device
from edgeface.latency.devices.adb import AdbDevice
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol

QUICK = Protocol(
    rounds=2, per_round=2, warm_up_s=0, photo_width=320, photo_height=240, time_limit_s=120
)
SERIAL = "127.0.0.1:5555"
IP = shutil.which("ip") or shutil.which("/usr/sbin/ip")

# -- without a device ---------------------------------------------------------


@pytest.mark.parametrize(
    "serial", ["emulator-5554", "R58M12ABCDE", "10.0.0.7:5555", "adb-ab12._adb-tls-connect._tcp"]
)
def test_serials(serial: str) -> None:
    device = open_device(f"adb://{serial}")
    assert (
        isinstance(device, AdbDevice)
        and device.serial == serial
        and device.url == f"adb://{serial}"
    )
    assert device.arguments("true") == ["adb", "-s", serial, "shell", "-T", "true"]


@pytest.mark.parametrize(
    "url",
    [
        "adb://",
        "adb://-e",
        "adb://a b",
        "adb://a;id",
        "adb://$(id)",
        "adb://a/b",
        "adb://a#b",
        "adb://a?python=",
        "adb://a?config=x",
        "adb://a\nb",
        "adb://a?python=-c",
    ],
)
def test_what_is_no_serial_is_refused(url: str) -> None:
    with pytest.raises(DeviceError) as caught:
        open_device(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("error: device 'R58' not found", "run: adb devices -l"),
        ("adb: device 'R58' not found", "run: adb devices -l"),
        ("error: no devices/emulators found", "run: adb devices -l"),
        ("error: device unauthorized.", "accept the question on its screen"),
        ("error: device offline", "adb -s R58 reconnect"),
        ("error: target doesn't support PTY args -Tt", "Android 7"),
        ("error: closed", "the line was cut"),
    ],
)
def test_what_adb_says(said: str, part: str) -> None:
    assert part in (
        AdbDevice("adb://R58").explain(1, ["* daemon started successfully", said]) or ""
    )


def test_what_the_device_says_is_not_taken_for_adb() -> None:
    device = AdbDevice("adb://R58")
    assert device.explain(127, ["/system/bin/sh: python3: inaccessible or not found"]) is None
    network = AdbDevice("adb://10.0.0.7:5555").explain(1, ["error: device not found"])
    assert network and network.endswith("run: adb connect 10.0.0.7:5555")


def test_files_lie_where_android_lets_its_shell_write() -> None:
    command = AdbDevice("adb://R58").arguments(AdbDevice("adb://R58")._command("-V"))[-1]
    assert (
        "TMPDIR=/data/local/tmp" in command
        and "/data/local/tmp/edgeface/venv/bin/python" in command
    )


def test_adb_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        DeviceError, match="adb is not installed here: run: sudo apt-get install adb"
    ):
        AdbDevice("adb://R58").check()


def test_advice_for_a_phone_without_python() -> None:
    advice = AdbDevice("adb://R58").python_advice()
    assert "Termux" in advice
    assert advice.endswith(
        "adb -s R58 forward tcp:8022 tcp:8022 && edgeface device check ssh://root@localhost:8022"
    )


# -- with adbd ----------------------------------------------------------------


def programs() -> Path:
    """Folder with ``adb`` and ``adbd``, unpacked from Debian's packages once and kept."""
    folder = cache_folder("adb")
    if not (folder / "bin").is_dir():
        if (
            subprocess.run(
                ["dpkg", "--print-architecture"], capture_output=True, text=True
            ).stdout.strip()
            != "amd64"
        ):
            pytest.skip("the packages of this test are those for amd64")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        unpack(("adb", "adbd"), "trixie", "amd64", folder / "root")
        libraries = folder / "root/usr/lib/x86_64-linux-gnu"
        (folder / "draft").mkdir()
        tools = folder / "root/usr/lib/android-sdk/platform-tools"
        for name in ("adb", "adbd"):  # with the C library that they were built for
            script = folder / "draft" / name
            script.write_text(
                f"#!/bin/sh\nexec {libraries}/ld-linux-x86-64.so.2 --argv0 {name} --library-path "
                f'{libraries}:{libraries}/android {tools}/{name} "$@"\n'
            )
            script.chmod(0o755)
        (folder / "draft").rename(folder / "bin")
    return folder / "bin"


class Phone:
    """adbd and adb's server in a network of their own: nobody else can reach its root shell."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        environment = {**os.environ, "HOME": str(self.home), "ADBD_PORT": SERIAL.rpartition(":")[2]}
        self._start: dict[str, Any] = {
            "env": environment,
            "stderr": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
        }
        serve = f"{IP} link set lo up && exec adb server nodaemon"
        self._server = subprocess.Popen(["unshare", "-rn", "sh", "-c", serve], **self._start)
        self._adbd: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Start adbd and wait until adb sees it."""
        enter = ["nsenter", "-t", str(self._server.pid), "-U", "-n", "--preserve-credentials"]
        wait_for(
            lambda: (
                subprocess.run(
                    [*enter, str(IP), "link", "show", "up", "dev", "lo"], capture_output=True
                ).stdout
            )
        )
        self._adbd = subprocess.Popen([*enter, "adbd"], **self._start)
        wait_for(self._online)

    def lose(self) -> None:
        """Kill adbd, as if the plug were pulled."""
        if self._adbd:
            self._adbd.kill()
            self._adbd.wait()

    def close(self) -> None:
        self.lose()
        self._server.terminate()
        self._server.wait()

    def running(self) -> dict[int, str]:
        """Process ids of agents and workers on the phone, with their command lines."""
        return processes_about(self.home)

    def _online(self) -> bool:
        subprocess.run(["adb", "connect", SERIAL], capture_output=True)
        state = subprocess.run(["adb", "-s", SERIAL, "get-state"], capture_output=True, text=True)
        return state.stdout.strip() == "device"


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    if (
        IP is None
        or subprocess.run(
            ["unshare", "-rn", "nsenter", "--version"], capture_output=True
        ).returncode
    ):
        pytest.skip(
            "this system lets nobody make a network of their own (unshare -rn, nsenter, ip)"
        )
    monkeypatch.setenv("PATH", f"{programs()}:{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(
        prefix="adb-"
    ) as short:  # a socket's path holds about 100 characters
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{short}/socket")
        device = Phone(Path(short))
        monkeypatch.setattr(AdbDevice, "root", f"{device.home}/edgeface")
        try:
            device.boot()
            yield device
            wait_for(lambda: not device.running())
        finally:
            device.close()


def device(phone: Phone) -> AdbDevice:
    return AdbDevice(f"adb://{SERIAL}", sys.executable, phone.folder / "journals")


@pytest.mark.slow
def test_check(phone: Phone) -> None:
    found = device(phone).check()
    assert found[0].ok and "Linux" in found[0].what and all(finding.ok for finding in found)


@pytest.mark.slow
def test_measures_and_sends_once(phone: Phone, exported: Callable[..., Bundle]) -> None:
    seen: list[str] = []
    jobs = [Job(str(exported("onnx").path)), Job(str(exported("ncnn").path))]
    found = device(phone).measure(jobs, QUICK, 0, lambda what, *_: seen.append(what))
    assert [(r.device, r.bundle) for r in found] == [(f"adb://{SERIAL}", job.name) for job in jobs]
    assert any(what.startswith("sent ") for what in seen)
    seen.clear()
    device(phone).measure(jobs[:1], QUICK, progress=lambda what, *_: seen.append(what))
    assert not any(what.startswith("sent ") for what in seen)


@pytest.mark.slow
def test_lost_in_mid_run_and_resumed(phone: Phone, exported: Callable[..., Bundle]) -> None:
    jobs = [Job(str(exported("onnx").path), threads) for threads in (1, 2, 3)]
    protocol = Protocol(**{**vars(QUICK), "together": 2})
    first: list[Measurement] = []

    def pull(what: str, *_: object) -> None:
        if len(first) == 2:
            phone.lose()

    with pytest.raises(
        DeviceError, match=r"connection was lost.*2 of 3 models were measured and are kept"
    ):
        device(phone).measure(jobs, protocol, progress=pull, finished=first.append)
    wait_for(lambda: not phone.running())
    with pytest.raises(DeviceError, match=r"offline|no such device"):
        device(phone).check()
    phone.boot()
    seen: list[str] = []
    found = device(phone).measure(jobs, protocol, progress=lambda what, *_: seen.append(what))
    assert found[:2] == first and len(found) == 3
    assert seen.count("loading") == 1


@pytest.mark.slow
def test_unknown_serial(phone: Phone) -> None:
    with pytest.raises(DeviceError, match="adb knows no such device"):
        AdbDevice("adb://R58M12").check()


@pytest.mark.slow
def test_phone_without_python(phone: Phone) -> None:
    (finding,) = AdbDevice(f"adb://{SERIAL}", None, phone.folder / "journals").check()[:1]
    assert finding.ok  # this phone runs Debian, which has a Python
    with pytest.raises(DeviceError, match=r"/no/python is no Python that the device can run"):
        AdbDevice(f"adb://{SERIAL}", "/no/python").check()
