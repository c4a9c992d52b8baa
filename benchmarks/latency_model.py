"""``python -m benchmarks.latency_model``: how well latency is predicted, beside
multiply-accumulates and parameters.

For each runtime and precision: a latency model is fitted to the networks measured for it, and asked
for 100 others that were measured as well (a third from each search space, none of them seen in the
fit). Multiply-accumulates and parameters predict through the straight line that fits the same
networks best. The tables of measurements lie in benchmarks/latency_tables; --measure makes your
own, for this machine or a device, about half an hour for each.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Printed
from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.backends import BACKENDS
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError
from edgeface.files import atomic_write
from edgeface.latency.devices import open_device
from edgeface.latency.protocol import LOCAL
from edgeface.options import check_choice
from edgeface.predict.measure import measure
from edgeface.predict.model import LatencyModel, Prediction
from edgeface.predict.table import LatencyTable, Record, Setting
from edgeface.search.space import SPACES
from edgeface.types import Doubles

TABLES = Path(__file__).parent / "latency_tables"
KINDS = ("onnx-fp32", "openvino-fp32", "ncnn-fp32", "tflite-fp32", "openvino-int8", "tflite-int8")
"""target and precision"""
LEARNED = {"idw": 140, "xx": 160, "resnet": 80}
"""networks of each space that a model is fitted to at most: xx has the most kinds of layers, idw
the oddest widths"""
USUAL = 100
"""of each space, unless told otherwise: what most runtimes need"""
HELD_OUT = {"idw": 34, "xx": 33, "resnet": 33}
HELD_OUT_FROM = 1000
"""seed of the first network of each space that is held out"""
WITHIN = 0.10
BATCHES, BATCH = 7, 2000
"""networks whose predictions are timed, batch by batch; the median counts"""


@dataclass(frozen=True)
class Score:
    """How well one predictor does on the networks held out."""

    within_10: float
    """share predicted within 10 % of what was measured"""
    spearman: float
    median_error: float

    @classmethod
    def of(cls, predicted: Doubles, measured: Doubles) -> Score:
        """Both in ms."""
        from scipy.stats import spearmanr

        error = np.abs(predicted / measured - 1)
        return cls(
            round(float(np.mean(error <= WITHIN)), 4),
            round(float(spearmanr(predicted, measured)[0]), 4),
            round(float(np.median(error)), 4),
        )


@dataclass(frozen=True)
class Result:
    """Of one table."""

    table: LatencyTable
    learned: tuple[Record, ...]
    held_out: tuple[Record, ...]
    predictions: tuple[Prediction, ...]
    """of :attr:`held_out`"""
    model: Score
    flops: Score
    params: Score
    per_second: float
    """predictions, on one core"""

    @property
    def measured_ms(self) -> Doubles:
        """Of the networks held out."""
        return np.array([self.table.ms(r) for r in self.held_out])

    @property
    def covered(self) -> float:
        """Share measured as near to the prediction as both 95 % intervals together (in quadrature)
        say."""
        inside = [
            abs(p.ms - ms) <= math.hypot(p.high_ms - p.ms, ms * record.width / 2)
            for p, ms, record in zip(self.predictions, self.measured_ms, self.held_out, strict=True)
        ]
        return float(np.mean(inside))

    @property
    def vouched(self) -> float:
        """Share within 10 % of the networks that the model does not call unlike those seen; those
        it would measure."""
        errors = [
            abs(p.ms / ms - 1)
            for p, ms in zip(self.predictions, self.measured_ms, strict=True)
            if not p.outside
        ]
        return float(np.mean(np.array(errors) <= WITHIN)) if errors else 0.0

    @property
    def learning_s(self) -> float:
        """Device time of the networks that the model was fitted to."""
        return self.table.device_s * len(self.learned) / max(1, len(self.table.records))

    def to_json(self) -> dict[str, Any]:
        """Figures and their conditions."""
        setting = self.table.setting
        return {
            "target": setting.target,
            "precision": setting.precision,
            "runtime": self.table.runtime,
            "device": setting.device,
            "cpu": self.table.cpu,
            "threads": setting.threads,
            "width": setting.width,
            "height": setting.height,
            "within_10": self.model.within_10,
            "spearman": self.model.spearman,
            "median_error": self.model.median_error,
            "flops": {"within_10": self.flops.within_10, "spearman": self.flops.spearman},
            "params": {"within_10": self.params.within_10, "spearman": self.params.spearman},
            "held_out": len(self.held_out),
            "outside": sum(bool(p.outside) for p in self.predictions),
            "within_10_of_inside": round(self.vouched, 4),
            "in_95_interval": round(self.covered, 4),
            "learned": len(self.learned),
            "learning_device_minutes": round(self.learning_s / 60, 1),
            "predictions_per_second": round(self.per_second),
            "not_valid": len(self.table.records) - len(self.table.valid),
            "drift": round(self.table.drift, 4),
            "measured_ms": [round(float(ms), 3) for ms in self.measured_ms],
            "predicted_ms": [round(p.ms, 3) for p in self.predictions],
        }


def networks(most: int = max(LEARNED.values())) -> list[Architecture]:
    """All that are measured, held out or not, mixed: whoever stops early has some of each.
    ``most``: to learn from, of each space."""
    found = []
    for i in range(max(*LEARNED.values(), *HELD_OUT.values())):
        for name, count in LEARNED.items():
            if i < min(most, count):
                found.append(SPACES[name].sample(i))
            if i < HELD_OUT[name]:
                found.append(SPACES[name].sample(HELD_OUT_FROM + i))
    return found


def is_held_out(record: Record) -> bool:
    """By the seed in its name."""
    return int(record.architecture.name.rpartition("-")[2]) >= HELD_OUT_FROM


def evaluate(latencies: LatencyTable) -> Result:
    """Fit and ask. Raises DataError for a table without enough valid records."""
    learned = tuple(r for r in latencies.records if r.teaches and not is_held_out(r))
    held_out = tuple(r for r in latencies.valid if is_held_out(r))
    if len(held_out) < 2:
        raise DataError(
            f"the table of {latencies.setting} has {len(held_out)} valid networks held out: go on"
            " with --measure"
        )
    model = LatencyModel(dataclasses.replace(latencies, records=learned))
    predictions = tuple(model.predict([r.architecture for r in held_out]))
    measured = np.array([latencies.ms(r) for r in held_out])
    taught = np.array([latencies.ms(r) for r in learned])
    return Result(
        latencies,
        learned,
        held_out,
        predictions,
        Score.of(np.array([p.ms for p in predictions]), measured),
        _line(
            [macs_of(r.architecture, *COUNTED_AT) for r in learned],
            taught,
            [macs_of(r.architecture, *COUNTED_AT) for r in held_out],
            measured,
        ),
        _line(
            [params_of(r.architecture) for r in learned],
            taught,
            [params_of(r.architecture) for r in held_out],
            measured,
        ),
        _speed(model),
    )


def _line(
    counts: Sequence[int], taught_ms: Doubles, asked: Sequence[int], measured_ms: Doubles
) -> Score:
    """The predictor a + b count, of least squared relative error."""
    columns = np.column_stack([np.ones(len(counts)), np.array(counts, np.float64)])
    factors = np.linalg.lstsq(columns / taught_ms[:, None], np.ones(len(counts)), rcond=None)[0]
    return Score.of(
        np.column_stack([np.ones(len(asked)), np.array(asked, np.float64)]) @ factors, measured_ms
    )


def _speed(model: LatencyModel) -> float:
    """Predictions a second, as a search asks for them: each network differs from one before in one
    block."""
    space, draw = SPACES["idw"], random.Random(0)
    asked, seconds = [space.sample(0)], []
    for _ in range(BATCHES):
        known = len(asked)
        while len(asked) < known + BATCH:
            asked.append(space.mutate(draw.choice(asked), draw))
        start = time.perf_counter()
        model.predict(asked[known:])
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds)


def draw(results: Sequence[Result], path: Path) -> None:
    """Scatter plots: what was measured against each of the three predictors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.1 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), 3, squeeze=False)
    for row, result in zip(axes, results, strict=True):
        setting, spaces = (
            result.table.setting,
            [r.architecture.name.partition("-")[0] for r in result.held_out],
        )
        columns = (
            ([p.ms for p in result.predictions], "predicted ms", result.model),
            (
                [macs_of(r.architecture, *COUNTED_AT) / 1e6 for r in result.held_out],
                "million MACs",
                result.flops,
            ),
            (
                [params_of(r.architecture) / 1e3 for r in result.held_out],
                "thousand parameters",
                result.params,
            ),
        )
        for plot, (values, label, score) in zip(row, columns, strict=True):
            for space in LEARNED:
                chosen = [i for i, name in enumerate(spaces) if name == space]
                plot.scatter(
                    [values[i] for i in chosen],
                    result.measured_ms[chosen],
                    s=12,
                    alpha=0.7,
                    label=space,
                )
            plot.set(
                xlabel=label,
                ylabel="measured ms",
                title=(
                    f"{setting.target} {setting.precision}: {score.within_10:.0%} within 10 %, "
                    f"Spearman {score.spearman:.3f}"
                ),
            )
            plot.title.set_fontsize(9)
        ends = np.array([result.measured_ms.min(), result.measured_ms.max()])
        row[0].fill_between(ends, ends * (1 - WITHIN), ends * (1 + WITHIN), color="grey", alpha=0.2)
        row[0].legend(fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=80, format=path.suffix.lstrip("."))


def as_table(results: Sequence[Result]) -> str:
    """The figures, and where they come from."""

    def both(score: Score) -> str:
        return f"{score.within_10:.0%} {score.spearman:.3f}"

    rows = [
        (
            f"{r.table.setting.target} {r.table.setting.precision}",
            both(r.model),
            both(r.flops),
            both(r.params),
            f"{r.vouched:.0%} of {sum(not p.outside for p in r.predictions)}",
            f"{r.covered:.0%}",
            f"{len(r.learned)}/{len(r.held_out)}",
            f"{r.learning_s / 60:.0f} min",
            f"{r.per_second:,.0f}",
        )
        for r in results
    ]
    text = table(
        (
            "within 10 %, Spearman",
            "model",
            "MACs",
            "parameters",
            "where sure",
            "in 95 % interval",
            "learned/asked",
            "device time",
            "a second",
        ),
        rows,
    )
    where = dict.fromkeys(
        f"{r.table.setting.device}, {r.table.cpu}, {r.table.runtime}" for r in results
    )
    return text + "\n\nmeasured on: " + "; ".join(where)


def table_path(folder: Path, setting: Setting) -> Path:
    """Of the table of ``setting``."""
    size = f"{setting.width}x{setting.height}"
    return folder / f"{setting.target}-{setting.precision}-{size}-{setting.threads}t.json"


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Of the command line."""

    tables: Path = TABLES
    """folder of latency tables; default: ours"""
    kinds: tuple[str, ...] = KINDS
    """TARGET-PRECISION, such as openvino-int8"""
    measure: bool = False
    """measure what the tables lack; resumes by itself"""
    again: bool = False
    """measure all once more, and average the two"""
    device: str = LOCAL
    """local, ssh://[user@]host[:port] or adb://serial"""
    threads: int = 1
    """CPU threads of the runtime"""
    learned: int = USUAL
    """networks to learn from, of each space, at most (ncnn needs 160)"""
    bundles: Path = Path("dist/candidates")
    """folder of the files to measure"""
    plot: Path | None = None
    """draw the scatter plots to this .png or .svg"""

    def __post_init__(self) -> None:
        check_choice(
            "kinds",
            self.kinds,
            [f"{b.target}-{p}" for b in BACKENDS.values() for p in b.precisions],
        )


def measure_all(o: Options, terminal: Terminal) -> None:
    """Go on with every table that was asked for."""
    architectures = networks(o.learned)
    with open_device(o.device) as device:
        for kind in o.kinds:
            setting = _setting(o, kind)
            path = table_path(o.tables, setting)
            known = LatencyTable.load(path) if path.is_file() else None
            found = measure(
                setting,
                architectures,
                device,
                o.bundles,
                known,
                o.again,
                terminal.tick,
                lambda t, path=path: t.save(path),  # type: ignore[misc]
                lambda a, why: terminal.note(f"left out: {a.name}: {why}"),
            )
            terminal.line(
                f"{setting}: {len(found.valid)} of {len(architectures)} networks measured, "
                f"{found.device_s / 60:.0f} minutes; {path}"
            )


def _setting(o: Options, kind: str) -> Setting:
    target, _, precision = kind.partition("-")
    return Setting(o.device, target, precision, *COUNTED_AT, o.threads)


def _run(o: Options) -> None:
    with Terminal(steps=True) as terminal:
        if o.measure:
            measure_all(o, terminal)
        results = []
        for done, kind in enumerate(o.kinds):
            terminal.tick("fitting", done, len(o.kinds))
            results.append(evaluate(LatencyTable.load(table_path(o.tables, _setting(o, kind)))))
        if o.plot:
            draw(results, o.plot)
    emit([r.to_json() for r in results], as_table(results), o.format, o.save)


main = program_of(Options, "python -m benchmarks.latency_model", __doc__, _run, RESUMES)


if __name__ == "__main__":
    sys.exit(main())
