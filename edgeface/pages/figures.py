"""Pictures that matplotlib draws: whether one can be drawn and written is asked before the work
that it shows, and all are written alike.

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
    """Refuse, before the work, a picture that could not be written after it.

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
    """An empty one of so many inches. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "eval", "drawing a plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path | str, dpi: int = 120) -> None:
    """Write a PNG, or an SVG where ``path`` ends so. Raises OutputError.

    No date, no version and no chance inside: equal figures give equal bytes on one matplotlib.
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
