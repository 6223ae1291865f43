"""How alike the training examples explain the members of a slice: what InfEmbed keeps small, for slices of any method.

Of runs with `evaluation.coherence=true`. Distances compare between runs that the same influence embeddings explain;
where they are not the same, the report says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.analyses._measured import Measured
from experiments.analysing import Output
from experiments.describing.grouping import grouped
from experiments.drawing import OTHER, colour, drawing
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

RELATIVE = "relative_distance"
MEASURES = (
    *("explanation_distance", "bound", "tight_bound", RELATIVE, "relative_to_members"),
    *("ratio", "tight_ratio", "total_distance", "total_bound", "relative_total"),
)
SAME = 1e-3  # relative difference of a split's distance that rounding on another machine may make
LEAST = 1e-3  # what is smaller is drawn here
CAPTION = (
    "Mean squared distance between the influence explanations of a slice's members, by that of the whole split: the "
    "further left, the more alike the training examples explain them. At the left edge: a thousandth or less, such as "
    "slices of one member."
)
# marks of the picture
SLICE: dict[str, Any] = {"color": OTHER, "marker": "o", "ls": "", "ms": 7, "alpha": 0.4, "mew": 0}
MEAN: dict[str, Any] = {"color": OTHER, "marker": "D", "ls": "", "ms": 5, "mec": "black"}
UNDIVIDED: dict[str, Any] = {"color": "black", "marker": "|", "ls": "", "ms": 13, "mew": 1.5}


def analyse(runs: Sequence[FinishedRun], out: Output, most: int = 12) -> pd.DataFrame:
    """Distances of influence explanations within slices, and lemma 1's bound; a picture, a sentence a data set.

    Parameters
    ----------
    runs : sequence of FinishedRun
        Of a run with many problems, numbers are means over them.
    out : Output
    most : int
        Runs of a data set that are drawn, the most coherent ones; all of them are counted.

    Returns
    -------
    DataFrame
        Of each slice, of the whole split (group `split`), of all members taken as one slice (`members`) and as the
        mean over the members of all slices (`all`): explanation_distance, the mean over ordered pairs of
        ||E(z) - E(w)||^2, bound (lemma 1 with the paper's constant) and tight_bound (with the smallest one that
        holds), all in nats^2; ratio and tight_ratio, bounds by distance; relative_distance, by that of the whole
        split. Of `all` also relative_to_members, which does not reward slices that leave out what is hard to explain,
        the two sides of equation 6, total_distance and total_bound, and relative_total, by that of the whole split.

    Notes
    -----
    Wang et al. (2023), equations 3, 4 and 6, lemma 1, appendix C.2. The paper calls the right side of equation 6 the
    objective of k-means. That is the mean over members, in which a slice counts by its size; in the equation it
    counts by its square, and one cluster of all easy examples beside many of one hard example each has a small mean
    and a large sum.
    """
    of_sets = {name: _of_set(alike) for name, alike in grouped(runs, lambda run: run.dataset).items()}
    for name, measured in of_sets.items():
        _say(name, measured, out)
    _draw(of_sets, out, most)
    return pd.concat([numbers for measured in of_sets.values() for *_, numbers in measured], ignore_index=True)


def _of_set(runs: list[FinishedRun]) -> list[Measured]:
    """The runs on one data set, the most coherent first, those without slices last."""
    measured = [Measured(title, run, _of_run(run)) for title, run in zip(titles(runs), runs, strict=True)]
    return sorted(measured, key=lambda one: np.nan_to_num(_value(one.numbers, "all", "relative_distance"), nan=np.inf))


def _of_run(run: FinishedRun) -> pd.DataFrame:
    path = run.folder / "coherence.parquet"
    if not path.exists():
        raise InvalidInput(f"{run.folder} has no coherence.parquet: run it with evaluation.coherence=true")
    rows = pd.concat([_of_problem(table) for _, table in pd.read_parquet(path).groupby("problem", sort=False)])
    by = ["group", "slice", "measure"]
    means = rows.groupby(by, dropna=False, sort=False).agg(value=("value", "mean"), n=("n", "sum")).reset_index()
    groups = means["group"].where(means["slice"].isna())  # a slice has a number instead
    return means.assign(slice=means["slice"] + 1, group=groups, **run.identity)


def _of_problem(table: pd.DataFrame) -> pd.DataFrame:
    """All measures of all groups, below each other; nothing is relative to no distance."""
    table = pd.concat([table, *_mean(table[table["group"] == "slice"])], ignore_index=True)
    table = table.rename(columns={"distance": "explanation_distance"})
    distance, groups = table["explanation_distance"], table["group"]
    whole, n = table.loc[groups == "split", ["explanation_distance", "n"]].to_numpy(float)[0]
    table[RELATIVE] = distance / whole
    table["ratio"], table["tight_ratio"] = table["bound"] / distance, table["tight_bound"] / distance
    if (groups == "all").any():
        table["relative_to_members"] = (distance / distance[groups == "members"].iloc[0]).where(groups == "all")
        table["relative_total"] = table["total_distance"] / (whole * n**2)
    rows = table.melt(["group", "slice", "n"], [one for one in MEASURES if one in table], var_name="measure")
    return rows.assign(value=rows["value"].replace(np.inf, np.nan)).dropna(subset="value")


def _mean(slices: pd.DataFrame) -> list[pd.DataFrame]:
    """The mean over the members of all slices, and the sums of equation 6; nothing where there are no slices."""
    if slices.empty:
        return []
    n, measured = slices["n"], slices[["distance", "bound", "tight_bound"]]
    means = measured.mul(n / n.sum(), axis=0).sum()
    sums = measured[["distance", "bound"]].mul(n.astype(float) ** 2, axis=0).sum().add_prefix("total_")
    row = {"group": "all", "slice": pd.NA, "n": n.sum(), **means, **sums}
    return [pd.DataFrame([row]).astype({"slice": "Int64"})]


def _is(numbers: pd.DataFrame, group: str, measure: str) -> pd.Series:
    return (numbers["group"] == group) & (numbers["measure"] == measure)


def _value(numbers: pd.DataFrame, group: str, measure: str, column: str = "value") -> float:
    """One number of a run, nan where it has none."""
    found = numbers.loc[_is(numbers, group, measure), column]
    return float(found.iloc[0]) if len(found) else np.nan


def _say(name: str, measured: Sequence[Measured], out: Output) -> None:
    """How coherent each is, how far above the bound lies, and whether the same thing was measured."""
    told = "; ".join(_told(title, numbers) for title, _, numbers in measured)
    out.say(
        f"{name}: distance of influence explanations within slices by that of the whole split, as the mean over "
        f"members / as the sum over pairs of equation 6: {told}."
    )
    numbers = pd.concat([one for *_, one in measured])
    loose, tight = (_span(numbers.loc[_is(numbers, "all", ratio), "value"]) for ratio in ("ratio", "tight_ratio"))
    if loose:
        out.say(f"{name}: the bound of lemma 1 is {loose} times the distance, with the smallest constant {tight}.")
    for _, alike in numbers[_is(numbers, "split", "explanation_distance")].groupby(["model", "corruption", "split"]):
        least, largest = alike["value"].min(), alike["value"].max()
        if largest - least > SAME * largest:
            out.say(
                f"{name}: beware, not all runs have the same examples, explained by the same influence embeddings (the "
                f"whole split's distance is {_span(alike['value'])} nats^2): they do not compare."
            )


def _told(title: str, numbers: pd.DataFrame) -> str:
    names = ("relative_distance", "relative_total", "relative_to_members")
    mean, total, of_own = (_value(numbers, "all", name) for name in names)
    if np.isnan(mean):
        return f"{title} none"
    n, n_split = (_value(numbers, group, "explanation_distance", "n") for group in ("members", "split"))
    beside = "" if np.isnan(of_own) else f"; {of_own:.2f} of their distance as one slice"
    part = f" ({n / n_split:.0%} of the split{beside})" if n < n_split else ""
    return f"{title} {mean:.2f} / {total:.2f}{part}"


def _span(values: Iterable[float]) -> str:
    """From the least to the largest; nothing where there are none."""
    known = [value for value in values if np.isfinite(value)]
    return " to ".join(dict.fromkeys(f"{end(known):.3g}" for end in (min, max))) if known else ""


def _draw(of_sets: Mapping[str, Sequence[Measured]], out: Output, most: int) -> None:
    drawn = {
        name: [one for one in measured if _value(one.numbers, "all", RELATIVE) >= 0][:most]
        for name, measured in of_sets.items()
    }
    drawn = {name: measured for name, measured in drawn.items() if measured}
    if not drawn:
        return
    rows = [len(measured) + 0.9 for measured in drawn.values()]
    options: dict[str, Any] = {"sharex": True, "height_ratios": rows}
    with drawing(7.4, 0.9 + 0.36 * sum(rows), len(drawn), **options) as (figure, panels):
        for axes, (name, measured) in zip(panels, drawn.items(), strict=True):
            _draw_set(axes, name, measured)
        panels[-1].set_xlabel("distance of explanations by that of the whole split (dotted)")
        figure.legend(handles=_legend(), loc="outside lower center", ncols=3)
        out.picture(figure, "distances", CAPTION)


def _draw_set(axes: Axes, name: str, measured: Sequence[Measured]) -> None:
    for row, (_, run, numbers) in enumerate(measured):
        own, of_slices = colour(run.method), numbers[numbers["slice"].notna() & (numbers["measure"] == RELATIVE)]
        area = 8 + 300 * of_slices["n"] / _value(numbers, "split", RELATIVE, "n")
        axes.scatter(of_slices["value"].clip(LEAST), [row] * len(of_slices), area, own, alpha=0.4, lw=0)
        axes.plot(max(_value(numbers, "members", RELATIVE), LEAST), row, **UNDIVIDED)
        axes.plot(max(_value(numbers, "all", RELATIVE), LEAST), row, **MEAN | {"color": own})
    axes.axvline(1, color="black", lw=1, ls=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(measured)), [textwrap.fill(title, 40) for title, *_ in measured])
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_title(name)


def _legend() -> list[Line2D]:
    marks = {
        "a slice (area: its members)": SLICE,
        "mean over members of slices": MEAN,
        "all members as one slice": UNDIVIDED,
    }
    return [Line2D([], [], label=label, **mark) for label, mark in marks.items()]
