"""Which examples a soft spotlight holds, and which of several sizes to keep."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Members = Literal["round", "support"]
TAIL = 0.99  # losses above this quantile count as the quantile, or a single loss decides


def hard_members(weights: Tensor, members: Members) -> Tensor:
    """The examples that count as inside a spotlight.

    Parameters
    ----------
    weights : Tensor, shape (s, n), in [0, 1]
    members : {"round", "support"}
        The round(sum k) examples of largest weight k, or all with k > 0.

    Returns
    -------
    Tensor, shape (s, n), bool

    Examples
    --------
    >>> weights = torch.tensor([[0.9, 0.1, 0.8, 0.0]])
    >>> hard_members(weights, "round").tolist(), hard_members(weights, "support").tolist()
    ([[True, False, True, False]], [[True, True, True, False]])
    """
    if members == "support":
        return weights > 0
    ranks = weights.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # (s, n)
    return ranks < weights.sum(dim=1, keepdim=True).round()


def f1_of_errors(members: Tensor, errors: Tensor) -> Tensor:
    """How well each set predicts which examples were misclassified, section 4.6 of d'Eon et al. (2022).

    Parameters
    ----------
    members : Tensor, shape (s, n), bool
    errors : Tensor, shape (n,), bool

    Returns
    -------
    Tensor, shape (s,), in [0, 1]

    Examples
    --------
    >>> f1_of_errors(torch.tensor([[True, True, False]]), torch.tensor([True, False, False])).item()
    0.6666666865348816
    """
    hits = (members & errors).sum(dim=1)
    return 2 * hits / (members.sum(dim=1) + errors.sum()).clamp_min(1)


def loss_gap(members: Tensor, losses: Tensor) -> Tensor:
    """(mean loss inside - mean loss outside) sqrt(size), of losses clipped at their 99% quantile.

    Needs no labels. In units of a loss's standard deviation it would be a t statistic: a gap between few examples is
    weaker evidence than the same gap between many.

    Parameters
    ----------
    members : Tensor, shape (s, n), bool
    losses : Tensor, shape (n,), in nats

    Returns
    -------
    Tensor, shape (s,)
        0 for a set of no or of all examples.

    Examples
    --------
    >>> loss_gap(torch.tensor([[True, False, False, False]]), torch.tensor([3.0, 1.0, 1.0, 1.0])).item()
    2.0
    """
    clipped = _clipped(losses)
    return _scaled_gap(members.sum(dim=1), (members * clipped).sum(dim=1), clipped)


def best_cut(weights: Tensor, losses: Tensor, smallest: int, largest: int) -> int:
    """How many of the examples of largest weight to keep, so that `loss_gap` is largest.

    Parameters
    ----------
    weights : Tensor, shape (n,), in [0, 1]
    losses : Tensor, shape (n,), in nats
    smallest, largest : int, in [1, n]
        Bounds of the answer; beyond the last weight above 0 there is no order, and no cut.

    Examples
    --------
    >>> best_cut(torch.tensor([0.9, 0.8, 0.7, 0.6, 0.0]), torch.tensor([3.0, 3.0, 0.1, 0.1, 0.1]), 1, 4)
    2
    """
    clipped = _clipped(losses)
    inside = clipped[weights.argsort(descending=True, stable=True)].cumsum(dim=0)  # (n,)
    counts = torch.arange(1, len(weights) + 1, device=weights.device)
    last = min(largest, int((weights > 0).sum()))
    first = max(1, min(smallest, last))
    gaps = _scaled_gap(counts, inside, clipped)[first - 1 : max(last, first)]
    return first + int(gaps.argmax())


def _clipped(losses: Tensor) -> Tensor:
    return losses.clamp_max(losses.kthvalue(math.ceil(TAIL * len(losses))).values)


def _scaled_gap(counts: Tensor, inside: Tensor, losses: Tensor) -> Tensor:
    """The gap times the root of the count, from the counts and the sums of the losses inside."""
    n_outside = len(losses) - counts
    gap = inside / counts.clamp_min(1) - (losses.sum() - inside) / n_outside.clamp_min(1)
    return torch.where((counts > 0) & (n_outside > 0), gap, 0.0) * counts.sqrt()
