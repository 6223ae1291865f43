"""What the papers report, beside what was measured here: read from `published.yaml`, where the numbers stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.analysing import COLUMNS as OF_NUMBERS

FILE = Path(__file__).parent / "published.yaml"
COLUMNS = ("measure", "published", "source", "place", "measured_on", "measured", "low", "high", "note")
NOT_MEASURED = "not measured"
VALUES = ("value", "low", "high")
# what tells one row of numbers from another, beside its measure and its slice
SETTING = tuple(name for name in OF_NUMBERS if name not in (*VALUES, "measure", "slice", "n"))
IN_WORDS = ("dataset", "variant")  # names followed by settings: some of their words are enough


@cache
def published() -> dict[str, dict[str, dict[str, Any]]]:
    """Entries by experiment and measure; one whose value is a mapping stands for an entry each."""
    content = yaml.safe_load(FILE.read_text())
    return {name: dict(_each(entries)) for name, entries in content.items()}


def compare(experiment: str, numbers: pd.DataFrame) -> pd.DataFrame:
    """Every published number of an experiment beside the rows that were measured of the same.

    Parameters
    ----------
    experiment : str
        spotlight/fairface ...
    numbers : DataFrame
        Of its analyses, with the columns `experiments.analysing.COLUMNS`.

    Returns
    -------
    DataFrame
        With `COLUMNS`. Published, measured, low and high are numbers, or lists of them in the order of the slices (or
        in the order that the entry names); what is not there is None, within a list nan. A number that was measured in
        several settings has a row for each, and the note says in what they differ.
    """
    there = numbers.dropna(subset="value")
    rows = [row for measure, entry in published().get(experiment, {}).items() for row in _rows(measure, entry, there)]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    return table.where(table.notna(), None)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def as_text(value: Any) -> str:
    """A number, or a list of them, with three significant digits; a dash for what is not there."""
    if isinstance(value, Sequence):
        return ", ".join(map(as_text, value))
    if value is None or pd.isna(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def interval_as_text(row: Mapping[str, Any]) -> str:
    """What was measured, each number with its interval where it has one."""
    if row["low"] is None:
        return as_text(row["measured"])
    three = [value if isinstance(value, list) else [value] for value in (row["measured"], row["low"], row["high"])]
    return ", ".join(
        as_text(value) if pd.isna(low) else f"{as_text(value)} [{as_text(low)}; {as_text(high)}]"
        for value, low, high in zip(*three, strict=True)
    )


def _each(entries: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries, those with names for their values one by one; {name} in what selects rows is replaced."""
    for measure, entry in entries.items():
        if not isinstance(entry["value"], Mapping):
            yield measure, entry
            continue
        for name, value in entry["value"].items():
            filled = {key: _filled(wanted, name) for key, wanted in entry.get("measured", {}).items()}
            yield f"{measure}, {name}", {**entry, "value": value, "measured": filled}


def _filled(wanted: Any, name: str) -> Any:
    if isinstance(wanted, list):
        return [_filled(one, name) for one in wanted]
    return wanted.replace("{name}", name) if isinstance(wanted, str) else wanted


def _rows(measure: str, entry: Mapping[str, Any], numbers: pd.DataFrame) -> list[dict[str, Any]]:
    about = {"measure": measure, "published": entry["value"]}
    about |= {name: entry[name] for name in ("source", "place", "measured_on")}
    parts = [_selected(numbers, conditions) for conditions in _steps(measure, entry)]
    if not any(map(len, parts)):
        return [{**about, "note": entry.get("otherwise", NOT_MEASURED)}]
    return [
        {**about, **_measured([_alike(part, setting) for part in parts], entry), "note": _in_words(setting)}
        for setting in _settings(parts)
    ]


def _steps(measure: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conditions on rows; lists among them are read in step, and give conditions for each number of a list."""
    if "measured" not in entry:
        return []
    conditions = {"measure": measure, **entry["measured"]}
    lists = {name: wanted for name, wanted in conditions.items() if isinstance(wanted, list)}
    if not lists:
        return [conditions]
    return [conditions | dict(zip(lists, step, strict=True)) for step in zip(*lists.values(), strict=True)]


def _selected(numbers: pd.DataFrame, conditions: Mapping[str, Any]) -> pd.DataFrame:
    """Rows that meet all conditions, and not those under `except`."""
    chosen = pd.Series(True, index=numbers.index)
    for name, wanted in conditions.items():
        if name == "except":
            chosen &= ~pd.Series(numbers.index.isin(_selected(numbers, wanted).index), index=numbers.index)
        else:
            chosen &= _meets(numbers[name], wanted)
    return numbers[chosen]


def _meets(column: pd.Series, wanted: Any) -> pd.Series:
    if column.name in IN_WORDS and isinstance(wanted, str):
        words = set(wanted.split())
        return column.map(lambda value: words <= set(str(value).split())).astype(bool)
    return _equals(column, wanted)


def _equals(column: pd.Series, wanted: Any) -> pd.Series:
    """Where a column has a value; what is empty equals what is empty."""
    return column.isna() if pd.isna(wanted) else (column == wanted).fillna(False).astype(bool)


def _settings(parts: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """In which settings there are rows, by as few names as tell them apart."""
    differing = [name for name in SETTING if any(part[name].nunique(dropna=False) > 1 for part in parts)]
    table = pd.concat(parts)[differing].drop_duplicates()
    telling: list[str] = []
    for name in differing:
        n_before = len(table[telling].drop_duplicates()) if telling else 1
        if len(table[[*telling, name]].drop_duplicates()) > n_before:
            telling.append(name)
    return rows_of(table[telling].drop_duplicates()) if telling else [{}]


def _alike(part: pd.DataFrame, setting: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in setting.items():
        part = part[_equals(part[name], value)]
    return part


def _measured(parts: Sequence[pd.DataFrame], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Value and interval: a number where a number was published and one was measured, else a list."""
    nothing = pd.DataFrame([dict.fromkeys(VALUES, np.nan)])
    found = pd.concat(
        [part.sort_values("slice", kind="stable")[list(VALUES)] if len(part) else nothing for part in parts]
    )
    is_one = len(found) == 1 and not isinstance(entry["value"], list)
    values = {name: [float(value) for value in found[name]] for name in VALUES}
    shown = {name: (of_one[0] if is_one else of_one) for name, of_one in values.items() if not np.isnan(of_one).all()}
    return {"measured": shown["value"], "low": shown.get("low"), "high": shown.get("high")}


def _in_words(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items() if not pd.isna(value))
