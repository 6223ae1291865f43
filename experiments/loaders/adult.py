"""Adult: the income of people in the United States census of 1994."""

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
from experiments.reading.division import divide
from experiments.reading.features import features
from experiments.reading.sources import Download, Source
from experiments.reading.tables import by_id, codes, numbers, read_table, refuse_empty_classes, refuse_rows

# of adult.names, in the file's order
COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
)
RANGES = {
    "age": (0, 150),
    "fnlwgt": (0, 1e7),
    "education_num": (1, 16),
    "capital_gain": (0, 1e6),
    "capital_loss": (0, 1e6),
    "hours_per_week": (0, 168),
}
CATEGORIES = [name for name in COLUMNS if name not in RANGES and name != "income"]
ATTRIBUTES = ["sex", "race", "age", "age_band", "education", "marital_status", "occupation", "native_country"]
BANDS = {"below 25": 0, "25-34": 25, "35-44": 35, "45-54": 45, "55-64": 55, "65 and more": 65}  # the lowest age
INCOMES = {"<=50K": 0, ">50K": 1}
FILES = {"train": "adult.data", "test": "adult.test"}
SHA256 = {
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}


@dataclass(frozen=True)
class Adult:
    """People in the United States census of 1994; the label is an income above 50,000 dollars.

    Numbers have mean 0 and deviation 1 over the training split; each category of the training split is a column of
    zeros and ones, what is unknown ("?") one of them.

    Parameters
    ----------
    folder : str
        Below the data root: `adult.data` and `adult.test`.
    validation_share : float
        Of the publisher's training rows, drawn by seed; in [0, 1).

    Notes
    -----
    Becker and Kohavi (1996), UCI machine learning repository; a data set of the Spotlight paper, figure A1.
    """

    version: ClassVar[int] = 1

    folder: str = "uci"
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})

    @property
    def source(self) -> Source:
        address = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
        return Source(
            folder=self.folder,
            instruction=(
                "Get adult.data and adult.test from https://archive.ics.uci.edu/dataset/2/adult, without changing them."
            ),
            licence="CC BY 4.0",
            downloads=tuple(Download(f"{address}/{name}", name, sha256) for name, sha256 in SHA256.items()),
        )

    def load(self, root: Path, seed: int) -> Dataset:
        tables = {name: self._table(root, name) for name in FILES}
        n_train = len(tables["train"])
        rows = divide(n_train, {"validation": self.validation_share}, "train", seed)
        rows["test"] = np.arange(n_train, n_train + len(tables["test"]))
        table = pd.concat(tables.values())
        examples = features(table[list(RANGES)].to_numpy(dtype=np.float64), table[CATEGORIES], rows["train"])
        return assembled(
            name="adult",
            modality="table",
            class_names=INCOMES,
            splits={name: _split(examples[r], table.iloc[r]) for name, r in rows.items()},
            root=root,
            files=[f"{self.folder}/{file}" for file in FILES.values()],
        )

    def _table(self, root: Path, name: str) -> pd.DataFrame:
        path = self.source.path(root, FILES[name])
        table = read_table(path, COLUMNS, names=COLUMNS, skipinitialspace=True, skiprows=_n_lines_to_skip(path))
        table["income"] = table["income"].str.removesuffix(".")
        labels = codes(table, "income", path, INCOMES)
        refuse_empty_classes(labels, tuple(INCOMES), path)
        table["label"] = labels.numpy()
        for column in CATEGORIES:
            refuse_rows(table, column, path, (table[column] == "").to_numpy(), 'a category, or "?" for unknown')
        for column, (low, high) in RANGES.items():
            table[column] = numbers(table, column, path, low, high)
        table["age_band"] = np.array(list(BANDS))[np.digitize(table["age"], list(BANDS.values())) - 1]
        table["id"] = [f"{name}-{row:05d}" for row in range(len(table))]
        return by_id(table, "id", path)


def _n_lines_to_skip(path: Path) -> int:
    """The publisher's adult.test begins with a line that is no row: |1x3 Cross validator."""
    with path.open("rb") as file:
        return int(file.read(1) == b"|")


def _split(examples: Tensor, table: pd.DataFrame) -> Split:
    return Split(
        example_ids=tuple(table.index),
        examples=examples,
        labels=torch.tensor(table["label"].to_numpy(copy=True)),
        attributes=table[ATTRIBUTES],
    )
