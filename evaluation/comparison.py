"""Paired tests between methods on group means, corrected for their number.

A group (see `evaluation.intervals`) is one observation. With g groups no two-sided sign-flip or Wilcoxon p-value is
below 2 / 2^g, so fewer than six groups never reach 0.05, however clear the difference looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.checks import Bools, Floats, check_count, check_name, check_share
from methods.errors import InvalidInput

BATCH = 1_000  # sign patterns held in memory at a time


class BestMethod(NamedTuple):
    """The method of largest mean, and how clearly it is the best.

    Parameters
    ----------
    name : str
    p_values : dict of str to float
        Of each other method against the best, after Holm's correction.
    indistinguishable : tuple of str
        The others that cannot be told apart from the best at the chosen level.
    n_groups : int
        The fewest groups that a comparison had.
    """

    name: str
    p_values: dict[str, float]
    indistinguishable: tuple[str, ...]
    n_groups: int = 0


def paired_test(
    first: npt.ArrayLike, second: npt.ArrayLike, *, test: str = "permutation", resamples: int = 9_999, seed: int = 0
) -> float:
    """The two-sided p-value of "two methods do equally well", from their scores on the same groups.

    Parameters
    ----------
    first, second : array-like, shape (g,)
        The mean score of each group of problems, in the same order, NaN where a method has none.
    test : str
        `permutation` flips the signs of the differences and compares their mean: all 2^g ways where that is at most
        `resamples`, else that many drawn at random. `wilcoxon` is the signed-rank test, which uses ranks only.
    resamples : int
        At least 1.
    seed : int
        Of the drawn signs.

    Returns
    -------
    float, in (0, 1]
        1 with fewer than two groups.

    Examples
    --------
    >>> paired_test([0.5, 0.7, 0.6, 0.9, 0.8, 0.4], [0.4, 0.5, 0.5, 0.7, 0.6, 0.3])
    0.03125
    """
    check_name("test", test, TESTS)
    check_count("resamples", resamples)
    means = _aligned({"first": first, "second": second})
    differences = means["first"] - means["second"]  # (g,)
    differences = differences[~np.isnan(differences)]
    return TESTS[test](differences, resamples, seed) if len(differences) > 1 else 1.0


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjusted p-values that hold for all hypotheses at once (Holm 1979).

    Parameters
    ----------
    p_values : array-like, shape (m,), in [0, 1]

    Returns
    -------
    array, shape (m,)
        In the order given.

    Notes
    -----
    The i-th smallest of m is multiplied by m + 1 - i, then raised to the largest before it and cut at 1.

    Examples
    --------
    >>> holm([0.03, 0.01, 0.04]).tolist()
    [0.06, 0.03, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def indistinguishable_from_best(
    scores: Mapping[str, npt.ArrayLike],
    *,
    alpha: float = 0.05,
    test: str = "permutation",
    resamples: int = 9_999,
    seed: int = 0,
) -> BestMethod:
    """The method of largest mean score, and those that the data do not tell apart from it.

    Parameters
    ----------
    scores : mapping of str to array-like, shape (g,)
        For each method the mean score of each group, larger is better; NaN where it has none. Each comparison is made
        on the groups that both have.
    alpha : float, in (0, 1)
        A method is told apart where its corrected p-value is at most this.
    test, resamples, seed
        As for `paired_test`.

    Returns
    -------
    BestMethod
        The earlier method where two have the same mean.

    Notes
    -----
    Holm's correction counts the m - 1 comparisons that are made. It does not know that the best was chosen by the
    same scores, so a bare win over near-equals is claimed somewhat too often.

    Examples
    --------
    >>> spotlight, domino = [0.9, 0.8, 0.7, 0.9, 0.8, 0.7], [0.8, 0.7, 0.5, 0.6, 0.7, 0.6]
    >>> indistinguishable_from_best({"domino": domino, "spotlight": spotlight})
    BestMethod(name='spotlight', p_values={'domino': 0.03125}, indistinguishable=(), n_groups=6)
    """
    check_share("alpha", alpha)
    means = _aligned(scores)
    best = max(means, key=lambda name: float(np.nanmean(means[name])))
    others = [name for name in means if name != best]
    raw = [paired_test(means[best], means[name], test=test, resamples=resamples, seed=seed) for name in others]
    p_values = dict(zip(others, holm(raw).tolist(), strict=True))
    in_common = [int(np.isfinite(means[best] - means[name]).sum()) for name in others]
    alike = tuple(name for name in others if p_values[name] > alpha)
    return BestMethod(best, p_values, alike, min(in_common, default=len(means[best])))


def _aligned(scores: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
    """The group means as arrays of one shape (g,)."""
    means = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    shapes = {name: array.shape for name, array in means.items()}
    if len(set(shapes.values())) != 1 or any(array.ndim != 1 or array.size == 0 for array in means.values()):
        raise InvalidInput(f"group means have shapes {shapes}, expected the same (g,) for all, g at least 1")
    for name, array in means.items():
        if np.isinf(array).any() or np.isnan(array).all():
            raise InvalidInput(f"group means of {name!r} are infinite or all missing, expected some finite ones")
    return means


def _permutation(differences: Floats, resamples: int, seed: int) -> float:
    """As scipy.stats.permutation_test with the same signs, without its import, which takes half a second."""
    n_all = 2 ** len(differences)
    patterns = _all_signs(len(differences)) if n_all <= resamples else _drawn_signs(len(differences), resamples, seed)
    observed = differences.mean()
    rounding = abs(100 * np.finfo(np.float64).eps * observed)  # sums that would be equal, but for their order
    at_most, at_least, n_patterns = 0, 0, 0
    for flipped in patterns:  # (g, batch)
        means = np.where(flipped, -differences[:, None], differences[:, None]).mean(axis=0)  # (batch,)
        at_most += int(np.count_nonzero(means <= observed + rounding))
        at_least += int(np.count_nonzero(means >= observed - rounding))
        n_patterns += len(means)
    itself = n_all > resamples  # among drawn signs, what was observed is one more
    return float(min(2 * (min(at_most, at_least) + itself) / (n_patterns + itself), 1.0))


def _all_signs(n: int) -> Iterator[Bools]:
    """Which of n signs are flipped, all ways by batches, each of shape (n, batch)."""
    for start in range(0, 2**n, BATCH):
        ways = np.arange(start, min(start + BATCH, 2**n))
        yield (ways >> np.arange(n)[:, None] & 1).astype(np.bool_)


def _drawn_signs(n: int, resamples: int, seed: int) -> Iterator[Bools]:
    rng = np.random.default_rng(seed)
    sides = np.tile([False, True], (min(BATCH, resamples), n, 1))
    for start in range(0, resamples, BATCH):
        drawn = rng.permuted(sides, axis=-1)[: resamples - start, :, 0]
        yield np.ascontiguousarray(drawn.T)  # as sums over groups are summed: the same digits in any batch


def _wilcoxon(differences: Floats, resamples: int, seed: int) -> float:
    if not differences.any():
        return 1.0  # scipy divides 0 by 0 here
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue)


TESTS: dict[str, Callable[[Floats, int, int], float]] = {"permutation": _permutation, "wilcoxon": _wilcoxon}
