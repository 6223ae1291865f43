"""Suites of slice problems that were made here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from experiments.contract import ProblemSet
from experiments.loaders.dcbench import Kind
from experiments.reading.dcbench import INDEX
from experiments.reading.problem_sets import problem_set
from experiments.reading.sources import Absent
from methods.errors import unknown_name

COUNTS = "suite.json"


@dataclass(frozen=True)
class Suite:
    """Slice problems of our own, made by `slicebench make NAME`: models that were trained to fail on known slices.

    All problems that the settings choose are one run. Methods are fitted on the validation split and scored on the test
    split; the train split is there as well, under the labels that the model was trained with.

    Parameters
    ----------
    name : str
        Of the suite.
    problem, kind, dataset : str or tuple of str, optional
        Which problems: by id, by kind ("rare", "correlation", "noisy_label"), by data set; all of them where these are
        left out.
    partial : bool
        Use the problems that are there, even where more than 5% of those chosen are missing.
    folder : str
        Where suites are, below the data root.

    Notes
    -----
    The layout is dcbench's (Eyuboglu et al. 2022), and so are the three kinds.
    """

    version: ClassVar[int] = 1

    name: str
    problem: str | tuple[str, ...] | None = field(default=None, metadata={"min_items": 1})
    kind: Kind | tuple[Kind, ...] | None = field(default=None, metadata={"min_items": 1})
    dataset: str | tuple[str, ...] | None = field(default=None, metadata={"min_items": 1})
    partial: bool = False
    folder: str = "suites"

    def load(self, root: Path, seed: int) -> ProblemSet:
        """`seed` is not needed: the splits are those of the problems."""
        folder = root / self.folder / self.name
        counts = _counts(folder)
        if not (folder / INDEX).is_file():
            raise Absent(self._why_absent(root / self.folder, counts))
        chosen = {"problem": self.problem, "kind": self.kind, "dataset": self.dataset}
        made = problem_set(self.name, folder, chosen, partial=self.partial, remedy="make the suite again")
        return replace(made, notes=(*_notes(counts), *made.notes))

    def _why_absent(self, suites: Path, counts: Mapping[str, int]) -> str:
        if counts:
            return f"of the {counts['made']:,} problems of {suites / self.name} none is fit: there is nothing to run"
        have = sorted(path.name for path in suites.glob("*") if (path / INDEX).is_file())
        return unknown_name(f"no suite {self.name!r} is in {suites} (slicebench make makes some)", self.name, have)


def _counts(folder: Path) -> dict[str, int]:
    """How many problems were tried, made and fit; empty where nothing says so."""
    try:
        counts = json.loads((folder / COUNTS).read_text())
        return {name: int(counts[name]) for name in ("tried", "made", "fit")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    if not counts:
        return ()
    unmade = counts["tried"] - counts["made"]
    unfit = counts["made"] - counts["fit"]
    said = [f"{unfit:,} of {counts['made']:,} problems are not fit: left out"] if unfit else []
    return (*said, *([f"{unmade:,} problems are not made yet: the same slicebench make goes on"] if unmade else []))
