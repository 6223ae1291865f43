"""Outputs of a model that ran elsewhere: bring your own predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from experiments.contract import SPLITS, Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.outputs_file import GivenOutputs, read_outputs
from experiments.reading.stored import Stored


@dataclass(frozen=True)
class Predictions:
    """A file of your own with a model's outputs (npz, parquet, csv); with model=precomputed.

    It holds embeddings; labels; and logits, probabilities or losses. What is named how stands at
    `experiments.reading.outputs_file.read_outputs`.

    Parameters
    ----------
    path : Path
        Of the file; where it lies does not matter to the results.
    class_names : tuple of str, optional
        Of the columns of logits. By default the names among the labels in alphabetical order, or "0", "1" ...

    Notes
    -----
    Without a column `split`, all examples are the test split.
    """

    version: ClassVar[int] = 1

    path: Path
    class_names: tuple[str, ...] | None = None

    def identity(self) -> dict[str, str]:
        """The fingerprint says what is in the file."""
        return {"path": "(content)"}

    def load(self, root: Path, seed: int) -> Dataset:
        """Neither is needed."""
        given = read_outputs(self.path.expanduser(), self.class_names)
        return assembled(
            name="predictions",
            modality="table",
            class_names=given.class_names,
            splits={name: _split(given, given.splits == name) for name in SPLITS if name in given.splits},
            root=self.path.parent,
            files=(),  # all of the content is in the splits
            notes=given.notes,
        )


def _split(given: GivenOutputs, chosen: np.ndarray) -> Split:
    rows = torch.from_numpy(np.flatnonzero(chosen))
    return Split(
        example_ids=tuple(np.array(given.ids, dtype=object)[chosen]),
        examples=Stored(*(None if values is None else values[rows] for values in vars(given.stored).values())),
        labels=None if given.labels is None else given.labels[rows],
        attributes=given.attributes[chosen],
    )
