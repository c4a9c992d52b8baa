"""Fixtures for the tests of the search scores' evidence: made-up trainings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from evidence import Trainings

from benchmarks.research.trainings import write_rows
from edgeface.architecture import Architecture
from edgeface.search.trials.known import SETTINGS, network_fields


@pytest.fixture
def trainings(tmp_path: Path) -> Trainings:
    """``trainings(ap, networks)`` -> a CSV with this AP hard, and random AP in other settings."""

    def write(ap: Sequence[float], networks: Sequence[Architecture], **other: str) -> Path:
        rows, draw = [], random.Random(0)
        for architecture, value in zip(networks, ap, strict=True):
            results = {
                **{name: f"{draw.random():.5f}" for name in SETTINGS},
                "hard": f"{value:.8f}",
            }
            rows.append(
                {
                    **network_fields(architecture),
                    "ddsar": "old",
                    **results,
                    "cls_loss": "0.3",
                    "box_loss": "0.4",
                    "samples": "640",
                    "seed": "0",
                    **other,
                }
            )
        write_rows(tmp_path / "trainings.csv", rows, ("command: made up",))
        return tmp_path / "trainings.csv"

    return write
