"""2,400 mutated models a runtime, opened and run as `detect` does it: refused, or right boxes.

Right boxes are those of the unchanged model. A refusal is one line; there is never a crash, a hang
or another exception. A changed file is refused for its SHA-256. If its SHA-256 was changed with it,
it is another model with its own boxes: then only the way in which it ends is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from workers_apart import apart

from edgeface.backends import export_targets
from edgeface.bundle import Bundle
from edgeface.zoo.index import FOLDER

pytest.importorskip("torch", reason="torch is not installed")
COUNTS = {"file": 800, "values": 500, "text": 300, "signed": 800}
WEIGHTS = 2400
QUICK = 6
PEAK_BYTES = 4 << 30
slow = pytest.mark.slow


@pytest.mark.parametrize("share", [pytest.param(1.0, marks=slow), QUICK / 800])
@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("target", export_targets())
def test_a_bundle_is_refused_or_gives_the_same_boxes(
    target: str, kind: str, share: float, exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    count = max(QUICK, round(COUNTS[kind] * share))
    found = apart("open_mutated.py", exported(target).path, kind, 0, count, tmp_path)
    print(target, kind, found)
    assert found["refused"] + found["opened"] == count and found["peak_bytes"] < PEAK_BYTES
    if kind != "signed":
        assert found["other"] == 0, "wrong boxes"
    if kind == "file":
        assert found["opened"] == found["unchanged"], "its SHA-256 is another one"
    if share == 1.0:
        assert found["refused"] > count // 5


@slow
def test_weights_are_refused_or_run(tmp_path: Path) -> None:
    """Weights have no SHA-256 of their own: those accepted are finite and fit the network."""
    whole = FOLDER / "edgeface-n.safetensors"
    found = apart("open_mutated.py", whole, "weights", 0, WEIGHTS, tmp_path, limit_s=1800)
    print("torch", found)
    assert found["refused"] + found["opened"] == WEIGHTS and found["peak_bytes"] < PEAK_BYTES
    assert found["refused"] > WEIGHTS // 2
