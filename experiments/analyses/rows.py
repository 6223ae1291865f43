"""The strongest members of each slice as rows of a table: label, prediction, loss and what else is known of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from experiments.analysing import COLUMNS, Output
from experiments.describing.members import strongest
from experiments.describing.names import file_names
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

SHOWN = ["slice", "id", "label", "prediction", "loss"]


def analyse(
    runs: Sequence[FinishedRun],
    out: Output,
    columns: Sequence[str] | None = None,
    n: int = 10,
    most: int = 5,
) -> pd.DataFrame:
    """One table a run, for people to read.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each.
    out : Output
    columns : sequence of str, optional
        Attributes to show, in this order; by default all that the run's examples have.
    n : int, >= 1
        Rows of a slice: its strongest members, among equal ones those of the highest loss.
    most : int, >= 1
        Slices, the worst first.

    Returns
    -------
    DataFrame
        Measure n_shown, the rows of a slice that are in the table.

    Raises
    ------
    InvalidInput
        Naming the attributes that there are, where one of `columns` is none of them.

    Notes
    -----
    After figures D6 to D8 of d'Eon et al. (2022): rating, prediction, loss, film, genre, average rating, user.
    """
    if min(n, most) < 1:
        raise InvalidInput(f"n is {n} and most is {most}, expected at least 1 each")
    numbers, names = [], titles(list(runs))
    for run, name, file in zip(runs, names, file_names(names), strict=True):
        table = _table(run, columns, n, most)
        out.table(table, file, f"{name}: the strongest members of each slice, {n} at most.")
        if table.empty:
            out.say(f"{name}: no slice has members, so {out.name}-{file}.csv has no rows.")
        else:
            out.say(f"{name}: the strongest members of each slice stand in {out.name}-{file}.csv.")
        counted = table["slice"].value_counts().reindex(range(1, min(most, run.slices().n_slices) + 1), fill_value=0)
        numbers += [
            {**run.identity, "slice": index, "measure": "n_shown", "value": count, "n": count}
            for index, count in counted.items()
        ]
    return pd.DataFrame(numbers, columns=None if numbers else list(COLUMNS))


def _table(run: FinishedRun, columns: Sequence[str] | None, n: int, most: int) -> pd.DataFrame:
    members = strongest(run, n, most)
    wanted = run.attributes() if columns is None else columns
    attributes = {_heading(name): members[run.attribute(name).name] for name in wanted}
    return members[SHOWN].assign(**attributes).round(4)


def _heading(attribute: str) -> str:
    """An attribute may be called like one of the columns before it, and must not replace that."""
    return f"attribute_{attribute}" if attribute in SHOWN else attribute
