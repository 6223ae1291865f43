"""Bootstrap intervals of mean scores, over groups of problems.

Problems that share a subclass or a trained model succeed and fail together. To resample them one by one would count
each of them as news and make the interval too narrow; so whole groups are resampled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from evaluation.checks import Floats, check_count, check_share
from methods.errors import InvalidInput

BATCH = 1_000  # resamples held in memory at a time


class Interval(NamedTuple):
    """A mean with the ends of its interval, both NaN where there are fewer than two groups."""

    mean: float
    low: float
    high: float


def mean_interval(
    values: npt.ArrayLike,
    groups: npt.ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean over problems, with a bootstrap interval over groups of problems.

    Parameters
    ----------
    values : array-like, shape (p,)
        A score of each problem, finite.
    groups : array-like, shape (p,)
        Names or numbers: problems with the same one are resampled together.
    confidence : float, in (0, 1)
    resamples : int
        At least 1.
    seed : int

    Returns
    -------
    Interval

    Notes
    -----
    The statistic is sum(values) / sum(counts) over the drawn groups, so larger groups weigh more. The interval is
    BCa (Efron 1987), and of plain percentiles where BCa has no answer, as where all groups have one mean.

    Examples
    --------
    >>> mean_interval([0.5, 0.5, 0.5], ["cats", "cats", "dogs"])
    Interval(mean=0.5, low=0.5, high=0.5)
    >>> mean_interval([0.0, 1.0], ["cats", "cats"])
    Interval(mean=0.5, low=nan, high=nan)
    """
    check_share("confidence", confidence)
    check_count("resamples", resamples)
    scores, group_of = _checked(values, groups)
    names, index = np.unique(group_of, return_inverse=True)
    if len(names) < 2:
        return Interval(float(scores.mean()), np.nan, np.nan)
    if np.ptp(scores) == 0:  # exactly that value, without the rounding of sums
        return Interval(*[float(scores[0])] * 3)
    sums = np.bincount(index, weights=scores).astype(np.float64)  # (g,)
    counts = np.bincount(index).astype(np.float64)  # (g,)
    return Interval(float(scores.mean()), *_bootstrap(sums, counts, confidence, resamples, seed))


def difference_interval(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of first - second over the problems that both methods have, with a paired bootstrap interval.

    Parameters
    ----------
    first, second : array-like, shape (p,)
        Scores of two methods on the same problems, NaN where a method has none.
    groups : array-like, shape (p,)
        The group of each problem.
    confidence : float, in (0, 1)
    resamples : int
        At least 1.
    seed : int

    Returns
    -------
    Interval
        All NaN where the methods have no problem in common.

    Examples
    --------
    >>> difference_interval([0.5, 1.0, 0.25], [0.25, 0.75, np.nan], ["cats", "dogs", "dogs"])
    Interval(mean=0.25, low=0.25, high=0.25)
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)  # (p,)
    both = ~np.isnan(differences)
    if not both.any():
        return Interval(np.nan, np.nan, np.nan)
    return mean_interval(differences[both], np.asarray(groups)[both], confidence, resamples, seed)


def _bootstrap(sums: Floats, counts: Floats, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """As scipy.stats.bootstrap with the same draws, without its import, which takes half a second."""
    rng = np.random.default_rng(seed)
    n = len(sums)
    sizes = [min(BATCH, resamples - start) for start in range(0, resamples, BATCH)]
    drawn = np.concatenate([_ratios(sums, counts, rng.integers(0, n, (size, n))) for size in sizes])  # (resamples,)
    drawn.sort()
    tails = _bca_tails(drawn, sums, counts, (1 - confidence) / 2)
    if np.isfinite(tails).all():
        return _quantile(drawn, tails[0]), _quantile(drawn, tails[1])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _bca_tails(drawn: Floats, sums: Floats, counts: Floats, tail: float) -> Floats:
    """The shares of sorted resamples below the ends of the interval; NaN where BCa has no answer."""
    ratio = sums.sum() / counts.sum()
    below = (np.searchsorted(drawn, ratio, "left") + np.searchsorted(drawn, ratio, "right")) / (2 * len(drawn))
    left_out = _left_out(sums, counts)  # (g,)
    n = len(left_out)
    influence = (n - 1) * (left_out.mean() - left_out)  # (g,)
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = 1 / 6 * (np.sum(influence**3) / n**3) / (np.sum(influence**2) / n**2) ** (3 / 2)
        bias = ndtri(below)
        shifted = bias + ndtri(tail) * np.array([1.0, -1.0])
        tails: Floats = ndtr(bias + shifted / (1 - acceleration * shifted))
    return tails


def _left_out(sums: Floats, counts: Floats) -> Floats:
    """The ratio without each group in turn, shape (g,)."""
    n = len(sums)
    others = np.arange(n - 1)
    blocks = [np.arange(start, min(start + BATCH, n))[:, None] for start in range(0, n, BATCH)]
    return np.concatenate([_ratios(sums, counts, others + (others >= block)) for block in blocks])


def _ratios(sums: Floats, counts: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """The mean score of each row of groups, shape (rows,)."""
    ratios: Floats = sums[groups].sum(axis=1) / counts[groups].sum(axis=1)
    return ratios


def _quantile(ordered: Floats, share: float) -> float:
    """Between two of n sorted values, as far as the share lies between theirs."""
    at = share * len(ordered) + (1 - share) - 1
    low = min(max(int(at), 0), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    part = at % 1
    return float((1 - part) * ordered[low] + part * ordered[high])


def _checked(values: npt.ArrayLike, groups: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.generic]]:
    scores, group_of = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if scores.ndim != 1 or len(scores) == 0 or group_of.shape != scores.shape:
        shapes = f"{scores.shape} and {group_of.shape}"
        raise InvalidInput(f"values and groups have shapes {shapes}, expected the same (p,) with p at least 1")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InvalidInput(f"values has {scores[row]} at row {row}, expected finite numbers")
    return scores, group_of
