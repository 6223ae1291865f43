"""X-rays of children's hands, with an artificial signal where one is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide, draw
from experiments.reading.images import ImageFiles
from experiments.reading.signals import Place, Signal, WithSignal, signal_of
from experiments.reading.sources import Source
from experiments.reading.tables import by_id, check_values, numbers, read_table, refuse_empty_classes, with_files
from methods.contract import InvalidInput

CLASSES = ("infancy", "pre-puberty", "early or mid-puberty", "late puberty", "post-puberty")
CONFOUNDED = CLASSES.index("early or mid-puberty")
COLUMNS = ("id", "boneage", "male")
OLDEST = 300  # months


@dataclass(frozen=True)
class BoneAge:
    """X-rays of hands (RSNA challenge 2017, Halabi et al. 2019); the label is one of five classes of bone age.

    Parameters
    ----------
    folder : str
        Below the data root: `boneage-training-dataset.csv` (id, boneage, male) and the folder of the images.
    images : str
        That folder, below `folder`: `1377.png` ..., or the same as `.jpg`.
    edges_girls, edges_boys : tuple of int, length 4, increasing
        Months of age at which the next class begins. They are ours: the paper names the classes and no ages.
    n_train, n_validation : int
        Images drawn by seed, each class with its share; the others are the test split.
    partial : bool
        Use the images that are there, even where more than 5% of those in the table are missing.
    signal : {"none", "tag", "stripe", "blur"}
        What is planted into all *training* images of early or mid-puberty.
    signal_size : float, optional
        In shorter sides of the image: width of tag (0.25) or stripe (0.06), standard deviation of the blur (0.02).
    signal_place : str, optional
        The tag's corner ("top left"), the stripe's side ("left"); a blur is everywhere.
    signal_strength : float
        In (0, 1]; below 1 the image shines through.
    signal_share_test : float
        Share of the validation and of the test images, whatever their class, that get the signal too; in [0, 1]. The
        paper leaves them as they are.

    Notes
    -----
    The data set of the InfEmbed paper, section 4.4 and appendix G. The paper has the challenge's own splits (12,282,
    1,425 and 200 images); ours are all made from the challenge's 12,611 training images.

    Attributes: `age_months`, `age_band` (years, finer than the classes), `sex`, and `signal`, whether an image got it.
    Paths lead to the images as they were before that.
    """

    version: ClassVar[int] = 1

    folder: str = "boneage"
    images: str = "boneage-training-dataset"
    edges_girls: tuple[int, ...] = field(default=(24, 84, 156, 180), metadata={"min": 1, "max": OLDEST})
    edges_boys: tuple[int, ...] = field(default=(36, 108, 168, 192), metadata={"min": 1, "max": OLDEST})
    n_train: int = field(default=9000, metadata={"min": 1})
    n_validation: int = field(default=1611, metadata={"min": 0})
    partial: bool = False
    signal: Literal["none", "tag", "stripe", "blur"] = "none"
    signal_size: float | None = field(default=None, metadata={"above": 0, "max": 0.5})
    signal_place: Place | None = None
    signal_strength: float = field(default=1.0, metadata={"above": 0, "max": 1})
    signal_share_test: float = field(default=0.0, metadata={"min": 0, "max": 1})

    def __post_init__(self) -> None:
        for name in ("edges_girls", "edges_boys"):
            edges = getattr(self, name)
            if len(edges) != len(CLASSES) - 1 or sorted(set(edges)) != list(edges):
                raise InvalidInput(f"{name} is {list(edges)}, expected {len(CLASSES) - 1} increasing numbers of months")
        self._signal()

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=(
                "Get the training images and their labels from "
                "https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017 or "
                "https://www.kaggle.com/datasets/kmader/rsna-bone-age, so that boneage-training-dataset.csv and "
                "boneage-training-dataset/1377.png ... lie there (in Kaggle's copy that folder lies in another of the "
                "same name: move it up, or set dataset.images=boneage-training-dataset/boneage-training-dataset)."
            ),
            licence="academic, non-commercial",
        )

    def load(self, root: Path, seed: int) -> Dataset:
        path = self.source.path(root, "boneage-training-dataset.csv")
        table, notes = self._table(root, path)
        refuse_empty_classes(torch.tensor(table["label"].to_numpy(copy=True)), CLASSES, path)
        sizes = {"train": self.n_train, "validation": self.n_validation}
        rows = divide(len(table), sizes, "test", seed, strata=table["label"].to_numpy())
        signal = self._signal()
        return assembled(
            name="bone_age",
            modality="image",
            class_names=CLASSES,
            splits={name: self._split(root, name, table.iloc[r], seed) for name, r in rows.items()},
            root=root,
            files=[str(path.relative_to(root)), *table["path"]],
            also={"signal": signal.identity()} if signal else None,
            notes=notes,
        )

    def _signal(self) -> Signal | None:
        if self.signal == "none":
            return None
        return signal_of(self.signal, self.signal_size, self.signal_place, self.signal_strength)

    def _table(self, root: Path, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The rows whose image is there, with what is made of them."""
        table = read_table(path, COLUMNS)
        check_values(table, "male", path, ("True", "False"), "as the publisher writes it")
        table["age_months"] = numbers(table, "boneage", path, 0, OLDEST)
        table["path"] = self._paths(root, table["id"])
        table, notes = with_files(table, table["path"], root, path, self.partial)
        table = by_id(table, "id", path)
        table["sex"] = table["male"].map({"True": "male", "False": "female"})
        table["age_band"] = [f"{int(months // 12)} years" for months in table["age_months"]]
        girls, boys = (
            np.searchsorted(e, table["age_months"], side="right") for e in (self.edges_girls, self.edges_boys)
        )
        table["label"] = np.where(table["sex"] == "female", girls, boys)
        return table, notes

    def _paths(self, root: Path, ids: pd.Series) -> pd.Series:
        """Of each image, relative to the data root: a png, or a jpg where there is one and no png."""
        names = {entry.name for entry in self.source.path(root, self.images).iterdir()}
        endings = [".jpg" if f"{i}.png" not in names and f"{i}.jpg" in names else ".png" for i in ids]
        return f"{self.folder}/{self.images}/" + ids + endings

    def _split(self, root: Path, name: str, table: pd.DataFrame, seed: int) -> Split:
        paths, signal = tuple(table["path"]), self._signal()
        marked = self._marked(name, table["label"].to_numpy(), seed)
        images = ImageFiles(root, paths, mode="L")
        return Split(
            example_ids=tuple(table.index),
            examples=WithSignal(images, marked.tolist(), signal) if signal else images,
            labels=torch.tensor(table["label"].to_numpy(copy=True)),
            attributes=table[["age_months", "age_band", "sex"]].assign(signal=marked),
            paths=paths,
        )

    def _marked(self, name: str, labels: np.ndarray, seed: int) -> np.ndarray:
        """Which images get the signal: bool, shape (n,)."""
        if self.signal == "none":
            return np.zeros(len(labels), dtype=bool)
        if name == "train":
            return labels == CONFOUNDED
        rows = np.arange(len(labels))
        return np.isin(rows, draw(rows, round(self.signal_share_test * len(rows)), seed))
