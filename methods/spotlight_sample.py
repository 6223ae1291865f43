"""Spotlights over more examples than one wants to pass over thousands of times: a sample first, then the neighbours."""

from __future__ import annotations

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
        problem = rows, losses[one], sizes[one], penalties[one]
        at = found.centers[one], found.log_precisions[one]
        best = _over_all(problem, at)
        for _ in range(passes):
            at, is_among_them = _among_neighbours(problem, at, n_held, options)
            best = max(best, _over_all(problem, at), key=lambda end: float(end.objectives))
            if is_among_them:
                break
        ends.append(best)
    return Ascent(
        centers=torch.cat([end.centers for end in ends]),
        log_precisions=torch.cat([end.log_precisions for end in ends]),
        sizes=torch.cat([end.sizes for end in ends]),
        objectives=torch.cat([end.objectives for end in ends]),
        history=found.history,
    )


def _among_neighbours(
    problem: tuple[Rows, Tensor, Tensor, Tensor], at: tuple[Tensor, Tensor], n_held: int, options: Any
) -> tuple[tuple[Tensor, Tensor], bool]:
    """Where one spotlight ends over the examples nearest to it, and whether it reaches none beyond them."""
    rows, losses, sizes, penalties = problem
    center, _ = at
    nearest = distances(rows, center)[0].topk(n_held, largest=False)
    reach, some = nearest.values.max().sqrt(), nearest.indices.sort().values
    held, first_width = Rows(rows[some]), torch.minimum(sizes * FIRST_WIDTH, (len(rows) - sizes).clamp_min(1))
    end = ascend(held, losses[:, some], sizes, penalties, *at, widths=first_width, **options)
    farthest = (end.centers[0] - center[0]).norm() + (-end.log_precisions[0] / 2).exp()
    return (end.centers, end.log_precisions), bool(farthest <= reach) or n_held == len(rows)


def _over_all(problem: tuple[Rows, Tensor, Tensor, Tensor], at: tuple[Tensor, Tensor]) -> Ascent:
    """The same place, with size and objective over all examples."""
    return ascend(*problem, *at, steps=1, learning_rate=0.0, widths=NARROWEST * problem[2])
