"""Fixtures of the tests that measure on a device behind ssh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from by_hand import wait_for
from loopback import Loopback, need_sshd

from edgeface.bundle import Bundle
from edgeface.latency.protocol import Job


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    need_sshd()
    with Loopback(tmp_path / "device") as server:
        yield server
        wait_for(lambda: not server.running())


@pytest.fixture
def jobs(exported: Callable[..., Bundle]) -> list[Job]:
    return [Job(str(exported("onnx").path)), Job(str(exported("ncnn").path))]
