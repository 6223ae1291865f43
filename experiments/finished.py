"""Finished runs as analyses read them: from their folders alone, nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from experiments.record import read_slices
from experiments.runs import check_unchanged, read_run
from methods.contract import Slices
from methods.errors import InvalidInput

NAMES = ("dataset", "model", "embedding", "corruption", "method", "variant")
NAMES_APART = ("variant", "dataset", "model", "embedding", "corruption", "split")  # what tells apart, beside the method


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run folder whose run is done.

    Parameters
    ----------
    folder : Path
    content : mapping
        Of its `run.json`.
    """

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """The run in this folder.

        Raises
        ------
        InvalidInput
            Where it is not done, or was changed by hand.
        """
        run = read_run(folder)
        if run.state != "done":
            raise InvalidInput(f"{folder} is {run.state}: run it again before it is analysed")
        check_unchanged(run)
        return cls(folder, run.content)

    @property
    def definition(self) -> Mapping[str, Any]:
        """Everything that defines its result: dataset, model, embedding, method, corruption, evaluation, seeds."""
        return self.content["definition"]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Tidy rows, as in `experiments.runs.COLUMNS`."""
        return pd.read_parquet(self.folder / "scores.parquet")

    @cached_property
    def identity(self) -> dict[str, str]:
        """What tables call it: dataset, model, embedding, corruption, method, variant, and the split of its slices."""
        first = self.scores.iloc[0]
        names = {name: str(first[name]) for name in NAMES}
        return {**names, "split": str(self.definition["evaluation"]["score_split"])}

    @property
    def dataset(self) -> str:
        """The data set's name in `conf/dataset`, without the settings that differ."""
        return self.identity["dataset"].split(" ")[0]

    @property
    def method(self) -> str:
        """The method's name, as tables call it."""
        return self.identity["method"]

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """The names of all problems, refused ones too; `all` is the only one of a run without corruption."""
        return tuple(dict.fromkeys(self.scores["problem"].astype(str)))

    def slices(self, problem: str = "all") -> Slices:
        """The slices found, the worst first; `InvalidInput` where the problem was refused."""
        return read_slices(self.folder, problem)

    @cached_property
    def all_examples(self) -> pd.DataFrame:
        """`examples.parquet`, with the columns of `experiments.examples.examples_table`."""
        return pd.read_parquet(self.folder / "examples.parquet")

    def examples_of(self, problem: str) -> pd.DataFrame:
        """The examples of all splits that a problem is about: its own where it has some, as stored problems have."""
        return self.table("examples", problem) if self.has_own_examples else self.all_examples

    @cached_property
    def examples(self) -> pd.DataFrame:
        """Those of the split in which slices were sought, in the order of the slices' rows."""
        table = self.all_examples
        return table[table["split"] == self.identity["split"]].reset_index(drop=True)

    @cached_property
    def has_own_examples(self) -> bool:
        """Whether each problem has examples of its own, as stored ones have: millions together."""
        return "problem" in pq.read_schema(self.folder / "examples.parquet").names

    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes of its examples."""
        columns = (name for name in self.examples.columns if name.startswith("attribute_"))
        return tuple(name.removeprefix("attribute_") for name in columns)

    def attribute(self, name: str) -> pd.Series:
        """One attribute of each example.

        Raises
        ------
        InvalidInput
            Naming those that there are.
        """
        if name not in self.attributes():
            have = ", ".join(self.attributes()) or "none"
            raise InvalidInput(f"{self.folder}: there is no attribute {name!r}, expected one of {have}")
        return self.examples[f"attribute_{name}"]

    def members(self, problem: str = "all") -> np.ndarray:
        """The hard slices: (n, s) bool, in the order of `examples`."""
        return self.slices(problem).members.numpy()

    def table(self, name: str, problem: str) -> pd.DataFrame:
        """The rows about one problem of a table (see `experiments.examples`); empty where a run has no such table."""
        path = self.folder / f"{name}.parquet"
        return pd.read_parquet(path, filters=[("problem", "==", problem)]) if path.exists() else pd.DataFrame()

    @property
    def opponents(self) -> pd.DataFrame:
        """Rows with problem, slice, rank, sign, example_id and influence; empty where none were asked for."""
        path = self.folder / "opponents.parquet"
        columns = ["problem", "slice", "rank", "sign", "example_id", "influence"]
        return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=columns)


def titles(runs: list[FinishedRun]) -> list[str]:
    """A short name for each run: its method, and whatever else tells it from the others.

    Words that all runs have in one place are left out. Two runs that differ only in settings which no name shows get
    the run's key behind it.
    """
    columns = [[run.identity["method"] for run in runs], *(_told_apart(runs, n) for n in NAMES_APART)]
    names = [" ".join(filter(None, words)) for words in zip(*columns, strict=True)]
    twice = {name for name in names if names.count(name) > 1}
    keys = [run.folder.name.rpartition("-")[2] for run in runs]
    return [f"{name} {key}" if name in twice else name for name, key in zip(names, keys, strict=True)]


def _told_apart(runs: list[FinishedRun], name: str) -> list[str]:
    """Of one name of each run, the words that not all of them have; `none` says nothing."""
    words = [run.identity[name].split(" ") for run in runs]
    common = set.intersection(*map(set, words)) if len(runs) > 1 else set(words[0])
    return [" ".join(word for word in of_run if word not in {*common, "none"}) for of_run in words]
