"""Whether a model really fails on the true slices of a problem."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

GAP = 0.10  # by which the accuracy in a slice must be below the accuracy of the rest


@dataclass(frozen=True)
class Fitness:
    """How often a model is right in each true slice, and outside of all of them.

    Parameters
    ----------
    sizes : tuple of int
        Members of each true slice.
    inside : tuple of float
        Accuracy in each true slice, in [0, 1].
    outside : float
        Accuracy of the examples that are in none, in [0, 1].
    """

    sizes: tuple[int, ...]
    inside: tuple[float, ...]
    outside: float

    @property
    def gap(self) -> float:
        """By how much the slice that is done best is done worse than the rest."""
        return self.outside - max(self.inside)

    @property
    def fit(self) -> bool:
        """Whether the model fails on every true slice."""
        return self.gap >= GAP - 1e-9  # of 0.8 and 0.7 the difference is a little less than 0.1


def fitness(correct: Tensor, true_slices: Tensor) -> Fitness:
    """Accuracies in and out of the true slices.

    Parameters
    ----------
    correct : Tensor, shape (n,), bool
    true_slices : Tensor, shape (n, g), bool
        Each has members, and so has what is in none of them.

    Examples
    --------
    >>> import torch
    >>> correct = torch.tensor([True, False, True, True])
    >>> found = fitness(correct, torch.tensor([[True], [True], [False], [False]]))
    >>> found.sizes, found.inside, found.outside, found.fit
    ((2,), (0.5,), 1.0, True)
    """
    right = correct.double()
    rest = ~true_slices.any(dim=1)
    return Fitness(
        sizes=tuple(int(members.sum()) for members in true_slices.T),
        inside=tuple(float(right[members].mean()) for members in true_slices.T),
        outside=float(right[rest].mean()),
    )
