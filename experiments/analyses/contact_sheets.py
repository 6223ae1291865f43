"""Pictures of the strongest members of each slice, beside random ones, with label, prediction and loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.analyses._sheets import Strip, cells, draw, say_why, slice_strips
from experiments.analysing import COLUMNS, Output
from experiments.describing.data import pictures
from experiments.describing.names import file_names
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

SEED = 0  # of the random examples: the same beside all runs of a data set


def analyse(
    runs: Sequence[FinishedRun], out: Output, n: int = 8, most: int = 5, random_sample: bool = True
) -> pd.DataFrame:
    """One picture a run, and a table of the examples in all of them.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Where examples are no pictures, or the data are not here, a sentence says so.
    out : Output
    n : int
        Examples of a slice: the strongest members, among equal ones those of the highest loss.
    most : int
        Slices that are drawn, the worst first.
    random_sample : bool
        Whether n examples drawn from the whole split come first.

    Returns
    -------
    DataFrame
        Without rows: a picture has no numbers.

    Notes
    -----
    After the Spotlight paper, figures 2 and 3.
    """
    if n < 1 or most < 0:
        raise InvalidInput(f"n is {n} and most is {most}, expected at least 1 picture and no negative number of slices")
    tables, names = [], titles(list(runs))
    for run, name, file in zip(runs, names, file_names(names), strict=True):
        strips = [random_strip(run, n)] * random_sample + slice_strips(run, n, most)
        if not strips:
            out.say(f"{name}: there is no slice to draw.")
            continue
        try:
            found = pictures(run, run.identity["split"], pd.concat([strip.examples["id"] for strip in strips]))
        except InvalidInput as error:
            say_why(run, error, out)
            continue
        caption = f"{name}: label, prediction (red where it is wrong) and loss in nats of the strongest members."
        draw([[(strip.title, cells(strip.examples, found))] for strip in strips], n, out, file, caption, run.dataset)
        tables += [_table(name, strip) for strip in strips]
    if tables:
        out.table(pd.concat(tables), "examples", "What the pictures show.")
    return pd.DataFrame(columns=list(COLUMNS))


def random_strip(run: FinishedRun, n: int) -> Strip:
    """Examples drawn from the whole split, in order of their ids."""
    examples = run.examples
    rows = np.random.default_rng(SEED).choice(len(examples), min(n, len(examples)), replace=False)
    title = f"random examples of the split: mean loss {examples['loss'].mean():.2f}, n={len(examples)}"
    return Strip(title, None, examples.iloc[np.sort(rows)])


def _table(name: str, strip: Strip) -> pd.DataFrame:
    shown = strip.examples[["id", "label", "prediction", "loss"]]
    return shown.assign(run=name, slice=strip.slice or "random")[["run", "slice", *shown]]
