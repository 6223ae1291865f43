"""Splits of data that come without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.model_selection import train_test_split

from methods.contract import InvalidInput


def divide(
    n: int, sizes: Mapping[str, float | int], rest: str, seed: int, strata: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Rows of each split, drawn by seed.

    Parameters
    ----------
    n : int
        Rows to be divided.
    sizes : mapping from a split's name to its share of all rows (float) or its number of rows (int)
        None of 0: that split is left out.
    rest : str
        The split that gets all other rows.
    seed : int
    strata : array, shape (n,), optional
        Each split gets its share of each of these values.

    Returns
    -------
    dict
        Arrays of int64, sorted, disjoint, together all of range(n).

    Raises
    ------
    InvalidInput
        Where nothing would be left for `rest`, or a stratum is too small to be divided.

    Examples
    --------
    >>> {name: len(rows) for name, rows in divide(10, {"train": 0.5, "validation": 2}, "test", seed=0).items()}
    {'train': 5, 'validation': 2, 'test': 3}
    """
    sizes = {name: size for name, size in sizes.items() if size}
    taken = sum(size if isinstance(size, int) else size * n for size in sizes.values())
    if taken >= n:
        asked = ", ".join(f"{name} {size:g}" for name, size in sizes.items())
        raise InvalidInput(f"{asked} of {n:,} examples leave none for {rest}: expected below 1, or fewer examples")
    left, divided = np.arange(n), {}
    used = 0.0
    for name, size in sizes.items():
        wanted = size if isinstance(size, int) else size / (1 - used / n)
        used += size if isinstance(size, int) else size * n
        try:
            rows, left = train_test_split(
                left, train_size=wanted, stratify=None if strata is None else strata[left], random_state=seed
            )
        except ValueError as error:
            raise InvalidInput(f"{n:,} examples cannot be divided: {error}") from None
        divided[name] = np.sort(rows)
    return {**divided, rest: np.sort(left)}


def divide_groups(
    groups: np.ndarray, sizes: Mapping[str, float | int], rest: str, seed: int, strata: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Rows of each split, drawn by seed so that no group has rows in two splits.

    Parameters
    ----------
    groups : array, shape (n,)
        Of each row: the patient, the recording ...
    sizes, rest, seed
        As for `divide`, counted in groups.
    strata : array, shape (n,), optional
        As for `divide`; a group has the stratum of its first row.

    Examples
    --------
    >>> patients = np.array(["a", "b", "a", "c", "b"])
    >>> {name: rows.tolist() for name, rows in divide_groups(patients, {"train": 2}, "test", seed=0).items()}
    {'train': [0, 1, 2, 4], 'test': [3]}
    """
    _, first, group_of_row = np.unique(groups, return_index=True, return_inverse=True)
    divided = divide(len(first), sizes, rest, seed, None if strata is None else strata[first])
    return {name: np.flatnonzero(np.isin(group_of_row, chosen)) for name, chosen in divided.items()}


def draw(rows: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """At most n of the rows, drawn by seed, in their order; all of them where n is left out."""
    if n is None or n >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:n])
