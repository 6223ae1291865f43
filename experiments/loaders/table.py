"""A table of one's own, csv or parquet, with a column to predict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.contract import SPLITS, Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide
from experiments.reading.features import features
from experiments.reading.own_table import attributes_of, finite_numbers, holds_dates, read_own_table, refuse_twice
from experiments.reading.tables import by_id, check_values, refuse_rows
from methods.contract import InvalidInput

REMEDY = "fill it in, remove the row, or leave the column out of dataset.features"
LARGEST_LABEL = 2**53  # from here on, not every whole number is a float64


@dataclass(frozen=True)
class Table:
    """A table of your own (csv or parquet) with a column to predict.

    A column is one of numbers where at least half of its values are: these get mean 0 and deviation 1 over the training
    split. Of any other column, each text of the training split becomes a column of zeros and ones. Without a training
    split, all rows count for that.

    Parameters
    ----------
    path : Path
        Of a csv file with a header, or of a parquet file; where it lies does not matter to the results.
    label : str
        The column that a model is to predict; its values are the classes, at most half as many as there are rows.
    id : str, optional
        The column that names examples; left out, the number of the row, counted from 0.
    attributes : tuple of str
        Columns that are no features.
    features : tuple of str, optional
        Columns that a model sees, none of them `label`, `id` or `split`; left out, all that have no other purpose. A
        column may be an attribute as well.
    split : str, optional
        The column that says train, validation or test.
    train_share, validation_share : float
        Of the rows, drawn by seed, where no column says it; in [0, 1), with a sum below 1; the rest is the test split.
    max_categories : int
        In a column of texts; one with more is no feature.
    """

    version: ClassVar[int] = 1

    path: Path
    label: str
    id: str | None = None
    attributes: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    split: str | None = None
    train_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    max_categories: int = field(default=50, metadata={"min": 1})

    def identity(self) -> dict[str, str]:
        """The fingerprint says what is in the file."""
        return {"path": "(content)"}

    def load(self, root: Path, seed: int) -> Dataset:
        """`root` is not needed."""
        self._check_settings()
        table = self._table()
        names, labels = self._classes(table)
        numbers, categories = self._features(table)
        attributes = attributes_of(table[list(self.attributes)])
        ids, order = self._order(table)
        splits = None if self.split is None else table[self.split].to_numpy()[order]
        rows = self._divided(len(table), splits, seed)
        positions = {name: order[r] for name, r in rows.items()}
        examples = features(numbers.to_numpy(), categories, positions.get("train", order))
        self._refuse_too_large(examples, numbers)
        return assembled(
            name="table",
            modality="table",
            class_names=names,
            splits={
                name: _split(ids[rows[name]], examples[p], labels[p], attributes.iloc[p])
                for name, p in positions.items()
            },
            root=self.path.parent,
            files=(),  # all that counts is in the splits
        )

    def _check_settings(self) -> None:
        """A purpose of a column that another one would hide."""
        for setting in ("attributes", "features"):
            refuse_twice(getattr(self, setting) or (), f"dataset.{setting} names")
        for setting in ("label", "id", "split"):
            if getattr(self, setting) in (self.features or ()):
                raise InvalidInput(
                    f"dataset.features names {getattr(self, setting)!r}, which is dataset.{setting}, expected others"
                )

    def _table(self) -> pd.DataFrame:
        table = read_own_table(self.path.expanduser())
        asked = [self.label, self.id, self.split, *self.attributes, *(self.features or ())]
        missing = next((name for name in asked if name is not None and name not in table), None)
        if missing is not None:
            raise InvalidInput(f"{self.path} has no column {missing!r}; it has {', '.join(table)}")
        if self.split is not None:
            check_values(table, self.split, self.path, SPLITS)
        return table

    def _classes(self, table: pd.DataFrame) -> tuple[tuple[str, ...], Tensor]:
        """Names of the classes, and labels in the order of the file."""
        self._refuse_dates(table, self.label)
        texts, values = _texts(table[self.label]), finite_numbers(table[self.label])
        refuse_rows(table, self.label, self.path, (texts == "").to_numpy(), "a class: fill it in, or remove the row")
        if (np.abs(values) < LARGEST_LABEL).all():  # False where one is no number: all of them are names then
            refuse_rows(table, self.label, self.path, values % 1 != 0, "a class: a whole number or a name")
            texts = pd.Series(values.astype(np.int64)).astype(str)
        names = sorted(texts.unique(), key=_natural)
        if len(names) < 2:
            raise InvalidInput(f"{self.path}: {self.label} is {names[0]!r} everywhere, expected at least two classes")
        if len(names) > max(len(table) // 2, 2):
            raise InvalidInput(
                f"{self.path}: {self.label} has {len(names):,} different values in {len(table):,} rows, expected at "
                "most half as many: name a column of classes in dataset.label"
            )
        return tuple(names), torch.from_numpy(pd.Index(names).get_indexer(texts).astype(np.int64))

    def _features(self, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Columns of numbers, and columns of texts."""
        others = {self.label, self.id, self.split, *self.attributes}
        names = self.features or [name for name in table if name not in others]
        if not names:
            raise InvalidInput(f"{self.path} has no column left for features; it has {', '.join(table)}")
        for name in names:
            self._refuse_dates(table, name)
        values = {name: finite_numbers(table[name]) for name in names}
        texts = {name: _texts(table[name]) for name in names}
        numeric = [name for name in names if 2 * np.isfinite(values[name]).sum() >= max((texts[name] != "").sum(), 1)]
        for name in numeric:
            expected = f"a number as in other rows: {REMEDY}"
            refuse_rows(table, name, self.path, np.isnan(values[name]), expected)
        categories = pd.DataFrame({name: texts[name] for name in names if name not in numeric}, index=table.index)
        for name in categories:
            self._check_categories(categories[name])
        return pd.DataFrame({name: values[name] for name in numeric}, index=table.index, dtype=np.float64), categories

    def _refuse_dates(self, table: pd.DataFrame, name: str) -> None:
        if holds_dates(table[name]):
            raise InvalidInput(
                f"{self.path}: {name} holds dates or times, expected numbers or texts: name it in dataset.attributes, "
                "or write it as one of them"
            )

    def _refuse_too_large(self, examples: Tensor, numbers: pd.DataFrame) -> None:
        bad = ~torch.isfinite(examples[:, : numbers.shape[1]]).all(dim=0).numpy()  # the first features are the numbers
        for name in numbers.columns[bad]:
            raise InvalidInput(
                f"{self.path}: {name} reaches {numbers[name].abs().max():g}, which is too large to be brought to "
                "deviation 1: divide this column, or leave it out of dataset.features"
            )

    def _check_categories(self, column: pd.Series) -> None:
        n = column.nunique()
        if n > self.max_categories:
            raise InvalidInput(
                f"{self.path}: {column.name} has {n:,} different texts, expected at most dataset.max_categories="
                f"{self.max_categories}: name it in dataset.attributes, or allow more"
            )

    def _order(self, table: pd.DataFrame) -> tuple[pd.Index, np.ndarray]:
        """The ids in their order, and the number of the row in the file of each."""
        n, name = len(table), self.id or "row"
        ids = table[[name]] if self.id else pd.DataFrame({name: [f"{row:0{len(str(n - 1))}d}" for row in range(n)]})
        ordered = by_id(ids, name, self.path).index
        return ordered, pd.Index(ids[name].astype(str)).get_indexer(ordered)

    def _divided(self, n: int, splits: np.ndarray | None, seed: int) -> dict[str, np.ndarray]:
        """Rows of each split, counted in the order of their ids, as `splits` is."""
        shares = {"train": self.train_share, "validation": self.validation_share}
        if splits is None:
            return divide(n, shares, "test", seed)
        if any(shares.values()):
            raise InvalidInput(
                f"dataset.split={self.split} says the splits: leave out train_share and validation_share"
            )
        return {name: np.flatnonzero(splits == name) for name in SPLITS if name in set(splits)}


def _texts(column: pd.Series) -> pd.Series:
    """A column as texts; empty where something is missing."""
    return column.astype(str).where(column.notna(), "")


def _natural(name: str) -> tuple[float, str]:
    """Numbers by their size, before all other names; 01 before 1."""
    return (float(name), name) if name.removeprefix("-").isdecimal() else (np.inf, name)


def _split(ids: pd.Index, examples: Tensor, labels: Tensor, attributes: pd.DataFrame) -> Split:
    return Split(tuple(ids), examples, labels, attributes.set_axis(ids))
