"""``python -m benchmarks.research.evidence``: does a score that costs nothing rank trained detectors?

Three steps. ``select`` draws networks of equal multiply-accumulates, spread over the detector score; ``train`` gives
each the same short training and evaluates it; ``table`` says how well every zero-cost score of
:mod:`edgeface.search.proxies`, at every alpha, ranks what came out: scores are computed anew, only AP comes from the
trainings. Stopped at any moment, ``train`` goes on where it was, and ``table`` shows what there is.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import random
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Printed
from benchmarks.research.ranks import PENALTY, Floats, Interval, correlate, leave_one_out, ridge
from benchmarks.research.short_training import BATCH, SAMPLES, SIZE_PX, Plan, Trained, prepare, recipe, train_item
from edgeface.cli.flags import program_of_steps
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError, OptionError
from edgeface.files import atomic_write
from edgeface.models.architecture import Architecture
from edgeface.options import check_choice
from edgeface.records import from_fields
from edgeface.search.layers import macs_of, params_of, parts_of
from edgeface.search.proxies import PROXIES, WITH_ALPHA, depth, proxy, stage_macs
from edgeface.search.space import COUNTED_AT, Space, get_space
from edgeface.workers import Workers, open_workers

FOLDER = Path(__file__).parents[1] / "evidence"
NETWORKS = FOLDER / "networks.json"
"""what select gives without further options"""
TRAININGS = FOLDER / "trainings.csv"
ALPHAS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.25)
SPREAD_OVER, SPREAD_ALPHA = "detector", 0.05
"""the score whose quantiles are selected"""
DRAWN = 600
"""networks drawn to select from, and as many mutants of them"""
SETTINGS = ("easy", "medium", "hard")
RESULTS = (*SETTINGS, "cls_loss", "box_loss")
NETWORK_FIELDS = ("name", "structure", "neck", "head", "params", "macs")
COLUMNS = (*NETWORK_FIELDS, *RESULTS, "samples", "seed")
FITTED = "fitted"
"""not a zero-cost score: ridge regression of AP on :func:`features`, each network predicted from all others"""
FEATURES = ("ln MACs of c2", "ln MACs of c3", "ln MACs of c4", "ln MACs of c5", "depth", "stem stride")
LEAST_FITTED = 3 * len(FEATURES)
"""networks below which nothing is fitted"""


# ---- select


def select(space: Space, count: int, macs: float, tolerance: float, seed: int, drawn: int = DRAWN
           ) -> list[Architecture]:
    """``count`` networks of ``macs`` multiply-accumulates at 640x480, to within ``tolerance`` (a share), at evenly
    spaced quantiles of the detector score (alpha .05), lowest first.

    Drawn are ``drawn`` samples and as many mutants of what was drawn before, all different. Raises OptionError.
    """
    if not (0 < tolerance < 1 and macs > 0 and 2 <= count <= drawn):
        raise OptionError(f"--macs {macs:g} --tolerance {tolerance:g} --count {count}: give more than 0 "
                          f"multiply-accumulates, a share between 0 and 1, and 2 to {drawn} networks")
    narrow = dataclasses.replace(space, macs=(macs * (1 - tolerance), macs * (1 + tolerance)))
    draw = random.Random(f"evidence {seed}")
    found = {_content(a): a for a in (narrow.sample(seed * drawn + i) for i in range(drawn))}
    pool = list(found.values())
    for _ in range(drawn):
        child = narrow.mutate(draw.choice(pool), draw)
        if _content(child) not in found:
            found[_content(child)] = child
            pool.append(child)
    pool.sort(key=lambda a: (proxy(SPREAD_OVER, a, SPREAD_ALPHA), _content(a)))
    picked = [pool[round(i * (len(pool) - 1) / (count - 1))] for i in range(count)]
    return [dataclasses.replace(a, name=f"{space.name}-{macs / 1e6:.0f}m-{i:02d}") for i, a in enumerate(picked)]


def _content(architecture: Architecture) -> str:
    return dataclasses.replace(architecture, name="").dumps()


def save_networks(path: Path, networks: Sequence[Architecture]) -> None:
    """As a JSON list."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([a.to_json() for a in networks], indent=1) + "\n", encoding="utf-8")


def load_networks(path: Path) -> list[Architecture]:
    """What :func:`save_networks` wrote. Raises DataError, ModelError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the networks {path} ({type(error).__name__}): make them with "
                        "python -m benchmarks.research.evidence select") from None
    if not isinstance(data, list) or not data:
        raise DataError(f"{path}: expected a list of Architectures")
    networks = [from_fields(Architecture, item, f"{path}: network {i}") for i, item in enumerate(data)]
    if len({a.name for a in networks}) < len(networks):
        raise DataError(f"{path}: every network needs a name of its own")
    return networks


# ---- train


def train(networks: Sequence[Architecture], plan: Plan, path: Path, command: str, workers: Workers,
          terminal: Terminal) -> None:
    """Train all networks that ``path`` has no row of, and write each one's row as soon as it is there.

    Raises KeyboardInterrupt where one was stopped before its end, DataError for a table of other networks or another
    recipe.
    """
    rows = matching(read_rows(path), networks, path) if path.is_file() else {}
    for name, row in rows.items():
        if (row["samples"], row["seed"]) != (str(plan.options.samples), str(plan.options.seed)):
            raise DataError(f"{path} has a row of {name} with other samples or another seed: choose another --csv or "
                            "delete it")
    left = [a for a in networks if a.name not in rows]
    recipe_text = json.dumps(dataclasses.asdict(plan.options))

    def finished(index: int, data: dict[str, Any] | None) -> None:
        if data is None:
            raise KeyboardInterrupt
        result = from_fields(Trained, data, "training")
        rows[result.name] = _row(left[index], plan, result)
        comments = (f"command: {command}", f"recipe: {recipe_text}", f"evaluation: {result.protocol}")
        write_rows(path, [rows[a.name] for a in networks if a.name in rows], comments)
        terminal.line(f"{result.name}: AP easy {result.easy:.4f}, medium {result.medium:.4f}, hard {result.hard:.4f} "
                      f"({len(rows)} of {len(networks)})")

    prepare(plan)
    workers.run(train_item, [plan.item(a) for a in left], finished)


def _row(architecture: Architecture, plan: Plan, result: Trained) -> dict[str, str]:
    row = network_fields(architecture) | {name: f"{getattr(result, name):.5f}" for name in RESULTS}
    return {**row, "samples": str(plan.options.samples), "seed": str(plan.options.seed)}


def network_fields(architecture: Architecture) -> dict[str, str]:
    """The columns that say which network a row is of."""
    neck, head = architecture.neck, architecture.head
    tower = f"{head.channels}x{head.stack}" + (" depthwise" if head.depthwise else "")
    return {"name": architecture.name, "structure": architecture.backbone.structure,
            "neck": f"{neck.kind} {neck.channels}", "head": f"{head.kind} {tower}",
            "params": str(params_of(architecture)), "macs": str(macs_of(architecture, *COUNTED_AT))}


def matching(rows: Sequence[Mapping[str, str]], networks: Sequence[Architecture], path: Path
             ) -> dict[str, Mapping[str, str]]:
    """The rows by name. Raises DataError for one that is of none of the networks."""
    fields = {a.name: network_fields(a) for a in networks}
    for row in rows:
        if {name: row[name] for name in NETWORK_FIELDS} != fields.get(row["name"]):
            raise DataError(f"{path} has a row of {row['name']} that is none of the networks, or has another "
                            "structure: choose another --csv or --networks, or delete it")
    return {row["name"]: row for row in rows}


def write_rows(path: Path, rows: Sequence[Mapping[str, str]], comments: Sequence[str]) -> None:
    """A CSV whose first lines say how it was made."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {comment}\n" for comment in comments)
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of what :func:`write_rows` wrote. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read the trainings {path} ({type(error).__name__}): make them with "
                        "python -m benchmarks.research.evidence train") from None
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing or any(row[name] is None for row in rows for name in COLUMNS):
        raise DataError(f"{path} is not a table of trainings: it lacks {', '.join(missing) or 'values'}")
    return [{name: row[name] for name in COLUMNS} for row in rows]


# ---- table


@dataclass(frozen=True)
class Evidence:
    """Networks and what their trainings came to, in the same order."""

    networks: tuple[Architecture, ...]
    rows: tuple[Mapping[str, str], ...]
    planned: int
    """networks that there will be"""

    def ap(self, setting: str) -> Floats:
        """Raises DataError where one is no number."""
        try:
            values = np.array([float(row[setting]) for row in self.rows])
        except ValueError:
            values = np.array([math.nan])
        if not np.isfinite(values).all():
            raise DataError(f"the trainings have a {setting} that is no number: delete that row and train again")
        return values


def read_evidence(networks: Path, path: Path) -> Evidence:
    """What is trained so far. Raises DataError for files that cannot be read or do not belong together, and for fewer
    than 3 trainings."""
    known = load_networks(networks)
    rows = matching(read_rows(path), known, path)
    if len(rows) < 3:
        raise DataError(f"a rank correlation needs 3 trained networks, there are {len(rows)}: go on with "
                        "python -m benchmarks.research.evidence train")
    if len({(row["samples"], row["seed"]) for row in rows.values()}) > 1:
        raise DataError(f"{path} mixes trainings of several recipes: keep one number of samples and one seed")
    trained = tuple(a for a in known if a.name in rows)
    return Evidence(trained, tuple(rows[a.name] for a in trained), len(known))


@dataclass(frozen=True)
class Correlation:
    """Of one score with one AP, among one group of networks."""

    score: str
    """name, and with an alpha: ``detector@0.05``"""
    setting: str
    group: str
    networks: int
    kendall: float
    kendall_interval: Interval
    """95 %, from networks drawn again with replacement"""
    spearman: float
    spearman_interval: Interval

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; what is undefined, for a score that is the same everywhere, is null."""
        values = dataclasses.asdict(self)
        return {key: _rounded(value) for key, value in values.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def scores_of(networks: Sequence[Architecture], alphas: Sequence[float]) -> dict[str, Floats]:
    """Every score of every network; those with an alpha at each: ``detector@0.05``."""
    names = [(name, alpha) for name in PROXIES for alpha in (alphas if name in WITH_ALPHA else (None,))]
    return {name if alpha is None else f"{name}@{alpha:g}":
            np.array([proxy(name, a) if alpha is None else proxy(name, a, alpha) for a in networks], np.float64)
            for name, alpha in names}


def stem_stride(architecture: Architecture) -> int:
    """2, or 4 where the first convolution gives c2."""
    return parts_of(architecture, *COUNTED_AT)[0].stride


def features(networks: Sequence[Architecture]) -> Floats:
    """:data:`FEATURES` of each network."""
    return np.array([(*(math.log(macs) for macs in stage_macs(a)), depth(a), stem_stride(a)) for a in networks])


def groups_of(networks: Sequence[Architecture]) -> dict[str, list[int]]:
    """All networks, and where their stems differ those of each stride that has 3 or more: name -> indices."""
    strides = [stem_stride(a) for a in networks]
    groups = {f"stem of stride {s}": [i for i, stride in enumerate(strides) if stride == s]
              for s in sorted(set(strides))}
    return {"all": list(range(len(networks))),
            **{name: found for name, found in groups.items() if 3 <= len(found) < len(networks)}}


def correlations(evidence: Evidence, settings: Sequence[str], alphas: Sequence[float]) -> Iterator[Correlation]:
    """Every score, and what a fit predicts, against the AP of each setting, for each group."""
    scores, inputs = scores_of(evidence.networks, alphas), features(evidence.networks)
    for setting in settings:
        ap = evidence.ap(setting)
        fitted = {FITTED: leave_one_out(inputs, ap)} if len(ap) >= LEAST_FITTED else {}
        for group, chosen in groups_of(evidence.networks).items():
            for name, values in (scores | fitted).items():
                found = correlate(values[chosen], ap[chosen])
                yield Correlation(name, setting, group, len(chosen), **dataclasses.asdict(found))


def as_table(found: Sequence[Correlation], evidence: Evidence) -> str:
    """The correlations, highest Kendall first, by setting and group, and what was trained."""
    def both(value: float, interval: Interval) -> str:
        return f"{value:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f})"

    macs = [macs_of(a, *COUNTED_AT) / 1e6 for a in evidence.networks]
    parts = [f"{len(evidence.networks)} of {evidence.planned} networks are trained, {evidence.rows[0]['samples']} "
             f"samples each; {min(macs):.0f} to {max(macs):.0f} million multiply-accumulates at 640x480"]
    for setting, group in dict.fromkeys((c.setting, c.group) for c in found):
        ours = [c for c in found if (c.setting, c.group) == (setting, group)]
        ours.sort(key=lambda c: -c.kendall if math.isfinite(c.kendall) else math.inf)
        parts.append(table((f"AP {setting}, {group} ({ours[0].networks})", "Kendall (95 %)", "Spearman (95 %)"), [
            (c.score, both(c.kendall, c.kendall_interval), both(c.spearman, c.spearman_interval)) for c in ours]))
    for setting in dict.fromkeys(c.setting for c in found):
        ap = evidence.ap(setting)
        parts.append(f"AP {setting}: {ap.min():.4f} to {ap.max():.4f}, median {np.median(ap):.4f}")
        if any(c.score == FITTED for c in found):
            parts[-1] += "; " + _fit_text(features(evidence.networks), ap)
    parts.append(f"{len({c.score for c in found})} scores are compared: the best of them owes some of its place to "
                 "chance.")
    return "\n\n".join(parts)


def _fit_text(inputs: Floats, ap: Floats) -> str:
    weights = ", ".join(f"{name} {100 * w:+.2f}" for name, w in zip(FEATURES, ridge(inputs, ap), strict=True))
    return (f"{FITTED} is no zero-cost score: ridge regression (penalty {PENALTY:g}) on these trainings, each network "
            f"predicted from the others. Points of AP a standard deviation: {weights}")


def draw(evidence: Evidence, path: Path, alpha: float = SPREAD_ALPHA) -> None:
    """Scatter plots: AP hard against each score, those with an alpha at ``alpha``; filled where the stem has stride
    4."""
    from matplotlib.figure import Figure

    columns = 4
    figure = Figure(figsize=(13, 9), layout="constrained")
    ap, strides = evidence.ap("hard"), np.array([stem_stride(a) for a in evidence.networks])
    scores = scores_of(evidence.networks, (alpha,))
    for (name, values), axes in zip(scores.items(), figure.subplots(-(-len(scores) // columns), columns).flat,
                                    strict=False):
        for stride, face in ((2, "none"), (4, "C0")):
            axes.scatter(values[strides == stride], ap[strides == stride], s=16, edgecolors="C0", facecolors=face)
        found = correlate(values, ap, resamples=1)
        axes.set(xlabel=name, ylabel="AP hard")
        axes.set_title(f"Kendall {found.kendall:+.2f}, Spearman {found.spearman:+.2f}", fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=90, format=path.suffix.lstrip(".") or "png")


# ---- command line


@dataclass(frozen=True, kw_only=True)
class Select:
    """Select networks of equal multiply-accumulates, spread over the score."""

    space: str = "edge"
    """name, or a .json file of a space"""
    count: int = 24
    """networks"""
    macs: float = 0.2e9
    """multiply-accumulates at 640x480"""
    tolerance: float = 0.03
    """share by which they may differ"""
    seed: int = 0
    """seed of what is drawn"""
    networks: Path = NETWORKS
    """JSON list; default: ours"""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Give each the same short training, then evaluate it."""

    data: Path
    """WIDER FACE folder, validation photos included"""
    annotations: Path | None = None
    """boxes of the training photos; default: the official list"""
    photos: Path | None = None
    """folder of the training photos; default: --data"""
    cache: Path = Path("runs/evidence/cache")
    """folder of the decoded photos"""
    runs: Path = Path("runs/evidence")
    """folder of the run folders"""
    samples: int = SAMPLES
    """photos seen by each network"""
    batch: int = BATCH
    """photos per step"""
    size: int = SIZE_PX
    """side of the crops, px"""
    seed: int = 0
    """seed of weights, order and crops"""
    compile: bool = True
    """compile the sampling of crops; without a C++ compiler it is slower"""
    threads: int = 1
    """CPU threads of each training"""
    processes: int = 2
    """trainings at a time, on this machine"""
    ray: str | None = None
    """train on a Ray cluster: HOST:PORT, or auto; paths must be on storage that all its machines share"""
    networks: Path = NETWORKS
    """JSON list; default: ours"""
    csv: Path = TRAININGS
    """one row a network; default: ours"""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionError("--threads must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Table(Printed):
    """Print how well each score ranks what was trained."""

    plot: Path | None = None
    """draw the scatter plots to this .png or .svg"""
    alphas: str = ",".join(f"{alpha:g}" for alpha in ALPHAS)
    """weights of the kernel sizes, separated by commas"""
    settings: tuple[str, ...] = ("hard",)
    """which AP"""
    networks: Path = NETWORKS
    """JSON list; default: ours"""
    csv: Path = TRAININGS
    """one row a network; default: ours"""

    def __post_init__(self) -> None:
        check_choice("settings", self.settings, SETTINGS)


def _alphas(text: str) -> tuple[float, ...]:
    """Raises OptionError."""
    try:
        alphas = tuple(float(item) for item in text.split(","))
    except ValueError:
        alphas = (math.nan,)
    if not all(math.isfinite(alpha) and alpha >= 0 for alpha in alphas):
        raise OptionError(f"--alphas {text!r} is not a list of numbers of 0 or more, such as 0,0.05")
    return alphas


def command_of(o: Train) -> str:
    """The training command that gives these figures again, paths by their last part."""
    words = ["python", "-m", "benchmarks.research.evidence", "train", "--networks", o.networks.name]
    for name in ("data", "annotations", "photos"):
        if getattr(o, name):
            words += [f"--{name}", getattr(o, name).name]
    for name in ("samples", "batch", "size", "seed", "threads"):
        words += [f"--{name}", str(getattr(o, name))]
    return shlex.join(words + ["--no-compile"] * (not o.compile))


def _select(o: Select) -> None:
    networks = select(get_space(o.space), o.count, o.macs, o.tolerance, o.seed)
    save_networks(o.networks, networks)
    print(table(("network", f"{SPREAD_OVER}@{SPREAD_ALPHA:g}", "million MACs"), [
        (a.name, f"{proxy(SPREAD_OVER, a, SPREAD_ALPHA):.3f}", f"{macs_of(a, *COUNTED_AT) / 1e6:.1f}")
        for a in networks]))


def _train(o: Train) -> None:
    options = recipe(o.samples, o.batch, o.size, o.seed, o.compile)
    # Absolute, because the tasks of a cluster start in another folder.
    data, cache, runs = (str(path.resolve()) for path in (o.data, o.cache, o.runs))
    photos, annotations = (str(path.resolve()) if path else None for path in (o.photos, o.annotations))
    plan = Plan(options, photos or data, annotations, cache, runs, data, o.threads)
    networks = load_networks(o.networks)
    with Terminal(steps=True) as terminal, open_workers(o.ray, o.processes) as workers:
        train(networks, plan, o.csv, command_of(o), workers, terminal)


def _table(o: Table) -> None:
    alphas = _alphas(o.alphas)
    evidence = read_evidence(o.networks, o.csv)
    found = list(correlations(evidence, tuple(dict.fromkeys(o.settings)), tuple(dict.fromkeys(alphas))))
    if o.plot:
        draw(evidence, o.plot)
    emit(_json(found, evidence), as_table(found, evidence), o.format, o.save)


def _json(found: Sequence[Correlation], evidence: Evidence) -> dict[str, Any]:
    return {"trained": len(evidence.networks), "planned": evidence.planned,
            "samples": int(evidence.rows[0]["samples"]), "correlations": [c.to_json() for c in found]}



main = program_of_steps({"select": (Select, _select), "train": (Train, _train), "table": (Table, _table)},
                        "python -m benchmarks.research.evidence", __doc__,
                        "what was trained is kept, the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
