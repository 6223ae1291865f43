"""What `slicebench find` found: a table for people, json, and files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.console import printer, say
from experiments.describing.makeup import PREFIX, traits
from experiments.describing.problems import FoundIn, FoundProblem
from experiments.files import write_atomically, write_json, write_parquet
from experiments.settings import Settings
from methods.errors import InvalidInput

RUNS, MARK = "runs", "find.json"  # below the folder of the results
SLICES_CSV, SLICES_PARQUET, SUMMARY = "slices.csv", "slices.parquet", "summary.csv"
REPORT = "report"
MADE_BY = "slicebench find"
FOUND, HELD_OUT = "found", "held_out"  # the halves
TRAITS, WORDS = 2, 3  # of a slice that are told
MANY_KINDS = 0.2  # share of the errors: where the commonest kind has less, it says nothing
GAP = "gap: the accuracy of the other examples minus that of the slice"
# columns of examples that are known by other names here, or say nothing to a user
RENAMED, LEFT_OUT = {"path": "image"}, ("split", "map_x", "map_y")


@dataclass(frozen=True, eq=False)
class Found:
    """Slices, and what they were found in.

    Parameters
    ----------
    file : Path
    folder : Path
        Of the results.
    settings : Settings
    problem : FoundProblem
    """

    file: Path
    folder: Path
    settings: Settings
    problem: FoundProblem

    @cached_property
    def halves(self) -> dict[str, FoundIn]:
        """Where slices are checked, if anywhere, and where they were sought: in the order of columns and rows."""
        fitted, scored = self.problem.fitted, self.problem.scored
        return {FOUND: scored} if fitted is None else {HELD_OUT: scored, FOUND: fitted}

    @cached_property
    def numbers(self) -> dict[str, pd.DataFrame]:
        """Of each half a row for each slice, as `experiments.describing.problems.FoundProblem.numbers`."""
        fitted, scored = self.problem.fitted_numbers, self.problem.numbers
        return {FOUND: scored} if fitted is None else {HELD_OUT: scored, FOUND: fitted}

    @property
    def n_slices(self) -> int:
        return self.problem.scored.slices.n_slices

    @cached_property
    def standing_out(self) -> list[str]:
        """What is to be said of each slice, in a line: by its examples in the first half in which it has some."""
        return [self._standing_out(index) for index in range(1, self.n_slices + 1)]

    def warnings(self, index: int) -> list[str]:
        """What the method says of slice `index`, from 1, that is not as it should be."""
        return [str(warning) for warning in self.problem.scored.slices.diagnostics[index - 1].get("warnings", ())]

    def _standing_out(self, index: int) -> str:
        return next((standing_out(half, index) for half in self.halves.values() if _has(half, index)), "no examples")


def _has(half: FoundIn, index: int) -> bool:
    return half.slices.n_slices >= index and bool(half.members[:, index - 1].any())


def standing_out(half: FoundIn, index: int) -> str:
    """The commonest error of a slice, and of attributes and words what is more frequent in it than in the half."""
    member = half.members[:, index - 1]
    parts = [_error(half.examples[member]), *_traits(half.examples, member), _words(half, index)]
    return "; ".join(filter(None, parts)) or "nothing"


def _error(members: pd.DataFrame) -> str:
    wrong = members[~members["correct"].astype(bool)]
    if wrong.empty:
        return "no errors"
    classes = [name for name in ("label", "prediction") if members[name].notna().all()]
    if not classes:
        return ""
    counts = wrong.groupby(classes, observed=True).size().sort_values(ascending=False, kind="stable")
    first = counts.index[0] if len(classes) > 1 else (counts.index[0],)
    n, share = len(wrong), f"{counts.iloc[0]} of {len(wrong)} errors"
    if counts.iloc[0] < MANY_KINDS * n:
        return f"{n} errors of many kinds"
    if counts.iloc[0] == n:
        share = {1: "the only error", 2: "both errors"}.get(n, f"all {n} errors")
    return f"{share}: {' -> '.join(map(_name, first))}"


def _traits(examples: pd.DataFrame, member: np.ndarray) -> list[str]:
    """Of each attribute at most one, those furthest from chance first."""
    said: dict[str, str] = {}
    for trait in traits(examples, member):
        if not trait.stands_out or trait.attribute in said:
            continue
        if trait.value is None:
            said[trait.attribute] = f"{trait.in_slice:.3g} on average ({trait.in_all:.3g} in all)"
        elif trait.deviations > 0:
            said[trait.attribute] = f"{_name(trait.value)} {trait.in_slice:.0%} ({trait.in_all:.0%} in all)"
    return [f"{_name(attribute)} {words}" for attribute, words in list(said.items())[:TRAITS]]


def _words(half: FoundIn, index: int) -> str:
    from experiments.report.examples import words_of

    words = [_name(token) for token, _, _ in words_of(half, index).tokens[:WORDS]]
    return f"words: {', '.join(words)}" if words else ""


def _name(value: Any) -> str:
    """Somebody's text in a line of a terminal."""
    from experiments.report.words import name_of, written

    return str(written(name_of(value)))


def refuse_others(folder: Path, file: Path) -> None:
    """Raise `InvalidInput` where results would be written over something that is not ours."""
    outputs = [folder / name for name in (SLICES_CSV, SLICES_PARQUET, SUMMARY, REPORT, MARK)]
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{folder} is a file, expected a folder for the results: choose another with --output DIR")
    if file.resolve() in [path.resolve() for path in outputs]:
        raise InvalidInput(f"{file} lies where the results would be written: choose another folder with --output DIR")
    there = next((path for path in outputs if path.exists()), None)
    if there is not None and not _marked(folder):
        raise InvalidInput(f"{there} is there already, and no result of ours: choose another folder with --output DIR")


def _marked(folder: Path) -> dict[str, Any]:
    """What was found into this folder before; nothing where that was not us."""
    try:
        content = json.loads((folder / MARK).read_text())
        return content if content["made_by"] == MADE_BY else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_found(found: Found, report: bool) -> dict[str, Path]:
    """Write tables, and the report if it is asked for: the path of each."""
    folder, before = found.folder, _marked(found.folder).get("run")
    if before not in (None, str(found.problem.run.folder)):
        say(f"{folder} held slices of {Path(before).name}: the tables are replaced, the run is kept")
    paths = {"slices": folder / SLICES_CSV, "slices_parquet": folder / SLICES_PARQUET, "summary": folder / SUMMARY}
    write_json(folder / MARK, as_json(found, paths))  # first: it says that what follows is ours
    members = members_of(found)
    _write_csv(paths["slices"], members)
    write_parquet(paths["slices_parquet"], members)
    _write_csv(paths["summary"], summary_of(found))
    if report:
        from experiments.report.report import write_report

        title = f"Slices in {found.file.name}"
        paths["report"] = write_report(found.problem.run.folder, folder / REPORT, title=title)
        write_json(folder / MARK, as_json(found, paths))
    return paths


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    write_atomically(path, lambda file: table.to_csv(file, index=False))


def members_of(found: Found) -> pd.DataFrame:
    """A row for each slice and each of its members: slices in their order, the strongest members first."""
    tables = [
        _members(half, name, index)
        for index in range(1, found.n_slices + 1)
        for name, half in found.halves.items()
        if _has(half, index)
    ]
    empty = [_members(half, name, None) for name, half in found.halves.items()]
    table = pd.concat(tables or empty, ignore_index=True)
    return table.drop(columns=[name for name in ("label", "prediction") if table[name].isna().all()])


def _members(half: FoundIn, name: str, index: int | None) -> pd.DataFrame:
    rows = half.examples.head(0) if index is None else half.ranked(index)
    membership = half.slices.membership.numpy()[rows.index, (index or 1) - 1] if len(rows) else []
    own = rows.drop(columns=list(LEFT_OUT)).rename(columns=RENAMED)
    for column in ("image", "text"):
        if half.examples[{"image": "path"}.get(column, column)].fillna("").eq("").all():
            own = own.drop(columns=column)
    attributes = [column for column in own if column.startswith(PREFIX)]
    plain = {column: column.removeprefix(PREFIX) for column in attributes}
    first = {"slice": index, "half": name, "rank": np.arange(1, len(rows) + 1), "membership": membership}
    taken = {*first, *(column for column in own if column not in attributes)}
    own = own.rename(columns={old: new for old, new in plain.items() if new not in taken})
    for at, (column, values) in enumerate(first.items()):
        own.insert(at, column, values)
    return own


def summary_of(found: Found) -> pd.DataFrame:
    """A row for each slice, with its numbers in each half and what stands out."""
    tables = [numbers.add_prefix(f"{half}_") for half, numbers in found.numbers.items()]
    table = pd.concat(tables, axis=1).reindex(range(1, found.n_slices + 1)).rename_axis("slice")
    diagnostics = [json.dumps(entry) for entry in found.problem.scored.slices.diagnostics]
    return table.assign(standing_out=found.standing_out, diagnostics=diagnostics).reset_index()


def as_json(found: Found, paths: Mapping[str, Path]) -> dict[str, Any]:
    """What the table says, and where the files are, as json values."""
    method = found.settings.method
    return {
        "made_by": MADE_BY,
        "file": str(found.file),
        "method": method.name,
        "settings": dict(method.values),
        "halves": {name: _of_half(half) for name, half in found.halves.items()},
        "slices": [
            {
                "slice": index,
                **_of_slice(found, index),
                "standing_out": found.standing_out[index - 1],
                "warnings": found.warnings(index),
            }
            for index in range(1, found.n_slices + 1)
        ],
        "files": {name: str(path) for name, path in paths.items()},
        "run": str(found.problem.run.folder),
    }


def _of_half(half: FoundIn) -> dict[str, Any]:
    examples = half.examples
    losses, correct = examples["loss"].to_numpy(np.float64), examples["correct"].to_numpy(bool)
    return {
        "split": half.split,
        "size": len(examples),
        "mean_loss": float(losses.mean()),
        "accuracy": float(correct.mean()),
    }


def _of_slice(found: Found, index: int) -> dict[str, Any]:
    return {half: _plain(numbers.loc[index]) for half, numbers in found.numbers.items() if index in numbers.index}


def _plain(numbers: pd.Series) -> dict[str, float | int | None]:
    values = {str(name): None if math.isnan(value) else float(value) for name, value in numbers.items()}
    return values | {"size": int(numbers["size"])}


def show_json(found: Found, paths: Mapping[str, Path]) -> None:
    print(json.dumps(as_json(found, paths), indent=2))


def print_found(found: Found, paths: Mapping[str, Path]) -> None:
    """The table, what stands out in each slice, and where the files are."""
    out = printer()
    if found.n_slices:
        out.print(_table(found))
        for index, words in enumerate(found.standing_out, start=1):
            for line in (words, *found.warnings(index)):
                out.print(f"{index}  {line}", markup=False, soft_wrap=True)
        out.print(f"\n{GAP}", soft_wrap=True)
    else:
        out.print(f"{_method(found)} found no slice", markup=False, soft_wrap=True)
    names = ", ".join(str(path.relative_to(found.folder)) for path in paths.values())
    out.print(f"in {found.folder}: {names}", markup=False, soft_wrap=True)


def _method(found: Found) -> str:
    """With its settings, which are what can be changed."""
    method = found.settings.method
    settings = ", ".join(f"{name}={value}" for name, value in method.values.items())
    return f"{method.name} ({settings})" if settings else method.name


def _table(found: Found) -> Table:
    apart = len(found.halves) > 1
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("\nslice" if apart else "slice", footer="all")
    for half, inside in found.halves.items():
        of_all = _of_half(inside)
        title = {FOUND: "where found\n", HELD_OUT: "held out\n"}[half] if apart else ""
        below = "\n" if apart else ""
        with_gap = half == next(iter(found.halves))
        table.add_column(f"{title}size", str(of_all["size"]), justify="right")
        table.add_column(f"{below}mean loss", f"{of_all['mean_loss']:.2f}", justify="right")
        table.add_column(f"{below}accuracy", f"{of_all['accuracy']:.2f}", justify="right")
        if with_gap:
            table.add_column(f"{below}gap [95% interval]", "", justify="right")
    for index in range(1, found.n_slices + 1):
        cells = [cell for half in found.halves for cell in _cells(found, half, index)]
        table.add_row(str(index), *cells)
    return table


def _cells(found: Found, half: str, index: int) -> list[str]:
    numbers = found.numbers[half]
    with_gap = half == next(iter(found.halves))
    if index not in numbers.index:
        return [""] * (4 if with_gap else 3)
    row = numbers.loc[index]
    cells = [str(int(row["size"])), _number(row["mean_loss"]), _number(row["accuracy"])]
    if not with_gap:
        return cells
    interval = "" if math.isnan(row["gap_low"]) else f" [{_number(row['gap_low'])}, {_number(row['gap_high'])}]"
    return [*cells, f"{_number(row['gap'])}{interval}"]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 2) + 0:.2f}"  # no minus before a zero
