"""Which true slices are found by several discovered slices together, and which of those are false."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.checks import Bools, Floats, check_share
from methods.contract import InvalidInput


class Discovery(NamedTuple):
    """What of the truth is discovered, and what of the discovered is false.

    Parameters
    ----------
    discovered : array, shape (g,), bool
        Of each true slice; its mean is the discovery rate.
    false : array, shape (s,), bool
        Of each discovered slice, whether it belongs to no true one; its mean is the false discovery rate.
    """

    discovered: Bools
    false: Bools


def discovery(
    members: npt.ArrayLike, true_slices: npt.ArrayLike, min_precision: float = 0.8, min_recall: float = 0.8
) -> Discovery:
    """Discovered and false slices, by the hard members of all slices.

    Parameters
    ----------
    members : array-like, shape (n, s), bool
        Of the discovered slices; s may be 0.
    true_slices : array-like, shape (n, g), bool
        Each holds some example.
    min_precision : float, in (0, 1)
        A discovered slice belongs to a true one if more than this share of its members is in it.
    min_recall : float, in (0, 1)
        A true slice is discovered if the slices that belong to it hold, together, more than this share of it.

    Raises
    ------
    InvalidInput
        Where a share is out of range, or the shapes do not agree.

    Notes
    -----
    SpotCheck (Plumb et al. 2022). A slice without members belongs to nothing.

    Examples
    --------
    Two halves of the one true slice, and a slice of something else:

    >>> members = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    >>> found = discovery(members, [[1], [1], [0], [0]])
    >>> found.discovered.tolist(), found.false.tolist()
    ([True], [False, False, True])
    """
    check_share("min_precision", min_precision)
    check_share("min_recall", min_recall)
    found, truth = np.asarray(members, dtype=bool), np.asarray(true_slices, dtype=bool)
    if found.ndim != 2 or truth.ndim != 2 or len(found) != len(truth):
        raise InvalidInput(f"members has shape {found.shape}, true_slices {truth.shape}, expected (n, s) and (n, g)")
    shared = found.T.astype(np.int64) @ truth  # (s, g)
    belongs = _shares(shared, found.sum(axis=0)[:, None]) > min_precision  # (s, g)
    covered = (found.astype(np.int64) @ belongs > 0) & truth  # (n, g): in some slice that belongs to the true one
    discovered = _shares(covered.sum(axis=0), truth.sum(axis=0)) > min_recall  # (g,)
    return Discovery(discovered, np.asarray(~belongs.any(axis=1), dtype=np.bool_))


def _shares(parts: npt.NDArray[np.int64], wholes: npt.NDArray[np.int64]) -> Floats:
    return parts / np.maximum(wholes, 1)
