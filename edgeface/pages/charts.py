"""Charts as inline SVG whose text keeps its size on any screen.

For this, positions are percentages, and no drawing with text is scaled.

Colours and fonts come from the page's style sheet. Every mark has a ``<title>``, which browsers
show on hover and read aloud.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeface.pages.markup import Html, join, tag

STEPS = (1, 2, 2.5, 5, 10)
STRIP = 1000
"""width and height, in SVG units, of the drawing of a strip's dots or a scatter's curves"""
MARGIN = 6
"""percent of a strip's height left free above and below the dots"""
PLOT = (9.0, 97.0, 4.0, 92.0)
"""left, right, top and bottom of the scatter's axes, in percent"""
NEAR_END = 0.15
"""share of an axis near either end; a name there is written inwards"""
SHAPES = {
    "fp32": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "fp16": "M-4.5-4.5h9v9h-9z",
    "int8": "M0-6.5L6 0L0 6.5L-6 0z",
}
OTHER_SHAPE = "M0-6L6 5H-6z"


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high`` with a mark every ``step``."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float], zero: bool = False, count: int = 5) -> Axis:
        """An axis with round numbers that covers all ``values``, and 0 if ``zero``."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        low = min(low, 0.0) if zero else low
        if high - low <= abs(high) * 1e-9:
            high = low + (abs(low) or 1.0)
        raw = (high - low) / count
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = next(magnitude * s for s in STEPS if magnitude * s >= raw * 0.999)
        return cls(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step)

    def share(self, value: float) -> float:
        """Position of ``value``, 0 to 1; a value beyond an end is placed on that end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def marks(self) -> list[float]:
        """Values that get a label."""
        return [
            self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)
        ]


def number(value: float, digits: int = 4) -> str:
    """``value`` with at most ``digits`` digits, without exponent for any usual latency."""
    return f"{value:.{digits}g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.2e}"


def percent(share: float) -> str:
    """``share``, 0 to 1, as a position in a drawing."""
    return f"{100 * share:.2f}%"


def scale(axis: Axis, unit: str) -> Html:
    """The labels below rows that share an axis."""
    marks = axis.marks()
    ticks = [
        tag(
            "text",
            number(v),
            x=percent(axis.share(v)),
            y="12",
            class_="first" if v == marks[0] else "last" if v == marks[-1] else "",
        )
        for v in marks
    ]
    return join(
        [tag("svg", *ticks, class_="scale", aria_hidden="true"), tag("p", unit, class_="unit")]
    )


def dots(
    rounds: Sequence[Sequence[float]], marks: Sequence[tuple[str, float]], axis: Axis, colour: str
) -> Html:
    """One dot per sample: time to the right, round downwards, so that drift shows as a slant.

    marks: (name, value) of the vertical lines; the name is also the line's class.
    """
    points = []
    for number_, samples in enumerate(rounds):
        y = STRIP * (MARGIN + (100 - 2 * MARGIN) * (number_ + 0.5) / len(rounds)) / 100
        points += [f"M{STRIP * axis.share(sample):.0f} {y:.0f}h0" for sample in samples]
    drawing = tag(
        "svg",
        tag("path", d="".join(points), class_=f"dots {colour}"),
        viewBox=f"0 0 {STRIP} {STRIP}",
        preserveAspectRatio="none",
        width="100%",
        height="100%",
    )
    lines = [
        _upright(axis.share(value), name, f"{name} {number(value)} ms") for name, value in marks
    ]
    label = ", ".join(f"{name} {number(value)} ms" for name, value in marks)
    return tag("svg", *_grid(axis), drawing, *lines, class_="strip", role="img", aria_label=label)


def stack(parts: Sequence[tuple[str, float]], axis: Axis, unit: str = "ms") -> Html:
    """Bars end to end; parts: (name, value in ``unit``), the name is also the bar's class."""
    ends = list(itertools.accumulate((max(0.0, value) for _, value in parts), initial=0.0))
    bars = [
        tag(
            "rect",
            tag("title", f"{name} {number(value)} {unit}"),
            x=percent(axis.share(start)),
            y="20%",
            width=percent(axis.share(end) - axis.share(start)),
            height="60%",
            class_=name,
        )
        for (name, value), start, end in zip(parts, ends, ends[1:], strict=False)
    ]
    label = ", ".join(f"{name} {number(value)} {unit}" for name, value in parts)
    return tag("svg", *_grid(axis), *bars, class_="strip", role="img", aria_label=label)


def interval(low: float, value: float, high: float, axis: Axis, colour: str, tie: float) -> Html:
    """A ratio with its 95 % interval; the band of 1 - ``tie`` to 1 + ``tie`` counts as a tie."""
    band = tag(
        "rect",
        tag("title", f"within {tie:.0%} of 1: a tie"),
        x=percent(axis.share(1 - tie)),
        y="0",
        width=percent(axis.share(1 + tie) - axis.share(1 - tie)),
        height="100%",
        class_="tie",
    )
    text = f"{number(value, 3)}, 95 % interval {number(low, 3)} to {number(high, 3)}"
    whisker = tag(
        "line",
        tag("title", text),
        x1=percent(axis.share(low)),
        x2=percent(axis.share(high)),
        y1="50%",
        y2="50%",
        class_=f"whisker {colour}",
    )
    point = tag(
        "circle",
        tag("title", text),
        cx=percent(axis.share(value)),
        cy="50%",
        r="5",
        class_=f"mark {colour}",
    )
    return tag(
        "svg",
        band,
        _upright(axis.share(1), "one", "1"),
        whisker,
        point,
        class_="strip",
        role="img",
        aria_label=text,
    )


@dataclass(frozen=True)
class Point:
    """A mark of a scatter."""

    x: float
    y: float
    colour: str
    shape: str = "fp32"
    title: str = ""
    small: bool = False
    valid: bool = True
    rank: int | None = None
    """place on the frontier, written beside the mark; None: not on it"""


@dataclass(frozen=True)
class Line:
    """A line through a scatter. Values beyond an axis, also infinite ones, are drawn at its end."""

    points: Sequence[tuple[float, float]]
    kind: str = "front"
    """class of the line"""
    title: str = ""
    name: str = ""
    """written above its last point"""


def steps(points: Iterable[tuple[float, float]], kind: str = "front", title: str = "") -> Line:
    """Stairs through ``points`` in order of x, level and then upright: the y reached at each x."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(points):
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return Line(corners, kind, title)


@dataclass(frozen=True)
class _Plane:
    """The axes of a scatter; converts values to positions in percent of the drawing."""

    x: Axis
    y: Axis

    def across(self, value: float) -> str:
        left, right, *_ = PLOT
        return f"{left + self.x.share(value) * (right - left):.2f}%"

    def up(self, value: float) -> str:
        *_, top, bottom = PLOT
        return f"{bottom + self.y.share(value) * (top - bottom):.2f}%"

    def grid(self) -> list[Html]:
        left, right, top, bottom = (f"{edge}%" for edge in PLOT)
        levels, uprights = map(self.up, self.y.marks()), map(self.across, self.x.marks())
        return [
            *(tag("line", x1=left, x2=right, y1=v, y2=v, class_="grid") for v in levels),
            *(tag("line", x1=v, x2=v, y1=top, y2=bottom, class_="grid") for v in uprights),
        ]

    def numbers(self) -> list[Html]:
        beside, below = f"{PLOT[0] - 1}%", f"{PLOT[3]}%"
        return [
            *(
                tag("text", number(v), x=beside, y=self.up(v), dx="-4", dy="4", class_="y")
                for v in self.y.marks()
            ),
            *(tag("text", number(v), x=self.across(v), y=below, dy="16") for v in self.x.marks()),
        ]

    def name(self, line: Line) -> Html:
        """The name of ``line``, at its last point."""
        x, y = line.points[-1]
        kind = f"name {_anchor(self.x.share(x))}"
        return tag("text", line.name, x=self.across(x), y=self.up(y), dy="-4", class_=kind)


def scatter(
    points: Sequence[Point],
    x_unit: str,
    y_unit: str,
    x: Axis | None = None,
    y: Axis | None = None,
    curves: Sequence[Line] = (),
    what: str = "files",
) -> Html:
    """A scatter of points, drawn over curves; axes that are not given cover all points."""
    x = x or Axis.around([p.x for p in points], zero=True)
    y = y or Axis.around([p.y for p in points])
    plane = _Plane(x, y)
    left, right, top, bottom = PLOT
    drawn = tag(
        "svg",
        *(_curve(c, x, y) for c in curves if c.points),
        x=f"{left}%",
        y=f"{top}%",
        width=f"{right - left}%",
        height=f"{bottom - top}%",
        viewBox=f"0 0 {STRIP} {STRIP}",
        preserveAspectRatio="none",
    )
    drawing = tag(
        "svg",
        *plane.grid(),
        drawn,
        *plane.numbers(),
        *(plane.name(c) for c in curves if c.name),
        *(_mark(p, plane.across(p.x), plane.up(p.y)) for p in points),
        class_="scatter",
        role="img",
        aria_label=f"{len(points)} {what}, {y_unit} against {x_unit}",
    )
    return join([tag("p", y_unit, class_="unit y"), drawing, tag("p", x_unit, class_="unit")])


def _curve(curve: Line, x: Axis, y: Axis) -> Html:
    places = [f"{STRIP * x.share(a):.1f} {STRIP * (1 - y.share(b)):.1f}" for a, b in curve.points]
    return tag(
        "path",
        tag("title", curve.title or curve.name),
        d=f"M{'L'.join(places)}",
        class_=f"curve {curve.kind}",
    )


def _anchor(share: float) -> str:
    return "first" if share < NEAR_END else "last" if share > 1 - NEAR_END else ""


def _mark(p: Point, x: str, y: str) -> Html:
    smaller = {"transform": "scale(.7)"} if p.small else {}
    drawn = tag(
        "path",
        tag("title", p.title),
        d=SHAPES.get(p.shape, OTHER_SHAPE),
        class_=f"mark {p.colour}{'' if p.valid else ' invalid'}",
        **smaller,
    )
    rank = [] if p.rank is None else [tag("text", p.rank, x="-7", y="-6", class_="rank")]
    return tag("svg", drawn, *rank, x=x, y=y, class_="at")


def swatch(name: str) -> Html:
    """A patch in the colour of a bar, for a legend."""
    return tag(
        "svg",
        tag("rect", width="16", height="16", class_=name),
        class_="key",
        viewBox="0 0 16 16",
        aria_hidden="true",
    )


def sample_mark(colour: str, shape: str = "fp32", valid: bool = True) -> Html:
    """A mark for a legend."""
    path = tag(
        "path",
        d=SHAPES.get(shape, OTHER_SHAPE),
        class_=f"mark {colour}{'' if valid else ' invalid'}",
    )
    return tag("svg", path, class_="key", viewBox="-8 -8 16 16", aria_hidden="true")


def _grid(axis: Axis) -> list[Html]:
    return [
        tag(
            "line",
            x1=percent(axis.share(v)),
            x2=percent(axis.share(v)),
            y1="0",
            y2="100%",
            class_="grid",
        )
        for v in axis.marks()
    ]


def _upright(share: float, name: str, title: str) -> Html:
    return tag(
        "line",
        tag("title", title),
        x1=percent(share),
        x2=percent(share),
        y1="0",
        y2="100%",
        class_=f"upright {name}",
    )
