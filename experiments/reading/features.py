"""Columns of a table as numbers that a network can take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

CONSTANT = 1e-12  # a deviation below this share of the mean is rounding


def features(numbers: np.ndarray, categories: pd.DataFrame, learn_from: Sequence[int] | np.ndarray) -> Tensor:
    """Numbers with mean 0 and deviation 1, then a column of zeros and ones for each category.

    A column of numbers that does not vary where it is learned from says nothing: zeros. One whose numbers are too large
    for that has some that are not finite; whoever knows its name must look.

    Parameters
    ----------
    numbers : array, shape (n, m), float64, finite
    categories : DataFrame, n rows
        Columns of texts; one that is not among the rows to learn from has zeros only.
    learn_from : sequence of int
        The rows whose means, deviations and categories count: those of the training split.

    Returns
    -------
    Tensor, shape (n, m + categories), float32

    Examples
    --------
    >>> colours = pd.DataFrame({"colour": ["red", "white", "pink"]})
    >>> features(np.array([[1.0], [3.0], [5.0]]), colours, learn_from=[0, 1]).tolist()
    [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [3.0, 0.0, 0.0]]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        columns = [_scaled(numbers, learn_from), *(_one_hot(categories[name], learn_from) for name in categories)]
        return torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind"))


def _scaled(numbers: np.ndarray, learn_from: Sequence[int] | np.ndarray) -> np.ndarray:
    """Array, shape (n, m), float64."""
    known = numbers[learn_from]
    mean, deviation = known.mean(axis=0), known.std(axis=0)  # (m,)
    deviation[~np.isfinite(deviation)] = np.nan  # by infinity all would become zeros
    constant = deviation <= CONSTANT * np.abs(mean)
    return np.where(constant, 0, (numbers - mean) / np.where(constant, 1, deviation))


def _one_hot(column: pd.Series, learn_from: Sequence[int] | np.ndarray) -> np.ndarray:
    """Array, shape (n, categories), bool."""
    known = sorted(column.iloc[learn_from].unique())
    codes = pd.Index(known).get_indexer(column)  # (n,), -1 where it is none of them
    return codes[:, None] == np.arange(len(known))
