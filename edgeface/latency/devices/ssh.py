"""A device behind ``ssh``.

It uses the system's own OpenSSH, with the user's keys, known_hosts and configuration.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import shlex
from pathlib import Path

from edgeface.errors import DeviceError
from edgeface.latency.devices.address import options_of, query_options, split_url
from edgeface.latency.devices.remote import RemoteDevice

SSH = "ssh"
EXPECTED = "expected ssh://[user@]host[:port]"
OPTIONS = ("python", "config")
TRANSPORT_FAILED = 255
"""exit code of ssh if the connection failed"""

# No questions, no passwords; a dead connection is noticed after 30 s; nothing else that a user's
# configuration may add to a session. ControlMaster=no: a shared connection that is already open is
# used, but none is left open.
FIXED = (
    "-T",
    "-oBatchMode=yes",
    "-oConnectTimeout=15",
    "-oServerAliveInterval=10",
    "-oServerAliveCountMax=3",
    "-oControlMaster=no",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "-oRemoteCommand=none",
    "-oEscapeChar=none",
    "-oLogLevel=INFO",
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


@dataclasses.dataclass(frozen=True)
class SshAddress:
    """Parts of an ``ssh://`` URL."""

    host: str
    """name, alias of the user's ssh configuration, or address"""
    user: str | None = None
    port: int | None = None
    python: str | None = None
    """path on the device"""
    config: str | None = None
    """path here of an ssh configuration, instead of the user's own"""

    @classmethod
    def parse(cls, url: str) -> SshAddress:
        """Parse ``url``.

        Raises DeviceError for a password and for anything that is not plainly a user, a host, a
        port and known options.
        """
        parts = split_url(url, "ssh", EXPECTED)
        host = parts.hostname or ""
        if parts.password is not None:
            raise DeviceError(
                "a password does not belong in a URL: install a key with: "
                f"ssh-copy-id {parts.username}@{host}"
            )
        if not (_NAME.fullmatch(host) or (":" in host and _is_address(host))):
            raise DeviceError(f"{url!r}: {host!r} is not the name or address of a host: {EXPECTED}")
        if parts.username is not None and not _NAME.fullmatch(parts.username):
            raise DeviceError(f"{url!r}: {parts.username!r} is not the name of a user: {EXPECTED}")
        return cls(
            _as_written(host, parts.netloc),
            parts.username,
            parts.port,
            **query_options(url, parts.query, OPTIONS),
        )

    @property
    def url(self) -> str:
        """URL of the device as in records: without the options ``python`` and ``config``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"


class SshDevice(RemoteDevice):
    """Measures on the machine at the other end of ``ssh``.

    Options may also stand in the URL:
    ``ssh://pi@raspberrypi.local?python=/opt/venv/bin/python&config=/my/ssh_config``.
    """

    root = "~/.cache/edgeface"
    folder = ".cache/edgeface"
    installed = ("~/edgeface",)
    package = "openssh-client"

    def __init__(
        self,
        url: str,
        python: str | None = None,
        config: Path | str | None = None,
        journals: Path | None = None,
    ) -> None:
        """Does not connect yet. Raises DeviceError if ``url`` is not a valid ssh URL.

        python: path on the device; default: venv/bin/python in ~/.cache/edgeface or in ~/edgeface,
        where examples/raspberry-pi installs, or else python3. config: ssh configuration to use
        instead of the user's.
        """
        self.address, self.options = SshAddress.parse(url), options_of(url)
        super().__init__(self.address.url, python or self.address.python, journals)
        self.config = str(config or self.address.config or "")

    def arguments(self, command: str) -> list[str]:
        return [SSH, *self._target(FIXED), command]

    def advice(self, command: str) -> str:
        return (
            shlex.join([SSH, *(word for word in self._target(()) if word != "--")]) + f" {command}"
        )

    def python_advice(self) -> str:
        return self.advice("sudo apt-get install -y python3 python3-venv").replace(
            SSH, f"{SSH} -t", 1
        )

    def explain(self, code: int, words: list[str]) -> str | None:
        if code != TRANSPORT_FAILED:
            return None
        said = " ".join(words)
        for pattern, meaning in self._meanings().items():
            if re.search(pattern, said):
                return meaning
        return words[-1] if words else "ssh gave no reason"

    def _target(self, options: tuple[str, ...]) -> list[str]:
        """Options and destination; after ``--`` nothing is an option any more."""
        address = self.address
        found = ["-F", self.config] if self.config else []
        found += ["-p", str(address.port)] if address.port else []
        found += [*options, "--"]
        return [*found, f"{address.user}@{address.host}" if address.user else address.host]

    def _meanings(self) -> dict[str, str]:
        """Pattern in a message of ssh -> what it means and what to do."""
        login = self.advice("true")
        known = (
            f"[{self.address.host}]:{self.address.port}" if self.address.port else self.address.host
        )
        copy = login.removesuffix(" true").removeprefix("ssh ")
        return {
            "REMOTE HOST IDENTIFICATION HAS CHANGED": (
                "the host key is not the one in known_hosts: either the device was set up anew or"
                " another machine answers in its place; once you are sure of it, run: ssh-keygen"
                f" -R {shlex.quote(known)}"
            ),
            "Host key verification failed": (
                "its host key is not in known_hosts: compare the fingerprint and accept it once"
                f" with: {login}"
            ),
            "Permission denied": (
                f"permission denied: no key of yours is accepted there: run: ssh-copy-id {copy}"
            ),
            "Could not resolve hostname": (
                f"no such host {self.address.host!r}: is the name right, and the device on?"
            ),
            "Connection refused": (
                "connection refused: is an ssh server running there, on this port?"
            ),
            "timed out|Timeout, server": (
                "no answer in time: is the device on, and in the same network?"
            ),
            "closed by remote host|Connection reset|Broken pipe": (
                "the device closed it: did it restart?"
            ),
            "No route to host|Network is unreachable": (
                "no way to the host: is the device on, and in the same network?"
            ),
        }


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text or bool(_NAME.fullmatch(text.partition("%")[2]))


def _as_written(host: str, netloc: str) -> str:
    """The host with its capitals, which ``urlsplit`` drops; an ssh alias may contain some."""
    at = netloc.lower().rfind(host.lower())  # the zone of an IPv6 address keeps its capitals
    return netloc[at : at + len(host)]
