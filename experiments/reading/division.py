"""Splits of data that come without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.model_selection import train_test_split

from methods.errors import InvalidInput, InvalidSetting


def divide(
    n: int,
    sizes: Mapping[str, float | int],
    rest: str,
    seed: int,
    strata: np.ndarray | None = None,
    unit: str = "examples",
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
    unit : str
        What is divided, for messages.

    Returns
    -------
    dict
        Arrays of int64, sorted, disjoint, together all of range(n).

    Raises
    ------
    InvalidSetting
        Where a split, or `rest`, would get nothing, or fewer rows than there are strata.
    InvalidInput
        Where a stratum is too small to be divided.

    Examples
    --------
    >>> {name: len(rows) for name, rows in divide(10, {"train": 0.5, "validation": 2}, "test", seed=0).items()}
    {'train': 5, 'validation': 2, 'test': 3}
    """
    sizes = {name: size for name, size in sizes.items() if size}
    taken = sum(size if isinstance(size, int) else size * n for size in sizes.values())
    if taken >= n:
        raise InvalidSetting(_too_much(sizes, f"{n:,} {unit}", rest))
    left, divided = np.arange(n), {}
    used = 0.0
    for name, size in sizes.items():
        wanted = size if isinstance(size, int) else int(size / (1 - used / n) * len(left))
        used += size if isinstance(size, int) else size * n
        kinds = None if strata is None else strata[left]
        least = _least(kinds, f"{n:,} {unit}")
        if not least <= wanted <= len(left) - least:
            raise InvalidSetting(_too_few(f"{name} {_said(size)} of {n:,} {unit}", wanted, least))
        rows, left = train_test_split(left, train_size=wanted, stratify=kinds, random_state=seed)
        divided[name] = np.sort(rows)
    return {**divided, rest: np.sort(left)}


def _too_much(sizes: Mapping[str, float | int], of: str, rest: str) -> str:
    asked = " and ".join(f"{name} {_said(size)}" for name, size in sizes.items())
    counted = all(isinstance(size, int) for size in sizes.values())
    return f"{asked} of {of} leave none for {rest}: {'ask for fewer' if counted else 'expected below 1 together'}"


def _said(size: float | int) -> str:
    return f"{size:,}" if isinstance(size, int) else f"{size:g}"


def _least(strata: np.ndarray | None, what: str) -> int:
    """Rows that each part must have, one of each stratum; raise for a stratum that cannot be in both parts."""
    if strata is None:
        return 1
    values, counts = np.unique(strata, return_counts=True)
    if counts.min() < 2:
        value = values[int(counts.argmin())]
        raise InvalidInput(f"{what} cannot be divided: the class or kind {value} has fewer than there are splits")
    return len(values)


def _too_few(asked: str, n_rows: int, least: int) -> str:
    bound = "one" if least == 1 else f"the {least} classes or kinds, of which each needs one"
    if n_rows < least:
        return f"{asked} are fewer than {bound}: ask for more, or for 0"
    return f"{asked} leave fewer than {bound}: ask for less"


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
    divided = divide(len(first), sizes, rest, seed, None if strata is None else strata[first], unit="groups")
    return {name: np.flatnonzero(np.isin(group_of_row, chosen)) for name, chosen in divided.items()}


def draw(rows: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """At most n of the rows, drawn by seed, in their order; all of them where n is left out."""
    if n is None or n >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:n])
