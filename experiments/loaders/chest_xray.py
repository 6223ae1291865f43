"""Chest x-rays of children, with and without pneumonia."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide_groups
from experiments.reading.images import ImageFiles, image_names, note_on_others
from experiments.reading.sources import Source

CLASSES = ("NORMAL", "PNEUMONIA")
# IM-0115-0001, NORMAL2-IM-0383-0001-0002, person1_bacteria_2; in the publisher's later version BACTERIA-40699-0001
PATIENT = re.compile(r"(?:NORMAL2-)?IM-\d+|person\d+_(?:bacteria|virus)|(?:NORMAL|BACTERIA|VIRUS)-\d+")
CAUSE = re.compile(r"bacteria|virus", re.IGNORECASE)


@dataclass(frozen=True)
class ChestXray:
    """Chest x-rays (Kermany et al. 2018); the label is pneumonia, the cause is an attribute.

    The publisher's 16 validation images (`val`) are too few to be of use, and are not looked at.

    Parameters
    ----------
    folder : str
        Below the data root: `train/NORMAL`, `train/PNEUMONIA`, `test/NORMAL`, `test/PNEUMONIA`.
    validation_share : float
        Of the patients of the training images, drawn by seed within each cause; in [0, 1).

    Notes
    -----
    A data set of the Spotlight paper, section 4.5. Attributes come from the files' names: `cause` is normal, bacteria,
    virus, or unknown for an image of pneumonia that does not say; `patient` keeps a patient's images out of two
    splits, and is the file's own name where it tells none.
    """

    version: ClassVar[int] = 1

    folder: str = "chest_xray"
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=(
                "Get ChestXRay2017.zip from https://data.mendeley.com/datasets/rscbjbr9sj, or the same images from "
                "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia, and unpack it so that "
                "train/NORMAL, train/PNEUMONIA, test/NORMAL and test/PNEUMONIA lie there."
            ),
            licence="CC BY 4.0",
        )

    def load(self, root: Path, seed: int) -> Dataset:
        train, test = self._table(root, "train"), self._table(root, "test")
        sizes = {"validation": self.validation_share}
        rows = divide_groups(train["patient"].to_numpy(), sizes, "train", seed, train["cause"].to_numpy())
        tables = {**{name: train.iloc[r] for name, r in rows.items()}, "test": test}
        return assembled(
            name="chest_xray",
            modality="image",
            class_names=CLASSES,
            splits={name: self._split(root, table) for name, table in tables.items()},
            root=root,
            files=[f"{self.folder}/{file}" for table in (train, test) for file in table.index],
            notes=note_on_others(root / self.folder, {file.rpartition("/")[0] for file in (*train.index, *test.index)}),
        )

    def _table(self, root: Path, split: str) -> pd.DataFrame:
        """One row an image, indexed by its path, in the order of paths."""
        folders = {name: self.source.path(root, f"{split}/{name}") for name in CLASSES}
        files = sorted(f"{split}/{name}/{file}" for name, folder in folders.items() for file in image_names(folder))
        return pd.DataFrame([_described(file) for file in files], index=pd.Index(files, name="id"))

    def _split(self, root: Path, table: pd.DataFrame) -> Split:
        paths = tuple(f"{self.folder}/{file}" for file in table.index)
        return Split(
            example_ids=tuple(table.index),
            examples=ImageFiles(root, paths, mode="L"),
            labels=torch.tensor([CLASSES.index(file.split("/")[1]) for file in table.index]),
            attributes=table,
            paths=paths,
        )


def _described(file: str) -> dict[str, str]:
    """What a file's name says of the image."""
    _, label, name = file.split("/")
    patient, cause = PATIENT.match(name), CAUSE.search(name)
    return {
        "cause": "normal" if label == "NORMAL" else cause[0].lower() if cause else "unknown",
        "patient": patient[0] if patient else name,
    }
