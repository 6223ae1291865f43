"""What a model gave elsewhere, read from a user's own file: npz, parquet or csv."""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from experiments.contract import SPLITS
from experiments.reading.own_table import attributes_of, finite_numbers, read_own_table
from experiments.reading.sources import Absent
from experiments.reading.stored import Stored
from experiments.reading.tables import by_id, check_values, refuse_rows
from methods.contract import InvalidInput

SINGULAR = {"embedding": "embeddings", "logit": "logits", "probability": "probabilities"}
SEEN = {"image": "images", "text": "texts"}  # what people are shown of examples
NAMES = {**SINGULAR, "label": "labels", "loss": "losses", "id": "ids", **SEEN}  # either may be used
KNOWN = (*NAMES.values(), "correct", "split")
TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
SUM_TOLERANCE = 1e-3  # of probabilities
SHOWN = 60  # letters of a list that is none
BELOW_ZERO = 1e-6  # what rounding may make of a loss of 0
SURE = math.log(2)  # a loss below it means that the label has more than half of the probability
MATRICES = "`logits` or `probabilities` (in a table logit_0, logit_1 ... or probability_0 ...)"
HOW = {
    "embeddings": "in an npz an array `embeddings` (n, d), in a table the columns embedding_0, embedding_1 ... or one "
    "column `embedding` of lists",
    "labels": f"`labels` (in a table `label`) and {MATRICES}, or at least `losses` (`loss`)",
    "logits": f"{MATRICES}, or `losses` (`loss`)",
}
EXAMPLES = {
    ".npz": 'numpy.savez("FILE.npz", id=ids, embeddings=x, labels=y, probabilities=p)',
    ".parquet": 'pandas.DataFrame({"id": ids, "label": y, "embedding": list(x), "probabilities": list(p)})'
    '.to_parquet("FILE.parquet")',
    ".csv": "a file that begins with these two lines:\n"
    "  id,label,embedding_0,embedding_1,probability_0,probability_1\n"
    "  cat.png,0,0.12,-1.5,0.9,0.1",
}
ENDINGS = tuple(EXAMPLES)
MOST_NAMES = 20  # of columns that are named
FEW = 5  # classes that are named
FAR = 0.1  # accuracy, by which another order of the classes must be better to be the right one
UNNAMED = r"Unnamed: \d+"  # what pandas calls a column without a name, as its own index has none


@dataclass(frozen=True, eq=False)
class GivenOutputs:
    """The content of such a file, rows in the order of their ids.

    Parameters
    ----------
    ids : tuple of str, length n
        Numbers of rows where the file has none.
    stored : Stored
    labels : Tensor, shape (n,), int64, optional
    class_names : tuple of str
    splits : array of str, shape (n,), optional
    images, texts : tuple of str, length n, optional
        Paths of pictures, and texts; empty where a row has none.
    attributes : pandas.DataFrame, n rows
        Whatever else the file says of each example, indexed by id.
    notes : tuple of str
        What was left out or taken for granted.
    """

    ids: tuple[str, ...]
    stored: Stored
    labels: Tensor | None
    class_names: tuple[str, ...]
    splits: np.ndarray | None
    images: tuple[str, ...] | None
    texts: tuple[str, ...] | None
    attributes: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Content:
    """A file as it is: columns with one value an example, and arrays with several; all have n rows."""

    path: Path
    columns: pd.DataFrame
    wide: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None  # that the columns of logits are named by

    @property
    def outcomes(self) -> str:
        """What predictions are read from."""
        return "logits" if "logits" in self.wide else "probabilities"

    def refuse(self, name: str, bad: np.ndarray, expected: str) -> None:
        """Raise `InvalidInput` for the first bad row of something wide, if there is one."""
        if bad.any():
            index, row = self.columns.index, int(np.flatnonzero(bad)[0])
            raise InvalidInput(f"{self.path} {index.name} {index[row]}: {name} hold {expected}")

    def matrix(self, name: str) -> Tensor | None:
        """Tensor, shape (n, columns), float32; `InvalidInput` where a number is not finite."""
        if name not in self.wide:
            return None
        with np.errstate(over="ignore"):
            values = self.wide[name].astype(np.float32)
        self.refuse(name, ~np.isfinite(values).all(axis=1), "what is no finite number: remove or repair this row")
        return torch.from_numpy(values)

    def numbers(self, name: str) -> Tensor | None:
        """Tensor, shape (n,), float32."""
        if name not in self.columns:
            return None
        with np.errstate(over="ignore"):
            values = finite_numbers(self.columns[name]).astype(np.float32)
        refuse_rows(self.columns, name, self.path, ~np.isfinite(values), "a finite number")
        return torch.from_numpy(values)


def read_outputs(path: Path, class_names: Sequence[str] | None = None) -> GivenOutputs:
    """Embeddings, and what losses come from, of the examples in a file.

    Parameters
    ----------
    path : Path
        Of an npz, parquet or csv file. It holds `embeddings`; `labels` (classes counted from 0, or names); and `logits`
        or `probabilities` (if both, the logits count) or `losses` (nats). Without labels, losses are needed. It may
        hold `ids`, `correct`, `split`, and what people are shown of an example: `images` (paths of files) and `texts`;
        whatever else has one value an example is an attribute. Names may be singular, and tables number their columns:
        embedding_0, logit_0, probability_0; where labels are names, logit_cat and probability_cat will do, too. A
        single column of logits or probabilities is that of class 1, of two.
    class_names : sequence of str, optional
        Of the columns of logits. By default as the columns are called, else the names among the labels in alphabetical
        order, or "0", "1" ...

    Raises
    ------
    InvalidInput
        Naming the file, the row and what was expected.
    """
    content = _read(path)
    embeddings, logits, losses = content.matrix("embeddings"), _logits(content), _losses(content)
    assert embeddings is not None  # `_check_complete` refused a file without
    labels, names, notes = _labels(content, logits, class_names or content.classes)
    correct, more_notes = _correct(content, losses, known=logits is not None and labels is not None)
    columns, rows = _in_order(content)
    arrays = (embeddings, logits, losses, correct)
    return GivenOutputs(
        ids=tuple(columns.index),
        stored=Stored(*(None if values is None else values[rows] for values in arrays)),
        labels=None if labels is None else labels[rows],
        class_names=names,
        splits=columns["split"].to_numpy(dtype=str) if "split" in columns else None,
        **{name: _seen(columns, name) for name in SEEN.values()},
        attributes=attributes_of(columns.drop(columns=list(KNOWN), errors="ignore")),
        notes=(*content.notes, *notes, *more_notes),
    )


def _in_order(content: _Content) -> tuple[pd.DataFrame, Tensor]:
    """The columns in the order of their ids, with the split of each row, and which rows of the file these were."""
    columns, n = content.columns.copy(), len(content.columns)
    if "ids" not in columns:
        columns["ids"] = [f"{row:0{len(str(n - 1))}d}" for row in range(n)]
    if "split" in columns:
        check_values(columns, "split", content.path, SPLITS)
    ordered = by_id(columns, "ids", content.path)
    return ordered, torch.tensor(pd.Index(columns["ids"].astype(str)).get_indexer(ordered.index))


def _seen(columns: pd.DataFrame, name: str) -> tuple[str, ...] | None:
    return None if name not in columns else tuple(columns[name].astype(object).fillna("").map(str))


def _check_complete(names: Sequence[str], path: Path) -> None:
    has = set(names)
    needed = "embeddings" if "embeddings" not in has else "labels" if "labels" not in has else "logits"
    outcomes = {"logits", "probabilities", "losses"} if "labels" in has else {"losses"}
    if "embeddings" not in has or not outcomes & has:
        example = EXAMPLES[path.suffix.lower()]
        raise InvalidInput(
            f"{path} has no {needed}, expected {HOW[needed]}; it has {_listed(names)}\nfor example: {example}"
        )


def _listed(names: Sequence[str]) -> str:
    others = f" and {len(names) - MOST_NAMES:,} others" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{others}" or "nothing"


def _logits(content: _Content) -> Tensor | None:
    """Tensor, shape (n, c), float32, from logits or probabilities."""
    logits = content.matrix("logits")
    if logits is not None:
        return logits if logits.shape[1] > 1 else torch.cat([torch.zeros_like(logits), logits], dim=1)
    given = content.matrix("probabilities")
    if given is None:
        return None
    single = given.shape[1] == 1
    values = torch.cat([1 - given, given], dim=1) if single else given
    outside = (values < 0).any(dim=1) | ((values.double().sum(dim=1) - 1).abs() > SUM_TOLERANCE)
    row = int(outside.nonzero()[0]) if outside.any() else 0
    allowed = "a probability from 0 to 1" if single else f"none below 0 and a sum of 1 (within {SUM_TOLERANCE:g})"
    content.refuse("probabilities", outside.numpy(), f"{_shown(given[row])}, expected {allowed}")
    return values.clamp(min=torch.finfo(torch.float32).tiny).log()


def _losses(content: _Content) -> Tensor | None:
    losses = content.numbers("losses")
    if losses is not None:
        refuse_rows(content.columns, "losses", content.path, (losses < -BELOW_ZERO).numpy(), "a loss of at least 0")
    return losses


def _shown(values: Tensor) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:5].tolist())
    return shown if len(values) <= 5 else f"{shown} ..."


def _labels(
    content: _Content, logits: Tensor | None, class_names: Sequence[str] | None
) -> tuple[Tensor | None, tuple[str, ...], tuple[str, ...]]:
    """Labels, the names of the classes, and a note where their order was taken for granted."""
    given, n_classes = tuple(class_names or ()), None if logits is None else logits.shape[1]
    if given and n_classes not in (None, len(given)):
        raise InvalidInput(f"{content.path} has {n_classes} columns of logits, class_names has {len(given)} names")
    if "labels" not in content.columns:
        return None, given, ()
    column = content.columns["labels"]
    refuse_rows(content.columns, "labels", content.path, (column.isna() | (column == "")).to_numpy(), "a class")
    values = finite_numbers(column)
    if pd.api.types.is_string_dtype(column) and np.isnan(values).any():
        return _named_labels(content, logits, given)
    wanted = n_classes or len(given) or None
    bad = ~((values >= 0) & (values % 1 == 0) & (values < (wanted or np.inf)))
    classes = "0, 1, 2 ..." if wanted is None else f"0 to {wanted - 1}, counted from 0"
    refuse_rows(content.columns, "labels", content.path, bad, f"a class: {classes}")
    if wanted is None:
        many = "a number below that of the rows: classes count from 0 (give names instead, or set class_names)"
        refuse_rows(content.columns, "labels", content.path, values >= max(len(values), 2), many)
    n = wanted or max(int(values.max()) + 1, 2)
    return torch.from_numpy(values.astype(np.int64)), given or tuple(str(c) for c in range(n)), ()


def _named_labels(
    content: _Content, logits: Tensor | None, given: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    column = content.columns["labels"]
    names = given or tuple(sorted(column.unique()))
    if logits is not None and len(names) != logits.shape[1]:
        raise InvalidInput(
            f"{content.path} has {logits.shape[1]} columns of {content.outcomes}, but {len(names)} names among the "
            f"labels ({_few(names)}): say which column is whose with class_names=[...]"
        )
    check_values(content.columns, "labels", content.path, names)
    labels = torch.tensor(column.map({name: code for code, name in enumerate(names)}).to_numpy(dtype=np.int64))
    if given or logits is None:
        return labels, names, ()
    _refuse_another_order(content, logits, labels, names)
    taken = f"the columns of {content.outcomes} were taken for the classes in alphabetical order"
    return labels, names, (f"{taken} (class_names says otherwise)",)


def _refuse_another_order(content: _Content, logits: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Raise `InvalidInput` where the columns seem to be those of other classes than the alphabet has it."""
    n, c = logits.shape
    counts = torch.bincount(logits.argmax(dim=1) * c + labels, minlength=c * c).reshape(c, c).numpy()  # column, class
    _, best = linear_sum_assignment(counts, maximize=True)
    accuracy, highest = counts.trace() / n, counts[range(c), best].sum() / n
    if highest > accuracy + FAR:
        order = [names[index] for index in best]
        raise InvalidInput(
            f"{content.path}: where the columns of {content.outcomes} are those of {_few(names)}, the alphabetical "
            f"order, the accuracy is {accuracy:.2f}; with {_few(order)} it is {highest:.2f}: say which column is whose "
            f"with class_names=[{','.join(order) if c <= FEW else '...'}]"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (" ..." if len(names) > FEW else "")


def _correct(content: _Content, losses: Tensor | None, known: bool) -> tuple[Tensor | None, tuple[str, ...]]:
    """What is stored; else nothing where logits and labels tell, else what the losses say."""
    if "correct" in content.columns:
        column = content.columns["correct"]
        truths = column.astype(str).str.lower().map(TRUTHS)
        refuse_rows(content.columns, "correct", content.path, truths.isna().to_numpy(), "true or false (or 1 or 0)")
        return torch.tensor(truths.to_numpy(dtype=bool)), ()
    if known or losses is None:
        return None, ()
    note = f"predictions with a loss below log 2 = {SURE:.3f} were taken for right (a column `correct` says otherwise)"
    return losses < SURE, (note,)


def _read(path: Path) -> _Content:
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder: give the path of a file with a model's outputs")
    if not path.is_file():
        raise Absent(f"{path} is missing: give the path of a file with a model's outputs")
    if path.suffix.lower() not in ENDINGS:
        raise InvalidInput(f"{path} cannot be read: its name should end in .npz, .parquet or .csv")
    if path.suffix.lower() == ".npz":
        return _from_npz(path)
    return _from_table(read_own_table(path), path)


def _canonical(names: Sequence[str], path: Path) -> dict[str, str]:
    """What we call these arrays or columns."""
    ours = {name: NAMES.get(name, name) for name in names}
    twice = next((name for name in ours if ours[name] != name and ours[name] in names), None)
    if twice is not None:
        raise InvalidInput(f"{path} has both {twice} and {ours[twice]}: remove one of them")
    return ours


def _from_npz(path: Path) -> _Content:
    arrays = _arrays(path)
    _check_complete(list(arrays), path)
    n = len(arrays["embeddings"]) if arrays["embeddings"].ndim else 0
    wide, columns, others = {}, {}, []
    for name, values in arrays.items():
        if name in SINGULAR.values():
            wide[name] = _two_dimensional(values, name, n, path)
        elif values.shape == (n,):
            columns[name] = _one_dimensional(values, name, path)
        elif name in KNOWN and name not in SEEN.values():
            raise InvalidInput(f"{path}: {name} has shape {values.shape}, expected ({n},) as embeddings has {n} rows")
        else:
            others.append(f"{name} {values.shape}")
    notes = (f"left out, for want of one value an example: {', '.join(others)}",) if others else ()
    return _Content(path, pd.DataFrame(columns, index=pd.RangeIndex(n, name="row")), wide, notes)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; nothing in it is executed."""
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{path} is no npz file, or a part of one is missing: write it again with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            ours = _canonical(file.files, path)
            return {ours[name]: _array(file, name, path) for name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput(f"{path} is damaged ({error}): write it again") from None


def _array(file: Any, name: str, path: Path) -> np.ndarray:
    try:
        values = np.asarray(file[name])
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: {name} holds bytes that are no UTF-8: save texts") from None
    except ValueError as error:
        if "pickle" not in str(error):
            raise InvalidInput(f"{path}: {name} cannot be read ({error}): write it again") from None
        raise InvalidInput(
            f"{path}: {name} holds pickled Python objects, which are not read, because that could run any program: "
            f"save numbers, or texts with {name}.astype(str)"
        ) from None


def _one_dimensional(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    if values.dtype.kind not in "fiubU":
        raise InvalidInput(f"{path}: {name} has the type {values.dtype}, expected numbers or texts")
    wide = values.dtype.kind == "f" and values.dtype.itemsize > 8
    # attributes are written by Arrow, which knows neither wider numbers nor bytes in another order
    return values.astype(np.float64 if wide else values.dtype.newbyteorder("="), copy=False)


def _two_dimensional(values: np.ndarray, name: str, n: int, path: Path) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        raise InvalidInput(f"{path}: {name} has the type {values.dtype}, expected numbers")
    if values.ndim == 1 and name != "embeddings":
        values = values[:, None]  # of class 1, of two
    if values.ndim != 2 or len(values) != n or 0 in values.shape:
        raise InvalidInput(f"{path}: {name} has shape {values.shape}, expected ({n or 'n'}, columns)")
    return values


def _from_table(table: pd.DataFrame, path: Path) -> _Content:
    wide, classes = {}, {}
    for singular, name in SINGULAR.items():
        own = _numbered(table, singular, path)
        if not own:
            own = _named(table, singular)
            classes[name] = tuple(column.removeprefix(f"{singular}_") for column in own) or None
        if own:
            wide[name] = np.stack([_finite(table, column, path) for column in own], axis=1)
            table = table.drop(columns=own)
    columns = table.rename(columns=_canonical(list(table.columns), path))
    for name in [name for name in SINGULAR.values() if name in columns]:
        if name in wide:
            raise InvalidInput(f"{path} has {name} in one column and in numbered ones: remove one of them")
        wide[name] = _unpacked(columns, name, path)
        columns = columns.drop(columns=name)
    columns = columns.loc[:, ~columns.columns.str.fullmatch(UNNAMED)]
    _check_complete([*wide, *columns], path)
    content = _Content(path, columns, wide)
    return replace(content, classes=classes.get(content.outcomes))


def _numbered(table: pd.DataFrame, singular: str, path: Path) -> list[str]:
    """Columns like embedding_0, embedding_1 ..., in the order of their numbers."""
    numbers: dict[int, str] = {}
    for name in (name for name in table if re.fullmatch(rf"{singular}_\d+", name)):
        other = numbers.setdefault(int(name.removeprefix(f"{singular}_")), name)
        if other != name:
            raise InvalidInput(f"{path} has both {other} and {name}, which have one number: remove one of them")
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None:
        raise InvalidInput(f"{path} has no column {singular}_{gap}, but {singular}_{max(numbers)}: count from 0")
    return [numbers[number] for number in range(len(numbers))]


def _named(table: pd.DataFrame, singular: str) -> list[str]:
    """Columns like probability_cat, probability_dog ..., in their order, if there is one for every name of a label."""
    labels = next((name for name in ("label", "labels") if name in table), None)
    if labels is None or singular == "embedding":
        return []
    own = [name for name in table if name.startswith(f"{singular}_")]
    wanted = {f"{singular}_{label}" for label in table[labels].astype(str).unique()}
    return own if len(own) > 1 and wanted <= set(own) else []


def _finite(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Array, shape (n,), float32."""
    values = finite_numbers(table[column])
    refuse_rows(table, column, path, np.isnan(values), "a finite number")
    with np.errstate(over="ignore"):  # `matrix` refuses what becomes infinite
        return values.astype(np.float32)


def _unpacked(table: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    """A column of lists as an array, shape (n, columns); in csv they are written like [0.1, 2]."""
    rows = [_list(value) for value in table[name]]
    width = next((len(row) for row in rows if row is not None and len(row)), 1)  # an empty row is no example of it
    bad = np.array([row is None or len(row) != width or not width for row in rows])
    if bad.any():
        shown = table[[name]].map(lambda value: " ".join(str(value)[:SHOWN].split()))  # a list may be long
        some = "numbers" if bad.all() else f"{width} numbers"
        refuse_rows(
            shown, name, path, bad, f"a list of {some}, as [0.5, -1.2] (of an array, x.tolist() makes such lists)"
        )
    return np.stack(rows)


def _list(value: Any) -> np.ndarray | None:
    """Array, shape (columns,), or None where it is no list of numbers; a number alone is a list of one."""
    if value is None:  # numpy would make NaN of it
        return None
    try:
        values = np.atleast_1d(np.asarray(json.loads(value) if isinstance(value, str) else value, dtype=np.float32))
    except (ValueError, TypeError, RecursionError):  # the last of brackets within brackets
        return None
    return values if values.ndim == 1 else None
