"""ImageNet's 1,000 classes: the validation images, or the 1,000 images of a NIPS 2017 competition."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.imagenet import N_CLASSES, category_names, indices_of
from experiments.reading.images import ImageFiles, folder_names, labelled_images, note_on_others
from experiments.reading.sources import Source
from experiments.reading.tables import by_id, numbers, read_table, refuse_rows, with_files

N_VALIDATION = 50_000
IMAGEFOLDER = Source(
    folder="imagenet",
    instruction=(
        "Get ILSVRC2012_img_val.tar (50,000 images; it takes an account) from "
        "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php and sort the images into folders named by "
        "WordNet id, val/n01440764/ILSVRC2012_val_00000293.JPEG and so on, which "
        "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh does."
    ),
    licence="non-commercial research, by agreement with ImageNet",
)
NIPS2017 = Source(
    folder="nips2017",
    instruction=(
        "Get dev_dataset.csv and download_images.py from https://github.com/cleverhans-lab/cleverhans/tree/master/"
        "cleverhans_v3.1.0/examples/nips17_adversarial_competition/dataset and let the program put the pictures "
        "into images/ beside the table (images/<ImageId>.png; .jpg is fine too)."
    ),
    licence="CC BY 2.0 (pictures of Flickr users)",
)


@dataclass(frozen=True)
class ImageNet:
    """ImageNet's 1,000 classes (Russakovsky et al. 2015), validation images only: they are the test split.

    The attribute `subclass` is the class by name; `wnid`, in layout imagefolder, its WordNet id.

    Parameters
    ----------
    layout : {"imagefolder", "nips2017"}
        `val/<WordNet id>/*.JPEG`; or `dev_dataset.csv` with `images/<ImageId>.png` or `.jpg`, 1,000 other pictures that
        were labelled for a competition. Some of the 1,000 folders are enough where the data root also holds
        `imagenet_meta/imagenet_class_index.json`.
    folder : str, optional
        Below the data root; by default `imagenet` or `nips2017`, as the layout is.
    n : int, optional
        At most so many examples, drawn by seed, as evenly from all classes as can be; at least 1.
    partial : bool
        Of nips2017: use the images that are there, even where more than 5% of those in the table are missing.

    Notes
    -----
    The Spotlight paper (section 4.2) has all 50,000; InfEmbed 5,000 in section 4.2, and 50 a class in appendix E.
    """

    version: ClassVar[int] = 1

    layout: Literal["imagefolder", "nips2017"] = "imagefolder"
    folder: str | None = None
    n: int | None = field(default=None, metadata={"min": 1})
    partial: bool = False

    @property
    def source(self) -> Source:
        source = NIPS2017 if self.layout == "nips2017" else IMAGEFOLDER
        return replace(source, folder=self.folder or source.folder)

    def load(self, root: Path, seed: int) -> Dataset:
        table, notes = self._nips2017(root) if self.layout == "nips2017" else self._image_folder(root)
        table = table.iloc[evenly(table["label"].to_numpy(), self.n, seed)]
        names = category_names()
        return assembled(
            name="imagenet",
            modality="image",
            class_names=names,
            splits={"test": _split(root, table.assign(subclass=[names[label] for label in table["label"]]))},
            root=root,
            files=table["file"],
            notes=notes,
        )

    def _image_folder(self, root: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
        folder = self.source.path(root, "val")
        indices = indices_of(folder_names(folder), folder, root)
        ids, labels = labelled_images(folder.parent, {f"val/{wnid}": index for wnid, index in indices.items()})
        files = [f"{self.source.folder}/{name}" for name in ids]
        wnids = [name.split("/")[1] for name in ids]
        table = pd.DataFrame({"file": files, "label": labels.numpy(), "wnid": wnids}, index=pd.Index(ids, name="id"))
        whole = len(table) == N_VALIDATION
        notes = () if whole else (f"{len(table):,} of the {N_VALIDATION:,} validation images are here",)
        return table, notes + note_on_others(folder, indices)

    def _nips2017(self, root: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
        path = self.source.path(root, "dev_dataset.csv")
        table = read_table(path, ("ImageId", "TrueLabel"))
        labels = numbers(table, "TrueLabel", path, 1, N_CLASSES)
        refuse_rows(table, "TrueLabel", path, labels % 1 != 0, "a whole number")
        pictures = self.source.path(root, "images")
        name_of = {file.stem: file.name for file in sorted(pictures.iterdir()) if file.suffix in (".jpg", ".png")}
        files = f"{self.source.folder}/images/" + table["ImageId"].map(lambda name: name_of.get(name, f"{name}.png"))
        table = table[["ImageId"]].assign(file=files, label=labels.astype(np.int64) - 1)  # the publisher counts from 1
        table, notes = with_files(table, files, root, path, self.partial)
        return by_id(table, "ImageId", path).drop(columns="ImageId"), notes


def evenly(labels: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """At most n rows, drawn by seed, in their order; one of each class, then a second of each, as far as n goes.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[evenly(labels, 4, seed=0)].tolist()
    [0, 0, 1, 1]
    """
    if n is None or n >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()  # (n,): the how-manieth of its class
    return np.sort(order[np.argsort(turn, kind="stable")[:n]])


def _split(root: Path, table: pd.DataFrame) -> Split:
    return Split(
        example_ids=tuple(table.index),
        examples=ImageFiles(root, tuple(table["file"])),
        labels=torch.tensor(table["label"].to_numpy(copy=True)),
        attributes=table.drop(columns=["file", "label"]),
        paths=tuple(table["file"]),
    )
