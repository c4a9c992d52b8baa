"""A device behind ``adb``: an Android phone or board, by cable or network.

Everything goes through ``adb shell``, which since Android 7 keeps the three streams apart, passes
exit codes on and closes the command's input when the connection is cut. Files are sent through it
too, so that each is verified on the device before it gets its final name, as with ssh.

Android itself has no Python. The shell of adb may start any program below ``/data/local/tmp`` or on
its PATH, but not those of Termux, which only Termux may start. A phone without root is therefore
reached through Termux and ssh::

    # on the phone, in Termux
    pkg install proot-distro && proot-distro install debian && proot-distro login debian
    apt-get update && apt-get install -y python3-venv openssh-server && mkdir -p /run/sshd ~/.ssh
    cat > ~/.ssh/authorized_keys    # paste your public key
    /usr/sbin/sshd -p 8022
    # here
    adb -s SERIAL forward tcp:8022 tcp:8022
    edgeface device check ssh://root@localhost:8022
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from edgeface.errors import DeviceError
from edgeface.latency.devices.address import options_of, query_options, split_url
from edgeface.latency.devices.remote import RemoteDevice

ADB = "adb"
STATE_S = 10.0
EXPECTED = "expected adb://serial, as `adb devices` lists it"
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class AdbDevice(RemoteDevice):
    """Measures on a device that ``adb`` knows by a serial number or by an address.

    An address looks like ``192.168.1.5:5555``. The path of a Python on the device may also stand in
    the URL:
    ``adb://SERIAL?python=/data/local/tmp/bin/python3``.
    """

    root = "/data/local/tmp/edgeface"
    folder = "/data/local/tmp/edgeface"
    package = "adb"
    setup = "export TMPDIR=/data/local/tmp; "  # Android has no /tmp

    def __init__(self, url: str, python: str | None = None, journals: Path | None = None) -> None:
        """Does not connect yet; python: path on the device.

        Raises DeviceError if ``url`` does not name a serial number.
        """
        parts = split_url(url, "adb", EXPECTED)
        self.serial = parts.netloc
        if not _SERIAL.fullmatch(self.serial):
            raise DeviceError(
                f"{url!r}: {self.serial!r} is not the serial number of a device: {EXPECTED}"
            )
        self.options = options_of(url)
        options = query_options(url, parts.query, ("python",))
        super().__init__(f"adb://{self.serial}", python or options.get("python"), journals)

    def arguments(self, command: str) -> list[str]:
        return [ADB, "-s", self.serial, "shell", "-T", command]

    def advice(self, command: str) -> str:
        return f"{shlex.join([ADB, '-s', self.serial, 'shell'])} {command}"

    def python_advice(self) -> str:
        return (
            "in Termux on the phone: pkg install proot-distro && proot-distro install debian; in"
            " that Debian: apt-get install python3-venv openssh-server, and sshd -p 8022; then"
            f" here: adb -s {self.serial} forward tcp:8022 tcp:8022 && edgeface device check"
            " ssh://root@localhost:8022"
        )

    def explain(self, code: int, words: list[str]) -> str | None:
        # If the device vanishes suddenly, adb shell ends without a message and with exit code 0.
        return self._meaning(words) or (self._meaning(self._complaints()) if code == 0 else None)

    def _complaints(self) -> list[str]:
        """Error messages of adb about the device's present state."""
        try:
            asked = subprocess.run(
                [ADB, "-s", self.serial, "get-state"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=STATE_S,
            )
        except subprocess.TimeoutExpired:
            return ["error: device offline"]
        return asked.stderr.decode("utf-8", errors="replace").splitlines()

    def _meaning(self, words: list[str]) -> str | None:
        return next(
            (
                meaning
                for pattern, meaning in self._meanings().items()
                if any(re.search(pattern, word) for word in words)
            ),
            None,
        )

    def _meanings(self) -> dict[str, str]:
        """Pattern in a message of adb, not of the device -> what it means and what to do."""
        connect = f"adb connect {self.serial}" if ":" in self.serial else "adb devices -l"
        return {
            "device (still )?(unauthorized|authorizing)": (
                "the phone has not allowed this computer yet: accept the question on its screen,"
                " then run the same command again"
            ),
            "device offline": (
                f"the device is offline: plug it in again, or run: adb -s {self.serial} reconnect"
            ),
            "device ('[^']*' )?not found|no devices/emulators": (
                f"adb knows no such device: is it plugged in, with USB debugging on? run: {connect}"
            ),
            "doesn't support (PTY args|shell)": "its adb is too old: Android 7 or newer is needed",
            "cannot connect to daemon|failed to start daemon": (
                "adb's own server does not start: run: adb start-server"
            ),
            "^error: closed|protocol fault": "the line was cut",
        }
