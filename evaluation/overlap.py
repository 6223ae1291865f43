"""How far the hard members of a slice are the examples of a true slice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.checks import as_outcomes


class Overlap(NamedTuple):
    """Of the members the share in the true slice, of the true slice the share among the members, and their mean.

    Parameters
    ----------
    precision, recall, f1 : float, in [0, 1]
        f1 is the harmonic mean of the other two.
    """

    precision: float
    recall: float
    f1: float


def overlap(members: npt.ArrayLike, true_slice: npt.ArrayLike) -> Overlap:
    """Precision, recall and F1 of hard members; a slice without members scores 0.

    Parameters
    ----------
    members : array-like, shape (n,), bool
    true_slice : array-like, shape (n,), bool

    Returns
    -------
    Overlap

    Examples
    --------
    >>> overlap([True, False, False, False], [True, True, False, False])
    Overlap(precision=1.0, recall=0.5, f1=0.6666666666666666)
    >>> overlap([False, False], [True, False])
    Overlap(precision=0.0, recall=0.0, f1=0.0)
    """
    truth = as_outcomes("true_slice", true_slice)
    found = as_outcomes("members", members, len(truth))
    shared, n_found, n_true = (int(np.count_nonzero(mask)) for mask in (found & truth, found, truth))
    if shared == 0:
        return Overlap(0.0, 0.0, 0.0)
    return Overlap(shared / n_found, shared / n_true, 2 * shared / (n_found + n_true))
