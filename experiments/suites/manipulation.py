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

ROUNDING = 1e-12
MOST_OFF = 0.1  # of a coefficient of correlation, where few examples are left


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

    def check_members(self, cells: Cells) -> None:
        """Raise `InvalidInput` where training has nothing of the slice, so that there is nothing to change."""
        if not cells.both.any():
            raise InvalidInput(f"the slice {self.slice_names(cells)[0]!r} has no training examples: choose another")


class Rare(_OneSlice):
    """The slice is rare in training: `strength` is its share of the class's training examples, in [0, 1)."""

    def train(self, labels: Tensor, cells: Cells, strength: float, n_classes: int, seed: int) -> Manipulated:
        members, others = np.flatnonzero(cells.both), int((cells.of_class & ~cells.with_value).sum())
        _expect(0 <= strength < 1, strength, "a share of the class, at least 0 and below 1")
        self.check_members(cells)
        if not others:
            raise InvalidInput(f"all training examples of {cells.class_name} have {cells.value}: choose another slice")
        wanted = round(strength / (1 - strength) * others)
        if wanted > len(members):
            most = _rounded_down(len(members) / (len(members) + others))
            raise InvalidInput(
                f"the slice {self.slice_names(cells)[0]!r} has {len(members):,} training examples, {wanted:,} are "
                f"needed for a share of {strength:g}: expected a strength of at most {most}"
            )
        kept = np.random.default_rng(seed).permutation(members)[:wanted]
        rows = np.sort(np.concatenate([np.flatnonzero(~cells.both), kept]))
        return Manipulated(rows, labels[torch.from_numpy(rows)])


class NoisyLabel(_OneSlice):
    """Labels in the slice are wrong in training, each with probability `strength`, in (0, 1]."""

    def train(self, labels: Tensor, cells: Cells, strength: float, n_classes: int, seed: int) -> Manipulated:
        _expect(0 < strength <= 1, strength, "a probability above 0 and at most 1")
        self.check_members(cells)
        if n_classes < 2:
            raise InvalidInput("there is 1 class, so that no label can be wrong: expected at least 2")
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
        shares = _feasible_shares(cells, strength)
        names = dict(zip(rows_of, ("both", *self.slice_names(cells), "neither"), strict=True))
        empty = next((cell for cell, share in shares.items() if share > 0 and not len(rows_of[cell])), None)
        if empty is not None:
            raise InvalidInput(
                f"no training example of {cells.class_name} and {cells.value} is {names[empty]}, which a correlation "
                f"of {strength:g} needs: choose another class or value"
            )
        n = min(len(rows_of[cell]) / share for cell, share in shares.items() if share > 0)
        generator = np.random.default_rng(seed)
        kept = [generator.permutation(rows)[: round(shares[cell] * n)] for cell, rows in rows_of.items()]
        rows = np.sort(np.concatenate(kept))
        _check_reached(cells, rows, strength)
        return Manipulated(rows, labels[torch.from_numpy(rows)])


MANIPULATIONS: Mapping[str, Manipulation] = {
    "rare": Rare(),
    "correlation": Correlated(),
    "noisy_label": NoisyLabel(),
}


def _feasible_shares(cells: Cells, correlation: float) -> dict[tuple[bool, bool], float]:
    """Of the four cells; those that are none but for rounding are 0."""
    p_class, p_value = float(cells.of_class.mean()), float(cells.with_value.mean())
    if not (0 < p_class < 1 and 0 < p_value < 1):
        raise InvalidInput(
            f"{p_class:.0%} of the training examples are {cells.class_name} and {p_value:.0%} have {cells.value}: "
            "what does not vary has no correlation"
        )
    shares = _shares(p_class, p_value, correlation)
    if min(shares.values()) < -ROUNDING:
        raise InvalidInput(
            f"{cells.class_name} ({p_class:.0%} of the training examples) and {cells.value} ({p_value:.0%}) cannot "
            f"have a correlation of {correlation:g}: expected at most {_rounded_down(_largest(p_class, p_value))}"
        )
    return {cell: share if share > ROUNDING else 0.0 for cell, share in shares.items()}


def _check_reached(cells: Cells, rows: np.ndarray, correlation: float) -> None:
    """Raise `InvalidInput` where so few examples are left that their correlation is another one."""
    of_class, with_value = cells.of_class[rows], cells.with_value[rows]
    varies = len(rows) > 0 and 0 < of_class.mean() < 1 and 0 < with_value.mean() < 1
    if not varies or abs(np.corrcoef(of_class, with_value)[0, 1] - correlation) > MOST_OFF:
        raise InvalidInput(
            f"only {len(rows):,} training examples can be kept for a correlation of {correlation:g} between "
            f"{cells.class_name} and {cells.value}, too few to have it: expected more, or a smaller strength"
        )


def _rounded_down(number: float) -> str:
    """Three digits, and never more than the number: what a message allows must be allowed."""
    if number <= 0:
        return "0"
    scale = 10 ** (2 - math.floor(math.log10(number)))
    return f"{math.floor(number * scale) / scale:g}"


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
