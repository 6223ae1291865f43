"""One problem of a finished run: its examples under its labels, its slices, and what is known of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from evaluation.statistics import slice_statistics
from experiments.describing.texts import texts_in
from experiments.finished import FinishedRun
from experiments.record import FITTED, read_slices
from methods.contract import ModelOutputs, Slices
from methods.errors import InvalidInput

STATISTICS = ("size", "mean_loss", "accuracy", "gap", "gap_low", "gap_high")


@dataclass(frozen=True, eq=False)
class FoundIn:
    """Slices, and the examples that they are slices of.

    Parameters
    ----------
    split : str
    examples : DataFrame, n rows
        Of `examples.parquet`, in the order of the slices' rows, under the labels of the problem.
    slices : Slices
    """

    split: str
    examples: pd.DataFrame
    slices: Slices

    @property
    def members(self) -> np.ndarray:
        """The hard slices: (n, s) bool."""
        return self.slices.members.numpy()

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each example; none where no text holds a word."""
        return texts_in(self.examples)

    def ranked(self, index: int) -> pd.DataFrame:
        """The members of slice `index`, from 1: the strongest first, among equal ones those of the highest loss."""
        rows = np.flatnonzero(self.members[:, index - 1])
        strength, losses = self.slices.membership[:, index - 1].numpy(), self.examples["loss"].to_numpy(float)
        return self.examples.iloc[rows[np.lexsort((-losses[rows], -strength[rows]))]]  # the last key sorts first


@dataclass(frozen=True, eq=False)
class FoundProblem:
    """A problem whose slices were found.

    Parameters
    ----------
    run : FinishedRun
    name : str
    """

    run: FinishedRun
    name: str

    @cached_property
    def scored(self) -> FoundIn:
        """The half that the slices are shown and scored on."""
        split = self.run.identity["split"]
        return FoundIn(split, self._relabelled(self._examples(split)), self.run.slices(self.name))

    @cached_property
    def fitted(self) -> FoundIn | None:
        """The half that the method was fitted on; None where it is the same one, or its slices were not kept."""
        split = str(self.run.definition["evaluation"]["fit_split"])
        try:
            slices = read_slices(self.run.folder, self.name, FITTED)
        except InvalidInput:
            return None
        return FoundIn(split, self._relabelled(self._examples(split)), slices)

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """A row for each slice, numbered from 1: size, mean_loss (nats), accuracy, gap with its interval.

        The gap is the accuracy of the other examples minus that of the slice.
        """
        return numbers_of(self.run.scores, self.name)

    @cached_property
    def fitted_numbers(self) -> pd.DataFrame | None:
        """The same of the half that the method was fitted on, where that is another one and its slices were kept."""
        if self.fitted is None:
            return None
        evaluated = self.run.definition["evaluation"]
        return numbers_on(self.fitted, evaluated["confidence"], evaluated["resamples"])

    @property
    def n_relabelled(self) -> int:
        """How many examples of the scored half have another label here than in the data."""
        own = self.run.table("relabelled", self.name)
        return int(own["example_id"].isin(self.scored.examples["id"]).sum()) if len(own) else 0

    @cached_property
    def truth(self) -> np.ndarray | None:
        """The true slices of the scored half: (n, g) bool; None where there are none, or an older run kept none."""
        own = self.run.table("truth", self.name)
        if not len(own):
            return None
        truth = np.zeros((len(self.scored.examples), int(own["true_slice"].max()) + 1), dtype=bool)
        rows = pd.Index(self.scored.examples["id"]).get_indexer(own["example_id"])
        truth[rows, own["true_slice"].to_numpy(int)] = True
        return truth

    def _examples(self, split: str) -> pd.DataFrame:
        table = self.run.examples_of(self.name)
        return table[table["split"] == split].reset_index(drop=True)

    def _relabelled(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Under the labels that the problem gave them."""
        own = self.run.table("relabelled", self.name)
        own = own[own["example_id"].isin(examples["id"])] if len(own) else own  # the other half may be there, too
        if not len(own):
            return examples
        changed = examples.astype({"label": object}).set_index("id")
        columns = ["label", "loss", "correct"]
        changed.loc[own["example_id"], columns] = own[columns].to_numpy(dtype=object)
        kinds = {"loss": examples["loss"].dtype, "correct": bool}
        return changed.astype(kinds).reset_index()[list(examples.columns)]


def numbers_of(scores: pd.DataFrame, problem: str) -> pd.DataFrame:
    """What tidy scores say of each slice of a problem by itself; see `FoundProblem.numbers`."""
    own = scores[(scores["problem"] == problem) & scores["protocol"].isna() & scores["slice"].notna()]
    table = own.pivot_table(index="slice", columns="metric", values="value")
    table.index = pd.RangeIndex(1, len(table) + 1, name="slice")
    return table.reindex(columns=list(STATISTICS)).astype({"size": int}).rename_axis(columns=None)


def numbers_on(half: FoundIn, confidence: float, resamples: int) -> pd.DataFrame:
    """The same of a half that was not scored."""
    examples = half.examples
    outputs = ModelOutputs.from_arrays(
        list(examples["id"]),
        embeddings=np.zeros((len(examples), 1)),
        losses=examples["loss"].to_numpy(),
        correct=examples["correct"].to_numpy(bool),
    )
    rows = slice_statistics(half.slices, outputs, confidence=confidence, resamples=resamples)
    table = pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="slice"))
    return table.reindex(columns=list(STATISTICS)).astype({"size": int})
