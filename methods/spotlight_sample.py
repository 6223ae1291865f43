"""Spotlights over more examples than one wants to pass over thousands of times: a sample first, then the neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.spotlight_ascent import Ascent, ascend, distances
from methods.spotlight_barrier import NARROWEST
from methods.spotlight_rows import Rows

FIRST_WIDTH = 0.5  # w / S where the neighbours take over: the sample's spotlight is about as large as it should be
RATE, PATIENCE = 0.1, 5  # times those on the sample: at the full rate it would lose its place, and find it too late
HELD = 10  # times the largest size: a spotlight of total weight S reaches several times S examples


def spread(n: int, n_sample: int) -> Tensor:
    """Rows of a sample, one drawn from each of n_sample stretches of (nearly) equal length.

    The draw has a fixed seed. Rows near each other are often of one class: so the sample is stratified, and reading it
    goes through a file from front to back.

    Returns
    -------
    Tensor, shape (n_sample,), int64, ascending

    Examples
    --------
    >>> (spread(9, 3) // 3).tolist()
    [0, 1, 2]
    """
    bounds = torch.arange(n_sample + 1) * n // n_sample
    place = torch.rand(n_sample, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return bounds[:-1] + (place * bounds.diff()).long()


def refine(
    rows: Rows,
    losses: Tensor,
    sizes: Tensor,
    penalties: Tensor,
    found: Ascent,
    *,
    n_held: int,
    passes: int,
    steps: int,
    learning_rate: float,
    patience: int,
) -> Ascent:
    """Go on over all examples from where spotlights ended on a sample.

    An example farther from a centre than the radius takes no part in a step. So the nearest examples are held, and the
    ascent goes on over these alone: it is the ascent over all as long as the spotlight stays among them, by the
    triangle inequality. One that leaves them gets another pass over all examples, for its new neighbours.

    Parameters
    ----------
    rows, losses, sizes, penalties
        Of all examples; see `ascend`.
    found : Ascent
        On the sample.
    n_held : int, >= 1
        Examples that are held at once, more where sizes need them.
    passes : int, >= 1
        At most, for each spotlight.
    steps, learning_rate, patience
        Those on the sample.

    Returns
    -------
    Ascent
        Its sizes and objectives are those over all examples; its history is that on the sample. A spotlight is never
        worse than where it ended on the sample.
    """
    n_held = min(len(rows), max(n_held, round(HELD * float(sizes.max()))))
    options = {"steps": steps, "learning_rate": RATE * learning_rate, "patience": PATIENCE * patience}
    ends = []
    for lane in range(len(losses)):
        one = slice(lane, lane + 1)
        problem = _Problem(rows, losses[one], sizes[one], penalties[one])
        best = place = problem.at(found.centers[one], found.log_precisions[one])
        for _ in range(passes):
            before, place = place, problem.among_neighbours(place, n_held, options)
            best = max(best, place, key=lambda each: float(each.objective))
            if len(rows) <= n_held or place.is_within(before, n_held):
                break
        ends.append(best)
    return Ascent(
        centers=torch.cat([end.center for end in ends]),
        log_precisions=torch.cat([end.log_precision for end in ends]),
        sizes=torch.cat([end.size for end in ends]),
        objectives=torch.cat([end.objective for end in ends]),
        history=found.history,
    )


@dataclass(frozen=True, eq=False)
class _Place:
    """Where one spotlight is, and what one pass over all examples says of it."""

    center: Tensor  # (1, d)
    log_precision: Tensor  # (1,)
    size: Tensor  # (1,)
    objective: Tensor  # (1,)
    distances: Tensor  # (n,), squared

    def is_within(self, other: _Place, n_nearest: int) -> bool:
        """Whether it reaches no example but those nearest to the other place."""
        reach = other.distances.kthvalue(n_nearest).values.sqrt()
        return bool((self.center - other.center).norm() + (-self.log_precision / 2).exp() <= reach)


@dataclass(frozen=True, eq=False)
class _Problem:
    """One spotlight's: all examples, its losses (1, n), size (1,) and penalty (1,)."""

    rows: Rows
    losses: Tensor
    size: Tensor
    penalty: Tensor

    def at(self, center: Tensor, log_precision: Tensor) -> _Place:
        (to_all,) = distances(self.rows, center)
        weights = (1 - log_precision.exp() * to_all).clamp_min_(0)
        total, width = weights.sum().clamp_min(torch.finfo(weights.dtype).tiny), NARROWEST * self.size
        short = (self.size + width - total).clamp_min(0) / width
        objective = torch.dot(weights, self.losses[0]) / total - self.penalty * short.square()
        return _Place(center, log_precision, total[None], objective.to(weights), to_all)

    def among_neighbours(self, place: _Place, n_held: int, options: dict[str, Any]) -> _Place:
        """Where the spotlight ends over the examples nearest to a place."""
        some = place.distances.topk(n_held, largest=False).indices.sort().values
        first_width = torch.minimum(self.size * FIRST_WIDTH, (len(self.rows) - self.size).clamp_min(1))
        problem = Rows(self.rows[some]), self.losses[:, some], self.size, self.penalty
        end = ascend(*problem, place.center, place.log_precision, widths=first_width, **options)
        return self.at(end.centers, end.log_precisions)
