"""Where values stand in small drawings."""

import numpy as np
import pytest

from experiments.report.graphics import LEFT, RIGHT, TICKS, Axis, Dot


def test_an_axis_holds_all_values_and_nothing_that_is_none():
    assert Axis.around([0.2, None, np.nan, np.inf, -0.1], 0.0) == (-0.1, 0.2)


@pytest.mark.parametrize("values", [[], [None, np.nan]])
def test_an_axis_without_values_goes_from_0_to_1(values):
    assert Axis.around(values) == (0.0, 1.0)


def test_an_axis_of_one_value_has_a_width():
    assert Axis.around([3.0]) == (2.5, 3.5)


def test_nothing_is_drawn_outside_of_the_picture():
    axis = Axis(-1.0, 1.0)
    assert [axis.at(value) for value in (-9.0, -1.0, 0.0, 1.0, 9.0)] == [LEFT, LEFT, 50.0, RIGHT, RIGHT]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (-0.26, 0.59, [-0.2, 0.0, 0.2, 0.4]),
        (0.0, 0.001, [0.0, 0.0005, 0.001]),
        (-3.0, 250.0, [0.0, 100.0, 200.0]),
    ],
)
def test_ticks_are_round_numbers_on_the_axis(low, high, ticks):
    assert Axis(low, high).ticks() == pytest.approx(ticks)


def test_there_are_some_ticks_and_never_too_many():
    generator = np.random.default_rng(0)
    for low, width in zip(generator.normal(size=300), 10 ** generator.uniform(-4, 4, size=300), strict=True):
        ticks = Axis(low, low + width).ticks()
        assert 1 <= len(ticks) <= TICKS
        assert all(low - 1e-9 <= tick <= low + width + 1e-9 for tick in ticks)


def test_a_value_stands_in_its_interval():
    assert Dot.of(Axis(0.0, 1.0), 0.5, 0.25, 0.75, 0.0) == (50.0, 26.5, 73.5, 3.0)


def test_a_value_may_have_no_interval_and_nothing_to_compare_with():
    assert Dot.of(Axis(0.0, 1.0), 0.5, np.nan, np.nan) == (50.0, None, None, None)
