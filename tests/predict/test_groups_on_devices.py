"""Groups of networks on a remote device whose line may be cut; a local shell stands for it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plain_device import PlainDevice

from edgeface.errors import DeviceError
from edgeface.latency.agent import Request
from edgeface.latency.devices.run import Run
from edgeface.latency.devices.staging import Staged
from edgeface.latency.protocol import Protocol
from edgeface.predict.measure import measure
from edgeface.predict.table import Setting
from edgeface.search.space import SPACES

pytest.importorskip("onnx", reason="the export extra is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

URL = "ssh://board"
SETTING = Setting(URL, "onnx", width=160, height=128)
QUICK = Protocol(rounds=2, per_round=2, warm_up_s=0, photo_width=160, photo_height=128, max_load=64)
CUT = """sed -u '/"measurement"/q'"""
"""a filter that ends the line after the first record"""


class Shelf(PlainDevice):
    """A local shell with the given home; ``asked`` has the number of models of each session."""

    def __init__(self, home: Path, journals: Path) -> None:
        super().__init__(URL, sys.executable, journals)
        self.home, self.cut, self.asked = home, False, list[int]()

    def arguments(self, command: str) -> list[str]:
        line = f"({command}) | {CUT}" if self.cut else command
        return ["sh", "-c", f"HOME={shlex.quote(str(self.home))}; export HOME; {line}"]

    def _agent(
        self, staged: Staged, request: Request, silence_s: float, run: Run | None = None
    ) -> Iterator[dict[str, Any]]:
        self.asked += [len(request.jobs)] * bool(request.jobs)
        yield from super()._agent(staged, request, silence_s, run)


def test_a_group_that_was_cut_off_is_measured_as_a_whole(tmp_path: Path) -> None:
    """Records of a group are compared round by round, so they must have the same rounds."""
    networks = [SPACES["resnet"].sample(0)]
    device = Shelf(tmp_path / "home", tmp_path / "journals")
    device.cut = True
    with pytest.raises(DeviceError, match="ended early"):
        measure(SETTING, networks, device, tmp_path / "files", protocol=QUICK)
    device.cut = False
    table = measure(SETTING, networks, device, tmp_path / "files", protocol=QUICK)
    assert device.asked == [2, 2] and len(table.records) == 1


def test_a_group_has_no_more_networks_than_are_loaded_at_once(tmp_path: Path) -> None:
    """The reference is one of them: a session would measure the rest in rounds of its own."""
    device = Shelf(tmp_path / "home", tmp_path / "journals")
    networks = [SPACES["resnet"].sample(i) for i in range(2)]
    protocol = dataclasses.replace(QUICK, together=2)
    table = measure(SETTING, networks, device, tmp_path / "files", protocol=protocol)
    assert device.asked == [2, 2]
    assert len(table.records) == len(table.reference_ms) == 2
