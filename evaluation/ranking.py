"""How well a slice's membership ranks the examples of a true slice before all others.

Membership enters by its order only. Many methods give many examples the same membership; where the order of the rows
decided between those, data sorted by class would hand out or withhold hits. A seeded permutation decides instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation.checks import Bools, Floats, Ints, as_outcomes, check_count
from methods.contract import InvalidInput


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
    tie_breaks = np.random.default_rng(seed).permutation(len(values))  # (n,)
    return np.lexsort((tie_breaks, -values))  # the last key sorts first


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
    order = ranking(membership, seed)
    held = _as_vector(membership) != 0 if retrieved is None else as_outcomes("retrieved", retrieved, len(order))
    found = (as_outcomes("true_slice", true_slice, len(order)) & held)[order]  # (n,)
    last = np.minimum(np.asarray(k, dtype=np.int64), len(order)) - 1  # (len(k),)
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
    return float(average_precision_score(truth, values))


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
    return float(roc_auc_score(truth, values))


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
