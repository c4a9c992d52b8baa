"""What several tests of searches share."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgeface.search.space import SPACES


@pytest.fixture(scope="session")
def small_space(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The edge space, shrunk: its networks are made and measured quickly."""
    path = tmp_path_factory.mktemp("space") / "small.json"
    small = dataclasses.replace(
        SPACES["edge"],
        name="small",
        stems=(8, 16),
        max_width=32,
        max_inner=16,
        depth=1,
        necks=(16,),
        heads=(16,),
        macs=(0.02e9, 0.1e9),
        max_layers=6,
    )
    path.write_text(json.dumps(dataclasses.asdict(small)))
    return str(path)
