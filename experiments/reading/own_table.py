"""A user's own table, csv or parquet: nothing is known of its columns before it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.reading.sources import Absent
from experiments.reading.tables import read_table
from methods.contract import InvalidInput

UNNAMED_INDEX = r"__index_level_\d+__"  # what pandas calls an index without a name in a parquet file

BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)


def read_own_table(path: Path) -> pd.DataFrame:
    """A table as it is.

    Parameters
    ----------
    path : Path
        A csv file with a header, or a parquet file.

    Returns
    -------
    DataFrame
        Of csv all columns are texts, and the index, called `line`, counts as `read_table` does. Of parquet they have
        their types, and the index, called `row`, counts from 0.

    Raises
    ------
    InvalidInput
        Where the file is missing, is neither csv nor parquet, or cannot be read; where two columns have one name, or
        one holds bytes.
    """
    if not path.is_file():
        raise Absent(f"{path} is missing: give the path of your own file")
    if path.suffix.lower() == ".csv":
        return _csv(path)
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    raise InvalidInput(f"{path} cannot be read: its name should end in .csv or .parquet")


def finite_numbers(column: pd.Series) -> np.ndarray:
    """Array, shape (n,), float64; NaN where there is no finite number: a date is none.

    Examples
    --------
    >>> finite_numbers(pd.Series(["1", "2.5", "many", "inf"])).tolist()
    [1.0, 2.5, nan, nan]
    """
    if holds_dates(column):  # pandas would count nanoseconds
        return np.full(len(column), np.nan)
    values = _parsed(column)
    values[~np.isfinite(values)] = np.nan
    return values


def _parsed(column: pd.Series) -> np.ndarray:
    """Array, shape (n,), float64; NaN where there is no number."""
    if isinstance(column.dtype, pd.StringDtype):
        try:  # five times as fast, where all of them are plain numbers
            return np.array(pa.array(column, from_pandas=True).cast(pa.float64()).to_numpy(zero_copy_only=False))
        except pa.ArrowException:
            pass
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)


def holds_dates(column: pd.Series) -> bool:
    """Whether these are points in time, or spans of it."""
    return pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column)


def refuse_twice(names: Sequence[str], said: str) -> None:
    """Raise `InvalidInput` where a name is there twice.

    Parameters
    ----------
    names : sequence of str
    said : str
        What has these names.

    Examples
    --------
    >>> refuse_twice(["age", "sex", "age"], "people.csv has")
    Traceback (most recent call last):
    ...
    methods.errors.InvalidInput: people.csv has 'age' twice, expected once: remove or rename one of them
    """
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InvalidInput(f"{said} {twice!r} twice, expected once: remove or rename one of them")


def attributes_of(table: pd.DataFrame) -> pd.DataFrame:
    """Columns as attributes: numbers where all values are numbers, else texts.

    Examples
    --------
    >>> attributes_of(pd.DataFrame({"age": ["7", "40"], "place": ["7", "home"]})).to_dict("list")
    {'age': [7.0, 40.0], 'place': ['7', 'home']}
    """
    return pd.DataFrame({name: _attribute(table[name]) for name in table}, index=table.index)


def _attribute(column: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(column):
        return column.astype(str)
    values = finite_numbers(column) if pd.api.types.is_string_dtype(column) else None
    if values is not None:
        return column if np.isnan(values).any() else pd.Series(values, index=column.index)
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def _csv(path: Path) -> pd.DataFrame:
    table = read_table(path, ())
    # the header once more, as it is: pandas calls the second `label` label.1
    options = {"header": None, "nrows": 1, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    header = pd.read_csv(path, **options).iloc[0].tolist()
    refuse_twice([name for name in header if name], f"{path} has the column")  # those without a name get one each
    return table


def _parquet(path: Path) -> pd.DataFrame:
    try:
        _check_schema(pq.read_schema(path), path)
        content = pq.read_table(path)
        content.validate(full=True)  # texts that are no UTF-8 would be errors where they are used
        table = content.to_pandas(ignore_metadata=True)  # an index becomes an ordinary column
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]  # Arrow may go on for pages
        raise InvalidInput(f"{path} cannot be read as parquet: {reason}: write this file again") from None
    table = table.loc[:, ~table.columns.str.fullmatch(UNNAMED_INDEX)]
    if table.empty:
        raise InvalidInput(f"{path} has no rows, expected at least one")
    for name in table.select_dtypes("category"):
        table[name] = table[name].astype(table[name].cat.categories.dtype)
    table.index = pd.RangeIndex(len(table), name="row")
    return table


def _check_schema(schema: pa.Schema, path: Path) -> None:
    refuse_twice(schema.names, f"{path} has the column")
    for field in schema:
        if any(of_kind(field.type) for of_kind in BYTES):
            raise InvalidInput(
                f"{path}: {field.name} has the type {field.type}, expected numbers or texts: write it as text, or "
                "leave it out of the file"
            )
