"""Published and measured side by side: `slicebench collect DIR --compare`, and `--analyse` before it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from experiments.analysing import ANALYSIS, RECORD, analyse
from experiments.console import printer, say
from experiments.published import as_text, compare, interval_as_text, rows_of
from methods.errors import InvalidInput

HEADER = ("measure", "published", "measured", "published for", "note")
NOTHING = "no numbers were published to compare with"


@dataclass(frozen=True, eq=False)
class Analysed:
    """What the analyses of one experiment left in its folder.

    Parameters
    ----------
    folder : Path
        Of the experiment.
    summary : mapping
        `summary.json`.
    numbers : DataFrame
        With the columns `experiments.analysing.COLUMNS`.
    """

    folder: Path
    summary: Mapping[str, Any]
    numbers: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Analysed:
        """The experiment in this folder.

        Raises
        ------
        InvalidInput
            Where its analyses have not been made, or cannot be read.
        """
        path = folder / ANALYSIS / "summary.json"
        again = f"slicebench collect {folder} --analyse"
        try:
            return cls(folder, json.loads(path.read_text()), pd.read_parquet(folder / ANALYSIS / "numbers.parquet"))
        except FileNotFoundError:
            raise InvalidInput(f"{folder} has not been analysed: {again}") from None
        except ValueError as error:
            raise InvalidInput(f"{path} cannot be read ({error}): {again}") from None

    @property
    def name(self) -> str:
        """Of the experiment: spotlight/fairface ..."""
        return str(self.summary["experiment"])

    @property
    def comparison(self) -> pd.DataFrame:
        """As `experiments.published.compare`."""
        return compare(self.name, self.numbers)

    @property
    def reasons(self) -> list[str]:
        """Why what was measured may differ from what was published."""
        return [f"stand-in: {one}" for one in self.summary["stand_ins"]] + list(self.summary["notes"])


def experiment_folders(folder: Path) -> list[Path]:
    """The folders of all experiments at or below this one.

    Raises
    ------
    InvalidInput
        Where there is none.
    """
    found = sorted(path.parent for path in folder.rglob(RECORD))
    if not found:
        raise InvalidInput(
            f"{folder} holds no experiment, expected a folder that `slicebench run experiment=...` wrote to"
        )
    return found


def analyse_all(folder: Path) -> None:
    """Run the analyses of every experiment at or below this folder again.

    Raises
    ------
    InvalidInput
        Where some cannot be analysed; the others are.
    """
    folders = experiment_folders(folder)
    made, refused = _each(folders, analyse)
    for out in made:
        say(f"results: {out / 'report.md'}")  # standard output is for what --compare prints
    if refused:
        _say_all_but_one(refused)
        raise InvalidInput(refused[-1])


def show_comparison(folder: Path, as_json: bool) -> None:
    """Print what was published beside what was measured, of every experiment at or below this folder.

    Raises
    ------
    InvalidInput
        Where none of them has been analysed; of some, it is said.
    """
    experiments, refused = _each(experiment_folders(folder), Analysed.read)
    if not experiments:
        _say_all_but_one(refused)
        raise InvalidInput(refused[-1])
    if as_json:
        print(json.dumps([record for one in experiments for record in records(one)], indent=2))
    else:
        for one in experiments:
            _print(one)
    for reason in refused:
        say(reason)


def records(experiment: Analysed) -> list[dict[str, Any]]:
    """The comparison as json values."""
    whose = {name: experiment.summary[name] for name in ("experiment", "scale")}
    return [{**whose, **plain(row)} for row in rows_of(experiment.comparison)]


def plain(value: Any, digits: int | None = None) -> Any:
    """The same as json, which has no nan: with null, and so many significant digits."""
    if isinstance(value, Mapping):
        return {name: plain(one, digits) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one, digits) for one in value]
    if isinstance(value, float):
        return (float(f"{value:.{digits}g}") if digits else value) if math.isfinite(value) else None
    return value


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One published number for people to read, under `HEADER`."""
    where = f"{row['measured_on']} ({row['source']}, {row['place']})"
    return row["measure"], as_text(row["published"]), interval_as_text(row), where, row["note"] or ""


def _print(experiment: Analysed) -> None:
    console = printer()
    console.print(
        f"[bold]{escape(experiment.name)}, scale {escape(experiment.summary['scale'])}[/bold]", soft_wrap=True
    )
    comparison = experiment.comparison
    if comparison.empty:
        console.print(f"{NOTHING}\n")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in HEADER:
        table.add_column(column, overflow="fold")
    for row in rows_of(comparison):
        table.add_row(*map(escape, cells(row)))
    console.print(table)
    for reason in experiment.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True)
    console.print()


def _each(folders: Sequence[Path], do: Callable[[Path], Any]) -> tuple[list[Any], list[str]]:
    """What came of each folder, and why of some nothing did: one must not keep the others back."""
    made, refused = [], []
    for folder in folders:
        try:
            made.append(do(folder))
        except InvalidInput as error:
            refused.append(str(error))
    return made, refused


def _say_all_but_one(reasons: Sequence[str]) -> None:
    """The last one becomes the error."""
    for reason in reasons[:-1]:
        say(reason)
