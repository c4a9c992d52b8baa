"""Trainings that take seconds, for tests of everything around a training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgeface.architecture import get_architecture
from edgeface.search.trials.training import Plan
from edgeface.training.dataset import Cache
from edgeface.training.loop import Trainer
from edgeface.training.options import TrainOptions

NET = get_architecture("edgeface-n")
SMALL = TrainOptions(
    samples=8,
    batch=2,
    size=64,
    late_size=64,
    late_share=0.0,
    warmup=1,
    decay_share=0.0,
    compile=False,
    precision="fp32",
    checkpoint_every=2,
    snapshot_every=100,
)


def trained(cache: Cache, run: Path, options: TrainOptions = SMALL, **start: Any) -> Trainer:
    """A Trainer after a complete training in ``run``."""
    trainer = Trainer(NET, options, cache, run)
    trainer.begin(**start)
    assert trainer.fit()
    return trainer


def quick(plan: Plan) -> Plan:
    """``plan`` with two steps of small crops."""
    options = dataclasses.replace(
        plan.options, samples=8, batch=4, size=64, late_size=64, checkpoint_every=1, compile=False
    )
    return dataclasses.replace(plan, options=options)
