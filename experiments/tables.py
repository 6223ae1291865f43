"""The leaderboard as people read it: on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from experiments.console import printer
from experiments.leaderboard import METHOD, SETTING, Bootstrap, Comparison, Measure

# what is printed, the first deciding the order: (protocol, metric, k); the csv has everything
PRINTED: tuple[Measure, ...] = (
    ("worst_slice", "precision_at_k", 10),
    ("worst_slice", "f1", None),
    ("worst_slice", "average_precision", None),
)
FLOOR = "random"  # the method that every other is held against


@dataclass(frozen=True)
class Report:
    """What a leaderboard is printed from.

    Parameters
    ----------
    board : DataFrame
        Of `experiments.leaderboard.leaderboard`.
    pairs : DataFrame
        Of `experiments.leaderboard.differences`, for all printed measures.
    comparisons : mapping from measure to list of Comparison
    bootstrap : Bootstrap
    """

    board: pd.DataFrame
    pairs: pd.DataFrame
    comparisons: Mapping[Measure, list[Comparison]]
    bootstrap: Bootstrap


def print_leaderboard(report: Report) -> None:
    """A table for each setting, best method first, and what the paired tests say."""
    console = printer()
    for line in _unranked(report.board):
        console.print(line, markup=False, soft_wrap=True)
    for setting, block in ranked_settings(report.board):
        console.print(f"\n[bold]{escape(title_of(setting))}[/bold]", soft_wrap=True)
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in _header():
            table.add_column(column, no_wrap=column != "method", overflow="fold")
        for row in _rows(block):
            table.add_row(*row)
        console.print(table)
        for line in notes_of(setting, block, report):
            console.print(line, markup=False, soft_wrap=True)


def markdown(report: Report) -> str:
    """The same as Markdown."""
    lines = ["# Leaderboard", ""]
    for setting, block in ranked_settings(report.board):
        lines += [f"## {title_of(setting)}", "", _line(_header()), _line(["---"] * len(_header()))]
        lines += [*(_line(row) for row in _rows(block)), ""]
        lines += [f"- {line}" for line in notes_of(setting, block, report)] + [""]
    return "\n".join(lines)


def _unranked(board: pd.DataFrame) -> list[str]:
    """The settings that have no table, and why."""
    protocol, _, k = PRINTED[0]
    ranked = [setting for setting, _ in ranked_settings(board)]
    lines = []
    for setting, block in board.groupby(list(SETTING), dropna=False):
        if setting not in ranked:
            has_truth = block["protocol"].notna().any()
            reason = f"no scores for {protocol} at k = {k}" if has_truth else "no true slices to rank methods by"
            lines.append(f"{title_of(setting)}: {reason}; what there is stands in leaderboard.csv")
    return lines


def ranked_settings(board: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The blocks of the leaderboard that are tables of their own; without true slices there is nothing to rank by."""
    blocks = [(key, block) for key, block in board.groupby(list(SETTING), dropna=False)]
    return [(key, block) for key, block in blocks if not select(block, PRINTED[0]).empty]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _header() -> list[str]:
    return ["method", *(measure_name(measure) for measure in PRINTED)]


def measure_name(measure: Measure) -> str:
    _, metric, k = measure
    return {"precision_at_k": f"precision-at-{k}", "f1": "F1"}.get(metric, metric.replace("_", " "))


def title_of(setting: Sequence[str]) -> str:
    dataset, model, embedding, corruption, kind = setting
    # stored problems come without a corruption of the run's own, and in several kinds
    what = kind if corruption == "none" and kind != "none" else corruption
    return f"{dataset}, {model}, {embedding}, {what}, protocol {PRINTED[0][0]}"


def _rows(block: pd.DataFrame) -> list[list[str]]:
    """The printed rows of one setting, best first."""
    methods = [(who_is(key), own) for key, own in block.groupby(list(METHOD), dropna=False)]
    methods.sort(key=lambda pair: -_mean(pair[1], PRINTED[0]))
    return [[who, *(_cell(own, measure) for measure in PRINTED)] for who, own in methods]


def who_is(key: Sequence[str]) -> str:
    return " ".join(key).strip()


def select(block: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    protocol, metric, k = measure
    same_k = block["k"].isna() if k is None else (block["k"] == k).fillna(False)
    return block[(block["protocol"] == protocol) & (block["metric"] == metric) & same_k]


def _mean(block: pd.DataFrame, measure: Measure) -> float:
    selected = select(block, measure)
    return float("-inf") if selected.empty else float(selected["mean"].iloc[0])


def _cell(block: pd.DataFrame, measure: Measure) -> str:
    selected = select(block, measure)
    if selected.empty:
        return "-"
    row = selected.iloc[0]
    return f"{row['mean']:.2f}{_interval(row)}"


def _interval(row: pd.Series) -> str:
    return "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"


def notes_of(setting: Sequence[str], block: pd.DataFrame, report: Report) -> list[str]:
    return [_counted(block, report.bootstrap), *_against_floor(setting, report), *_verdicts(setting, report)]


def _counted(block: pd.DataFrame, bootstrap: Bootstrap) -> str:
    first = select(block, PRINTED[0])
    refused = {who_is(key): int(own["n_refused"].max()) for key, own in block.groupby(list(METHOD), dropna=False)}
    said = "".join(f"; {who} refused {count}" for who, count in refused.items() if count)
    problems = f"{int(first['n_problems'].max())} problems in {int(first['n_groups'].max())} groups{said}"
    return f"{problems}; [{bootstrap.confidence:.0%} interval over groups, {bootstrap.resamples} resamples]"


def _against_floor(setting: Sequence[str], report: Report) -> list[str]:
    """How far each method is above random slices, with the interval of the paired difference."""
    pairs = report.pairs
    if pairs.empty:
        return []
    is_floor = (pairs["second"] == FLOOR) | pairs["second"].str.startswith(f"{FLOOR} ")
    here = pairs[(pairs[list(SETTING)] == list(setting)).all(axis=1) & is_floor]
    if here["second"].nunique() > 1:
        return []  # several floors: differences.csv has them all
    rows = select(here, PRINTED[0]).dropna(subset="difference").sort_values("difference", ascending=False)
    if rows.empty:
        return []
    each = ", ".join(f"{row['first']} {row['difference']:+.2f}{_interval(row)}" for _, row in rows.iterrows())
    return [f"{measure_name(PRINTED[0])}, paired difference to {FLOOR}: {each}"]


def _too_few(comparison: Comparison, report: Report) -> str:
    """With g groups no permutation test gives a p-value below 2 / 2^g, and Holm multiplies the smallest by m."""
    smallest = 2 / 2**comparison.best.n_groups * len(comparison.best.p_values)
    return "; too few to tell any two apart" if smallest > 1 - report.bootstrap.confidence else ""


def _verdicts(setting: Sequence[str], report: Report) -> list[str]:
    """For each printed measure: the best method, and those that the data do not tell apart from it."""
    lines = []
    for measure, found in report.comparisons.items():
        for comparison in (c for c in found if tuple(c.setting.values()) == tuple(setting)):
            others = ", ".join(comparison.best.indistinguishable)
            lines.append(
                f"{measure_name(measure)}: {comparison.best.name} is highest; "
                + (f"not told apart from it: {others}" if others else "all others are told apart from it")
                + f" (permutation test over {comparison.best.n_groups} groups, Holm{_too_few(comparison, report)})"
            )
    return lines
