"""Pictures of the user's own, one folder a class."""

from __future__ import annotations

from collections.abc import Mapping
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
from experiments.reading.images import ImageFiles, Mode, folder_names, labelled_images, note_on_others
from experiments.reading.sources import Absent
from experiments.reading.tables import by_id, read_table, refuse_rows, with_files
from methods.contract import InvalidInput
from methods.errors import InvalidSetting

SPLIT_OF = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}  # by a folder's name
HOW = "PATH/<class>/ or PATH/{train,validation,test}/<class>/"
CONTENT = "(its content)"

Rows = Mapping[str, tuple[tuple[str, ...], Tensor]]  # split -> ids, labels


@dataclass(frozen=True)
class ImageFolder:
    """Your own pictures: one folder a class, and attributes from a table if there is one.

    The classes are sorted by name. Where the folders of `path` are called train, validation (or val) and test, or are
    some of these, they are the splits, and the classes lie in each of them.

    Parameters
    ----------
    path : str
        A folder, absolute or relative to the working directory: PATH/<class>/ or PATH/{train,validation,test}/<class>/.
    attributes : str, optional
        A csv file, absolute or relative to the working directory: in the column `file` a picture's path relative to
        `path` (cat/1.jpg), one row for each picture; all other columns are attributes, as numbers where all of their
        values are.
    train_share, validation_share : float
        Of the pictures, drawn by seed from each class, where the folders are no splits; in [0, 1). The rest, by
        default all, is the test split: a model that was trained elsewhere is audited.
    mode : {"RGB", "L"}
        Of the pictures, whatever their files hold: colours, or grey.
    partial : bool
        Do without the rows of `attributes` whose picture is missing, even if there are more than 5% of them.

    Notes
    -----
    An example's id is its path relative to `path`, so that neither ids nor the data's fingerprint nor a run's key
    depend on where the folder lies. Tables of a run name the pictures relative to the data root where they lie below
    it, and by their absolute path elsewhere.
    """

    version: ClassVar[int] = 1

    path: str
    attributes: str | None = None
    train_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    mode: Mode = "RGB"
    partial: bool = False

    def identity(self) -> dict[str, str | None]:
        """Not where the files lie defines a run, but what is in them: the fingerprint knows."""
        return {"path": CONTENT, "attributes": self.attributes and CONTENT}

    def load(self, root: Path, seed: int) -> Dataset:
        path = _folder(self.path)
        names = folder_names(path)
        folders = [name for name in SPLIT_OF if name in names]
        classes, rows = self._as_divided(path, folders) if len(folders) == len(names) else self._divided(path, seed)
        ids = [example_id for ids, _ in rows.values() for example_id in ids]
        attributes, notes = self._attributes(path, sorted(ids))
        return assembled(
            name="image_folder",
            modality="image",
            class_names=classes,
            splits={name: self._split(root, path, *part, attributes) for name, part in rows.items()},
            root=path,
            files=ids,
            also={"mode": self.mode},
            notes=notes + note_on_others(path, {example_id.rpartition("/")[0] for example_id in ids}),
        )

    def _divided(self, path: Path, seed: int) -> tuple[list[str], Rows]:
        """Class names and rows of the splits that are drawn."""
        classes = _classes(path)
        ids, labels = labelled_images(path, {name: label for label, name in enumerate(classes)})
        shares = {"train": self.train_share, "validation": self.validation_share}
        rows = divide(len(ids), shares, "test", seed, strata=labels.numpy())
        return classes, {name: (tuple(ids[row] for row in r), labels[torch.from_numpy(r)]) for name, r in rows.items()}

    def _as_divided(self, path: Path, folders: list[str]) -> tuple[list[str], Rows]:
        """Class names and rows of the splits that have a folder."""
        if self.train_share or self.validation_share:
            raise InvalidSetting(
                f"{path} is divided already, by its folders {', '.join(folders)}: leave train_share and "
                "validation_share at 0"
            )
        if {"val", "validation"} <= set(folders):
            raise InvalidInput(f"{path} holds val and validation, which would be one split: keep one of them")
        classes = _same_classes({folder: _classes(path / folder) for folder in folders}, path)
        return classes, {
            SPLIT_OF[folder]: labelled_images(path, {f"{folder}/{name}": n for n, name in enumerate(classes)})
            for folder in folders
        }

    def _attributes(self, path: Path, ids: list[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Indexed by id, and notes on rows that were left out."""
        if self.attributes is None:
            return pd.DataFrame(index=pd.Index(ids, name="id")), ()
        file = Path(self.attributes).expanduser()
        table = read_table(file, ["file"])
        table, notes = with_files(table, table["file"], path, file, self.partial)
        refuse_rows(table, "file", file, ~table["file"].isin(ids).to_numpy(), f"a picture like {ids[0]}")
        table = by_id(table, "file", file).drop(columns="file")
        without = [example_id for example_id in ids if example_id not in table.index]
        if without:
            raise InvalidInput(
                f"{file} has no row for {without[0]} ({len(without):,} of the {len(ids):,} pictures in {path} have "
                "none): add a row for each, or remove those pictures"
            )
        return table.assign(**{column: _numbers_if_all_are(table[column]) for column in table}), notes

    def _split(self, root: Path, path: Path, ids: tuple[str, ...], labels: Tensor, attributes: pd.DataFrame) -> Split:
        return Split(
            example_ids=ids,
            examples=ImageFiles(path, ids, self.mode),
            labels=labels,
            attributes=attributes.loc[list(ids)],
            paths=tuple(f"{_seen_from(root, path)}/{example_id}" for example_id in ids),
        )


def _folder(name: str) -> Path:
    if not name.strip():  # else it would be the working directory
        raise InvalidSetting(f"dataset.path is empty, expected a folder with pictures in {HOW}")
    path = Path(name).expanduser()
    if not path.is_dir():
        raise Absent(f"dataset.path is {name}, expected a folder with pictures in {HOW}")
    return path


def _classes(path: Path) -> list[str]:
    names = folder_names(path)
    if len(names) < 2:
        raise InvalidInput(f"{path} holds one folder only, {names[0]}: expected at least two, one for each class")
    for name in names:
        deeper = next((e for e in (path / name).iterdir() if e.is_dir() and not e.name.startswith(".")), None)
        if deeper is not None:
            raise InvalidInput(f"{deeper} is too deep, pictures are looked for in {HOW}: move them, or hide the folder")
    return names


def _same_classes(classes: Mapping[str, list[str]], path: Path) -> list[str]:
    """All classes, once it is known that every split has all of them."""
    for folder, names in classes.items():
        for other, theirs in classes.items():
            missing = sorted(set(theirs) - set(names))
            if missing:
                raise InvalidInput(
                    f"{path / folder} has no folder {missing[0]!r}, which {path / other} has: expected the same "
                    "classes in every split"
                )
    return next(iter(classes.values()))


def _numbers_if_all_are(column: pd.Series) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce")
    return values if np.isfinite(values).all() else column


def _seen_from(root: Path, path: Path) -> str:
    root, path = root.resolve(), path.resolve()
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
