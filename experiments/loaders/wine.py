"""Wine quality: chemistry and taste of Portuguese wines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide_groups
from experiments.reading.features import features
from experiments.reading.sources import Download, Source
from experiments.reading.tables import by_id, numbers, read_table, refuse_empty_classes, refuse_rows

MEASUREMENTS = (
    *("fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides", "free sulfur dioxide"),
    *("total sulfur dioxide", "density", "pH", "sulphates", "alcohol"),
)
LARGEST = 1e6
SHA256 = {
    "red": "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
    "white": "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
}


@dataclass(frozen=True)
class Wine:
    """Red and white wines together; the label is whether tasters found the quality high enough.

    The 11 measurements have mean 0 and deviation 1 over the training split. The colour is an attribute and no
    feature. Splits are drawn by seed; rows with the same measurements (a fifth of all repeat another) go into the same
    split, or a model would be audited on what it was trained on.

    Parameters
    ----------
    folder : str
        Below the data root: `winequality-red.csv` and `winequality-white.csv`.
    threshold : int
        The quality, from 0 to 10, from which on a wine is called good.
    train_share, validation_share : float
        Of the different rows, in [0, 1), with a sum below 1; the rest is the test split.

    Notes
    -----
    Cortez et al. (2009), UCI machine learning repository; a data set of the Spotlight paper, figure A1.
    """

    version: ClassVar[int] = 1

    folder: str = "uci"
    threshold: int = field(default=6, metadata={"min": 1, "max": 10})
    train_share: float = field(default=0.5, metadata={"above": 0, "below": 1})
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})

    @property
    def source(self) -> Source:
        address = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality"
        return Source(
            folder=self.folder,
            instruction=(
                "Get winequality-red.csv and winequality-white.csv from "
                "https://archive.ics.uci.edu/dataset/186/wine+quality, without changing them."
            ),
            licence="CC BY 4.0",
            downloads=tuple(Download(f"{address}/{_file(c)}", _file(c), sha256) for c, sha256 in SHA256.items()),
        )

    def load(self, root: Path, seed: int) -> Dataset:
        table = pd.concat([self._table(root, colour) for colour in SHA256])
        labels = torch.from_numpy((table["quality"] >= self.threshold).to_numpy(dtype=np.int64))
        refuse_empty_classes(labels, self._classes, root / self.folder)
        measured = table[list(MEASUREMENTS)]
        groups = measured.groupby(list(MEASUREMENTS)).ngroup().to_numpy()
        shares = {"train": self.train_share, "validation": self.validation_share}
        rows = divide_groups(groups, shares, "test", seed, strata=labels.numpy())
        examples = features(measured.to_numpy(dtype=np.float64), pd.DataFrame(index=table.index), rows["train"])
        return assembled(
            name="wine",
            modality="table",
            class_names=self._classes,
            splits={name: _split(table.iloc[r], examples[r], labels[r]) for name, r in rows.items()},
            root=root,
            files=[f"{self.folder}/{_file(colour)}" for colour in SHA256],
        )

    @property
    def _classes(self) -> tuple[str, str]:
        return f"quality below {self.threshold}", f"quality {self.threshold} or more"

    def _table(self, root: Path, colour: str) -> pd.DataFrame:
        path = self.source.path(root, _file(colour))
        table = read_table(path, (*MEASUREMENTS, "quality"), separator=";")
        for column in MEASUREMENTS:
            table[column] = numbers(table, column, path, 0, LARGEST)
        quality = numbers(table, "quality", path, 0, 10)
        refuse_rows(table, "quality", path, quality % 1 != 0, "a whole number")
        table["quality"], table["colour"] = quality.astype(np.int64), colour
        table["id"] = [f"{colour}-{line:04d}" for line in table.index]
        return by_id(table, "id", path)


def _file(colour: str) -> str:
    return f"winequality-{colour}.csv"


def _split(table: pd.DataFrame, examples: Tensor, labels: Tensor) -> Split:
    return Split(tuple(table.index), examples, labels, table[["colour", "quality"]])
