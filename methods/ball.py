"""The worst balls: an example and its nearest neighbours, where their mean loss is highest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from methods.clusters import check_columns, unit_rows
from methods.contract import ModelOutputs, Slices
from methods.progress import progress
from methods.ranges import check_ranges
from methods.sizes import check_size

BLOCK = 256  # examples whose distances to all others are held at once


@dataclass
class Ball:
    """Balls around examples, each just large enough for `size` of them, of the largest mean loss.

    The first is the worst of all n balls, found by looking at every one. Then its members count as if the model had
    done its best on them (their losses become the smallest), and the next is the worst by what is left; and so on.
    Taking the members' losses away, and not only their places as centres, keeps a second ball from being the first one
    moved by a neighbour; overlap stays possible and costs a ball what it shares. Nothing is random.

    Parameters
    ----------
    n_slices : int, >= 1
        Fewer come back where the earlier balls hold all examples whose loss is above the smallest.
    size : int, in [1, n]
        S, examples in a ball, its centre among them.
    normalise : bool
        Divide each row by its length first: nearness is then that of directions.

    Attributes
    ----------
    centers_ : Tensor, shape (s, d)
    radii_ : Tensor, shape (s,), >= 0
        Distance to the S-th nearest example of the fit.
    diagnostics_ : tuple of dict, length s
        center: the id of the example; radius; mean_loss (nats) of the S members; remaining_loss: the same, without
        what earlier balls took, which is what orders the slices.

    Raises
    ------
    InvalidInput
        Where a ball would be larger than the split, or the embeddings' dimension is not that of the fit.

    Notes
    -----
    Members are all examples within the radius: the S nearest in the split of the fit (more only where some are exactly
    as far as the S-th), any number in another. Membership is 1 / (1 + d^2 / radius^2), for all examples: at least 1/2
    within the ball.

    Every ball is looked at once. Later losses are never larger, so a mean that was computed before bounds the mean now,
    and only balls whose bound exceeds the best are looked at again (lazy greedy search, Minoux 1978): the result is
    that of looking at all.

    Examples
    --------
    >>> outputs = ModelOutputs.from_arrays(
    ...     "abcdef",
    ...     embeddings=[[-1.0], [-0.8], [-0.6], [0.0], [0.9], [1.0]],
    ...     losses=[0.1, 0.2, 0.1, 0.2, 4.0, 3.0],
    ...     correct=[True, True, True, True, False, False],
    ... )
    >>> slices = Ball(n_slices=1, size=2, normalise=False).fit(outputs).predict(outputs)
    >>> slices.members.flatten().tolist(), slices.diagnostics[0]["mean_loss"]
    ([False, False, False, False, True, True], 3.5)
    """

    version: ClassVar[int] = 1

    n_slices: int = field(default=5, metadata={"min": 1})
    size: int = field(default=50, metadata={"min": 1})
    normalise: bool = True

    def fit(self, outputs: ModelOutputs) -> Self:
        check_ranges(self)
        check_size(self.size, outputs)
        x = self._rows(outputs)  # (n, d)
        rows, remaining = self._greedy(x, outputs.losses)
        self.centers_ = x[rows]
        distances = self._distances(x)
        self.radii_ = distances.kthvalue(self.size, dim=0).values
        self.diagnostics_ = tuple(
            self._described(outputs, row, distances[:, column], remaining[column]) for column, row in enumerate(rows)
        )
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        check_columns(outputs, self.centers_.shape[1])
        distances = self._distances(self._rows(outputs))  # (n, s)
        # 0 / 0 is the centre of a ball without extent
        ratios = torch.where(distances > 0, distances / self.radii_, 0.0)
        return Slices(outputs.example_ids, 1 / (1 + ratios.square()), distances <= self.radii_, self.diagnostics_)

    def _rows(self, outputs: ModelOutputs) -> Tensor:
        return unit_rows(outputs.embeddings) if self.normalise else outputs.embeddings

    def _distances(self, x: Tensor) -> Tensor:
        """From all examples to the centres, shape (n, s), the same in every split for the same example."""
        return torch.cdist(x, self.centers_, compute_mode="donot_use_mm_for_euclid_dist")

    def _greedy(self, x: Tensor, losses: Tensor) -> tuple[list[int], list[float]]:
        """The centres' rows, and each ball's mean of the losses that were left."""
        search = _Search(x, losses, self.size)
        rows: list[int] = []
        remaining: list[float] = []
        while len(rows) < self.n_slices and (not rows or search.anything_left):
            row = search.worst()
            rows.append(row)
            remaining.append(float(search.means[row]))
            search.take(row)
        return rows, remaining

    def _described(self, outputs: ModelOutputs, row: int, distances: Tensor, remaining: float) -> dict[str, Any]:
        inside = distances.topk(self.size, largest=False).indices
        return {
            "center": outputs.example_ids[row],
            "radius": float(distances[inside].max()),
            "mean_loss": float(outputs.losses[inside].mean()),
            "remaining_loss": remaining,
        }


class _Search:
    """The mean losses of all balls, kept up to date as far as it takes to know the largest.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    losses : Tensor, shape (n,), in nats
    size : int, in [1, n]

    Attributes
    ----------
    means : Tensor, shape (n,)
        Mean loss of the ball around each example: now, or, where `is_stale`, when losses were no smaller.
    """

    def __init__(self, x: Tensor, losses: Tensor, size: int) -> None:
        self.losses, self.floor, self.size = losses.clone(), losses.min(), size
        # distances by matrix product lose the digits of what all rows share
        self.x = x - x.mean(dim=0)
        self.half_squares = self.x.square().sum(dim=1) / 2  # (n,)
        self.means = torch.empty_like(losses)
        self.is_stale = torch.zeros_like(losses, dtype=torch.bool)
        starts = range(0, len(x), BLOCK)
        for start in progress(starts, "blocks of balls", total=len(starts)):
            rows = torch.arange(start, min(start + BLOCK, len(x)), device=x.device)
            self.means[rows] = self._means_around(rows)

    @property
    def anything_left(self) -> bool:
        return bool((self.losses > self.floor).any())

    def worst(self) -> int:
        """The row whose ball has the largest mean loss now."""
        while True:
            fresh = torch.where(self.is_stale, -torch.inf, self.means)
            stale = torch.where(self.is_stale, self.means, -torch.inf).topk(min(BLOCK, len(self.means)))
            rows = stale.indices[stale.values > fresh.max()]
            if len(rows) == 0:
                return int(fresh.argmax())
            self.means[rows] = self._means_around(rows)
            self.is_stale[rows] = False

    def take(self, row: int) -> None:
        """Let the members of the ball around this row have the smallest loss there is."""
        rows = torch.tensor([row], device=self.x.device)
        self.losses[self._neighbours(rows)[0]] = self.floor
        self.is_stale[:] = True

    def _means_around(self, rows: Tensor) -> Tensor:
        return self.losses[self._neighbours(rows)].mean(dim=1)

    def _neighbours(self, rows: Tensor) -> Tensor:
        """The nearest examples of each of these rows, itself among them: shape (rows, size), int64."""
        # x.y - |y|^2 / 2 falls as |x - y|^2 rises: |x|^2 is common to a row
        closeness = torch.addmm(self.half_squares, self.x[rows], self.x.T, beta=-1)  # (rows, n)
        return closeness.topk(self.size, sorted=False).indices
