"""Runs with the numbers that an analysis made of them, and a picture of these with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from experiments.analysing import Output
from experiments.describing.names import shortened
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun

ALL = "all"  # the group of numbers about the whole split
SPOTLIGHT = "spotlight"
DRAWN = 12  # runs, at most: nobody looks at more pictures


class Measured(NamedTuple):
    """A run, what pictures and sentences call it, and its numbers."""

    name: str
    run: FinishedRun
    numbers: pd.DataFrame

    def of(self, measure: str) -> pd.DataFrame:
        """The rows of one measure."""
        return self.numbers[self.numbers["measure"] == measure]

    def called(self, index: int) -> str:
        """One of its slices."""
        return f"{SPOTLIGHT} {index}" if self.name == SPOTLIGHT else f"{self.name}, slice {index}"

    @property
    def word(self) -> str:
        """What its slices are called."""
        return SPOTLIGHT if self.run.method.startswith(SPOTLIGHT) else "slice"


def draw_intervals(
    measured: Sequence[Measured],
    measure: str,
    out: Output,
    name: str,
    label: str,
    caption: str,
    most: int,
    percent: bool = False,
) -> None:
    """A picture of a measure of slices with its intervals, all runs below each other.

    Parameters
    ----------
    measured : sequence of Measured
    measure : str
        Rows without a slice are drawn as lines: dotted the group `all`, dashed another.
    out : Output
    name, caption : str
        Of the picture.
    label : str
        Of the axis.
    most : int
        Slices of each run.
    percent : bool
        Whether the measure is a share.
    """
    shown = [(one, *_parts(one.of(measure), most)) for one in measured[:DRAWN]]
    if all(slices.empty for _, slices, _ in shown):
        return
    n_lines = sum(max(len(slices), 1) + 0.7 for _, slices, _ in shown)
    with drawing(6.4, 0.8 + 0.27 * n_lines) as (figure, (axes,)):
        position = 0.0
        ticks: dict[float, str] = {}
        for one, slices, whole in shown:
            ticks |= _draw_run_intervals(axes, one, slices, whole, position)
            position += max(len(slices), 1) + 0.7
        axes.set_yticks(list(ticks), list(ticks.values()), parse_math=False)
        axes.set_ylim(position - 1.1, -0.8)
        axes.grid(visible=False, axis="y")
        figure.supxlabel(label, fontsize="medium")  # below all: long names leave the axes little room
        _limit(axes, [value for _, slices, whole in shown for value in (*slices["value"], *whole["value"])])
        if percent:
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        out.picture(figure, name, caption)


def _parts(rows: pd.DataFrame, most: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first slices, and what is not of a slice."""
    rows = rows.reindex(columns=["slice", "group", "value", "low", "high", "n"])
    is_slice = rows["slice"].between(1, most)
    return rows[is_slice], rows[rows["slice"].isna()]


def _draw_run_intervals(
    axes: Axes, one: Measured, slices: pd.DataFrame, whole: pd.DataFrame, position: float
) -> dict[float, str]:
    """Dots of one run from this position on; where its names stand, and what they are."""
    at = np.arange(len(slices)) + position
    ends = np.stack([slices["value"] - slices["low"], slices["high"] - slices["value"]])  # (2, s)
    ends = np.nan_to_num(ends.astype(float)).clip(min=0)  # rounding may leave -1e-17
    axes.errorbar(slices["value"], at, xerr=ends, fmt="o", ms=5, capsize=2.5, lw=1.2, color=colour(one.run.method))
    for group, value in zip(whole["group"], whole["value"], strict=True):
        style = ":" if group == ALL else "--"
        axes.plot([value, value], [position - 0.5, position + max(len(at), 1) - 0.5], color="black", lw=1, ls=style)
    names = [f"{shortened(one.name, 44)}, slice {index:.0f} (n={n:,.0f})" for index, n in slices[["slice", "n"]].values]
    return dict(zip(at, names, strict=True)) or {position: f"{shortened(one.name, 44)}: no slice with members"}


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """Let no interval of a tiny slice dwarf everything else; nothing measured is below 0."""
    left, right = axes.get_xlim()
    top = max(values) or right
    axes.set_xlim(max(left, -0.02 * top), min(right, 2 * top))
