"""Spotlights that move together by matrix products over all embeddings, on any device that torch knows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from methods.spotlight_barrier import Barrier
from methods.spotlight_rows import Rows

LANES = 256  # spotlights that move together
EMPTY = 1e-6  # a total weight below this is rounding noise: the spotlight holds no example
BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults in torch
THRESHOLD = 1e-4  # relative gain that counts as progress, torch's ReduceLROnPlateau


class ProductChunk:
    """b spotlights on their way: state and buffers, allocated once.

    Two matrix products a step over all lanes. Products of one shape round alike: with as many lanes in each chunk a
    spotlight ends bitwise where it would have ended alone.

    In a small problem a step costs as much as the number of calls into torch. So each call writes into a buffer, the
    views that a step needs are made beforehand, and so are its constants; a column of scalars, one for each lane, has
    the shape (b, 1).

    Parameters
    ----------
    rows : Rows
    losses : Tensor, shape (b, n), in nats
    barrier : Barrier
    centers, log_precisions : Tensor, shapes (b, d) and (b,)
        The start.
    learning_rate : float
    patience : int
    """

    def __init__(
        self,
        rows: Rows,
        losses: Tensor,
        barrier: Barrier,
        centers: Tensor,
        log_precisions: Tensor,
        learning_rate: float,
        patience: int,
    ) -> None:
        n, (b, d), steps = len(rows), centers.shape, len(barrier.reach)
        self.patience, self.losses = patience, losses
        self.rows = augmented = _augmented(rows)  # (n, d + 2)
        self.columns = augmented.T
        by_step = (each.to(augmented.dtype)[..., None].unbind() for each in (barrier.reach, barrier.stiffness))
        self.reach, self.stiffness = by_step
        position = torch.cat([centers, log_precisions[:, None]], dim=1).to(augmented.dtype)  # (b, d + 1)
        # a step writes a new position beside the old one, to which a lane goes back if it turns out empty
        self.here, self.before = _Parts.of(position, d), _Parts.of(position.clone(), d)
        self.gradient, self.update = _Parts.of(torch.zeros_like(position), d), torch.zeros_like(position)
        self.mean, self.square = torch.zeros_like(position), torch.zeros_like(position)  # Adam's moments
        self.query, self.sums = _Parts.of(augmented.new_zeros(b, d + 2), d), _Parts.of(augmented.new_zeros(b, d + 2), d)
        self.weights, self.pull, self.squares = (
            augmented.new_empty(b, n),
            augmented.new_empty(b, n),
            augmented.new_empty(b, d),
        )
        self.total, self.mass, self.mean_loss, self.short, self.push, self.pushed = augmented.new_empty(6, b, 1)
        self.history = augmented.new_empty(steps, b, 1).unbind()
        self.rate = augmented.new_full((b, 1), learning_rate)
        self.bar = augmented.new_full((b, 1), -torch.inf)  # an objective above this is progress
        self.progressed = augmented.new_zeros(b, 1)  # the step that last made progress
        self.is_alive, self.is_better, self.is_stuck = torch.empty(3, b, 1, dtype=torch.bool, device=augmented.device)
        # as tensors, for a Python number costs three calls
        constants = augmented.new_tensor([EMPTY, 0, 0.5, 1, 1 + THRESHOLD, BETA_SQUARE])
        self.empty, self.zero, self.half, self.one, self.gain, self.decay = constants[:, None, None]
        self.clock = torch.arange(steps, dtype=augmented.dtype, device=augmented.device)[:, None, None].unbind()
        self.corrections = [math.sqrt(1 - BETA_SQUARE ** (step + 1)) for step in range(steps)]
        self.epsilons = (EPSILON * augmented.new_tensor(self.corrections))[:, None, None].unbind()

    def climb(self, first: int, last: int) -> None:
        """Steps `first` to `last`, not included."""
        for step in range(first, last):
            objective = self.history[step]
            self._evaluate(step, objective)
            self._differentiate()
            self._halve_rates(step, objective)
            self._move(step)

    def end(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Centres (b, d), log precisions (b,), total weights (b,), objectives (b,), history (steps, b)."""
        objective = torch.empty_like(self.total)
        for _ in range(2):  # the last step may have emptied a lane: the first of the two brings it back
            self._evaluate(len(self.history) - 1, objective)
        history = torch.stack(self.history).squeeze(-1)  # (steps, b)
        return self.here.center, self.here.precision[:, 0], self.total[:, 0], objective[:, 0], history

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
        torch.sub(self.reach[step], self.total, out=self.short).relu_()
        torch.mul(self.short, self.stiffness[step], out=self.push)  # c
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

    def _halve_rates(self, step: int, objective: Tensor) -> None:
        """Halve the learning rate of the lanes that have made no progress for too long."""
        torch.gt(objective, self.bar, out=self.is_better)
        torch.mul(objective, self.gain, out=self.mass)
        torch.where(self.is_better, self.mass, self.bar, out=self.bar)
        torch.where(self.is_better, self.clock[step], self.progressed, out=self.progressed)
        if step <= self.patience:
            return
        torch.lt(self.progressed, self.clock[step - self.patience], out=self.is_stuck)
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


def _augmented(rows: Rows) -> Tensor:
    """[2 x, -|x|^2, -1] for each example, so that one product with a query is 1 - tau D: shape (n, d + 2)."""
    n, d = len(rows), rows.n_dimensions
    augmented = rows.values.new_empty(n, d + 2)
    torch.mul(rows.whole(), 2, out=augmented[:, :d])
    augmented[:, d] = -rows.norms
    augmented[:, d + 1] = -1
    return augmented
