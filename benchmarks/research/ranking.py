"""How well scores rank trained networks: correlations with their intervals, as a table and as a
picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.research.ranks import Interval, correlate
from benchmarks.research.selection import SPREAD_ALPHA, load_networks
from benchmarks.research.trainings import matching
from edgeface.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, macs_of, parts_of
from edgeface.cli.output import table
from edgeface.errors import DataError
from edgeface.pages.figures import new_figure, save_figure
from edgeface.search.scores.registry import PROXIES, WITH_ALPHA, proxy
from edgeface.search.trials.known import read_rows
from edgeface.search.trials.model import LEAST_TRAININGS, Training, left_out
from edgeface.types import Doubles

LEARNED = "learned"
"""not a zero-cost score: the accuracy model of a search, each network predicted from all others"""


@dataclass(frozen=True)
class Evidence:
    """Networks and the results of their trainings, in the same order."""

    networks: tuple[Architecture, ...]
    rows: tuple[Mapping[str, str], ...]
    planned: int
    """number of networks once all are trained"""

    def ap(self, setting: str) -> Doubles:
        """AP of each network. Raises DataError if one is not a number."""
        try:
            values = np.array([float(row[setting]) for row in self.rows])
        except ValueError:
            values = np.array([math.nan])
        if not np.isfinite(values).all():
            raise DataError(
                f"the trainings have a {setting} that is no number: delete that row and train again"
            )
        return values


def read_evidence(networks: Path, path: Path) -> Evidence:
    """The trainings so far. Raises DataError for files that cannot be read or do not belong
    together, and for fewer than 3 trainings."""
    known = load_networks(networks)
    rows = matching(read_rows(path), known, path)
    if len(rows) < 3:
        raise DataError(
            f"a rank correlation needs 3 trained networks, there are {len(rows)}: go on with "
            "python -m benchmarks.research.evidence train"
        )
    if len({(row["samples"], row["seed"]) for row in rows.values()}) > 1:
        raise DataError(
            f"{path} mixes trainings of several recipes: keep one number of samples and one seed"
        )
    trained = tuple(a for a in known if a.name in rows)
    return Evidence(trained, tuple(rows[a.name] for a in trained), len(known))


@dataclass(frozen=True)
class Correlation:
    """Correlation of one score with one AP, within one group of networks."""

    score: str
    """name, and with an alpha: ``detector@0.05``"""
    setting: str
    group: str
    networks: int
    kendall: float
    kendall_interval: Interval
    """95 %, by bootstrap over the networks"""
    spearman: float
    spearman_interval: Interval

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null if undefined, as for a score that is the same for all networks."""
        values = dataclasses.asdict(self)
        return {key: _rounded(value) for key, value in values.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def scores_of(networks: Sequence[Architecture], alphas: Sequence[float]) -> dict[str, Doubles]:
    """Score -> its value for each network; scores with an alpha at each one: ``detector@0.05``."""
    names = [
        (name, alpha) for name in PROXIES for alpha in (alphas if name in WITH_ALPHA else (None,))
    ]
    return {
        name if alpha is None else f"{name}@{alpha:g}": np.array(
            [proxy(name, a) if alpha is None else proxy(name, a, alpha) for a in networks],
            np.float64,
        )
        for name, alpha in names
    }


def stem_stride(architecture: Architecture) -> int:
    """Stride of the stem: 2, or 4 if the first convolution outputs c2."""
    return parts_of(architecture, *COUNTED_AT)[0].stride


def learned(evidence: Evidence, setting: str) -> dict[str, Doubles]:
    """AP of each network, predicted from the others; empty if there are too few trainings."""
    if len(evidence.networks) <= LEAST_TRAININGS:
        return {}
    pairs = zip(evidence.networks, evidence.ap(setting).tolist(), strict=True)
    foreseen = left_out([Training(network, ap) for network, ap in pairs])
    return {LEARNED: np.array([expected.ap for expected in foreseen])}


def groups_of(networks: Sequence[Architecture]) -> dict[str, list[int]]:
    """Name -> indices: all networks and, if their stem strides differ, those of each stride that
    has 3 or more."""
    strides = [stem_stride(a) for a in networks]
    groups = {
        f"stem of stride {s}": [i for i, stride in enumerate(strides) if stride == s]
        for s in sorted(set(strides))
    }
    return {
        "all": list(range(len(networks))),
        **{name: found for name, found in groups.items() if 3 <= len(found) < len(networks)},
    }


def correlations(
    evidence: Evidence, settings: Sequence[str], alphas: Sequence[float]
) -> Iterator[Correlation]:
    """Every score, and the learned one, against the AP of each setting, for each group."""
    scores = scores_of(evidence.networks, alphas)
    for setting in settings:
        ap = evidence.ap(setting)
        all_scores = scores | learned(evidence, setting)
        for group, chosen in groups_of(evidence.networks).items():
            for name, values in all_scores.items():
                found = correlate(values[chosen], ap[chosen])
                yield Correlation(name, setting, group, len(chosen), **dataclasses.asdict(found))


def as_table(found: Sequence[Correlation], evidence: Evidence) -> str:
    """The correlations, highest Kendall first, by setting and group, and what was trained."""

    def both(value: float, interval: Interval) -> str:
        return f"{value:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f})"

    macs = [macs_of(a, *COUNTED_AT) / 1e6 for a in evidence.networks]
    parts = [
        f"{len(evidence.networks)} of {evidence.planned} networks are trained,"
        f" {evidence.rows[0]['samples']} samples each; {min(macs):.0f} to {max(macs):.0f} million"
        " multiply-accumulates at 640x480"
    ]
    for setting, group in dict.fromkeys((c.setting, c.group) for c in found):
        ours = [c for c in found if (c.setting, c.group) == (setting, group)]
        ours.sort(key=lambda c: -c.kendall if math.isfinite(c.kendall) else math.inf)
        parts.append(
            table(
                (
                    f"AP {setting}, {group} ({ours[0].networks})",
                    "Kendall (95 %)",
                    "Spearman (95 %)",
                ),
                [
                    (
                        c.score,
                        both(c.kendall, c.kendall_interval),
                        both(c.spearman, c.spearman_interval),
                    )
                    for c in ours
                ],
            )
        )
    for setting in dict.fromkeys(c.setting for c in found):
        ap = evidence.ap(setting)
        parts.append(f"AP {setting}: {ap.min():.4f} to {ap.max():.4f}, median {np.median(ap):.4f}")
    parts.append(
        f"{len({c.score for c in found})} scores are compared: the best of them owes some of its"
        f" place to chance. {LEARNED} is no zero-cost score: the accuracy model of a search, each"
        " network foreseen from the others."
    )
    return "\n\n".join(parts)


def draw(evidence: Evidence, path: Path, alpha: float = SPREAD_ALPHA) -> None:
    """Scatter plots of AP hard against each score, at ``alpha`` if it has one; filled marks: stem
    of stride 4."""
    columns = 4
    figure = new_figure(13, 9)
    ap, strides = evidence.ap("hard"), np.array([stem_stride(a) for a in evidence.networks])
    scores = scores_of(evidence.networks, (alpha,))
    for (name, values), axes in zip(
        scores.items(), figure.subplots(-(-len(scores) // columns), columns).flat, strict=False
    ):
        for stride, face in ((2, "none"), (4, "C0")):
            axes.scatter(
                values[strides == stride],
                ap[strides == stride],
                s=16,
                edgecolors="C0",
                facecolors=face,
            )
        found = correlate(values, ap, resamples=1)
        axes.set(xlabel=name, ylabel="AP hard")
        axes.set_title(f"Kendall {found.kendall:+.2f}, Spearman {found.spearman:+.2f}", fontsize=9)
    save_figure(figure, path, dpi=90)
