"""Axes of pictures that several analyses draw."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


def percent_axis(axes: Axes, shares: Sequence[float]) -> None:
    """Make x a logarithmic axis of sizes in % of the split, with room around these."""
    low, high = (min(shares), max(shares)) if len(shares) else (1.0, 10.0)
    few = high / low < 300  # labels at 1, 2 and 5 would touch each other on a longer axis
    axes.set_xscale("log")
    axes.set_xlim(low / 1.4, high * 1.4)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
