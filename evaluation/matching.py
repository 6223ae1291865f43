"""Which discovered slice is scored against a true slice: a protocol, named in every score.

`first` and `worst_slice` choose as a user could. `best_average_precision` and `best_auroc` look at the true slice:
they say what is there to be found, and are larger by construction. Scores of two protocols are never compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.checks import Bools, Floats
from evaluation.ranking import Thresholds


class Match(NamedTuple):
    """The discovered slice that stands for a true slice.

    Parameters
    ----------
    slice : int
        Its index among the discovered slices.
    complement : bool
        Whether all that is *outside* it is meant.

    Examples
    --------
    >>> Match(2).code, Match(2, complement=True).code
    (2, -3)
    """

    slice: int
    complement: bool = False

    @property
    def code(self) -> int:
        """One number for both, as in the rows of scores: the index, or -1 - index for a complement."""
        return -1 - self.slice if self.complement else self.slice


@dataclass(frozen=True, eq=False)
class Candidates:
    """The discovered slices and their complements beside one true slice; each slice is sorted once.

    Parameters
    ----------
    membership : array, shape (n, s), float32 or float64
        With s >= 1.
    members : array, shape (n, s), bool
    losses : array, shape (n,), in nats
    true_slice : array, shape (n,), bool
        With examples both inside and outside.

    Examples
    --------
    >>> membership = np.array([[0.9, 0.0], [0.8, 0.0], [0.1, 1.0]])
    >>> losses, true_slice = np.array([0.1, 0.2, 3.0]), np.array([True, True, False])
    >>> candidates = Candidates(membership, membership > 0.5, losses, true_slice)
    >>> worst_slice(candidates), best_average_precision(candidates)
    (Match(slice=1, complement=False), Match(slice=0, complement=False))
    """

    membership: npt.NDArray[np.floating]
    members: Bools
    losses: npt.NDArray[np.floating]
    true_slice: Bools

    @property
    def slices(self) -> list[Match]:
        return [Match(index) for index in range(self.membership.shape[1])]

    @property
    def complements(self) -> list[Match]:
        return [Match(index, complement=True) for index in range(self.membership.shape[1])]

    def membership_of(self, match: Match) -> Floats:
        """What ranks the examples: the membership, or its negative for a complement, shape (n,)."""
        column = self.membership[:, match.slice].astype(np.float64)
        # -m orders as 1 - m does, without the ties that rounding makes of small memberships in 1 - m
        return -column if match.complement else column

    def retrieved_by(self, match: Match) -> Bools:
        """The examples with a membership other than 0, shape (n,)."""
        column = self.membership[:, match.slice]
        return column < 1 if match.complement else column > 0

    def members_of(self, match: Match) -> Bools:
        """The hard slice, or all that is outside it, shape (n,)."""
        column = self.members[:, match.slice]
        return ~column if match.complement else column

    def mean_loss(self, match: Match) -> float:
        """Of the members, in nats; -inf without members, so that an empty slice is never the worst."""
        members = self.members_of(match)
        return float(self.losses[members].mean(dtype=np.float64)) if members.any() else -np.inf

    def average_precision(self, match: Match) -> float:
        return self._thresholds_of(match).average_precision

    def auroc(self, match: Match) -> float:
        return self._thresholds_of(match).auroc

    def _thresholds_of(self, match: Match) -> Thresholds:
        thresholds = self._thresholds[match.slice]
        return thresholds.complement if match.complement else thresholds

    @cached_property
    def _thresholds(self) -> list[Thresholds]:
        return [Thresholds.of(column, self.true_slice) for column in np.ascontiguousarray(self.membership.T)]


# The protocols; `max` keeps the earliest of equals


def first(candidates: Candidates) -> Match:
    """The first slice: the worst as the method judged it on the half that it was fitted on."""
    return candidates.slices[0]


def worst_slice(candidates: Candidates) -> Match:
    """The slice whose members have the largest mean loss here, on the score half (Spotlight, section 4.6)."""
    return max(candidates.slices, key=candidates.mean_loss)


def best_average_precision(candidates: Candidates) -> Match:
    """The slice, or complement of a slice, of largest average precision: domino's rule, which sees the true slice."""
    return max(candidates.slices + candidates.complements, key=candidates.average_precision)


def best_auroc(candidates: Candidates) -> Match:
    """The slice of largest AUROC: dcbench 0.0.4's rule, which sees the true slice, without complements."""
    return max(candidates.slices, key=candidates.auroc)


PROTOCOLS: dict[str, Callable[[Candidates], Match]] = {
    "first": first,
    "worst_slice": worst_slice,
    "best_average_precision": best_average_precision,
    "best_auroc": best_auroc,
}
