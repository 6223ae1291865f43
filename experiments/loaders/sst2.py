"""SST-2: sentences from reviews of films."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide, draw
from experiments.reading.sources import Download, Source
from experiments.reading.tables import by_id, codes, read_table, refuse_empty_classes, refuse_rows

SENTIMENTS = {"0": 0, "1": 1}
CLASSES = ("negative", "positive")
COLUMNS = ("sentence", "label")
UNPACKED = "SST-2"  # the folder in GLUE's archive


@dataclass(frozen=True)
class SST2:
    """Sentences from reviews of films, negative or positive (Socher et al. 2013), as GLUE has them.

    GLUE's `dev.tsv` is the test split: the labels of its own are not published. The training file holds parts of
    sentences beside whole ones, some of them several times: what is taken out of it for validation is no new text.

    Parameters
    ----------
    folder : str
        Below the data root: `train.tsv` and `dev.tsv`, or the folder `SST-2` with them.
    n_train : int, optional
        Training sentences, drawn by seed; all where it is left out.
    validation_share : float
        Of the training sentences, drawn by seed; in [0, 1).

    Notes
    -----
    What the model of the Spotlight paper, section 4.3, was trained on. The attribute `n_words` counts what stands
    between spaces: punctuation stands alone here.
    """

    version: ClassVar[int] = 1

    folder: str = "sst2"
    n_train: int | None = field(default=None, metadata={"min": 1})
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})

    @property
    def source(self) -> Source:
        url = "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"
        return Source(
            folder=self.folder,
            instruction=f"Get {url} (https://gluebenchmark.com/tasks) and unpack it: train.tsv and dev.tsv are read.",
            licence="research",
            downloads=(Download(url, ".", unpack=True),),
        )

    def load(self, root: Path, seed: int) -> Dataset:
        files = {name: self._file(root, f"{name}.tsv") for name in ("train", "dev")}
        train, test = (_table(root / self.folder / file) for file in files.values())
        rows = divide(len(train), {"validation": self.validation_share}, "train", seed)
        rows["train"] = draw(rows["train"], self.n_train, seed)
        tables = {**{name: train.iloc[chosen] for name, chosen in rows.items()}, "test": test}
        return assembled(
            name="sst2",
            modality="text",
            class_names=CLASSES,
            splits={name: _split(table) for name, table in tables.items()},
            root=root,
            files=[f"{self.folder}/{file}" for file in files.values()],
        )

    def _file(self, root: Path, name: str) -> str:
        """Where a file lies below the folder."""
        unpacked = f"{UNPACKED}/{name}"
        if (root / self.folder / unpacked).exists():
            return unpacked
        self.source.path(root, name)
        return name


def _table(path: Path) -> pd.DataFrame:
    table = read_table(path, COLUMNS, separator="\t", quoting=csv.QUOTE_NONE)
    table["sentence"] = table["sentence"].str.strip()
    refuse_rows(table, "sentence", path, (table["sentence"] == "").to_numpy(), "a sentence")
    labels = codes(table, "label", path, SENTIMENTS)
    refuse_empty_classes(labels, CLASSES, path)
    table["label"] = labels.numpy()
    table["id"] = [f"{path.stem}-{line:05d}" for line in table.index]  # sentences repeat
    return by_id(table, "id", path)


def _split(table: pd.DataFrame) -> Split:
    return Split(
        example_ids=tuple(table.index),
        examples=table["sentence"].tolist(),
        labels=torch.tensor(table["label"].to_numpy(copy=True)),
        attributes=pd.DataFrame({"n_words": [len(text.split()) for text in table["sentence"]]}, index=table.index),
    )
