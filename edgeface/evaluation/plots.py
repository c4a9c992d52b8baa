"""Precision-recall curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.errors import counted
from edgeface.evaluation.report import Report
from edgeface.evaluation.wider import HEIGHT_BINS_PX, SETTINGS, WiderResult
from edgeface.pages.figures import literal, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_curves(path: Path | str, report: Report, result: WiderResult) -> None:
    """Write a PNG: the three settings on the left, the height bins on the right.

    The title states the protocol. Raises MissingExtraError without matplotlib, OutputError if
    ``path`` cannot be written.
    """
    save_figure(draw_curves(report, result), path)


def draw_curves(report: Report, result: WiderResult) -> Figure:
    """The figure of :func:`plot_curves`."""
    figure = new_figure(11, 5)
    settings, heights = figure.subplots(1, 2, sharey=True)
    _draw(settings, result, SETTINGS, "setting")
    _draw(heights, result, tuple(HEIGHT_BINS_PX), f"face height, {report.protocol.heights} px")
    settings.set_ylabel("precision")
    figure.suptitle(
        literal(f"{report.model} on {counted(report.images, 'image')}\n{report.protocol}"),
        fontsize=9,
    )
    return figure


def _draw(axes: Axes, result: WiderResult, names: Sequence[str], title: str) -> None:
    for name in names:
        curve = result.curves.get(name)
        if curve is not None:
            label = f"{name}: AP {_ap(result, name):.3f} ({counted(result.faces[name], 'face')})"
            reached = curve.recall > 0
            axes.plot(curve.recall[reached], curve.precision[reached], label=label)
    style: dict[str, Any] = {"xlim": (0, 1), "ylim": (0, 1.02), "xlabel": "recall"}
    axes.set(**style)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title=title, loc="lower left", fontsize=8, title_fontsize=8)


def _ap(result: WiderResult, name: str) -> float:
    value = result.by_height[name] if name in HEIGHT_BINS_PX else getattr(result, name)
    assert value is not None, "a curve exists where faces count"
    return float(value)
