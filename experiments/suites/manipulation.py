"""Three ways to make a model fail on a slice: by changing what it is trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from methods.contract import InvalidInput


@dataclass(frozen=True, eq=False)
class Cells:
    """Which examples of a split have the class of a problem, and which the value of its attribute.

    Parameters
    ----------
    of_class, with_value : array, shape (n,), bool
    class_name, value : str
        What they are called: "female", "age=0-2".
    """

    of_class: np.ndarray
    with_value: np.ndarray
    class_name: str
    value: str

    @property
    def both(self) -> np.ndarray:
        """Array, shape (n,), bool."""
        return self.of_class & self.with_value


@dataclass(frozen=True, eq=False)
class Manipulated:
    """What a model is trained on.

    Parameters
    ----------
    rows : array, shape (m,), int64, increasing
        Of the training split: those that stay.
    labels : Tensor, shape (m,), int64
    """

    rows: np.ndarray
    labels: Tensor


class Manipulation(Protocol):
    """A kind of slice problem."""

    def slice_names(self, cells: Cells) -> tuple[str, ...]:
        """The names of the true slices."""
        ...

    def true_slices(self, cells: Cells) -> Tensor:
        """Tensor, shape (n, g), bool."""
        ...

    def train(self, labels: Tensor, cells: Cells, strength: float, n_classes: int, seed: int) -> Manipulated:
        """The manipulated training split; `strength` is dcbench's alpha.

        Raises
        ------
        InvalidInput
            Where the data do not allow this strength.
        """
        ...


class _OneSlice:
    """What the kinds share whose slice is one value of an attribute within one class."""

    def slice_names(self, cells: Cells) -> tuple[str, ...]:
        return (f"{cells.class_name} {cells.value}",)

    def true_slices(self, cells: Cells) -> Tensor:
        return torch.from_numpy(cells.both).unsqueeze(1)


class Rare(_OneSlice):
    """The slice is rare in training: `strength` is its share of the class's training examples, in [0, 1)."""

    def train(self, labels: Tensor, cells: Cells, strength: float, n_classes: int, seed: int) -> Manipulated:
        members, others = np.flatnonzero(cells.both), int((cells.of_class & ~cells.with_value).sum())
        _expect(0 <= strength < 1, strength, "a share of the class, at least 0 and below 1")
        wanted = round(strength / (1 - strength) * others)
        if wanted > len(members):
            most = len(members) / max(1, len(members) + others)
            raise InvalidInput(
                f"the slice {self.slice_names(cells)[0]!r} has {len(members):,} training examples, {wanted:,} are "
                f"needed for a share of {strength:g}: expected a strength of at most {most:.3g}"
            )
        kept = np.random.default_rng(seed).permutation(members)[:wanted]
        rows = np.sort(np.concatenate([np.flatnonzero(~cells.both), kept]))
        return Manipulated(rows, labels[torch.from_numpy(rows)])


class NoisyLabel(_OneSlice):
    """Labels in the slice are wrong in training, each with probability `strength`, in (0, 1]."""

    def train(self, labels: Tensor, cells: Cells, strength: float, n_classes: int, seed: int) -> Manipulated:
        _expect(0 < strength <= 1, strength, "a probability above 0 and at most 1")
        generator = np.random.default_rng(seed)
        flipped = cells.both & (generator.random(len(labels)) < strength)
        steps = torch.from_numpy(generator.integers(1, n_classes, len(labels)))  # to any other class
        wrong = (labels + steps) % n_classes
        return Manipulated(np.arange(len(labels)), torch.where(torch.from_numpy(flipped), wrong, labels))


class Correlated:
    """Class and attribute are correlated in training: `strength` is Pearson's coefficient of the two, in (0, 1).

    The model is bad where the correlation does not hold: in the class without the value, and in the other classes with
    it. Of the training examples as many are kept as the coefficient allows with the shares of class and value as they
    are.
    """

    def slice_names(self, cells: Cells) -> tuple[str, ...]:
        return (f"{cells.class_name}, not {cells.value}", f"not {cells.class_name}, {cells.value}")

    def true_slices(self, cells: Cells) -> Tensor:
        columns = [cells.of_class & ~cells.with_value, ~cells.of_class & cells.with_value]
        return torch.from_numpy(np.stack(columns, axis=1))

    def train(self, labels: Tensor, cells: Cells, strength: float, n_classes: int, seed: int) -> Manipulated:
        _expect(0 < strength < 1, strength, "a coefficient above 0 and below 1")
        rows_of = {
            (y, a): np.flatnonzero((cells.of_class == y) & (cells.with_value == a))
            for y in (True, False)
            for a in (True, False)
        }
        shares = _shares(cells.of_class.mean(), cells.with_value.mean(), strength)
        if min(shares.values()) < 0:
            raise InvalidInput(
                f"{cells.class_name} ({cells.of_class.mean():.0%} of the training examples) and {cells.value} "
                f"({cells.with_value.mean():.0%}) cannot have a correlation of {strength:g}: expected at most "
                f"{_largest(cells.of_class.mean(), cells.with_value.mean()):.3g}"
            )
        n = min(len(rows_of[cell]) / share for cell, share in shares.items() if share > 0)
        generator = np.random.default_rng(seed)
        kept = [generator.permutation(rows)[: round(shares[cell] * n)] for cell, rows in rows_of.items()]
        rows = np.sort(np.concatenate(kept))
        return Manipulated(rows, labels[torch.from_numpy(rows)])


MANIPULATIONS: Mapping[str, Manipulation] = {
    "rare": Rare(),
    "correlation": Correlated(),
    "noisy_label": NoisyLabel(),
}


def _shares(p_class: float, p_value: float, correlation: float) -> dict[tuple[bool, bool], float]:
    """Of the four cells, at this correlation and with these shares of class and value."""
    both = p_class * p_value + correlation * _spread(p_class, p_value)
    return {
        (True, True): both,
        (True, False): p_class - both,
        (False, True): p_value - both,
        (False, False): 1 - p_class - p_value + both,
    }


def _spread(p_class: float, p_value: float) -> float:
    return math.sqrt(p_class * (1 - p_class) * p_value * (1 - p_value))


def _largest(p_class: float, p_value: float) -> float:
    spread = _spread(p_class, p_value)
    return (min(p_class, p_value) - p_class * p_value) / spread if spread else 0.0


def _expect(fits: bool, strength: float, what: str) -> None:
    if not fits:
        raise InvalidInput(f"strength is {strength:g}, expected {what}")
