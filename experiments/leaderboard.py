"""From tidy scores to a leaderboard: means over problems with intervals over groups, nothing pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evaluation.comparison import BestMethod, indistinguishable_from_best
from evaluation.intervals import difference_interval, mean_interval

Measure = tuple[str, str, int | None]  # (protocol, metric, k)

# A column beside the tidy ones: data and seeds that make a problem. Two methods met the same problem only where it
# agrees; the seed of the method is no part of it.
OCCASION = "occasion"

# one row of the leaderboard for each combination of these
SETTING = ("dataset", "model", "embedding", "corruption", "kind")
METHOD = ("method", "variant")
MEASURE = ("protocol", "metric", "k")
COLUMNS = (*SETTING, *METHOD, *MEASURE, "mean", "low", "high", "n_problems", "n_groups", "n_refused")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: over groups of problems.

    Parameters
    ----------
    confidence : float, in (0, 1)
    resamples : int
    """

    confidence: float = 0.95
    resamples: int = 2000


def problem_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """One value a problem, seed and measure: the mean over its true slices (or, without truth, its slices)."""
    keys = [*SETTING, *METHOD, "run", OCCASION, "problem", "group", *MEASURE]
    measured = scores[scores["metric"] != "refused"]
    return measured.groupby(keys, dropna=False, observed=True, sort=True)["value"].mean().reset_index()


def leaderboard(scores: pd.DataFrame, bootstrap: Bootstrap, measures: Sequence[Measure] | None = None) -> pd.DataFrame:
    """Means and intervals for each setting, method and measure, the best mean of a measure first.

    Parameters
    ----------
    scores : DataFrame
        Tidy rows of any number of runs.
    bootstrap : Bootstrap
    measures : sequence of (protocol, metric, k), optional
        Only these; all by default.

    Returns
    -------
    DataFrame
        With the columns of `COLUMNS`; low and high are NaN where there is one group only.
    """
    rows = []
    chosen = scores if measures is None else pd.concat([_of_measure(scores, measure) for measure in measures])
    blocks = problem_scores(chosen).groupby([*SETTING, *METHOD, *MEASURE], dropna=False, observed=True)
    for key, block in blocks[["value", "group"]]:
        values, groups = block["value"].to_numpy(float), block["group"].to_numpy(str)
        mean, low, high = mean_interval(values, groups, bootstrap.confidence, bootstrap.resamples)
        counts = {"n_problems": len(block), "n_groups": block["group"].nunique()}
        rows.append(dict(zip([*SETTING, *METHOD, *MEASURE], key, strict=True), mean=mean, low=low, high=high, **counts))
    board = pd.DataFrame(rows, columns=[c for c in COLUMNS if c != "n_refused"])
    board = board.merge(_refused(scores), how="outer", on=[*SETTING, *METHOD])
    board["n_refused"] = board["n_refused"].fillna(0).astype(int)
    order = [*SETTING, *MEASURE, "mean"]
    ascending = [True] * (len(order) - 1) + [False]
    return board.sort_values(order, ascending=ascending, kind="stable", ignore_index=True)[list(COLUMNS)]


def _refused(scores: pd.DataFrame) -> pd.DataFrame:
    keys = [*SETTING, *METHOD]
    refused = scores[scores["metric"] == "refused"].astype(dict.fromkeys(keys, "str"))
    return refused.groupby(keys, dropna=False).size().rename("n_refused").reset_index()


@dataclass(frozen=True)
class Comparison:
    """How the methods of one setting compare on one measure.

    Parameters
    ----------
    setting : dict
        Data set, model, embedding, corruption and kind.
    best : BestMethod
        The best method, and those that cannot be told apart from it.
    """

    setting: dict[str, Any]
    best: BestMethod


def compare(scores: pd.DataFrame, measure: Measure, alpha: float) -> list[Comparison]:
    """For each setting with at least two methods: who is best on this measure, and who cannot be told apart."""
    comparisons = []
    for key, block in _problems(scores, measure).groupby(list(SETTING), dropna=False, observed=True):
        met = block.groupby(OCCASION, observed=True)["who"].nunique()
        shared = block[
            block[OCCASION].isin(met.index[met == block["who"].nunique()])
        ]  # there all met the same problems
        means = shared.pivot_table(index="group", columns="who", values="value", observed=True)
        if means.shape[1] > 1:
            best = indistinguishable_from_best({who: means[who].to_numpy() for who in means}, alpha=alpha)
            comparisons.append(Comparison(dict(zip(SETTING, key, strict=True)), best))
    return comparisons


def differences(scores: pd.DataFrame, measure: Measure, bootstrap: Bootstrap) -> pd.DataFrame:
    """Paired differences of each method to each other on one measure, with intervals over groups.

    Returns
    -------
    DataFrame
        Columns of the setting, first, second, protocol, metric, k, difference, low, high, n_problems.
    """
    rows = []
    for key, block in _problems(scores, measure).groupby(list(SETTING), dropna=False, observed=True):
        wide = block.pivot_table(index=["group", "problem", OCCASION], columns="who", values="value", observed=True)
        groups = wide.index.get_level_values("group").to_numpy(str)
        for first in wide:
            for second in (who for who in wide if who != first):
                a, b = wide[first].to_numpy(float), wide[second].to_numpy(float)
                mean, low, high = difference_interval(a, b, groups, bootstrap.confidence, bootstrap.resamples)
                both = int((~np.isnan(a - b)).sum())
                who = {"first": first, "second": second, **dict(zip(MEASURE, measure, strict=True))}
                row = {**dict(zip(SETTING, key, strict=True)), **who, "difference": mean, "low": low, "high": high}
                rows.append({**row, "n_problems": both})
    return pd.DataFrame(rows)


def _problems(scores: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The problem scores of one measure, with the column `who`: method and variant in one word."""
    rows = problem_scores(_of_measure(scores, measure))
    return rows.assign(who=(rows["method"].astype(str) + " " + rows["variant"].astype(str)).str.strip())


def _of_measure(scores: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    protocol, metric, k = measure
    same_k = scores["k"].isna() if k is None else (scores["k"] == k).fillna(False)
    return scores[(scores["protocol"] == protocol) & (scores["metric"] == metric) & same_k]
