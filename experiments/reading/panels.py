"""The panels (`.mk` folders) of meerkat 0.2.5 and before, read without meerkat and without running anything in them.

`state.dill`, which every panel has, is never opened, nor is any other pickle: what needs one is refused.
"""

from __future__ import annotations

import pickle
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import torch
import yaml

from experiments.reading.own_table import refuse_twice
from experiments.reading.sources import Absent
from methods.errors import InvalidInput

ID = "id"
META = "meta.yaml"
KINDS = ("data.npy", "data.feather", "data.pt")
PICKLES = ("data.dill", "data.pd")  # lists, and what meerkat < 0.2.5 wrote of a pandas column outside a block
AGAIN = "get this panel again"
UNSAFE = "pickled Python objects, which are not read, because that could run any program"
# what torch.load raises where a file is not as it should be, or holds more than tensors
DAMAGE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True, eq=False)
class Panel:
    """The columns of a panel, row by row as they were written.

    Parameters
    ----------
    folder : Path
    columns : mapping of str to array, shape (n,) or (n, d)
        In their order in the panel; `id` holds strings (object), which are all different.
    n_rows : int
    """

    folder: Path
    columns: Mapping[str, np.ndarray]
    n_rows: int

    @property
    def ids(self) -> pd.Index:
        """What rows are joined on, length n."""
        return pd.Index(self.columns[ID], dtype=object)

    def refuse_rows(self, column: str, bad: np.ndarray, expected: str) -> None:
        """Raise `InvalidInput` for the first of the bad rows, if there is one.

        Parameters
        ----------
        column : str
        bad : array, shape (n,), bool
        expected : str
            What should stand there, and what may be done.
        """
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            others = f" (and {int(bad.sum()) - 1:,} other rows)" if bad.sum() > 1 else ""
            whose = f"{self.columns[ID][row]!r} (row {row})" if ID in self.columns and column != ID else f"row {row}"
            value = _shown(self.columns[column][row])
            raise InvalidInput(f"{self.folder}: {column} of {whose} is {value}, expected {expected}{others}")


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        some = ", ".join(f"{number:g}" for number in value.ravel()[:5].tolist())
        return f"[{some}{' ...' if value.size > 5 else ''}]"
    return repr(value.item() if isinstance(value, np.generic) else value)[:60]


def short(value: Any) -> str:
    """What a YAML file holds, for messages; a few aliases may stand for a value of any size.

    Examples
    --------
    >>> short([["a"] * 99] * 99)[:41]
    "[['a', 'a', 'a', 'a', 'a', 'a', ...], ['a"
    """
    shortened = reprlib.Repr()
    shortened.maxstring = 80
    shortened.maxlevel = 2
    return shortened.repr(value)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # of 40,000 lines in an index
    """Knows plain YAML and the tags of meerkat and dcbench, whose classes become their names."""


def _refuse_tag(loader: Any, node: Any) -> None:
    raise InvalidInput(
        f"line {node.start_mark.line + 1} has the tag {node.tag!r}, which is not read, because such a tag could run "
        "any program: expected plain values, !!python/name:, !Artifact and !ArtifactContainer"
    )


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, name, node: name)
_Loader.add_constructor("!Artifact", _mapping)
_Loader.add_constructor("!ArtifactContainer", _mapping)
_Loader.add_constructor(None, _refuse_tag)


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file of meerkat or dcbench; a class (`!!python/name:`) is the string of its name.

    Raises
    ------
    Absent
        Where there is no such file.
    InvalidInput
        Where it is no YAML, or has another tag, naming file, line and tag.
    """
    if not path.is_file():
        raise Absent(f"{path} is missing: {AGAIN if path.name == META else 'get it, or give its path'}")
    try:
        return yaml.load(path.read_bytes(), Loader=_Loader)  # it constructs nothing but plain values
    except InvalidInput as error:
        raise InvalidInput(f"{path} {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as YAML: {' '.join(str(error).split())}: get it again") from None


def below(root: Path, relative: Any, said: str) -> Path:
    """A path below a folder, whatever the file that names it says.

    Parameters
    ----------
    root : Path
    relative : object
        What should be a relative path.
    said : str
        Who names it, for messages.

    Raises
    ------
    InvalidInput
        Where it is absolute, has `..`, or is a link to elsewhere.

    Examples
    --------
    >>> below(Path("panel.mk"), "../secret", "meta.yaml: block_dir")
    Traceback (most recent call last):
    ...
    methods.errors.InvalidInput: meta.yaml: block_dir is '../secret', expected a path that stays below panel.mk
    """
    plain = isinstance(relative, str) and relative.strip() and not set(relative) & {"\0", "\\"}
    if not plain or PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        raise InvalidInput(f"{said} is {short(relative)}, expected a path that stays below {root}")
    path = root / relative
    try:
        stays = path.resolve().is_relative_to(root.resolve())
        path.exists()  # a name may be too long
    except (OSError, RuntimeError) as error:  # the latter of links in a circle
        raise InvalidInput(f"{said} is {short(relative)}, which is no path: {error}") from None
    if not stays:
        raise InvalidInput(f"{said} is {short(relative)}, a link out of {root}: put the file itself there")
    return path


def read_panel(folder: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()) -> Panel:
    """The columns of a panel.

    Parameters
    ----------
    folder : Path
        `.mk`, unpacked: of blocks (`mgr`, meerkat 0.2.5), or older (`columns/<name>` without `mgr`).
    columns : sequence of str, optional
        Those to read; the others are not opened. By default all.
    optional : sequence of str
        To be read too, where they are there.

    Returns
    -------
    Panel

    Raises
    ------
    Absent
        Where the folder, or a file of it, is missing.
    InvalidInput
        Where a column is missing, is pickled, or has another length than the panel; where a path leaves the folder;
        where `id` has duplicates. The message names the file.
    """
    if not folder.is_dir():
        raise Absent(f"{folder} is missing: download it as {folder.name}.tar.gz and unpack that into {folder}")
    path = below(folder, META, f"{folder}: a file")
    meta = _dictionary(read_yaml(path), path)
    n_rows = _length(meta, path)
    where = _by_block(folder) if (folder / "mgr").is_dir() else _by_column(folder, meta, path)
    missing = next((name for name in columns or () if name not in where), None)
    if missing is not None:
        raise InvalidInput(f"{folder} has no column {missing!r}, it has {', '.join(where) or 'none'}: {AGAIN}")
    files: dict[Path, Any] = {}  # several columns may be in one block
    wanted = where if columns is None else {*columns, *optional}
    read = {name: _column(where[name], n_rows, files) for name in where if name in wanted}
    panel = Panel(folder, read, n_rows)
    return _with_ids(panel) if ID in read else panel


@dataclass(frozen=True)
class _Place:
    """Where the values of a column are.

    Parameters
    ----------
    name : str
    panel : Path
    folder : Path
        Of the data file.
    meta : Path
        Of the file that says so.
    index : int, str, dict or None
        Of the column in its block; None where the file holds nothing else.
    """

    name: str
    panel: Path
    folder: Path
    meta: Path
    index: Any = None

    @property
    def said(self) -> str:
        return f"{self.meta}: block_index of {self.name!r}"


def _dictionary(values: Any, said: Any) -> dict[Any, Any]:
    if not isinstance(values, dict):
        raise InvalidInput(f"{said} holds {type(values).__name__}, expected names with values: get it again")
    return values


def _part(meta: dict[Any, Any], key: str, said: Any) -> Any:
    if key not in meta:
        raise InvalidInput(f"{said} has no {key!r}, it has {', '.join(map(str, meta)) or 'nothing'}: get it again")
    return meta[key]


def _length(meta: dict[Any, Any], said: Any) -> int:
    n = _part(meta, "len", said)
    if type(n) is not int or n < 1:
        raise InvalidInput(f"{said}: len is {short(n)}, expected a number of rows of at least 1: {AGAIN}")
    return n


def _by_block(folder: Path) -> dict[str, _Place]:
    """The columns of a panel since the block manager."""
    manager = below(folder, "mgr", f"{folder}: a folder")
    path = below(folder, f"mgr/{META}", f"{folder}: a file")
    meta = _dictionary(read_yaml(path), path)
    columns = _dictionary(_part(meta, "columns", path), f"{path}: columns")
    order = meta.get("_column_order") or list(columns)
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise InvalidInput(f"{path}: _column_order is no list of names: {AGAIN}")
    refuse_twice(order, f"{path}: _column_order has")
    return {
        name: _place(name, _dictionary(_part(columns, name, f"{path}: columns"), f"{path}: {name}"), manager, path)
        for name in order
    }


def _place(name: str, column: dict[Any, Any], manager: Path, path: Path) -> _Place:
    if "block" not in column:  # what cannot share a block has a folder of its own
        return _Place(name, manager.parent, below(manager, f"columns/{name}", f"{path}: the name of a column"), path)
    said = f"{path}: block of {name!r}"
    block = _dictionary(column["block"], said)
    folder = below(manager, _part(block, "block_dir", said), f"{path}: block_dir of {name!r}")
    return _Place(name, manager.parent, folder, path, _part(block, "block_index", said))


def _by_column(folder: Path, meta: dict[Any, Any], path: Path) -> dict[str, _Place]:
    """The columns of a panel before there were blocks."""
    names = list(_dictionary(_part(meta, "column_dtypes", path), f"{path}: column_dtypes"))
    places = {}
    for name in names:
        own = below(folder, f"columns/{name}", f"{path}: the name of a column")
        places[name] = _Place(name, folder, own, path)
    return places


def _column(place: _Place, n_rows: int, files: dict[Path, Any]) -> np.ndarray:
    """Array, shape (n_rows,) or (n_rows, d)."""
    path = _data_file(place)
    if path not in files:
        files[path] = _read(path)
    content = files[path]
    if len(content) != n_rows:
        raise InvalidInput(f"{path} has {len(content):,} rows, the panel {place.panel} has {n_rows:,}: {AGAIN}")
    if isinstance(content, pd.DataFrame):
        return _of_table(content, place, path)
    return np.array(content if place.index is None else _of_block(content, place, path))


def _data_file(place: _Place) -> Path:
    within = place.folder.relative_to(place.panel)
    if not place.folder.is_dir():
        raise Absent(f"{place.folder} is missing, where {place.meta} has the column {place.name!r}: {AGAIN}")
    for kind in KINDS:
        path = below(place.panel, (within / kind).as_posix(), f"{place.meta}: the data of {place.name!r}")
        if path.is_file():
            return path
    pickled = next((place.folder / kind for kind in PICKLES if (place.folder / kind).exists()), None)
    if pickled is not None:
        raise InvalidInput(f"{pickled} holds {UNSAFE}: write {place.name!r} as {KINDS[0]} or {KINDS[1]} instead")
    raise Absent(f"{place.folder} has none of {', '.join(KINDS)} for the column {place.name!r}: {AGAIN}")


def _read(path: Path) -> np.ndarray | pd.DataFrame:
    """What one data file holds: array, shape (n, ...), or a table of n rows."""
    read = {".npy": _read_npy, ".feather": _read_feather, ".pt": _read_tensor}[path.suffix]
    values = read(path)
    if isinstance(values, np.ndarray) and values.ndim == 0:
        raise InvalidInput(f"{path} holds one value, expected an array of rows: {AGAIN}")
    return values


def _read_npy(path: Path) -> np.ndarray:
    try:
        # mapped: a header that promises more than the file holds is an error, and takes no memory
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError) as error:
        reason = str(error)
        if "pickle" in reason or "Python objects" in reason:
            raise InvalidInput(f"{path} is no array of plain values; it may hold {UNSAFE}: save numbers") from None
        raise InvalidInput(f"{path} cannot be read as npy ({' '.join(reason.split())}): {AGAIN}") from None
    if not isinstance(values, np.ndarray):
        values.close()
        raise InvalidInput(f"{path} holds several arrays, expected one: {AGAIN}")
    return values


def _read_feather(path: Path) -> pd.DataFrame:
    try:
        content = feather.read_table(path, memory_map=False)
        content.validate(full=True)  # texts that are no UTF-8 would be errors where they are used
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]  # Arrow may go on for pages
        raise InvalidInput(f"{path} cannot be read as feather ({reason}): {AGAIN}") from None
    refuse_twice(content.column_names, f"{path} has the column")
    return content.to_pandas(ignore_metadata=True)


def _read_tensor(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses aloud what the file may be
            values = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = " ".join(str(error).split("\n")[0].split())[:120]
        raise InvalidInput(f"{path} is damaged, or holds {UNSAFE} ({reason}): save a tensor") from None
    if not isinstance(values, torch.Tensor):
        raise InvalidInput(f"{path} holds {type(values).__name__}, expected a tensor: {AGAIN}")
    try:
        return values.detach().numpy()
    except (TypeError, RuntimeError):
        kind = f"{values.layout}, {values.dtype}"
        raise InvalidInput(f"{path} holds a tensor that is {kind}, expected dense numbers: save it so") from None


def _of_table(table: pd.DataFrame, place: _Place, path: Path) -> np.ndarray:
    """Array, shape (n,)."""
    name = place.index
    if name is None:  # a file of one column, whatever it is called
        name = place.name if place.name in table or table.shape[1] != 1 else table.columns[0]
    if not isinstance(name, str) or name not in table:
        have = ", ".join(map(repr, table.columns))
        raise InvalidInput(f"{place.said} is {short(name)}, expected a column of {path}: {have or 'none'}: {AGAIN}")
    return np.array(table[name].to_numpy())


def _of_block(block: np.ndarray, place: _Place, path: Path) -> np.ndarray:
    """Array, shape (n,) for a number, (n, d) for a range."""
    if block.ndim < 2:
        raise InvalidInput(f"{path} has shape {block.shape}, expected rows and columns, as a block has: {AGAIN}")
    width, index = block.shape[1], place.index
    if type(index) is int and 0 <= index < width:
        return block[:, index]
    if isinstance(index, dict) and set(index) == {"start", "stop", "step"}:
        start, stop, step = _range(index, width)
        if start is not None and 0 <= start < stop <= width and step > 0:
            return block[:, start:stop:step]
    raise InvalidInput(f"{place.said} is {short(index)}, expected columns of {path}, which has {width:,}: {AGAIN}")


def _range(index: dict[str, Any], width: int) -> tuple[Any, Any, Any]:
    """Start, stop and step, where Python's None stands for the whole; all None where one is no number."""
    whole = {"start": 0, "stop": width, "step": 1}
    given = {key: whole[key] if index[key] is None else index[key] for key in whole}
    plain = all(type(value) is int for value in given.values())
    return (given["start"], given["stop"], given["step"]) if plain else (None, None, None)


def _with_ids(panel: Panel) -> Panel:
    """The panel with its ids as strings; `InvalidInput` where one is missing or there twice."""
    values = panel.columns[ID]
    if values.ndim != 1:
        raise InvalidInput(f"{panel.folder}: id has shape {values.shape}, expected one id a row: {AGAIN}")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    ids = np.array([str(value) for value in values.tolist()], dtype=object)
    empty = np.array([not text.strip() for text in ids])
    panel.refuse_rows(ID, np.asarray(pd.isna(values)) | empty, f"an id: {AGAIN}")
    checked = Panel(panel.folder, {**panel.columns, ID: ids}, panel.n_rows)
    _refuse_duplicates(checked)
    return checked


def _refuse_duplicates(panel: Panel) -> None:
    ids = panel.ids
    twice = ids.duplicated(keep=False)
    if twice.any():
        first = ids[twice][0]
        rows = np.flatnonzero(ids == first)
        raise InvalidInput(
            f"{panel.folder}: id {first!r} stands in the rows {rows[0]} and {rows[1]}, expected once: {AGAIN}"
        )
