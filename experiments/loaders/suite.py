"""Suites of slice problems that were made here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from experiments.contract import ProblemSet
from experiments.loaders.dcbench import Kind
from experiments.reading.dcbench import INDEX
from experiments.reading.problem_sets import problem_set
from experiments.reading.sources import Absent


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
        if not (folder / INDEX).is_file():
            have = sorted(path.name for path in (root / self.folder).glob("*") if (path / INDEX).is_file())
            there = f", where there are {', '.join(have)}" if have else ""
            raise Absent(f"no suite {self.name!r} is in {root / self.folder}{there}: slicebench make {self.name}")
        chosen = {"problem": self.problem, "kind": self.kind, "dataset": self.dataset}
        return problem_set(self.name, folder, chosen, partial=self.partial, remedy=f"slicebench make {self.name}")
