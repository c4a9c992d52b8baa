"""Options of a search, and the files of its run folder.

study.json            :class:`StudyOptions`
space.json            the user's own space, if one is searched
trials-N.json         networks that round N trains briefly, written before any of them is trained
trials.json           results of these trainings, whose run folders lie in trials/
round-N.json          networks that round N measures, written before any of them is measured
evaluations-N.jsonl   every network that was scored in round N, one per line
latency-WxH.json      the :class:`~edgeface.predict.table.LatencyTable` of each input size
front.json            networks of the front, cheapest first: measured figures only
report.html           plots of the front and of how it came about
annotations-*         a user's own photos: those trained on, and those kept aside to measure AP
detector.json         the detector that ``--finish`` made from the front
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeface.errors import DataError, EdgefaceError, OptionError
from edgeface.files import read_regular, refuse_others, write_text
from edgeface.latency.devices.address import without_options
from edgeface.options import MAX_THREADS, Range, check_ranges, parse_size
from edgeface.predict.table import LEAST_NETWORKS
from edgeface.schema import from_fields
from edgeface.search.results import COSTS
from edgeface.search.scores.ddsar import ALPHA, WEIGHTS
from edgeface.search.scores.registry import FORMER
from edgeface.search.space import get_space
from edgeface.search.trials import TRIALS

OBJECTIVES = ("budget", "pareto", "weighted")
SIZES = ("640x480",)
STUDY, SPACE, FRONT, REPORT = "study.json", "space.json", "front.json", "report.html"
DETECTOR = "detector.json"
ROUND, EVALUATIONS, CHOSEN = "round-{}.json", "evaluations-{}.jsonl", "trials-{}.json"
FREE = ("max_load", "jobs", "together")
"""options that may change when a search is resumed"""


@dataclass(frozen=True)
class StudyOptions:
    """What a search depends on. Each field's text is its --help."""

    ranges: ClassVar[dict[str, Range]] = {
        "threads": Range(1, MAX_THREADS),
        "budget_ms": Range(0, 10**6),
        "budget_mmacs": Range(0, 10**9),
        "exchange": Range(0, 10**6),
        "alpha": Range(0, 1000),
        "seed": Range(0, 2**63 - 1),
        "first": Range(LEAST_NETWORKS, 100_000),
        "rounds": Range(1, 100_000),
        "picks": Range(1, 100_000),
        "trials": Range(0, 100_000),
        "trial_samples": Range(1, 10**10),
        "jobs": Range(0, MAX_THREADS),
        "max_load": Range(0, 1024),
        "together": Range(2, 256),
        "population": Range(2, 100_000),
        "generations": Range(1, 10**6),
    }

    device: str = "local"
    """local, ssh://[user@]host[:port] or adb://serial"""
    target: str = "openvino"
    """runtime to measure latency in: onnx, tflite, openvino or ncnn"""
    precision: str = "int8"
    """precision of the measured files: fp32, fp16 or int8"""
    sizes: tuple[str, ...] = SIZES
    """of the input, WxH in px; several let the search choose among them"""
    threads: int = 1
    """CPU threads for the runtime"""
    space: str = "edge"
    """search space: edge, idw, xx, resnet or your own .json file"""
    objective: str = ""
    """budget (best score within the budgets; the default if one is given), pareto (score against
    --cost; the default otherwise) or weighted (score minus --exchange times ln(cost))"""
    cost: str = "latency"
    """cost that the front trades against the score: latency, size (number of parameters) or
    memory (values that the largest layer reads and writes)"""
    budget_ms: float = 0.0
    """latency budget in ms; 0: no limit"""
    budget_mmacs: float = 0.0
    """budget in million multiply-accumulates; 0: no limit"""
    exchange: float = 1.0
    """with weighted: score that must be gained for 2.72 (e) times the cost"""
    score: str = "stage-macs"
    """accuracy estimate without training: stage-macs (multiply-accumulates weighted by face
    sizes), trainable (minus a penalty for convolutions without shortcut), plain (that penalty
    alone), ddsar (as published), corrected (true widths, no stem), detector (plus neck and
    head), levels, outputs (variants of detector), or a baseline: params, macs, depth, entropy,
    zen, random"""
    alpha: float = ALPHA
    """weight of kernel sizes in the DDSAR scores"""
    weights: tuple[float, ...] = WEIGHTS
    """shares of faces that stem and c2 to c5 are there for"""
    seed: int = 0
    """seed of all random choices"""
    first: int = 66
    """networks per input size measured before the first round, to fit the latency model;
    chosen to cover the space"""
    rounds: int = 4
    """rounds of evolution; each ends with measurements on the device"""
    picks: int = 11
    """networks measured on the device in each round"""
    trials: int = 0
    """short trainings in total, spread over the rounds: a model fitted to them predicts AP, which
    then replaces --score; 0: none"""
    trial_samples: int = 20_000
    """256 px crops per short training"""
    jobs: int = 0
    """short trainings run in parallel; 0: one per processor"""
    data: str = ""
    """WIDER FACE folder, or a folder of photos with annotations, for trials"""
    annotations: str = ""
    """boxes of these photos; of one's own, one photo in five is kept aside to measure AP on"""
    max_load: float = 0.5
    """load allowed from other programs, in CPU cores; above it measurements are rejected"""
    together: int = 12
    """networks in memory at once while measuring, 50 to 150 MB each; lower it on a device with
    less than 2 GB (slower, as every group includes the reference)"""
    population: int = 96
    """networks kept per generation"""
    generations: int = 60
    """generations per round"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", FORMER.get(self.score, self.score))
        if not self.objective:
            object.__setattr__(
                self, "objective", "budget" if self.budget_ms or self.budget_mmacs else "pareto"
            )
        for name, known in (("objective", OBJECTIVES), ("cost", tuple(COSTS))):
            if getattr(self, name) not in known:
                raise OptionError(
                    f"--{name} {getattr(self, name)!r} is not one of: {', '.join(known)}"
                )
        if self.objective == "budget" and not self.budget_ms and not self.budget_mmacs:
            raise OptionError(
                "--objective budget needs --budget-ms, the milliseconds a network may take, or "
                "--budget-mmacs; --objective pareto does without"
            )
        check_ranges(self)
        sizes = [parse_size(size) for size in self.sizes]
        if not sizes or len(set(sizes)) < len(sizes):  # 0640x480 is 640x480, too
            raise OptionError("--size: give one or more input sizes, each once, such as 640x480")

    @property
    def written(self) -> StudyOptions:
        """The options as the search's files store them: without device options, which may run
        commands."""
        return dataclasses.replace(self, device=without_options(self.device))

    @property
    def limits(self) -> str:
        """The budgets in words; empty: there are none."""
        budgets = ((self.budget_ms, "ms"), (self.budget_mmacs, "million multiply-accumulates"))
        return " and ".join(f"{most:g} {unit}" for most, unit in budgets if most)


def save_options(folder: Path, options: StudyOptions) -> None:
    """Write the options to ``folder``, to begin or resume its search. Raises OptionError as
    :func:`refuse_another`, and OutputError."""
    refuse_another(folder, options)
    write_text(folder / STUDY, json.dumps(dataclasses.asdict(options.written), indent=1))
    if options.space.endswith(".json"):
        space = dataclasses.asdict(get_space(options.space))
        write_text(folder / SPACE, json.dumps(space, indent=1))


def refuse_another(folder: Path, options: StudyOptions) -> None:
    """Raise OptionError if ``folder`` holds a search whose options, apart from :data:`FREE`, or
    whose space differ, or if it holds no search but files with the names that a search writes."""
    if not (folder / STUDY).is_file():
        refuse_others(folder, _written(options), "a search")
        return
    free = {name: getattr(options, name) for name in FREE}
    if dataclasses.replace(load_options(folder, options.device), **free) != options:
        raise OptionError(
            f"{folder} holds a search with other options: go on with edgeface search --resume "
            f"{shlex.quote(str(folder))}, or choose another --out folder"
        )
    kept = folder / SPACE
    if kept.is_file() and get_space(str(kept)) != get_space(options.space):
        raise OptionError(
            f"{options.space} has changed since this search began, and is kept as {kept}: copy that"
            " back to go on, or choose another --out folder"
        )


def is_over(folder: Path, options: StudyOptions) -> bool:
    """Does the search in ``folder`` have a front? Raises DataError if files that the front was made
    from are missing: a front made again would differ."""
    if not (folder / FRONT).is_file():
        return False
    rounds = range(options.rounds + 1)
    needed = [name.format(number) for number in rounds for name in (ROUND, EVALUATIONS)]
    needed += [f"latency-{size}.json" for size in options.sizes]
    needed += [TRIALS] * any(_has_rows(folder / CHOSEN.format(number)) for number in rounds)
    for name in (name for name in needed if not (folder / name).is_file()):
        raise DataError(
            f"{folder / name} is missing, of which {FRONT} is: put it back, or delete"
            f" {folder / FRONT}, and what is missing is searched and measured again"
        )
    return True


def _has_rows(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > len("[]\n")


def _written(options: StudyOptions) -> Iterator[str]:
    """Files of a search whose names others may use, too. Not annotations: a refused search leaves
    them behind."""
    yield from (STUDY, SPACE, FRONT, REPORT, TRIALS, DETECTOR)
    yield from (f"latency-{size}.json" for size in options.sizes)
    for number in range(options.rounds + 1):
        yield from (name.format(number) for name in (ROUND, EVALUATIONS, CHOSEN))


def load_options(folder: Path, device: str = "") -> StudyOptions:
    """Options of the search in ``folder``. Raises OptionError if there is none.

    device: the search's device with its options, which the folder does not store because they may
    run commands. Another device is ignored."""
    path = folder / STUDY
    try:
        data = json.loads(read_regular(path).decode("utf-8"))
        known = from_fields(StudyOptions, data, str(path))
        plain = without_options(known.device)
        same = without_options(device) == plain
        return dataclasses.replace(known, device=device if same else plain)
    except FileNotFoundError:
        raise OptionError(
            f"--resume {folder}: no search to go on with, there is no {path}; begin one with"
            f" edgeface search --out {shlex.quote(str(folder))}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"the search in {folder} cannot go on, {path} cannot be read ({type(error).__name__}):"
            " choose another --out folder, or put the file back"
        ) from None
    except EdgefaceError as error:
        raise OptionError(
            f"--resume {folder}: {error}; it was not written by this version of edgeface"
        ) from None
