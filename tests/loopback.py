"""A real OpenSSH server on loopback as the device: with its own port, keys, configuration and home
folder."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from by_hand import children, wait_for

from edgeface.latency.devices.ssh import SshDevice
from edgeface.latency.protocol import Protocol

SERVER = shutil.which("sshd") or "/usr/sbin/sshd"
PATH = "/usr/local/bin:/usr/bin:/bin"
QUICK = Protocol(
    rounds=2, per_round=2, warm_up_s=0, photo_width=320, photo_height=240, time_limit_s=120
)


class Steps:
    """A progress callback that records the steps of ``measure``."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, what: str, *_: object) -> None:
        self.seen.append(what)

    def sent(self) -> list[str]:
        """Files that were sent, below the device's cache folder."""
        return [what.removeprefix("sent ") for what in self.seen if what.startswith("sent ")]


def need_sshd() -> None:
    """Skip the test if sshd, ssh or ssh-keygen is not installed."""
    missing = [name for name in (SERVER, "ssh", "ssh-keygen") if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} is not installed (Debian: apt-get install openssh-server"
            " openssh-client)"
        )


def processes_about(folder: Path) -> dict[int, str]:
    """PID -> command line of all processes whose command line contains ``folder``, except ssh and
    adb clients."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(folder) in words and Path(words.split(" ", 1)[0]).name not in ("ssh", "adb"):
            found[int(process.name)] = words
    return found


class Loopback:
    """The server, with keys and configuration for a client. Use it in a ``with`` block."""

    def __init__(self, folder: Path, path: str = PATH) -> None:
        """``path``: PATH of commands on the device."""
        self.folder, self.home, self.config = folder, folder / "home", folder / "ssh_config"
        self.home.mkdir(parents=True)
        (self.home / ".bashrc").write_text(
            "echo 'Welcome to the device {'\n"
        )  # output that a shell may add at every login
        for key in ("host_key", "user_key", "other_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
            )
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile"
            f" none\nUsePAM no\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes"
            " no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv"
            f' HOME={self.home} PATH={path}\nForceCommand cd "$HOME" && eval'
            ' "$SSH_ORIGINAL_COMMAND"\n'
        )  # without ForceCommand, a login would start in the user's home, not the device's
        self.config.write_text(
            f"IdentityFile {folder}/user_key\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile none\n"
        )
        self.trust("host_key")

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def cache(self) -> Path:
        """Folder that the toolkit keeps on the device."""
        return self.home / ".cache" / "edgeface"

    def device(self, python: str | None = sys.executable, url: str = "") -> SshDevice:
        return SshDevice(url or self.url, python, self.config, self.folder / "journals")

    def trust(self, key: str) -> None:
        """Make ``key`` the only host key that the client knows."""
        public = " ".join((self.folder / f"{key}.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}\n")

    def log_in_with(self, key: str) -> None:
        """Let the client offer ``key``."""
        self.config.write_text(self.config.read_text().replace("user_key", key))

    def script(self, name: str, text: str) -> str:
        """An executable shell script on the device."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def running(self) -> dict[int, str]:
        """PID -> command line of the agents and workers on the device."""
        return processes_about(self.cache)

    def sessions(self) -> list[int]:
        """PIDs of the server's processes that serve a connection."""
        found = [
            process for child in children(self._server.pid) for process in (*children(child), child)
        ]
        return [
            process for process in found if b"sshd" in Path(f"/proc/{process}/cmdline").read_bytes()
        ]

    def cut(self) -> None:
        """Kill the server's end of every connection, which then ends as in a power failure."""
        for process in self.sessions():
            os.kill(process, signal.SIGKILL)

    def __enter__(self) -> Loopback:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd requires this folder
        with (self.folder / "sshd.log").open("wb") as log:
            self._server = subprocess.Popen(
                [SERVER, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log
            )
        wait_for(self._listens)
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.terminate()
        self._server.wait()

    def _listens(self) -> bool:
        assert self._server.poll() is None, (self.folder / "sshd.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
