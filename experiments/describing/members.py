"""The members of slices, the strongest first."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from experiments.describing.problems import FoundProblem
from experiments.finished import FinishedRun


def ranked(run: FinishedRun, most: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """The number and the members of each of the first slices: rows of `run.examples`, an empty slice has none.

    The strongest members come first, among equal ones those of the highest loss.
    """
    found = FoundProblem(run, "all").scored
    for index in range(1, min(most, found.slices.n_slices) + 1):
        yield index, found.ranked(index)


def strongest(run: FinishedRun, n: int, most: int) -> pd.DataFrame:
    """The n strongest members of each of the first slices, with the number of their slice in a column of that name."""
    chosen = [members.head(n).assign(slice=index) for index, members in ranked(run, most)]
    return pd.concat([run.examples.head(0).assign(slice=0), *chosen], ignore_index=True)
