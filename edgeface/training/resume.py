"""Can a run be resumed? Its folder says what it was started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeface.architecture import Architecture
from edgeface.decode import HeadLayout
from edgeface.errors import OptionError
from edgeface.files import read_regular, refuse_others
from edgeface.schema import from_fields
from edgeface.training.checkpoint import read_meta
from edgeface.training.options import TrainOptions
from edgeface.training.start import CHECKPOINT, WEIGHTS, init_sha256

FREE = {
    "samples",
    "decay_share",
    "late_share",
    "late_size",
    "late_near",
    "checkpoint_every",
    "snapshot_every",
}
"""options that may change on a resume: they make a run longer, or change how often it is saved"""
DATA = ("images", "faces", "landmarks", "data")
"""keys of a run's config: numbers of images, faces and landmarks, and digests of them"""
CONFIG = "config.json"
WRITTEN = (CONFIG, "log.csv", "curves.png", WEIGHTS)
"""files of a run, besides its checkpoint, under names that foreign files may have, too"""


def refuse_others_files(run: Path) -> None:
    """Raise OptionError for a folder without a training, but with files that one would replace."""
    if (run / CHECKPOINT).exists() or _is_config(run / CONFIG):
        return
    refuse_others(run, WRITTEN, "a training")


def _is_config(path: Path) -> bool:
    """Is it a run's config, which :meth:`edgeface.training.loop.Trainer.fit` writes first?"""
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= {"architecture", "options"}


class OtherRunError(OptionError):
    """The existing run cannot be resumed with these options or this data."""


def check_resumed(
    run: Path,
    meta: dict[str, Any],
    config: dict[str, Any],
    options: TrainOptions,
    layout: HeadLayout,
    init: str | None,
    branch: Path | None,
) -> None:
    """Raise OtherRunError unless a run can be resumed with ``config`` and ``options``.

    meta: of the run's checkpoint. init, branch: what the run is now asked to start from. Digests
    that the checkpoint of an earlier version lacks are not compared; options that it lacks have
    today's defaults, but precision fp32.
    """
    before = meta["config"]
    same = {
        "architecture": Architecture.from_json(before["architecture"])
        == Architecture.from_json(config["architecture"]),
        "images": before["images"] == config["images"],
        "faces": before["faces"] == config["faces"],
        "landmarks": before.get("landmarks", 0) == config["landmarks"],
        "photos, boxes or landmarks": agree(before.get("data", {}), config["data"]),
        "--init weights": init is None or init_sha256(init) == before.get("init"),
        "state: it is no branch": branch is None or before.get("branch") is not None,
    }
    same["state: it is a branch of another run"] = branch is None or _is_of(before, branch, layout)
    for name in (name for name, equal in same.items() if not equal):
        raise OtherRunError(f"{run} was started with other {name}: choose another --out folder")
    now = options.values()
    for name, value in _options(before, layout).values().items():
        if name not in FREE and value != now[name]:
            raise OtherRunError(
                f"{run} was started with {name} {value!r}: resume with the same options or"
                " choose another --out folder"
            )
    trained = int(meta["step"])
    if trained > options.steps:
        raise OtherRunError(
            f"{run} has learned from {trained * options.batch:,} samples already,"
            f" --samples says {options.samples:,}: give more, or choose another --out"
            " folder"
        )


def agree(before: object, now: object) -> bool:
    """Are the values equal? Of dicts, only the keys that both have are compared."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(agree(before[name], now[name]) for name in before.keys() & now.keys())
    return before == now


def passed_steps(meta: dict[str, Any]) -> int:
    """Steps before a checkpoint: those of its run, and of the run that this branched off."""
    return int(meta["step"]) + int((meta["config"].get("branch") or {}).get("step") or 0)


def fixed(config: dict[str, Any], layout: HeadLayout) -> dict[str, Any]:
    """The part of a run's ``config`` that a resume cannot change."""
    said = config["options"].keys() | config["options"].get("augment", {}).keys()
    values = _options(config, layout).values().items()
    return {
        "options": {name: value for name, value in values if name in said - FREE},
        "branch": (config.get("branch") or {}).get("sha256"),
        **{name: config[name] for name in ("init", *DATA) if name in config},
    }


def _is_of(config: dict[str, Any], branch: Path, layout: HeadLayout) -> bool:
    """Was a run with ``config`` branched off the run ``branch``? True if ``branch`` is gone.

    ``branch`` may have been trained further since.
    """
    path = branch / CHECKPOINT if branch.is_dir() else branch
    taken = config.get("branch") or {}
    if not path.is_file():
        return True
    meta = read_meta(path)
    known = agree(taken.get("run", {}), fixed(meta["config"], layout))
    return known and passed_steps(meta) >= int(taken.get("step") or 0)


def _options(config: dict[str, Any], layout: HeadLayout) -> TrainOptions:
    options = {"precision": "fp32"} | config["options"]  # the only precision of earlier versions
    return from_fields(TrainOptions, options, "options").completed(layout)
