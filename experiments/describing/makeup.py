"""What a slice is made of: values of attributes that are more, or less, frequent in it than in the whole split."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.describing.attributes import as_text

FEW = 12  # values; of more numbers than that, only the mean says anything
STANDS_OUT = 3.0  # standard deviations from what a slice drawn at random has: of many values some are 2 away
ENOUGH = 5  # examples of a slice with a value, found or expected, before anything is said of it
PREFIX = "attribute_"


class Trait(NamedTuple):
    """A value of an attribute in a slice, or the mean of one that has many numbers.

    Parameters
    ----------
    attribute : str
    value : str, optional
        None where it is the mean.
    in_slice, in_all : float
        Shares of the examples in [0, 1], or means.
    deviations : float
        From what a slice of this size has that is drawn at random, in standard deviations of that.
    """

    attribute: str
    value: str | None
    in_slice: float
    in_all: float
    deviations: float

    @property
    def stands_out(self) -> bool:
        return abs(self.deviations) >= STANDS_OUT


def traits(examples: pd.DataFrame, member: np.ndarray, most_values: int = 200) -> list[Trait]:
    """All traits of a slice by their attributes, those furthest from chance first.

    Parameters
    ----------
    examples : DataFrame, n rows
        Of `examples.parquet`.
    member : array, shape (n,), bool
        At least one example inside.
    most_values : int
        An attribute of text with more different values names examples, and is left out.
    """
    found: list[Trait] = []
    for column in (name for name in examples if name.startswith(PREFIX)):
        values, name = examples[column], column.removeprefix(PREFIX)
        if is_measured(values):
            found += _mean(name, values.to_numpy(float), member)
        elif values.nunique(dropna=False) <= most_values:
            found += _shares(name, values, member)
    return sorted(found, key=lambda trait: -abs(trait.deviations))


def is_measured(values: pd.Series) -> bool:
    """Whether these are numbers, too many to be counted one by one."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return bool(is_number and values.nunique() > FEW)


def _mean(name: str, values: np.ndarray, member: np.ndarray) -> list[Trait]:
    known = np.isfinite(values)
    inside, all_ = values[known & member], values[known]
    if not len(inside) or np.ptp(all_) == 0:
        return []
    error = all_.std() * np.sqrt(_finite(len(inside), len(all_)) / len(inside))
    return [Trait(name, None, inside.mean(), all_.mean(), (inside.mean() - all_.mean()) / error if error else 0.0)]


def _shares(name: str, values: pd.Series, member: np.ndarray) -> list[Trait]:
    names, codes = _coded(values)  # (v,), (n,)
    if len(names) < 2:
        return []
    n = int(member.sum())
    of_all, of_slice = (np.bincount(part, minlength=len(names)) / len(part) for part in (codes, codes[member]))
    errors = np.sqrt(of_all * (1 - of_all) * _finite(n, len(values)) / n)  # (v,)
    errors[n * np.maximum(of_all, of_slice) < ENOUGH] = np.inf
    return [
        Trait(name, names[at], float(of_slice[at]), float(of_all[at]), _ratio(of_slice[at] - of_all[at], errors[at]))
        for at in np.argsort(-of_all, kind="stable")
    ]


def _coded(values: pd.Series) -> tuple[list[str], np.ndarray]:
    """The different values as text, and for each example the number of its own: each is put into words once."""
    of_rows, distinct = pd.factorize(values, use_na_sentinel=False)
    of_distinct, names = pd.factorize(np.array([as_text(value) for value in distinct], dtype=object))
    return list(names), of_distinct[of_rows]


def _finite(n: int, of: int) -> float:
    """The correction of a variance for n examples that are drawn without replacement."""
    return (of - n) / max(of - 1, 1)


def _ratio(difference: float, error: float) -> float:
    return float(difference / error) if error > 0 else 0.0
