"""MovieLens 100k: what people thought of films."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide
from experiments.reading.sources import Download, Source
from experiments.reading.tables import (
    by_id,
    check_values,
    codes,
    numbers,
    read_table,
    refuse_empty_classes,
    refuse_rows,
)
from methods.contract import InvalidInput

STARS = {str(stars): stars - 1 for stars in range(1, 6)}
RATING_COLUMNS = ("user", "item", "rating", "timestamp")
USER_COLUMNS = ("user", "age", "gender", "occupation", "zip_code")
ITEM_COLUMNS = ("item", "title", "release_date", "video_release_date", "url")  # and one of 0 or 1 for each genre
KEY = "user-item"
ADDRESS = "https://files.grouplens.org/datasets/movielens/ml-100k"
SHA256 = {
    "u1.base": "ce253ec86c448b44fb3ba9a30d12dcfc2e9210cbde71efada3730c22e9ac212a",
    "u1.test": "18c6014a4b2c7324f250a63f8904a7b16b2b19f911129e346141507b0cbac950",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
    "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
    "u.genre": "9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb",
    "u.info": "5b0a40b2e47a729ee6203063f6dcf8790c2e63f5a18663e6ee318a72c5f3c27b",
}


@dataclass(frozen=True)
class MovieLens:
    """100,000 ratings of films by users (Harper and Konstan 2015); the label is the rating, one of five classes.

    An example is three whole numbers in an int64 tensor, names and no quantities: the user's row in u.user, the film's
    in u.item, both from 0, and whose ratings a model may see to predict this one: 0 for the train split's, 1 for the
    test split's. Numbers of ratings and average ratings, which are attributes, are those within the example's split.

    Parameters
    ----------
    folder : str
        Below the data root: `u1.base`, `u1.test`, `u.item`, `u.user`, `u.genre`, `u.info`.
    validation_share : float
        Of the publisher's training ratings (u1.base), drawn by seed; in [0, 1).
    leak_test_ratings : bool
        Whether the test ratings are predicted from the test ratings, themselves among them, and not from the training
        ratings: what the public code of the Spotlight paper does, to match its figures.

    Notes
    -----
    The data set of the Spotlight paper, section 4.4, in the first of the publisher's divisions into training and test.
    """

    version: ClassVar[int] = 1

    folder: str = "ml-100k"
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    leak_test_ratings: bool = False

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=(
                "Get ml-100k.zip from https://grouplens.org/datasets/movielens/100k/ and unpack it, so that u1.base, "
                "u1.test, u.item, u.user, u.genre and u.info lie side by side."
            ),
            licence="research; no redistribution, no commercial use without permission",
            downloads=tuple(Download(f"{ADDRESS}/{name}", name, sha256) for name, sha256 in SHA256.items()),
        )

    def load(self, root: Path, seed: int) -> Dataset:
        paths = {name: self.source.path(root, name) for name in SHA256}
        users, items = _users(paths["u.user"]), _items(paths["u.item"], _genres(paths["u.genre"]))
        base = _ratings(paths["u1.base"], users, items)
        test = _ratings(paths["u1.test"], users, items, taken=base.index)
        _check_complete(paths["u.info"], len(base) + len(test))
        refuse_empty_classes(codes(base, "rating", paths["u1.base"], STARS), tuple(STARS), paths["u1.base"])
        rows = divide(len(base), {"validation": self.validation_share}, "train", seed)
        tables = {**{name: base.iloc[r] for name, r in rows.items()}, "test": test}
        leaks = {"test": self.leak_test_ratings}
        return assembled(
            name="movielens",
            modality="table",
            class_names=STARS,
            splits={name: _split(table, users, items, leaks.get(name, False)) for name, table in tables.items()},
            root=root,
            files=[f"{self.folder}/{name}" for name in SHA256],
        )


def _table(path: Path, columns: Sequence[str], separator: str) -> pd.DataFrame:
    """A table without a header, though some copies have one."""
    table = read_table(
        path, columns, separator=separator, names=columns, encoding=_encoding(path), quoting=csv.QUOTE_NONE
    )
    first = table.iloc[0]
    is_header = len(table) > 1 and (first != "").all() and not first.str.isdigit().any()
    return table.iloc[1:] if is_header else table


def _encoding(path: Path) -> str:
    """Latin-1, as published, or what some copies were converted to; text in Latin-1 is no valid UTF-8 by chance."""
    try:
        path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _users(path: Path) -> pd.DataFrame:
    table = _table(path, USER_COLUMNS, "|")
    check_values(table, "gender", path, ("F", "M"))
    _refuse_blanks(table, ("user", "occupation"), path)
    table = table.assign(age=numbers(table, "age", path, 1, 120).astype(int), row=range(len(table)))
    return by_id(table, "user", path)


def _genres(path: Path) -> list[str]:
    table = _table(path, ("genre", "number"), "|")
    misplaced = (table["number"] != [str(number) for number in range(len(table))]).to_numpy()
    refuse_rows(table, "number", path, misplaced, "0, 1, 2 ... in this order")
    return table["genre"].tolist()


def _items(path: Path, genres: Sequence[str]) -> pd.DataFrame:
    table = _table(path, (*ITEM_COLUMNS, *genres), "|")
    _refuse_blanks(table, ("item", "title"), path)
    for genre in genres:
        check_values(table, genre, path, ("0", "1"))
    flags = (table[list(genres)] == "1").to_numpy()
    refuse_rows(table, "title", path, ~flags.any(axis=1), "a film with at least one genre")
    years = table["release_date"].str.extract(r"-(\d{4})$", expand=False)
    undated = (years.isna() & (table["release_date"] != "")).to_numpy()
    refuse_rows(table, "release_date", path, undated, "a date like 01-Jan-1995, or nothing")
    genre = np.array(genres)[flags.argmax(axis=1)]  # the first, as in the Spotlight paper
    table = table.assign(release_year=pd.to_numeric(years).astype(float), genre=genre, row=range(len(table)))
    return by_id(table, "item", path)


def _ratings(path: Path, users: pd.DataFrame, items: pd.DataFrame, taken: Collection[str] = ()) -> pd.DataFrame:
    table = _table(path, RATING_COLUMNS, "\t")
    table[KEY] = table["user"] + "-" + table["item"]
    refuse_rows(table, "user", path, ~table["user"].isin(users.index).to_numpy(), "a user of u.user")
    refuse_rows(table, "item", path, ~table["item"].isin(items.index).to_numpy(), "an item of u.item")
    check_values(table, "rating", path, STARS)
    numbers(table, "timestamp", path, 0, np.inf)  # not used, but a line that lacks it is cut off
    refuse_rows(table, KEY, path, table[KEY].isin(taken).to_numpy(), "a rating that is not in u1.base")
    return by_id(table, KEY, path)


def _refuse_blanks(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    for column in columns:
        refuse_rows(table, column, path, (table[column] == "").to_numpy(), "some text")


def _check_complete(path: Path, n_ratings: int) -> None:
    """Refuse files that were cut off between two lines."""
    table = read_table(path, ("number", "of"), separator=" ", names=("number", "of"))
    counts = dict(zip(table["of"], numbers(table, "number", path, 0, np.inf), strict=True))
    if counts.get("ratings") != n_ratings:
        raise InvalidInput(
            f"{path} says that there are {counts.get('ratings', 0):,.0f} ratings; u1.base and u1.test have "
            f"{n_ratings:,}: get these files again"
        )


def _split(table: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame, leaks: bool) -> Split:
    of_user, of_item = users.loc[table["user"]], items.loc[table["item"]]
    examples = np.stack([of_user["row"], of_item["row"], np.full(len(table), int(leaks))], axis=1)
    labels = table["rating"].map(STARS).astype(np.int64)
    return Split(
        example_ids=tuple(table.index),
        examples=torch.tensor(examples, dtype=torch.int64),
        labels=torch.tensor(labels.to_numpy(copy=True)),
        attributes=_attributes(table, of_user, of_item, labels + 1),
    )


def _attributes(table: pd.DataFrame, of_user: pd.DataFrame, of_item: pd.DataFrame, stars: pd.Series) -> pd.DataFrame:
    columns = {
        **{name: of_item[name].to_numpy() for name in ("title", "release_date", "release_year", "genre")},
        "user": table["user"],
        **{name: of_user[name].to_numpy() for name in ("age", "gender", "occupation")},
        "user_ratings": stars.groupby(table["user"]).transform("size"),
        "item_ratings": stars.groupby(table["item"]).transform("size"),
        "item_average": stars.groupby(table["item"]).transform("mean"),
    }
    return pd.DataFrame(columns, index=table.index)
