"""Charts as data: lines, their scales and ticks, in the units of a small SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Of the picture, in its own units: about a pixel each on a phone.
WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 350, 12, 186
#: Points of a line that are drawn; of more, the lowest and the highest of each stretch.
MOST_POINTS = 400
#: Ways to tell lines apart: the style sheet has a colour and dashes for each.
STYLES = 8

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A named line.

    Attributes
    ----------
    name
        For the legend.
    points
        (x, y) by rising x.
    style
        Which colour and dashes; taken modulo :data:`STYLES`.
    """

    name: str
    points: Points
    style: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A number on an axis and where it stands."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line in the units of the picture; ``alone`` has its point where there is only one."""

    name: str
    style: int
    points: str
    alone: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template needs to draw a chart.

    Attributes
    ----------
    title, x_title, y_title
        In words.
    description
        What a reader who does not see the picture is told.
    lines
        As :class:`Drawn`.
    x_ticks, y_ticks
        As :class:`Tick`.
    """

    title: str
    x_title: str
    y_title: str
    description: str
    lines: tuple[Drawn, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    logarithmic: bool = False,
    y_range: tuple[float, float] | None = None,
) -> Chart:
    """Lay out lines.

    Parameters
    ----------
    title, x_title, y_title : str
    lines : sequence of Line
        At least one point among them, all finite.
    logarithmic : bool
        Whether x is; all x are then above 0.
    y_range : tuple of float, optional
        The ends of y; otherwise those of the points.
    """
    xs = [math.log10(x) if logarithmic else x for line in lines for x, _ in line.points]
    low_x, high_x = _apart(min(xs), max(xs))
    low_y, high_y = y_range or _apart(*_ends([y for line in lines for _, y in line.points]))

    def place(x: float, y: float) -> tuple[float, float]:
        x = math.log10(x) if logarithmic else x
        across, up = (x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y)
        return round(_LEFT + across * (_RIGHT - _LEFT), 1), round(_BOTTOM - up * (_BOTTOM - _TOP), 1)

    drawn = []
    for line in lines:
        placed = [place(x, y) for x, y in thinned(line.points)]
        text = " ".join(f"{x:g},{y:g}" for x, y in placed)
        drawn.append(Drawn(line.name, line.style % STYLES, text, placed[0] if len(placed) == 1 else None))
    x_values = _decades(low_x, high_x) if logarithmic else ticks(low_x, high_x)
    return Chart(
        title,
        x_title,
        y_title,
        "; ".join(_told(line) for line in lines),
        tuple(drawn),
        tuple(Tick(place(value, low_y)[0], f"{value:g}") for value in x_values),
        tuple(Tick(place(1.0 if logarithmic else low_x, value)[1], f"{value:g}") for value in ticks(low_y, high_y)),
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    # Rounded, or 3 × 0.1 would be written 0.30000000000000004.
    return [float(f"{number * step:.10g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]


def thinned(points: Points) -> Points:
    """At most :data:`MOST_POINTS` of the points, spikes among them."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis: a line that is level needs room too, so that its ticks can be told apart."""
    largest = max(abs(low), abs(high))
    if high - low > 1e-4 * largest:
        return low, high
    room = 0.1 * largest or 0.5
    return low - room, high + room


def _told(line: Line) -> str:
    if not line.points:
        return f"{line.name}: nothing"
    (first_x, first), (last_x, last) = line.points[0], line.points[-1]
    low, high = _ends([y for _, y in line.points])
    return (
        f"{line.name}: {first:.4g} at {first_x:.4g}, {last:.4g} at {last_x:.4g}, lowest {low:.4g}, highest {high:.4g}"
    )
