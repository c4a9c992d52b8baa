"""Devices that measure: this machine, one behind ssh, one behind adb. All behave alike."""

from __future__ import annotations

from edgeface.errors import DeviceError
from edgeface.latency.devices.base import Device, Finding

__all__ = ["ACCEPTED", "Device", "Finding", "open_device"]

ACCEPTED = "local, ssh://[user@]host[:port], adb://serial; the last two may end in ?python=PATH"


def open_device(url: str) -> Device:
    """The device that ``url`` names, not connected yet.

    Raises DeviceError for a URL of another kind.
    """
    if url == "local":
        from edgeface.latency.devices.local import LocalDevice

        return LocalDevice()
    if url.startswith("ssh://"):
        from edgeface.latency.devices.ssh import SshDevice

        return SshDevice(url)
    if url.startswith("adb://"):
        from edgeface.latency.devices.adb import AdbDevice

        return AdbDevice(url)
    raise DeviceError(f"unknown device {url!r} (accepted: {ACCEPTED})")
