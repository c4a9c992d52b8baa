"""``python -m benchmarks.latency_model``: how well latency is predicted, beside
multiply-accumulates and parameters.

For each runtime and precision: a latency model is fitted to the networks measured for it, and asked
for 100 others that were measured as well (a third from each search space, none of them seen in the
fit). Multiply-accumulates and parameters predict through the straight line that fits the same
networks best. The tables of measurements lie in benchmarks/latency_tables; --measure makes your
own, for this machine or a device, about half an hour for each.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import Printed
from benchmarks.prediction import HELD_OUT_FROM, WITHIN, Result, Score, evaluate
from edgeface.architecture.architecture import Architecture
from edgeface.architecture.layers import COUNTED_AT, macs_of, params_of
from edgeface.backends import BACKENDS
from edgeface.cli.flags import RESUMES, program_of
from edgeface.cli.output import emit, table
from edgeface.cli.terminal import Terminal
from edgeface.latency.devices import open_device
from edgeface.latency.protocol import LOCAL
from edgeface.options import check_choice
from edgeface.pages.figures import new_figure, save_figure
from edgeface.predict.measure import measure
from edgeface.predict.table import LatencyTable, Setting
from edgeface.search.space import SPACES

TABLES = Path(__file__).parent / "latency_tables"
KINDS = ("onnx-fp32", "openvino-fp32", "ncnn-fp32", "tflite-fp32", "openvino-int8", "tflite-int8")
"""target and precision"""
LEARNED = {"idw": 140, "xx": 160, "resnet": 80}
"""most networks of each space that a model is fitted to: xx has the most kinds of layers, idw the
oddest widths"""
USUAL = 100
"""default for the most networks of each space to learn from: enough for most runtimes"""
HELD_OUT = {"idw": 34, "xx": 33, "resnet": 33}
"""held-out networks of each space, which the model predicts"""


def networks(most: int = max(LEARNED.values())) -> list[Architecture]:
    """All networks to measure. Held-out ones and those to learn from alternate, so that a run
    stopped early has some of each. ``most``: limit of those to learn from, for each space."""
    found = []
    for i in range(max(*LEARNED.values(), *HELD_OUT.values())):
        for name, count in LEARNED.items():
            if i < min(most, count):
                found.append(SPACES[name].sample(i))
            if i < HELD_OUT[name]:
                found.append(SPACES[name].sample(HELD_OUT_FROM + i))
    return found


def draw(results: Sequence[Result], path: Path) -> None:
    """Scatter plots of measured latency against each of the three predictors."""
    figure = new_figure(12, 3.1 * len(results))
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
    save_figure(figure, path, dpi=80)


def as_table(results: Sequence[Result]) -> str:
    """The figures, and the devices and runtimes they were measured on."""

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
    """Path in ``folder`` of the latency table of ``setting``."""
    size = f"{setting.width}x{setting.height}"
    name = f"{setting.target}-{setting.precision}-{size}-{setting.threads}t.json"
    if setting.device != LOCAL:
        name = re.sub(r"[^\w.@-]+", "-", f"{setting.device}-") + name
    return folder / name


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    tables: Path = TABLES
    """folder of latency tables; default: those of the checkout"""
    kinds: tuple[str, ...] = KINDS
    """TARGET-PRECISION, such as openvino-int8"""
    measure: bool = False
    """measure what the tables lack; a stopped run resumes"""
    again: bool = False
    """measure everything again and average both"""
    device: str = LOCAL
    """local, ssh://[user@]host[:port] or adb://serial"""
    threads: int = 1
    """CPU threads for the runtime"""
    learned: int = USUAL
    """with --measure: most networks per space to measure for the fit (ncnn needs 160); a fit uses
    all that a table has"""
    bundles: Path = Path("dist/candidates")
    """folder of the files to measure"""
    plot: Path | None = None
    """plot measured against predicted to this .png or .svg"""

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Files that a later run reads."""
        return tuple(table_path(self.tables, _setting(self, kind)) for kind in self.kinds)

    def __post_init__(self) -> None:
        check_choice(
            "kinds",
            self.kinds,
            [f"{b.target}-{p}" for b in BACKENDS.values() for p in b.precisions],
        )


def measure_all(o: Options, terminal: Terminal) -> None:
    """Start or continue the measurements of every requested table."""
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
