"""Gradient ascent on many spotlights over the same embeddings at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.progress import progress
from methods.spotlight_barrier import Barrier
from methods.spotlight_products import LANES as PRODUCT_LANES
from methods.spotlight_products import ProductChunk
from methods.spotlight_rows import Rows

if TYPE_CHECKING:
    from methods.spotlight_threads import ThreadedChunk

LANES = 8  # spotlights that move together on a CPU for each thread: their states are held, n numbers each
REPORTS = 100  # times that an ascent says how far it is


@dataclass(frozen=True)
class Ascent:
    """Where b spotlights ended.

    Parameters
    ----------
    centers : Tensor, shape (b, d)
        In the units of the embeddings.
    log_precisions : Tensor, shape (b,)
        Natural logarithm of tau, which is in 1 / squared units of the embeddings.
    sizes : Tensor, shape (b,), in [0, n]
        Total weight sum(k) reached.
    objectives : Tensor, shape (b,), in nats
        Equation 5 there, under the last and narrowest barrier.
    history : Tensor, shape (steps, b), in nats
        Equation 5 before each step, under that step's barrier.
    """

    centers: Tensor
    log_precisions: Tensor
    sizes: Tensor
    objectives: Tensor
    history: Tensor


def ascend(
    rows: Rows,
    losses: Tensor,
    sizes: Tensor,
    penalties: Tensor,
    centers: Tensor,
    log_precisions: Tensor,
    *,
    steps: int,
    learning_rate: float = 1e-2,
    patience: int = 10,
    widths: Tensor | None = None,
) -> Ascent:
    """Move b spotlights uphill from where they start, some of them together.

    A spotlight ends bitwise where it would have ended alone; on a CPU at any number of threads.

    Parameters
    ----------
    rows : Rows
        n examples of d dimensions, centred, or rounding eats the distances; their dtype (float32, or float64 for
        checks) is the one computed in.
    losses : Tensor, shape (b, n), in nats
        A row for each spotlight.
    sizes : Tensor, shape (b,), in (0, n]
        S, the least total weight.
    penalties : Tensor, shape (b,), in nats, > 0
        C, the barrier's height.
    centers, log_precisions : Tensor, shapes (b, d) and (b,)
        The start.
    steps : int, >= 1
    learning_rate : float, > 0
        Of Adam, in units of the embeddings for the centre, and of the logarithm for the precision.
    patience : int, >= 0
        Steps without progress that are forgiven before the learning rate is halved.
    widths : Tensor, shape (b,), > 0, optional
        w at the first step; n - S where it is left out, as in the paper.

    Notes
    -----
    With D_i = ||x_i - mu||^2, k_i = max(1 - tau D_i, 0), K = sum k and A = sum k l, the objective (equation 5) is
    f = A / K - C max(S + w - K, 0)^2 / w^2. Equation 4 is printed two-sided; the text and the released code press only
    where K is too small, and so does this. Where k_i > 0 its derivative is

        g_i = (l_i - A / K) / K + c    with    c = 2 C max(S + w - K, 0) / w^2,

    hence df/dmu = 2 tau (sum g x - mu sum g), and as sum g k = c K, df/dlog(tau) = -sum g tau D = c K - sum g. All of
    it follows from the sums of x, |x|^2, l, l x and l |x|^2 over the examples that are reached. On a CPU these are
    kept, and in a step only those examples are looked at that may have come within reach or left it: a few in a hundred
    (`methods.spotlight_kernel`). Elsewhere two matrix products a step make them anew (`methods.spotlight_products`). D
    is never formed.

    The rule for the learning rate is torch's ReduceLROnPlateau, except that each halving forgets the best objective
    and the count of steps without progress, as the authors' released code does.

    References
    ----------
    d'Eon et al. (2022), section 3.

    Examples
    --------
    The two examples of high loss lie together on the right:

    >>> x = torch.tensor([[-1.0], [-0.9], [-0.8], [0.9], [1.0]])
    >>> losses = torch.tensor([[0.1, 0.0, 0.1, 3.0, 3.0]])
    >>> one = torch.ones(1)
    >>> end = ascend(Rows(x), losses, 1.5 * one, 3 * one, torch.zeros(1, 1), 0 * one, steps=500)
    >>> weigh(Rows(x), end.centers, end.log_precisions.exp()).gt(0.5).tolist()
    [[False, False, False, True, True]]
    """
    on_cpu, n_spotlights = rows.values.device.type == "cpu", len(losses)
    widths = len(rows) - sizes if widths is None else widths
    lanes, every, ends = (LANES * torch.get_num_threads() if on_cpu else PRODUCT_LANES), max(1, steps // REPORTS), []
    n_steps = math.ceil(n_spotlights / lanes) * steps
    for tick in progress(range(n_steps), "steps of spotlights", n_steps):
        first, step = tick // steps * lanes, tick % steps
        if step == 0:
            lane = torch.arange(first, first + lanes, device=losses.device)
            # on a GPU the last chunk is filled up with copies, for products of another shape round in another way
            lane = lane[lane < n_spotlights] if on_cpu else lane.clamp_max_(n_spotlights - 1)
            barrier = Barrier.shrinking(sizes[lane], penalties[lane], widths[lane], steps)
            start = losses[lane], barrier, centers[lane], log_precisions[lane]
            chunk = _chunk(on_cpu)(rows, *start, learning_rate, patience)
        if step % every == 0:
            chunk.climb(step, min(step + every, steps))
        if step == steps - 1:
            ends.append(chunk.end())
    return _joined(ends, n_spotlights)


def _chunk(on_cpu: bool) -> type[ProductChunk] | type[ThreadedChunk]:
    if not on_cpu:
        return ProductChunk
    from methods.spotlight_threads import ThreadedChunk  # numba comes with it, which a GPU does not need

    return ThreadedChunk


def _joined(ends: Sequence[tuple[Tensor, ...]], n_spotlights: int) -> Ascent:
    """The chunks as one, without the copies that filled the last."""
    *by_spotlight, histories = zip(*ends, strict=True)
    centers, log_precisions, sizes, objectives = (torch.cat(parts)[:n_spotlights] for parts in by_spotlight)
    return Ascent(centers, log_precisions, sizes, objectives, torch.cat(histories, dim=1)[:, :n_spotlights])


def weigh(rows: Rows, centers: Tensor, precisions: Tensor) -> Tensor:
    """The weights that spotlights give to examples, equation 1 of d'Eon et al. (2022).

    Parameters
    ----------
    rows : Rows
        n examples of d dimensions.
    centers : Tensor, shape (s, d)
    precisions : Tensor, shape (s,), >= 0

    Returns
    -------
    Tensor, shape (s, n), in [0, 1]

    Examples
    --------
    >>> weigh(Rows(torch.tensor([[0.0], [1.0], [2.0]])), torch.zeros(1, 1), torch.tensor([0.5])).tolist()
    [[1.0, 0.5, 0.0]]
    """
    return distances(rows, centers).mul_(-precisions[:, None]).add_(1).clamp_min_(0)


def distances(rows: Rows, centers: Tensor) -> Tensor:
    """Squared distances of n examples to centres of shape (s, d): Tensor, shape (s, n)."""
    # differences, not a matrix product: a pair's distance must not depend on what else is in the batch
    squared = centers.new_empty(len(centers), len(rows))
    for at, block in rows.blocks():
        squared[:, at] = torch.cdist(centers, block, compute_mode="donot_use_mm_for_euclid_dist").square_()
    return squared
