"""Small drawings inside of a page: intervals and bars as SVG, in percent of whatever room they get."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

LEFT, RIGHT = 3.0, 97.0  # percent of the width, so that no dot is cut off
TICKS = 5


class Axis(NamedTuple):
    """A scale from low to high."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float | None], *also: float) -> Axis:
        """One that holds all these values, and what must be seen beside them."""
        known = [value for value in (*values, *also) if value is not None and math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        return cls(low, high) if high > low else cls(low - 0.5, high + 0.5)

    def at(self, value: float) -> float:
        """Where a value stands, in percent of the width."""
        share = (value - self.low) / (self.high - self.low)
        return round(LEFT + min(max(share, 0), 1) * (RIGHT - LEFT), 2)

    def ticks(self) -> list[float]:
        """Some round numbers on it."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step = next(step * m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) < TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 10) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Dot(NamedTuple):
    """A value with its interval, and a line to compare it with, as `interval` of the template draws it: in percent."""

    at: float
    low: float | None
    high: float | None
    line: float | None

    @classmethod
    def of(cls, axis: Axis, value: float, low: float, high: float, line: float | None = None) -> Dot:
        ends = [None if end is None or not math.isfinite(end) else axis.at(end) for end in (low, high)]
        return cls(axis.at(value), ends[0], ends[1], None if line is None else axis.at(line))
