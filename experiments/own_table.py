"""A user's own table, csv or parquet: nothing is known of its columns before it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.reading import read_table
from experiments.sources import Absent
from methods.contract import InvalidInput

UNNAMED_INDEX = r"__index_level_\d+__"  # what pandas calls an index without a name in a parquet file


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
        Where the file is missing, is neither csv nor parquet, or cannot be read.
    """
    if not path.is_file():
        raise Absent(f"{path} is missing: give the path of your own file")
    if path.suffix.lower() == ".csv":
        return read_table(path, ())
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    raise InvalidInput(f"{path} cannot be read: its name should end in .csv or .parquet")


def finite_numbers(column: pd.Series) -> np.ndarray:
    """Array, shape (n,), float64; NaN where there is no finite number.

    Examples
    --------
    >>> finite_numbers(pd.Series(["1", "2.5", "many", "inf"])).tolist()
    [1.0, 2.5, nan, nan]
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    values[~np.isfinite(values)] = np.nan
    return values


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


def _parquet(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path).to_pandas(ignore_metadata=True)  # an index becomes an ordinary column
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as parquet: {str(error).strip()}: write this file again") from None
    table = table.loc[:, ~table.columns.str.fullmatch(UNNAMED_INDEX)]
    if table.empty:
        raise InvalidInput(f"{path} has no rows, expected at least one")
    for name in table.select_dtypes("category"):
        table[name] = table[name].astype(table[name].cat.categories.dtype)
    table.index = pd.RangeIndex(len(table), name="row")
    return table
