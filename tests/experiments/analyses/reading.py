"""What tests tell analyses of slices, and how they read their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd


def members(n: int, *slices: Iterable[int]) -> np.ndarray:
    """(n, s) from the rows of each slice's members."""
    table = np.zeros((n, len(slices)))
    for column, rows in enumerate(slices):
        table[list(rows), column] = 1
    return table


def the_one(numbers: pd.DataFrame, measure: str, **where: Any) -> dict[str, Any]:
    """The only row of a measure with these values in these columns; None is a missing one."""
    rows = numbers[numbers["measure"] == measure]
    for column, wanted in where.items():
        rows = rows[rows[column].isna() if wanted is None else rows[column] == wanted]
    (row,) = rows.to_dict("records")
    return row


def value(numbers: pd.DataFrame, measure: str, **where: Any) -> Any:
    """The value in that row."""
    return the_one(numbers, measure, **where)["value"]
