"""What a report says of one discovered slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.describing.makeup import PREFIX, Trait, traits
from experiments.describing.problems import FoundIn, FoundProblem
from experiments.report.examples import OPPONENTS, Gallery, Shown, Words, columns_of, words_of
from experiments.report.words import name_of

CLASSES = 8  # of a distribution; the rest is put together
TRAITS, MORE_TRAITS = 8, 40  # told at once, and when asked for


@dataclass(frozen=True)
class ClassShare:
    """One class among the labels and the predictions of a slice, and in the whole split: shares in [0, 1]."""

    name: str
    labels: float
    predictions: float
    all_labels: float
    all_predictions: float


@dataclass(frozen=True)
class Half:
    """The numbers of a slice on one half of the data."""

    name: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Hit:
    """How a slice agrees with a true one: members in both, and the sizes of each."""

    index: int
    both: int
    size: int
    true_size: int


@dataclass(frozen=True)
class SliceSection:
    """One slice.

    Parameters
    ----------
    index : int
        From 1, the worst first.
    numbers : mapping
        size, mean_loss, accuracy, gap, gap_low, gap_high; nan where there is none.
    hits : list of Hit
        One for each true slice.
    warnings : list of str
        Of the method.
    error : Trait, optional
        The most common label and prediction among its wrong members.
    shown, worst : list of Shown
        Its strongest members, and others that are wrong, of the largest losses.
    columns : list of str
        Of the table that `shown` is, where it is one.
    words : Words
    classes : list of ClassShare
        Empty where examples have no labels.
    told, others : list of Trait
        What stands out, and what else there is.
    halves : list of Half
        Empty where the slice was found in the examples that it is shown on.
    opponents, proponents : list of Shown
        Training examples.
    """

    index: int
    numbers: Mapping[str, float]
    hits: list[Hit]
    warnings: list[str]
    error: Trait | None
    shown: list[Shown]
    worst: list[Shown]
    columns: list[str]
    words: Words
    classes: list[ClassShare]
    told: list[Trait]
    others: list[Trait]
    halves: list[Half]
    opponents: list[Shown]
    proponents: list[Shown]

    @property
    def first(self) -> Trait:
        """What to tell of it if there is room for one thing: what there is more of, if there is any."""
        return next((trait for trait in self.told if trait.deviations > 0), self.told[0])

    @property
    def kind(self) -> str:
        """How its examples are shown."""
        if any(one.picture for one in self.shown):
            return "pictures"
        return "texts" if any(one.text for one in self.shown) else "rows"


def section(problem: FoundProblem, index: int, gallery: Gallery) -> SliceSection:
    """All about slice `index`, from 1."""
    found = problem.scored
    member = found.members[:, index - 1]
    of_slice = traits(found.examples, member) if member.any() else []
    told = [trait for trait in of_slice if trait.stands_out][:TRAITS]
    words = words_of(found, index)
    diagnostics = found.slices.diagnostics[index - 1]
    shown, worst = gallery.of_slice(found, index, words, told) if member.any() else ([], [])
    return SliceSection(
        index=index,
        numbers=problem.numbers.loc[index].to_dict(),
        hits=_hits(problem.truth, member),
        warnings=[str(warning) for warning in diagnostics.get("warnings", ())],
        error=_most_common_error(found, member),
        shown=shown,
        worst=worst,
        columns=columns_of(found.examples, told),
        words=words,
        classes=_classes(found, member),
        told=told,
        others=[trait for trait in of_slice if trait not in told][:MORE_TRAITS],
        halves=_halves(problem, index),
        opponents=_training(problem, index, gallery, -1),
        proponents=_training(problem, index, gallery, 1),
    )


def _hits(truth: np.ndarray | None, member: np.ndarray) -> list[Hit]:
    if truth is None:
        return []
    return [
        Hit(at, int((column & member).sum()), int(member.sum()), int(column.sum()))
        for at, column in enumerate(truth.T, start=1)
    ]


def _most_common_error(found: FoundIn, member: np.ndarray) -> Trait | None:
    """Which label is taken for which, beside how often that happens in the whole split."""
    examples = found.examples
    known = examples[["label", "prediction"]].notna().all(axis=1)
    wrong = (~examples["correct"].astype(bool) & known).to_numpy(bool)  # (n,)
    if not (wrong & member).any():
        return None
    kinds = examples["label"].map(name_of) + " taken for " + examples["prediction"].map(name_of)
    kinds = kinds.where(wrong, "")  # of right ones there is one kind
    most_common = kinds[wrong & member].value_counts().index[0]
    one = np.where(kinds == most_common, most_common, "")
    told = traits(pd.DataFrame({f"{PREFIX}error": one}), member)  # none where nothing else ever happens
    return next((trait for trait in told if trait.value == most_common), Trait("error", most_common, 1.0, 1.0, 0.0))


def _classes(found: FoundIn, member: np.ndarray) -> list[ClassShare]:
    examples = found.examples
    if not member.any() or examples[["label", "prediction"]].isna().any(axis=None):
        return []
    parts = (examples[member], examples)
    shares = [part[column].value_counts(normalize=True) for part in parts for column in ("label", "prediction")]
    table = pd.DataFrame(dict(enumerate(shares))).fillna(0.0)
    table = table.loc[(table[0] + table[1]).sort_values(ascending=False, kind="stable").index]
    rows = [
        ClassShare(name_of(name), *map(float, row)) for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    if len(rows) <= CLASSES + 1:
        return rows
    rest = table.iloc[CLASSES:].sum()
    return [*rows[:CLASSES], ClassShare(f"{len(rows) - CLASSES} other classes", *map(float, rest))]


def _halves(problem: FoundProblem, index: int) -> list[Half]:
    found_in = problem.fitted_numbers
    if found_in is None or index not in found_in.index:
        return []
    halves = {"where it was found": found_in, "held out": problem.numbers}
    return [Half(name, numbers.loc[index].to_dict()) for name, numbers in halves.items()]


def _training(problem: FoundProblem, index: int, gallery: Gallery, sign: int) -> list[Shown]:
    table = gallery.opponents
    own = table[(table["problem"] == problem.name) & (table["slice"] == index - 1) & (table["sign"] == sign)]
    if own.empty:
        return []
    top = own.sort_values("rank").head(OPPONENTS)
    split = str(gallery.run.definition["evaluation"]["opponents_from"])
    influences: Any = pd.Series(top["influence"].to_numpy(float), index=top["example_id"])
    return gallery.of_training(problem.name, split, influences)
