"""ImageNet's classes in superclasses, whose subclasses are the true slices of synthetic corruption."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.loaders.imagenet import IMAGEFOLDER
from experiments.reading.assembly import assembled
from experiments.reading.division import divide
from experiments.reading.imagenet import INDICES, MIXED_10, category_names
from experiments.reading.images import ImageFiles, labelled_images, note_on_others
from experiments.reading.sources import Source
from methods.contract import InvalidInput
from methods.errors import InvalidSetting

Superclasses = Mapping[str, Mapping[str, int]]  # superclass -> WordNet id of a subclass -> number of its ImageNet class

N_OF_SUBCLASS = 50  # validation images
TABLE = "superclasses.json"
TINY = Source(
    folder="tiny-imagenet-superclasses",
    instruction=(
        "Get http://cs231n.stanford.edu/tiny-imagenet-200.zip and sort the classes that experiments/imagenet.py lists "
        "as TINY_IMAGENET into train/<superclass>/<WordNet id>/*.JPEG and val/<superclass>/<WordNet id>/*.JPEG; name "
        'them in superclasses.json: {"dog": [["n02085620", "Chihuahua"], ...], ...}.'
    ),
    licence="non-commercial research, as ImageNet's",
)


@dataclass(frozen=True)
class ImageNetSuperclass:
    """Superclasses of ImageNet: the label is the superclass (dog, bird ...), the attribute `subclass` the class in it.

    Another attribute, `wnid`, is the subclass's WordNet id. A model of ImageNet's classes is read as one of
    superclasses by the numbers of the subclasses that are listed.

    Parameters
    ----------
    layout : {"mixed_10", "tiny"}
        `val/<WordNet id>/*.JPEG`, of which 10 superclasses of 6 subclasses of 50 images are used, all of them the test
        split; or 64x64 pictures of Tiny-ImageNet, `{train,val}/<superclass>/<WordNet id>/*.JPEG` and
        `superclasses.json`, where train is the train split and val the test split.
    folder : str, optional
        Below the data root; by default `imagenet` or `tiny-imagenet-superclasses`, as the layout is.
    validation_share : float
        Of tiny's training images, drawn by seed from each subclass; in [0, 1).

    Notes
    -----
    The data set of the synthetic evaluation in the Spotlight paper, section 4.6: mixed_10 in the robustness library,
    balanced, with the first six of each superclass's classes. Tiny-ImageNet's superclasses are ours.
    """

    version: ClassVar[int] = 1

    layout: Literal["mixed_10", "tiny"] = "mixed_10"
    folder: str | None = None
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})

    @property
    def source(self) -> Source:
        source = TINY if self.layout == "tiny" else IMAGEFOLDER
        return replace(source, folder=self.folder or source.folder)

    def load(self, root: Path, seed: int) -> Dataset:
        superclasses = self._tiny_superclasses(root) if self.layout == "tiny" else MIXED_10
        tables = self._tiny(root, superclasses, seed) if self.layout == "tiny" else {"test": self._mixed_10(root)}
        used = [file for table in tables.values() for file in table["file"]]
        return assembled(
            name="imagenet_superclass",
            modality="image",
            class_names=superclasses,
            splits={name: _split(root, table, superclasses) for name, table in tables.items()},
            root=root,
            files=[*used, f"{self.source.folder}/{TABLE}"] if self.layout == "tiny" else used,
            imagenet_classes=tuple(tuple(part.values()) for part in superclasses.values()),
            notes=(() if self.layout == "tiny" else _notes(len(used))) + note_on_others(root, _folders(used)),
        )

    def _mixed_10(self, root: Path) -> pd.DataFrame:
        if self.validation_share:
            raise InvalidSetting(
                f"validation_share is {self.validation_share:g}, but mixed_10 has no training images to draw from: "
                "leave it at 0, or take dataset.layout=tiny"
            )
        return self._table(root, {f"val/{wnid}": index for part in MIXED_10.values() for wnid, index in part.items()})

    def _tiny(self, root: Path, superclasses: Superclasses, seed: int) -> dict[str, pd.DataFrame]:
        parts = [(name, wnid, index) for name, part in superclasses.items() for wnid, index in part.items()]
        train, test = (
            self._table(root, {f"{split}/{name}/{wnid}": index for name, wnid, index in parts})
            for split in ("train", "val")
        )
        strata = train["index"].to_numpy()
        rows = divide(len(train), {"validation": self.validation_share}, "train", seed, strata)
        return {**{name: train.iloc[r] for name, r in rows.items()}, "test": test}

    def _table(self, root: Path, folders: Mapping[str, int]) -> pd.DataFrame:
        """Indexed by id: file, and number of the ImageNet class."""
        for folder in folders:
            self.source.path(root, folder)
        ids, indices = labelled_images(root / self.source.folder, folders)
        files = [f"{self.source.folder}/{name}" for name in ids]
        return pd.DataFrame({"file": files, "index": indices.numpy()}, index=pd.Index(ids, name="id"))

    def _tiny_superclasses(self, root: Path) -> Superclasses:
        path = self.source.path(root, TABLE)
        listed = _listed(path)
        everything = [wnid for wnids in listed.values() for wnid in wnids]
        for wnid in everything:
            if wnid not in INDICES:
                raise InvalidInput(f"{path}: {wnid!r} is no subclass that is known here: remove it")
            if everything.count(wnid) > 1:
                raise InvalidInput(f"{path}: {wnid} is listed {everything.count(wnid)} times, expected once")
        return {name: {wnid: INDICES[wnid] for wnid in wnids} for name, wnids in listed.items()}


def _listed(path: Path) -> dict[str, list[str]]:
    """The WordNet ids of each superclass."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = {name: [str(wnid) for wnid, _ in pairs] for name, pairs in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        listed = {}
    if not listed or not all(listed.values()):
        raise InvalidInput(
            f'{path} cannot be read, expected superclasses with subclasses, {{"dog": [["n02085620", "Chihuahua"], '
            "...], ...}: get this file again"
        )
    return listed


def _folders(files: Iterable[str]) -> set[str]:
    return {file.rpartition("/")[0] for file in files}


def _notes(n: int) -> tuple[str, ...]:
    expected = N_OF_SUBCLASS * sum(len(part) for part in MIXED_10.values())
    return () if n == expected else (f"{n:,} images, where mixed_10 has {expected:,}",)


def _split(root: Path, table: pd.DataFrame, superclasses: Superclasses) -> Split:
    label_of = {index: label for label, part in enumerate(superclasses.values()) for index in part.values()}
    wnid_of = {index: wnid for part in superclasses.values() for wnid, index in part.items()}
    names, indices = np.array(category_names()), table["index"]
    return Split(
        example_ids=tuple(table.index),
        examples=ImageFiles(root, tuple(table["file"])),
        labels=torch.tensor(indices.map(label_of).to_numpy(copy=True)),
        attributes=pd.DataFrame({"subclass": names[indices], "wnid": indices.map(wnid_of)}, index=table.index),
        paths=tuple(table["file"]),
    )
