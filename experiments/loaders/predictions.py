"""Outputs of a model that ran elsewhere: bring your own predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from experiments.contract import SPLITS, Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide
from experiments.reading.images import ImageFiles
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
    held_out : float, in [0, 1)
        Without a column `split`: the share of the examples that is the test split, drawn by seed; the others are the
        validation split. With 0, all are the test split.
    """

    version: ClassVar[int] = 1

    path: Path
    class_names: tuple[str, ...] | None = None
    held_out: float = field(default=0.0, metadata={"min": 0, "below": 1})

    def identity(self) -> dict[str, str]:
        """The fingerprint says what is in the file."""
        return {"path": "(content)"}

    def load(self, root: Path, seed: int) -> Dataset:
        """`root` is not needed."""
        return self.dataset(read_outputs(self.path.expanduser(), self.class_names), seed)

    def dataset(self, given: GivenOutputs, seed: int) -> Dataset:
        """The same of what was read from the file."""
        folder = self.path.expanduser().parent
        return assembled(
            name="predictions",
            modality="table",
            class_names=given.class_names,
            splits={name: _split(given, rows, folder) for name, rows in self._divided(given, seed).items()},
            root=folder,
            files=(),  # all of the content is in the splits
            notes=(*given.notes, *_note_on_missing(given.images or (), folder)),
        )

    def _divided(self, given: GivenOutputs, seed: int) -> dict[str, np.ndarray]:
        """Rows of each split."""
        if given.splits is not None:
            return {name: np.flatnonzero(given.splits == name) for name in SPLITS if name in given.splits}
        others = {"validation": 1 - self.held_out} if self.held_out else {}
        return divide(len(given.ids), others, "test", seed)


def _note_on_missing(images: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Slices are found without pictures, but they cannot be shown."""
    named = [image for image in images if image]
    missing = [image for image in named if not (folder / image).is_file()]
    if not missing:
        return ()
    return (f"{len(missing):,} of {len(named):,} images are not there (the first: {folder / missing[0]})",)


def _split(given: GivenOutputs, chosen: np.ndarray, folder: Path) -> Split:
    rows = torch.from_numpy(chosen)
    images, texts = (
        None if all_ is None else tuple(all_[row] for row in chosen) for all_ in (given.images, given.texts)
    )
    return Split(
        example_ids=tuple(np.array(given.ids, dtype=object)[chosen]),
        examples=Stored(*(None if values is None else values[rows] for values in vars(given.stored).values())),
        labels=None if given.labels is None else given.labels[rows],
        attributes=given.attributes.iloc[chosen],
        paths=images,
        pictures=None if images is None else ImageFiles(folder, images),
        texts=texts,
    )
