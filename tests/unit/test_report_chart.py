"""Charts: what is drawn is the data through the scale, ticks are round numbers, spikes are kept."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nearfar.report.chart import HEIGHT, MOST_POINTS, STYLES, WIDTH, Chart, Line, chart, thinned, ticks


def drawn(found: Chart, place: int = 0) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in found.lines[place].points.split()]  # type: ignore[misc]


def scale(at: list[float], values: list[float]) -> tuple[float, float]:
    """The straight line through the first and the last tick: value = offset + slope · place."""
    slope = (values[-1] - values[0]) / (at[-1] - at[0])
    return values[0] - slope * at[0], slope


def read(found: Chart, *, logarithmic: bool = False) -> tuple[tuple[float, float], tuple[float, float]]:
    """The scales of both axes, from the ticks alone: what a reader of the picture has."""
    xs = [float(tick.text) for tick in found.x_ticks]
    across = scale([tick.at for tick in found.x_ticks], [math.log10(x) for x in xs] if logarithmic else xs)
    up = scale([tick.at for tick in found.y_ticks], [float(tick.text) for tick in found.y_ticks])
    return across, up


def test_points_read_off_the_axes_are_the_data() -> None:
    points = [(10 * step, 3 + math.sin(step / 5)) for step in range(60)]
    found = chart("loss", [Line("run", points, 0)], x_title="step", y_title="loss")
    (x0, dx), (y0, dy) = read(found)
    for (x, y), (at, height) in zip(points, drawn(found), strict=True):
        # Places are rounded to a tenth of a unit.
        assert x0 + dx * at == pytest.approx(x, abs=0.06 * abs(dx) + 0.06 * abs(dx))
        assert y0 + dy * height == pytest.approx(y, abs=0.12 * abs(dy))


def test_a_logarithmic_axis_is_read_by_its_powers_of_ten() -> None:
    points = [(10.0**-power, power / 6) for power in (5, 4.5, 4, 3, 2.25, 1, 0)]
    found = chart("ROC", [Line("run", points, 0)], x_title="FAR", y_title="TAR", logarithmic=True, y_range=(0, 1))
    assert [tick.text for tick in found.x_ticks] == ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]
    (x0, dx), (y0, dy) = read(found, logarithmic=True)
    for (x, y), (at, height) in zip(points, drawn(found), strict=True):
        assert x0 + dx * at == pytest.approx(math.log10(x), abs=0.12 * abs(dx))
        assert y0 + dy * height == pytest.approx(y, abs=0.12 * abs(dy))


def test_lines_of_one_chart_share_its_scale_and_stay_in_the_picture() -> None:
    lines = [Line("low", [(0, 1.0), (10, 2.0)], 0), Line("high", [(5, 8.0), (20, 9.0)], STYLES + 1)]
    found = chart("loss", lines, x_title="step", y_title="loss")
    (x0, dx), (y0, dy) = read(found)
    for line, place in zip(lines, (0, 1), strict=True):
        for (x, y), (at, height) in zip(line.points, drawn(found, place), strict=True):
            assert (x0 + dx * at, y0 + dy * height) == pytest.approx((x, y), abs=0.1)
            assert 0 <= at <= WIDTH
            assert 0 <= height <= HEIGHT
    assert found.lines[1].style == 1
    assert drawn(found)[0][1] > drawn(found, 1)[0][1]  # larger values stand higher, which is a smaller number


def test_what_the_picture_shows_is_also_said() -> None:
    found = chart("loss", [Line("run", [(1, 4.0), (2, 1.5), (3, 2.0)], 0)], x_title="step", y_title="loss")
    assert found.description == "run: 4 at 1, 2 at 3, lowest 1.5, highest 4"


def test_one_point_stands_alone_and_a_level_line_has_room() -> None:
    alone = chart("loss", [Line("run", [(7, 2.5)], 0)], x_title="step", y_title="loss")
    assert alone.lines[0].alone is not None
    level = chart("loss", [Line("run", [(0, 2.5), (9, 2.5)], 0)], x_title="step", y_title="loss")
    assert len({tick.text for tick in level.y_ticks}) == len(level.y_ticks) >= 2
    assert level.lines[0].alone is None


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_even_few_and_inside(low: float, size: float) -> None:
    assume(size > 1e-4 * max(abs(low), abs(low + size)))  # a level line's axis gets room first
    high = low + size
    found = ticks(low, high)
    assert 2 <= len(found) <= 11
    assert all(low - 1e-6 * size <= tick <= high + 1e-6 * size for tick in found)
    steps = [later - earlier for earlier, later in itertools.pairwise(found)]
    step = steps[0]
    assert steps == pytest.approx([step] * len(steps), rel=1e-5, abs=1e-9 * max(map(abs, found)))
    digits = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(digits - round_) for round_ in (1, 2, 5, 10)) < 1e-3
    assert all(abs(tick / step - round(tick / step)) < 1e-3 for tick in found)


def test_ticks_are_written_short() -> None:
    assert ticks(0, 0.3) == [0.0, 0.1, 0.2, 0.3]
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_of_many_points_the_spikes_and_the_order_are_kept() -> None:
    draw = random.Random(0)
    points = [(float(step), draw.random()) for step in range(10_000)]
    points[1234], points[8765] = (1234.0, 50.0), (8765.0, -50.0)
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert {(1234.0, 50.0), (8765.0, -50.0)} <= set(kept) <= set(points)
    assert list(kept) == sorted(kept)
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]
