"""Plots drawn by matplotlib, and a check, before the work, that one can be drawn and written.

No pyplot, so no display and no global state.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.errors import MissingExtraError, OptionError
from edgeface.files import atomic_write, check_writable, refuse_input

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


def check_plot(path: Path, inputs: Iterable[Path | str] = ()) -> None:
    """Check, before the work, that a plot can be written to ``path`` after it.

    inputs: files that it must not replace. Raises OptionError for another kind of file or one of
    the inputs, OutputError for a place that cannot be written, MissingExtraError without
    matplotlib.
    """
    from edgeface.backends import require_module

    if path.suffix.lower() not in PICTURES:
        raise OptionError(
            f"--plot {path}: a plot is saved as one of {', '.join(PICTURES)}: try"
            f" {path.with_suffix(PICTURES[0]) if path.name else 'plot.png'}"
        )
    check_writable(path, "--plot", folder=False)
    refuse_input(path, inputs, "--plot")
    require_module("matplotlib", "eval", "drawing a plot")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "eval", "drawing a plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def literal(text: str) -> str:
    """``text`` for a title or a label: matplotlib would read what is between two $ as a formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path | str, dpi: int = 120) -> None:
    """Write an SVG if ``path`` ends in .svg, else a PNG. Raises OutputError.

    The file has no date, version or random ids: with one version of matplotlib, equal figures give
    equal bytes.
    """
    from matplotlib import rc_context

    svg = Path(path).suffix.lower() == ".svg"
    with atomic_write(path) as temporary, rc_context({"svg.hashsalt": "edgeface"}):
        figure.savefig(
            temporary,
            format="svg" if svg else "png",
            dpi=dpi,
            metadata={"Date": None, "Creator": None} if svg else {"Software": None},
        )
