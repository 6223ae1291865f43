"""Tables as publishers give them, checked while they are read: every complaint names file, line and remedy."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.reading.sources import Absent, Partial
from methods.contract import InvalidInput

MOST_MISSING = 0.05  # share of files that may be missing before the user has to agree to it
LINE, RECORD = "line", "record"  # names of the index of what `read_table` gives


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    separator: str = ",",
    names: Sequence[str] | None = None,
    encoding: str = "utf-8-sig",
    quoting: int = csv.QUOTE_MINIMAL,
    **options: Any,
) -> pd.DataFrame:
    """A text table whose columns are all strings, indexed by each row's line in the file; blank lines are no rows.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        That must be there; others stay in the table too.
    separator : str
    names : sequence of str, optional
        Of the columns, where the file has no header.
    encoding : str
    quoting : int
        As in `csv`.
    **options
        Of `pandas.read_csv`; `skiprows` is a number of lines at the beginning.

    Returns
    -------
    DataFrame
        The index, called `line`, counts lines from 1, the header, blank and skipped lines among them. Where texts
        have line breaks it is called `record`, and counts each of these texts as one line. Spaces around the names of
        columns are taken away.

    Raises
    ------
    InvalidInput
        Where the file cannot be read, has no rows, lacks a column or has one twice, or has rows that are too long.
    """
    try:
        skipped = _lines_before(path, encoding, options.pop("skiprows", 0))
        table = pd.read_csv(
            path,
            sep=separator,
            names=None if names is None else list(names),
            header=0 if names is None else None,
            dtype=str,
            keep_default_na=False,
            encoding=encoding,
            quoting=quoting,
            skiprows=skipped,
            skip_blank_lines=False,  # they count, and go below
            **options,
        )
    except FileNotFoundError:
        raise Absent(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} cannot be read as a table: {error}: save it as UTF-8") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, OSError) as error:
        reason = str(error).strip()
        raise InvalidInput(f"{path} cannot be read as a table: {reason}: mend it, or get it again") from None
    table.columns = _stripped(table.columns, path)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        have = ", ".join(str(column) for column in table.columns)
        raise InvalidInput(f"{path} has no column {missing[0]!r}, expected {', '.join(columns)}; it has {have}")
    if table.empty:
        raise InvalidInput(f"{path} has no rows, expected at least one")
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes an index of fields for which there is no name
        raise InvalidInput(
            f"{path} has rows with more fields than its {table.shape[1]} columns (do rows end in {separator!r}, or "
            "hold it in a text without quotes?): mend it, or get it again"
        )
    table = table.fillna("")  # a row with too few fields
    first = (1 if names is not None else 2) + skipped
    end = first + len(table)
    table.index = pd.RangeIndex(first, end, name=LINE if _n_lines(path) < end else RECORD)
    return _without_blank_rows(table, path)


def _lines_before(path: Path, encoding: str, n: int) -> int:
    """Lines above a table: n, and the blank ones after them."""
    with path.open(encoding=encoding) as file:
        return n + sum(1 for _ in takewhile(lambda line: not line.strip(), islice(file, n, None)))


def _n_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _stripped(names: pd.Index, path: Path) -> pd.Index:
    """Names of columns without the spaces around them, as "id, age" has one before age."""
    stripped = names.astype(str).str.strip()
    if stripped.has_duplicates:
        name = stripped[stripped.duplicated()][0]
        raise InvalidInput(f"{path} has two columns called {name!r}, expected one: rename or remove the other")
    return stripped


def _without_blank_rows(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A line of separators only is blank too, as spreadsheets write it."""
    blank = (table.iloc[:, 0].str.strip() == "").to_numpy(dtype=bool, copy=True)  # clears most rows at little cost
    blank[blank] = (table[blank].apply(lambda column: column.str.strip()) == "").all(axis=1)
    if blank.all():
        raise InvalidInput(f"{path} has no rows, expected at least one")
    return table[~blank] if blank.any() else table


def numbers(table: pd.DataFrame, column: str, path: Path, low: float, high: float) -> np.ndarray:
    """A column as float64, shape (n,), each in [low, high]; `InvalidInput` names file, line and value otherwise."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64, copy=True)
    refuse_rows(table, column, path, ~((values >= low) & (values <= high)), f"a number in [{low:g}, {high:g}]")
    return values


def codes(table: pd.DataFrame, column: str, path: Path, meanings: Mapping[str, int]) -> Tensor:
    """A column of names as labels: Tensor, shape (n,), int64; `InvalidInput` names file, line and value otherwise."""
    labels = table[column].map(meanings)
    refuse_rows(table, column, path, labels.isna().to_numpy(), f"one of {', '.join(meanings)}")
    return torch.tensor(labels.astype(np.int64).to_numpy(copy=True))


def check_values(table: pd.DataFrame, column: str, path: Path, allowed: Iterable[str], remedy: str = "") -> None:
    """Raise `InvalidInput`, naming file, line and value, unless a column holds nothing but these."""
    allowed = tuple(allowed)
    outside = ~table[column].isin(allowed).to_numpy()
    refuse_rows(table, column, path, outside, f"one of {', '.join(allowed)}{remedy and f' ({remedy})'}")


def refuse_rows(table: pd.DataFrame, column: str, path: Path, bad: np.ndarray, expected: str) -> None:
    """Raise `InvalidInput` for the first of the bad rows, if there is one.

    Parameters
    ----------
    bad : array, shape (n,), bool
    expected : str
        What should stand there.
    """
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        others = f" (and {int(bad.sum()) - 1:,} other rows)" if bad.sum() > 1 else ""
        value = table[column].iloc[first]
        value = value.item() if isinstance(value, np.generic) else value
        where = f"{path} {table.index.name or LINE} {table.index[first]}"
        raise InvalidInput(f"{where}: {column} is {value!r}, expected {expected}{others}")


def refuse_empty_classes(labels: Tensor, class_names: Sequence[str], path: Path) -> None:
    """Raise `InvalidInput`, naming the first class of which there is no example, if there is one."""
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    if 0 in counts:
        name = class_names[counts.index(0)]
        raise InvalidInput(f"{path} has no example of the class {name!r}, expected some of {', '.join(class_names)}")


def with_files(
    table: pd.DataFrame, files: pd.Series, root: Path, path: Path, partial: bool
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows whose file exists, and a note on how many have none.

    Parameters
    ----------
    table : DataFrame, n rows
    files : Series, n rows
        Of each row, relative to `root`.
    root : Path
    path : Path
        Of the table's file, for messages.
    partial : bool
        Whether more than 5% of the files may be missing.

    Raises
    ------
    Absent
        Where not one of the files exists.
    Partial
        Where more than 5% are missing and `partial` is not set.
    """
    found = files.isin(_existing(root, files)).to_numpy()
    n_missing = int((~found).sum())
    if n_missing == 0:
        return table, ()
    first = root / files.iloc[int(np.flatnonzero(~found)[0])]
    what = f"{n_missing:,} of the {len(table):,} files that {path} names are missing (the first: {first})"
    if not found.any():
        raise Absent(f"{what}: put them there")
    if n_missing > MOST_MISSING * len(table) and not partial:
        raise Partial(f"{what}: put them there, or use the others with dataset.partial=true")
    return table[found], (f"{n_missing:,} of {len(table):,} rows of {path.name} name a file that is missing: left out",)


def _existing(root: Path, files: pd.Series) -> set[str]:
    """The files that there are in the folders of these; a listing of a folder is cheaper than a look at each file."""
    folders = {file.rpartition("/")[0] for file in files.unique()}
    return {
        f"{folder}/{entry.name}" if folder else entry.name
        for folder in folders
        if (root / folder).is_dir()
        for entry in (root / folder).iterdir()
    }


def by_id(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    """The rows in the order of their ids, which become the index (called `id`).

    Raises
    ------
    InvalidInput
        Naming the line of an id that is missing, or an id that is there twice, and its lines.
    """
    ids = table[column].astype(str)
    missing = table[column].isna() | (ids.str.strip() == "")
    refuse_rows(table, column, path, missing.to_numpy(dtype=bool), "an id")
    twice = ids.duplicated(keep=False).to_numpy()
    if twice.any():
        first = ids[twice].iloc[0]
        lines = table.index[(ids == first).to_numpy()]
        said = f"the {table.index.name or LINE}s {' and '.join(str(line) for line in lines[:2])}"
        raise InvalidInput(f"{path}: {column} {first!r} stands in {said}, expected once: remove one of them")
    order = sorted(range(len(ids)), key=ids.tolist().__getitem__)  # Python's order of strings, as the contract's
    ordered = table.iloc[order].copy()
    ordered.index = pd.Index(ids.iloc[order].tolist(), name="id")
    return ordered
