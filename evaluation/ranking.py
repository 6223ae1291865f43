"""How well a slice's membership ranks the examples of a true slice before all others.

Membership enters by its order only. Many methods give many examples the same membership; where the order of the rows
decided between those, data sorted by class would hand out or withhold hits. A seeded permutation decides instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from evaluation.checks import Bools, Floats, Ints, as_outcomes, check_count
from methods.errors import InvalidInput


class Thresholds(NamedTuple):
    """How many examples have at least each of the distinct memberships, the largest first.

    Parameters
    ----------
    true, false : array, shape (t,), float64
        Those in the true slice, and those outside.

    Notes
    -----
    From one sort come the scores of a slice and of its complement, to the last digit those of scikit-learn, which
    sorts for each of them.
    """

    true: Floats
    false: Floats

    @classmethod
    def of(cls, membership: npt.NDArray[np.floating], true_slice: Bools) -> Self:
        """For arrays of shape (n,)."""
        order = np.argsort(membership)[::-1]
        ordered = membership[order]
        last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(order) - 1)  # (t,)
        true = np.cumsum(true_slice[order], dtype=np.float64)[last]
        return cls(true, last + 1 - true)

    @property
    def complement(self) -> Thresholds:
        """The same of the negative membership."""
        true, false = (np.append(counts[-1] - counts[-2::-1], counts[-1]) for counts in self)
        return Thresholds(true, false)

    @property
    def average_precision(self) -> float:
        recall = self.true / self.true[-1]
        steps = np.diff(recall, prepend=0.0) * (self.true / (self.true + self.false))
        return float(steps[::-1].copy().sum())

    @property
    def auroc(self) -> float:
        true, false = self._corners()
        x, y = np.append(0.0, false) / false[-1], np.append(0.0, true) / true[-1]
        return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())

    def _corners(self) -> Thresholds:
        """Without those on a straight line between others."""
        if len(self.true) < 3:
            return self
        bends = np.diff(self.false, 2).astype(np.bool_) | np.diff(self.true, 2).astype(np.bool_)
        kept = np.concatenate([[True], bends, [True]])
        return Thresholds(self.true[kept], self.false[kept])


def ranking(membership: npt.ArrayLike, seed: int = 0) -> npt.NDArray[np.intp]:
    """The rows by falling membership, equal ones in a random order.

    Parameters
    ----------
    membership : array-like, shape (n,)
    seed : int
        Of the order among equals.

    Returns
    -------
    array, shape (n,)
        Row numbers, the best first.

    Examples
    --------
    >>> ranking([0.1, 0.9, 0.5]).tolist()
    [1, 2, 0]
    """
    values = _as_vector(membership)
    return np.lexsort((_tie_breaks(len(values), seed), -values))  # the last key sorts first


def _first_ranks(values: Floats, k: int, seed: int) -> npt.NDArray[np.intp]:
    """The first k of `ranking`, or some more."""
    if k >= len(values):
        return ranking(values, seed)
    rows = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
    return rows[np.lexsort((_tie_breaks(len(values), seed)[rows], -values[rows]))]


@lru_cache(maxsize=1)  # all slices of a problem share them
def _tie_breaks(n: int, seed: int) -> npt.NDArray[np.int64]:
    drawn = np.random.default_rng(seed).permutation(n)
    drawn.flags.writeable = False
    return drawn


def hits_at_k(
    membership: npt.ArrayLike,
    true_slice: npt.ArrayLike,
    k: Sequence[int],
    seed: int = 0,
    retrieved: npt.ArrayLike | None = None,
) -> Ints:
    """How many of the first k examples are in the true slice, for several k from one ranking.

    Parameters
    ----------
    membership : array-like, shape (n,)
    true_slice : array-like, shape (n,), bool
    k : sequence of int
        Each at least 1; one above n counts all n examples.
    seed : int
        Of the order among equal memberships.
    retrieved : array-like, shape (n,), bool, optional
        Which examples the slice holds at all; by default those with a membership other than 0. The others are no hits:
        a slice of four examples has four chances, and one of none has none.

    Returns
    -------
    array, shape (len(k),), int64

    Examples
    --------
    >>> hits_at_k([0.9, 0.5, 0.1], [True, False, True], k=[1, 2, 10]).tolist()
    [1, 1, 2]
    """
    for value in k:
        check_count("k", value)
    values = _as_vector(membership)
    held = values != 0 if retrieved is None else as_outcomes("retrieved", retrieved, len(values))
    first = _first_ranks(values, max(k, default=1), seed)
    found = (as_outcomes("true_slice", true_slice, len(values)) & held)[first]
    last = np.minimum(np.asarray(k, dtype=np.int64), len(values)) - 1  # (len(k),)
    hits: Ints = np.cumsum(found, dtype=np.int64)[last]
    return hits


def precision_at_k(membership: npt.ArrayLike, true_slice: npt.ArrayLike, k: int, seed: int = 0) -> float:
    """The share of the k examples of largest membership that are in the true slice.

    Parameters
    ----------
    membership : array-like, shape (n,)
    true_slice : array-like, shape (n,), bool
    k : int
        At least 1.
    seed : int
        Of the order among equal memberships.

    Returns
    -------
    float, in [0, 1]

    Notes
    -----
    hits / k, the score of InfEmbed's table 1 (Wang et al. 2023, section 4.1). The divisor is k even where the true
    slice or the whole problem has fewer than k examples, so 1 is then out of reach and scores of one k compare.

    Examples
    --------
    >>> precision_at_k([0.9, 0.8, 0.1], [True, False, True], k=2)
    0.5
    """
    return float(hits_at_k(membership, true_slice, [k], seed)[0] / k)


def recall_at_k(membership: npt.ArrayLike, true_slice: npt.ArrayLike, k: int, seed: int = 0) -> float:
    """The share of the true slice that is among the k examples of largest membership.

    Parameters
    ----------
    membership : array-like, shape (n,)
    true_slice : array-like, shape (n,), bool
        An empty one gives 0.
    k : int
        At least 1.
    seed : int
        Of the order among equal memberships.

    Returns
    -------
    float, in [0, 1]

    Examples
    --------
    >>> recall_at_k([0.9, 0.8, 0.1, 0.0], [True, True, True, False], k=2)
    0.6666666666666666
    """
    hits = hits_at_k(membership, true_slice, [k], seed)[0]
    return float(hits / max(np.count_nonzero(np.asarray(true_slice)), 1))


def average_precision(membership: npt.ArrayLike, true_slice: npt.ArrayLike) -> float:
    """The area under the steps of precision against recall.

    Parameters
    ----------
    membership : array-like, shape (n,)
    true_slice : array-like, shape (n,), bool
        With at least one example.

    Returns
    -------
    float, in (0, 1]
        The base rate for a constant membership.

    Notes
    -----
    sum_t (recall_t - recall_(t-1)) precision_t over the distinct memberships t: examples of equal membership enter
    together, so no order among them is needed.

    Examples
    --------
    >>> average_precision([0.9, 0.8, 0.1], [True, False, True])
    0.8333333333333333
    """
    values = _as_vector(membership)
    truth = _non_empty(true_slice, len(values))
    return Thresholds.of(values, truth).average_precision


def auroc(membership: npt.ArrayLike, true_slice: npt.ArrayLike) -> float:
    """The probability that an example of the true slice has a larger membership than one outside; a tie counts half.

    Parameters
    ----------
    membership : array-like, shape (n,)
    true_slice : array-like, shape (n,), bool
        With at least one example inside and one outside.

    Returns
    -------
    float, in [0, 1]
        0.5 for a constant membership.

    Examples
    --------
    >>> auroc([0.9, 0.8, 0.1], [True, False, True])
    0.5
    """
    values = _as_vector(membership)
    truth = _non_empty(true_slice, len(values))
    if truth.all():
        raise InvalidInput("true_slice holds every example, expected at least one outside: there is no pair to compare")
    return Thresholds.of(values, truth).auroc


def _as_vector(membership: npt.ArrayLike) -> Floats:
    values = np.asarray(membership, dtype=np.float64)  # every float32 has an exact float64
    if values.ndim != 1:
        raise InvalidInput(f"membership has shape {values.shape}, expected one slice's, (n,)")
    return values


def _non_empty(true_slice: npt.ArrayLike, n_examples: int) -> Bools:
    truth = as_outcomes("true_slice", true_slice, n_examples)
    if not truth.any():
        raise InvalidInput("true_slice has no example, expected at least one")
    return truth
