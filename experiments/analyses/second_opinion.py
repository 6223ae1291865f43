"""Whether an independent classifier contradicts the labels in a slice too: how much of it may be mislabelled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from experiments.analyses._measured import ALL, Measured, draw_intervals
from experiments.analysing import Output
from experiments.describing.shares import share
from experiments.describing.texts import texts_of
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

DISAGREES = "second_opinion_disagrees"
ERRORS = "errors"  # the group of what the model gets wrong in the whole split
SEED = 0  # of the folds
DRAWN = 10  # slices of a run


def analyse(runs: Sequence[FinishedRun], out: Output, folds: int = 5) -> pd.DataFrame:
    """How often a bag-of-words classifier, which saw neither the model nor the example, contradicts the label too.

    Parameters
    ----------
    runs : sequence of FinishedRun
        Of texts with at least two classes, with one problem each; others are left out, and a sentence says so.
    out : Output
    folds : int, >= 2
        Parts of the audited split; each is judged by a classifier that was trained on the labels of the others.

    Returns
    -------
    DataFrame
        Measure second_opinion_disagrees, a share with its 95% interval (Wilson's): of the members of each slice, of the
        whole split (group `all`), and of what the model gets wrong there (group `errors`).

    Raises
    ------
    InvalidInput
        Where no run has texts and labels.

    Notes
    -----
    For section 4.3 of d'Eon et al. (2022), which finds by reading that the reviews of highest loss are mislabelled.
    The classifier is a logistic regression on TF-IDF with balanced classes. It errs too, as often as the group `all`
    says: only what exceeds that points to wrong labels.
    """
    if folds < 2:
        raise InvalidInput(f"folds is {folds}, expected at least 2: the classifier must not see what it judges")
    measured = []
    for run, name in zip(runs, titles(list(runs)), strict=True):
        texts = texts_of(run)
        if not texts or run.examples["label"].nunique() < 2:
            out.say(f"{name}: its examples have no texts with labels of two classes, so it is left out.")
            continue
        disagrees = _disagrees(texts, tuple(run.examples["label"].astype(str)), folds)
        measured.append(Measured(name, run, pd.DataFrame(_of_run(run, disagrees))))
    if not measured:
        raise InvalidInput(f"none of the {len(runs)} runs has texts with labels, which a classifier could contradict")
    _report(measured, out)
    return pd.concat([one.numbers for one in measured], ignore_index=True)


@lru_cache(maxsize=2)  # the runs of a data set follow each other
def _disagrees(texts: tuple[str, ...], labels: tuple[str, ...], folds: int) -> np.ndarray:
    """Whether a classifier that was trained without an example contradicts its label: (n,), bool."""
    features = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)  # (n, t); no label is seen here
    given = np.array(labels)
    predicted, fold = given.copy(), _folds(given, folds)
    for held_out in (fold == index for index in np.unique(fold)):
        seen = given[~held_out]
        if len(set(seen)) == 1:  # a class with one member, which is judged now
            predicted[held_out] = seen[0]
            continue
        classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
        predicted[held_out] = classifier.fit(features[~held_out], seen).predict(features[held_out])
    disagrees: np.ndarray = predicted != given
    return disagrees


def _folds(labels: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each example, all classes spread evenly: (n,)."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def _of_run(run: FinishedRun, disagrees: np.ndarray) -> list[dict[str, Any]]:
    wrong = ~run.examples["correct"].to_numpy(bool)
    groups = {ALL: np.ones(len(wrong), dtype=bool), ERRORS: wrong}
    rows = [{**run.identity, "group": name, **share(disagrees[chosen])} for name, chosen in groups.items()]
    rows += [{**run.identity, "slice": i, **share(disagrees[m])} for i, m in enumerate(run.members().T, start=1)]
    return [{**row, "measure": DISAGREES} for row in rows if row["n"]]


def _report(measured: Sequence[Measured], out: Output) -> None:
    for one in measured:
        rows = one.numbers.reindex(columns=["slice", "group", "value", "n"])
        of_groups = rows.dropna(subset="group").set_index("group")["value"]
        errors = f", {of_groups[ERRORS]:.0%} of what the model gets wrong" if ERRORS in of_groups else ""
        of_slices = rows.dropna(subset="slice").head(DRAWN)[["slice", "value", "n"]].to_numpy()
        told = "".join(f"; slice {index:.0f}: {value:.0%} of {n:,.0f}" for index, value, n in of_slices)
        out.say(f"{one.name}: the second classifier contradicts {of_groups[ALL]:.0%} of all labels{errors}{told}.")
    label = "labels that the second classifier contradicts\ndotted: of the whole split, dashed: of the model's errors"
    caption = "Share of each slice whose label an independent bag-of-words classifier contradicts, with 95% interval."
    draw_intervals(measured, DISAGREES, out, "shares", label, caption, DRAWN, percent=True)
