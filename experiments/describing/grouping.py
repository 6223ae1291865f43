"""Runs that belong together, by what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from experiments.finished import FinishedRun

Key = TypeVar("Key", bound=Hashable)


def grouped(runs: Sequence[FinishedRun], key: Callable[[FinishedRun], Key]) -> dict[Key, list[FinishedRun]]:
    """The runs that share a key, in the order in which they come."""
    groups: dict[Key, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def without(name: str, *settings: str) -> str:
    """The name of a data set, say, without the values of these settings in it: `movielens leak=true slice_size=50`."""
    ends = tuple(f"{setting}=" for setting in settings)
    return " ".join(word for word in name.split(" ") if not word.startswith(ends))
