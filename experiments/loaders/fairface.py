"""FairFace: photographs of faces with gender, age and race."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide
from experiments.reading.images import ImageFiles
from experiments.reading.sources import Source
from experiments.reading.tables import by_id, check_values, codes, read_table, refuse_empty_classes, with_files

GENDERS = {"Female": 0, "Male": 1}
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
RACES = ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White")
COLUMNS = ("file", "age", "gender", "race")


@dataclass(frozen=True)
class FairFace:
    """Faces (Karkkainen and Joo 2021); the label is gender, age and race are attributes.

    The publisher's validation images are the test split: their labels are the only ones to be scored on.

    Parameters
    ----------
    folder : str
        Below the data root: `fairface_label_train.csv`, `fairface_label_val.csv`, `train/1.jpg` ..., `val/1.jpg` ...
    validation_share : float
        Of the publisher's training images, drawn by seed; in [0, 1).
    partial : bool
        Use the images that are there, even where more than 5% of those in the table are missing.

    Notes
    -----
    The data set of the Spotlight paper, section 4.1.
    """

    version: ClassVar[int] = 1

    folder: str = "fairface"
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    partial: bool = False

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=(
                "Get the label files and the images (padding 0.25, 224x224) from https://github.com/joojs/fairface, "
                "so that fairface_label_train.csv, fairface_label_val.csv, train/ and val/ lie side by side."
            ),
            licence="CC BY 4.0",
        )

    def load(self, root: Path, seed: int) -> Dataset:
        train, notes = self._table(root, "train")
        refuse_empty_classes(codes(train, "gender", root, GENDERS), list(GENDERS), self._path(root, "train"))
        test, more_notes = self._table(root, "val")
        rows = divide(len(train), {"validation": self.validation_share}, "train", seed)
        tables = {**{name: train.iloc[r] for name, r in rows.items()}, "test": test}
        return assembled(
            name="fairface",
            modality="image",
            class_names=GENDERS,
            splits={name: self._split(root, table) for name, table in tables.items()},
            root=root,
            files=[f"{self.folder}/{file}" for table in (train, test) for file in table.index],
            notes=notes + more_notes,
        )

    def _path(self, root: Path, name: str) -> Path:
        return self.source.path(root, f"fairface_label_{name}.csv")

    def _table(self, root: Path, name: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
        path = self._path(root, name)
        table = read_table(path, COLUMNS)
        check_values(table, "age", path, AGES, "a spreadsheet turns 3-9 into 9-Mar: get the publisher's own file")
        check_values(table, "gender", path, GENDERS)
        check_values(table, "race", path, RACES)
        table, notes = with_files(table, table["file"], root / self.folder, path, self.partial)
        return by_id(table, "file", path), notes

    def _split(self, root: Path, table: pd.DataFrame) -> Split:
        paths = tuple(f"{self.folder}/{file}" for file in table.index)
        return Split(
            example_ids=tuple(table.index),
            examples=ImageFiles(root, paths),
            labels=codes(table, "gender", root / self.folder, GENDERS),
            attributes=table[["age", "race"]],
            paths=paths,
        )
