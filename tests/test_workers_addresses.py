"""Addresses without a Ray cluster: the error is one line that says what to do, in bounded time.

These tests have their own file because a process connected to a cluster gets other messages.
"""

from __future__ import annotations

import socket
import sys

import pytest

from edgeface.errors import EdgefaceError, MissingExtraError, WorkerError
from edgeface.workers import open_workers


def one_line(error: EdgefaceError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"edgeface\[scale\]"), open_workers("auto"):
        pass


@pytest.mark.parametrize(
    "address", ["nowhere", "ray://127.0.0.1:10001", "127.0.0.1:", "127.0.0.1:99999", "[]:1"]
)
def test_no_address(address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(WorkerError) as raised, open_workers(address):
        pass
    assert address in one_line(raised.value) and "ray start --head" in str(raised.value)


@pytest.mark.parametrize("listens", [False, True])
def test_address_where_no_cluster_answers(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr("edgeface.workers.cluster.JOIN_S", 3.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WorkerError) as raised, open_workers(address):
            pass
    assert f"no Ray cluster answers {'this machine ' * listens}at {address}" in one_line(
        raised.value
    )
    assert "ray start --head" in str(raised.value)
