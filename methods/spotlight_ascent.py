"""Gradient ascent on many spotlights over the same embeddings at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from methods.progress import progress

LANES = {"cpu": 16, "cuda": 256}  # spotlights that move together; 16 already give a CPU's matrix product its full rate
NARROWEST = 16  # MKL multiplies narrower matrices by other code, in which a result depends on the lane
EMPTY = 1e-6  # a total weight below this is rounding noise: the spotlight holds no example
BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults in torch
THRESHOLD = 1e-4  # relative gain that counts as progress, torch's ReduceLROnPlateau


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
    embeddings: Tensor,
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
    """Move b spotlights uphill from where they start, in chunks of a fixed number of lanes.

    The last chunk is filled up with copies of the last spotlight: matrix products of one shape round alike, so a
    spotlight ends bitwise where it would have ended alone (on a CPU, at an equal number of threads).

    Parameters
    ----------
    embeddings : Tensor, shape (n, d)
        Centred, or rounding eats the distances; its dtype (float32, or float64 for checks) is the one computed in.
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

    hence df/dmu = 2 tau (sum g x - mu sum g), and as sum g k = c K, df/dlog(tau) = -sum g tau D = c K - sum g. Two
    matrix products a step, O(n d); D is never formed.

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
    >>> end = ascend(x, losses, 1.5 * one, 3 * one, torch.zeros(1, 1), 0 * one, steps=500)
    >>> weigh(x, end.centers, end.log_precisions.exp()).gt(0.5).tolist()
    [[False, False, False, True, True]]
    """
    lanes, n_spotlights = LANES.get(embeddings.device.type, LANES["cuda"]), len(losses)
    widths = len(embeddings) - sizes if widths is None else widths
    rows, chunks = _rows(embeddings), []
    n_steps = math.ceil(n_spotlights / lanes) * steps
    for tick in progress(range(n_steps), "steps of spotlights", n_steps):
        first, step = tick // steps * lanes, tick % steps
        if step == 0:
            lane = torch.arange(first, first + lanes, device=embeddings.device).clamp_max_(n_spotlights - 1)
            barrier = _Barrier.shrinking(sizes[lane], penalties[lane], widths[lane], steps, embeddings.dtype)
            chunk = _Chunk(rows, losses[lane], barrier, centers[lane], log_precisions[lane], learning_rate)
        chunk.climb(step, patience)
        if step == steps - 1:
            chunks.append(chunk.end())
    return _joined(chunks, n_spotlights)


def weigh(embeddings: Tensor, centers: Tensor, precisions: Tensor) -> Tensor:
    """The weights that spotlights give to examples, equation 1 of d'Eon et al. (2022).

    Parameters
    ----------
    embeddings : Tensor, shape (n, d)
    centers : Tensor, shape (s, d)
    precisions : Tensor, shape (s,), >= 0

    Returns
    -------
    Tensor, shape (s, n), in [0, 1]

    Examples
    --------
    >>> weigh(torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(1, 1), torch.tensor([0.5])).tolist()
    [[1.0, 0.5, 0.0]]
    """
    # differences, not a matrix product: a pair's distance must not depend on what else is in the batch
    distances = torch.cdist(centers, embeddings, compute_mode="donot_use_mm_for_euclid_dist")  # (s, n)
    return distances.square_().mul_(-precisions[:, None]).add_(1).clamp_min_(0)


def _rows(embeddings: Tensor) -> Tensor:
    """[2 x, -|x|^2, -1] for each example, so that one product with a query is 1 - tau D.

    Zeros fill it up to at least `NARROWEST` rows and columns. An example of zeros has the weight 0, and a zero column
    moves nothing: neither can be seen in a result.
    """
    n, d = embeddings.shape
    rows = embeddings.new_zeros(max(n, NARROWEST), max(d + 2, NARROWEST))
    torch.mul(embeddings, 2, out=rows[:n, :d])
    rows[:n, d] = -torch.linalg.vecdot(embeddings, embeddings)
    rows[:n, d + 1] = -1
    return rows


def _joined(chunks: list[Ascent], n_spotlights: int) -> Ascent:
    """The chunks as one, without the copies that filled the last."""
    fields = ("centers", "log_precisions", "sizes", "objectives")
    parts = {name: torch.cat([getattr(chunk, name) for chunk in chunks])[:n_spotlights] for name in fields}
    return Ascent(**parts, history=torch.cat([chunk.history for chunk in chunks], dim=1)[:, :n_spotlights])


@dataclass(frozen=True)
class _Barrier:
    """The penalty for a small total weight, by step: it begins at `reach` and its second derivative is `stiffness`."""

    reach: tuple[Tensor, ...]  # steps of (b, 1): S + w
    stiffness: tuple[Tensor, ...]  # steps of (b, 1): 2 C / w^2

    @classmethod
    def shrinking(cls, sizes: Tensor, penalties: Tensor, widths: Tensor, steps: int, dtype: torch.dtype) -> _Barrier:
        """Widths that fall geometrically to 0.05 S at the last step; constant where they begin below that."""
        sizes, penalties, widths = (column.double()[:, None] for column in (sizes, penalties, widths))
        last = 0.05 * sizes
        first = torch.maximum(widths, last)
        done = torch.linspace(0, 1, steps, dtype=torch.float64, device=sizes.device)[:, None, None]
        width = first * (last / first) ** done  # (steps, b, 1)
        reach, stiffness = sizes + width, 2 * penalties / width.square()
        return cls(reach.to(dtype).unbind(), stiffness.to(dtype).unbind())


class _Chunk:
    """Lanes on their way: state and buffers, allocated once.

    In a small problem a step costs as much as the number of calls into torch. So each call writes into a buffer, the
    views that a step needs are made beforehand, and so are its constants; a column of scalars, one for each lane, has
    the shape (b, 1).
    """

    def __init__(
        self,
        rows: Tensor,
        losses: Tensor,
        barrier: _Barrier,
        centers: Tensor,
        log_precisions: Tensor,
        learning_rate: float,
    ) -> None:
        (n, width), (b, d), steps = rows.shape, centers.shape, len(barrier.reach)
        self.rows, self.columns, self.barrier = rows, rows.T, barrier
        self.losses = torch.nn.functional.pad(losses, (0, n - losses.shape[1]))
        position = torch.cat([centers, log_precisions[:, None]], dim=1).to(rows.dtype)  # (b, d + 1)
        # a step writes a new position beside the old one, to which a lane goes back if it turns out empty
        self.here, self.before = _Parts.of(position, d), _Parts.of(position.clone(), d)
        self.gradient, self.update = _Parts.of(torch.zeros_like(position), d), torch.zeros_like(position)
        self.mean, self.square = torch.zeros_like(position), torch.zeros_like(position)  # Adam's moments
        self.query, self.sums = _Parts.of(rows.new_zeros(b, width), d), _Parts.of(rows.new_zeros(b, width), d)
        self.weights, self.pull, self.squares = rows.new_empty(b, n), rows.new_empty(b, n), rows.new_empty(b, d)
        self.total, self.mass, self.mean_loss, self.short, self.push, self.pushed = rows.new_empty(6, b, 1)
        self.history = rows.new_empty(steps, b, 1).unbind()
        self.rate = rows.new_full((b, 1), learning_rate)
        self.bar = rows.new_full((b, 1), -torch.inf)  # an objective above this is progress
        self.progressed = rows.new_zeros(b, 1)  # the step that last made progress
        self.is_alive, self.is_better, self.is_stuck = torch.empty(3, b, 1, dtype=torch.bool, device=rows.device)
        # as tensors, for a Python number costs three calls
        constants = rows.new_tensor([EMPTY, 0, 0.5, 1, 1 + THRESHOLD, BETA_SQUARE])
        self.empty, self.zero, self.half, self.one, self.gain, self.decay = constants[:, None, None]
        self.clock = torch.arange(steps, dtype=rows.dtype, device=rows.device)[:, None, None].unbind()
        self.corrections = [math.sqrt(1 - BETA_SQUARE ** (step + 1)) for step in range(steps)]
        self.epsilons = (EPSILON * rows.new_tensor(self.corrections))[:, None, None].unbind()

    def climb(self, step: int, patience: int) -> None:
        objective = self.history[step]
        self._evaluate(step, objective)
        self._differentiate()
        self._halve_rates(step, objective, patience)
        self._move(step)

    def end(self) -> Ascent:
        """Where the lanes are after the last step."""
        objective = torch.empty_like(self.total)
        for _ in range(2):  # the last step may have emptied a lane: the first of the two brings it back
            self._evaluate(len(self.history) - 1, objective)
        history = torch.stack(self.history).squeeze(-1)  # (steps, b)
        return Ascent(self.here.center, self.here.precision[:, 0], self.total[:, 0], objective[:, 0], history)

    def _evaluate(self, step: int, objective: Tensor) -> None:
        """Weights, total weight and objective here; a lane without weight goes back and stays."""
        here, query = self.here, self.query
        torch.exp(here.precision, out=query.precision)
        torch.mul(here.center, query.precision, out=query.center)
        torch.mul(here.center, query.center, out=self.squares)
        torch.sum(self.squares, 1, keepdim=True, out=query.one).sub_(self.one)
        torch.mm(query.all, self.columns, out=self.weights).relu_()  # (b, n): k
        torch.sum(self.weights, 1, keepdim=True, out=self.total)  # (b, 1): K
        torch.gt(self.total, self.empty, out=self.is_alive)  # false also for NaN
        torch.where(self.is_alive, here.all, self.before.all, out=here.all)
        torch.where(self.is_alive, self.rate, self.zero, out=self.rate)
        torch.maximum(self.total, self.empty, out=self.total)
        torch.mul(self.weights, self.losses, out=self.pull)
        torch.sum(self.pull, 1, keepdim=True, out=self.mass)
        torch.div(self.mass, self.total, out=self.mean_loss)  # A / K
        torch.sub(self.barrier.reach[step], self.total, out=self.short).relu_()
        torch.mul(self.short, self.barrier.stiffness[step], out=self.push)  # c
        torch.addcmul(self.mean_loss, self.short, self.push, value=-0.5, out=objective)

    def _differentiate(self) -> None:
        """The gradient by centre and log precision; see the notes of `ascend`."""
        gradient, sums = self.gradient, self.sums
        torch.mul(self.push, self.total, out=self.pushed)  # c K
        torch.sub(self.mean_loss, self.pushed, out=self.mass)
        torch.sub(self.losses, self.mass, out=self.pull)  # K g, still without the mask k > 0
        torch.ops.aten.threshold_backward.grad_input(self.pull, self.weights, 0, grad_input=self.pull)
        torch.mm(self.pull, self.rows, out=sums.all)  # (b, d + 2): sum K g (2 x, -|x|^2, -1)
        torch.addcmul(sums.center, self.here.center, sums.one, value=2, out=gradient.center)
        torch.div(self.query.precision, self.total, out=self.mass)  # tau / K
        gradient.center.mul_(self.mass)
        torch.addcdiv(self.pushed, sums.one, self.total, out=gradient.precision)

    def _halve_rates(self, step: int, objective: Tensor, patience: int) -> None:
        """Halve the learning rate of the lanes that have made no progress for too long."""
        torch.gt(objective, self.bar, out=self.is_better)
        torch.mul(objective, self.gain, out=self.mass)
        torch.where(self.is_better, self.mass, self.bar, out=self.bar)
        torch.where(self.is_better, self.clock[step], self.progressed, out=self.progressed)
        if step <= patience:
            return
        torch.lt(self.progressed, self.clock[step - patience], out=self.is_stuck)
        self.bar.masked_fill_(self.is_stuck, -torch.inf)  # whatever comes next is progress
        torch.mul(self.rate, self.half, out=self.mass)
        torch.where(self.is_stuck, self.mass, self.rate, out=self.rate)

    def _move(self, step: int) -> None:
        """One step of Adam, uphill."""
        gradient = self.gradient.all
        self.mean.lerp_(gradient, 1 - BETA_MEAN)
        self.square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - BETA_SQUARE)
        torch.sqrt(self.square, out=self.update).add_(self.epsilons[step])
        torch.div(self.mean, self.update, out=self.update)
        length = self.corrections[step] / (1 - BETA_MEAN ** (step + 1))
        torch.addcmul(self.here.all, self.update, self.rate, value=length, out=self.before.all)
        self.here, self.before = self.before, self.here


class _Parts(NamedTuple):
    """A matrix with a row for each lane, and views of its columns."""

    all: Tensor  # (b, d + 1) or wider
    center: Tensor  # (b, d)
    precision: Tensor  # (b, 1)
    one: Tensor  # (b, 1): what meets the constant column of the embeddings, or (b, 0)

    @classmethod
    def of(cls, matrix: Tensor, d: int) -> _Parts:
        return cls(matrix, matrix[:, :d], matrix[:, d : d + 1], matrix[:, d + 1 : d + 2])
