"""The slice problems on this machine: `slicebench list problems`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from experiments.console import printer, progress_bars, say
from experiments.loaders.dcbench import DCBench
from experiments.loaders.suite import Suite
from experiments.reading.dcbench import INDEX, ProblemEntry, read_index, read_outcomes
from experiments.reading.sources import Absent, data_root
from experiments.suites.fitness import fitness
from methods.errors import InvalidInput
from methods.progress import progress


def show_problems(as_json: bool) -> None:
    """Print each problem with kind, data set, slices, and how often its model is right in and out of them."""
    with progress_bars(lambda *_: None):
        rows = list(_rows())
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        print(
            f"no problems in {data_root()}: slicebench make NAME (slicebench list suites), or slicebench fetch dcbench"
        )
        return
    table = Table("set", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("problem", no_wrap=True)  # to be copied: never cut short
    for column in ("kind", "data set", "strength", "slice"):
        table.add_column(column)
    for column in ("members", "accuracy in", "out"):
        table.add_column(column, justify="right")
    for row in rows:
        common = [row["set"], row["problem"], row["kind"], row["dataset"], f"{row['strength']:g}"]
        for name, members, inside in zip(row["slices"], row["members"], row["accuracy_in"], strict=True):
            numbers = [str(members), *(_percent(value) for value in (inside, row["accuracy_out"]))]
            table.add_row(*(escape(cell) for cell in (*common, name, *numbers)))
            common = [""] * len(common)
    printer().print(table)


def _rows() -> Iterator[dict[str, Any]]:
    """A row for each problem that is there; a set whose index cannot be read is said."""
    roots = [("dcbench", data_root() / DCBench.folder)]
    roots += [(folder.name, folder) for folder in sorted((data_root() / Suite.folder).glob("*")) if folder.is_dir()]
    for name, root in roots:
        try:
            entries = read_index(root / INDEX)
        except Absent:
            continue
        except InvalidInput as error:
            say(str(error))
            continue
        for entry in progress(entries, f"problems of {name}", total=len(entries)):
            try:
                yield _row(name, root, entry)
            except Absent:
                pass  # in the index, and not downloaded
            except InvalidInput as error:
                say(f"{name}: {entry.container_id} cannot be read: {error}")


def _row(name: str, root: Path, entry: ProblemEntry) -> dict[str, Any]:
    found = fitness(*read_outcomes(root, entry))
    return {
        "set": name,
        "problem": entry.container_id,
        "kind": entry.kind,
        "dataset": entry.dataset,
        "strength": entry.alpha,
        "slices": list(entry.slice_names),
        "members": list(found.sizes),
        "accuracy_in": [_known(value) for value in found.inside],
        "accuracy_out": _known(found.outside),
    }


def _known(accuracy: float) -> float | None:
    """None of what has no members: NaN is no json."""
    return None if math.isnan(accuracy) else accuracy


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.1%}"
