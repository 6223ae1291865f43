"""Scores against true slices, problem by problem: of one method, and of two paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from evaluation.comparison import paired_test
from evaluation.intervals import difference_interval, mean_interval
from experiments.finished import NAMES, FinishedRun
from experiments.keys import key_of
from experiments.leaderboard import OCCASION, problem_scores
from methods.errors import InvalidInput

CONFIDENCE, RESAMPLES = 0.95, 2000
IDENTITY = (*NAMES, "split")


class Paired(NamedTuple):
    """Two methods on the problems that both have.

    Parameters
    ----------
    first, second : float
        Their means.
    difference, low, high : float
        Of first - second, with its interval over groups.
    p_value : float
        Of "both do equally well": signs of the groups' differences are flipped.
    n_problems, n_groups : int
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    n_problems: int
    n_groups: int


def check_methods(runs: Sequence[FinishedRun], *methods: str) -> None:
    """Raise `InvalidInput` naming the methods that there are where one of these has no run."""
    have = sorted({run.method for run in runs})
    for method in methods:
        if method not in have:
            raise InvalidInput(f"there is no run of {method!r} to compare, expected one of {', '.join(have) or 'none'}")


def problem_values(runs: Sequence[FinishedRun], *metrics: str) -> pd.DataFrame:
    """One value for each run, problem, protocol and metric, the mean over its true slices; refused problems have none.

    Parameters
    ----------
    runs : sequence of FinishedRun
    metrics : str

    Returns
    -------
    DataFrame
        The columns of `experiments.leaderboard.problem_scores`, and split.
    """
    tables = [
        run.scores[run.scores["metric"].isin(metrics) & run.scores["protocol"].notna()].assign(
            **{OCCASION: _occasion(run)}
        )
        for run in runs
    ]
    values = problem_scores(pd.concat(tables, ignore_index=True))
    return values.assign(split=values["run"].map({run.folder.name: run.identity["split"] for run in runs}))


def _occasion(run: FinishedRun) -> str:
    """What makes the problems of a run, beside their names: the data, the split, all seeds but the method's."""
    definition = run.definition
    seeds = {name: seed for name, seed in definition.get("seeds", {}).items() if name != "method"}
    return key_of({"fingerprint": definition.get("fingerprint"), "seeds": seeds, "split": run.identity["split"]})


def of_measure(values: pd.DataFrame, protocol: str, metric: str, k: int | None = None) -> pd.DataFrame:
    """The rows of `problem_values` of one measure."""
    same_k = values["k"].isna() if k is None else (values["k"] == k).fillna(False)
    return values[(values["protocol"] == protocol) & (values["metric"] == metric) & same_k]


def paired(first: pd.DataFrame, second: pd.DataFrame) -> Paired | None:
    """Compare two methods on the problems that both have; None where there are none.

    Parameters
    ----------
    first, second : DataFrame
        Rows of `problem_values` of one measure; a method with several seeds counts with its mean.
    """
    keys = [OCCASION, "problem"]
    sides = [side.groupby(keys).agg(group=("group", "first"), value=("value", "mean")) for side in (first, second)]
    both = sides[0].join(sides[1]["value"].rename("other"), how="inner")
    if both.empty:
        return None
    a, b = both["value"].to_numpy(float), both["other"].to_numpy(float)
    interval = difference_interval(a, b, both["group"].to_numpy(str), CONFIDENCE, RESAMPLES)
    means = both.groupby("group")[["value", "other"]].mean()
    p_value = paired_test(means["value"].to_numpy(), means["other"].to_numpy())
    return Paired(float(a.mean()), float(b.mean()), *interval, p_value, len(both), len(means))


def together(first: Mapping[str, Any] | pd.Series, second: Mapping[str, Any] | pd.Series) -> dict[str, str]:
    """What tables call a difference: `FIRST - SECOND` wherever the two differ."""
    names = {name: (str(first[name]) or "plain", str(second[name]) or "plain") for name in IDENTITY}
    return {name: str(first[name]) if a == b else f"{a} - {b}" for name, (a, b) in names.items()}


def mean_over_groups(values: pd.Series, groups: pd.Series) -> dict[str, Any]:
    """The mean of what problems have, with its 95% interval over their groups, and the number of problems."""
    value, low, high = mean_interval(values, groups.to_numpy(str), CONFIDENCE, RESAMPLES)
    return {"value": value, "low": low, "high": high, "n": len(values)}


def in_words(pair: Paired) -> str:
    """Both means, and their difference with its interval."""
    difference, low, high = (f"{round(value, 2) + 0.0:+.2f}" for value in (pair.difference, pair.low, pair.high))
    interval = f"95% interval {low} to {high}" if np.isfinite(pair.low) else "one group: no interval"
    return f"{pair.first:.2f} against {pair.second:.2f}, difference {difference} ({interval})"


def n_refused(run: FinishedRun) -> dict[str, tuple[int, int]]:
    """Of each kind, how many problems were refused, and how many there were."""
    return {
        str(kind): (of_kind.loc[of_kind["metric"] == "refused", "problem"].nunique(), of_kind["problem"].nunique())
        for kind, of_kind in run.scores.groupby("kind")
    }
