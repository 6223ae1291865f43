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
        return falls(self.outside, max(self.inside))


def fitness(correct: Tensor, true_slices: Tensor) -> Fitness:
    """Accuracies in and out of the true slices.

    Parameters
    ----------
    correct : Tensor, shape (n,), bool
    true_slices : Tensor, shape (n, g), bool
        The accuracy of what has no members is NaN.

    Examples
    --------
    >>> import torch
    >>> correct = torch.tensor([True, False, True, True])
    >>> found = fitness(correct, torch.tensor([[True], [True], [False], [False]]))
    >>> found.sizes, found.inside, found.outside, found.fit
    ((2,), (0.5,), 1.0, True)
    """
    right = correct.double()
    return Fitness(
        sizes=tuple(int(members.sum()) for members in true_slices.T),
        inside=tuple(float(right[members].mean()) for members in true_slices.T),
        outside=float(right[~true_slices.any(dim=1)].mean()),
    )


def falls(before: float, after: float) -> bool:
    """Whether an accuracy is lower by the gap that is asked for, or more.

    Examples
    --------
    >>> falls(0.9, 0.8), falls(0.9, 0.81)
    (True, False)
    """
    return before - after >= GAP - 1e-9  # of 0.9 and 0.8 the difference is a little less than 0.1
