"""URLs of devices behind ssh."""

from __future__ import annotations

import pytest

from edgeface.errors import DeviceError
from edgeface.latency.devices import open_device
from edgeface.latency.devices.ssh import SshAddress, SshDevice


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://raspberrypi.local", SshAddress("raspberrypi.local")),
        ("ssh://pi@raspberrypi.local:2222/", SshAddress("raspberrypi.local", "pi", 2222)),
        ("ssh://My-Alias", SshAddress("My-Alias")),
        ("ssh://a.b@[fe80::1%eth0]:22", SshAddress("fe80::1%eth0", "a.b", 22)),
        ("ssh://[FE80::1%Eth0]", SshAddress("FE80::1%Eth0")),
        (
            "ssh://pi@10.0.0.7?python=~/venv/bin/python&config=/a%20b",
            SshAddress("10.0.0.7", "pi", None, "~/venv/bin/python", "/a b"),
        ),
        ("ssh://pi?python=/opt/c++/python", SshAddress("pi", None, None, "/opt/c++/python")),
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
