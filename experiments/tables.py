"""The leaderboard as people read it: on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments.leaderboard import SETTING, Bootstrap, Comparison, Measure

# what the printed leaderboard shows, the first deciding the order: (protocol, metric, k)
PRINTED: tuple[Measure, ...] = (
    ("worst_slice", "precision_at_k", 10),
    ("worst_slice", "f1", None),
    ("worst_slice", "average_precision", None),
)


def print_leaderboard(
    board: pd.DataFrame, comparisons: Mapping[Measure, list[Comparison]], bootstrap: Bootstrap
) -> None:
    """A table for each setting, best method first, and what the paired tests say."""
    console = Console()
    for setting, block in board.groupby(list(SETTING), dropna=False):
        table = Table(title=_title(setting), caption=_caption(bootstrap), title_justify="left", caption_justify="left")
        for column in _header():
            table.add_column(column, justify="left" if column == "method" else "right")
        for row in _rows(block):
            table.add_row(*row)
        console.print(table)
        for line in _verdicts(setting, comparisons):
            console.print(line, highlight=False)


def markdown(board: pd.DataFrame, comparisons: Mapping[Measure, list[Comparison]], bootstrap: Bootstrap) -> str:
    """The same as Markdown."""
    lines = ["# Leaderboard", ""]
    for setting, block in board.groupby(list(SETTING), dropna=False):
        lines += [f"## {_title(setting)}", "", _line(_header()), _line(["---"] * len(_header()))]
        lines += [*(_line(row) for row in _rows(block)), "", _caption(bootstrap), ""]
        lines += [f"- {line}" for line in _verdicts(setting, comparisons)] + [""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _header() -> list[str]:
    return ["method", *(_measure_name(metric, k) for _, metric, k in PRINTED), "problems", "refused"]


def _measure_name(metric: str, k: int | None) -> str:
    return {"precision_at_k": f"precision-at-{k}", "f1": "F1"}.get(metric, metric.replace("_", " "))


def _title(setting: Sequence[str]) -> str:
    dataset, model, embedding, corruption, _ = setting
    return f"{dataset}, {model}, {embedding}, corruption {corruption}, protocol worst_slice"


def _caption(bootstrap: Bootstrap) -> str:
    return f"mean [{bootstrap.confidence:.0%} interval over groups of problems, {bootstrap.resamples} resamples]"


def _rows(block: pd.DataFrame) -> list[list[str]]:
    """The printed rows of one setting, best first."""
    rows = []
    for (method, variant), own in block.groupby(["method", "variant"], dropna=False):
        cells = [_cell(own, measure) for measure in PRINTED]
        counted = own["n_problems"].max()
        problems = "0" if pd.isna(counted) else str(int(counted))
        first = _mean(own, PRINTED[0])
        rows.append((-first, [f"{method} {variant}".strip(), *cells, problems, str(own["n_refused"].max())]))
    return [row for _, row in sorted(rows, key=lambda pair: (pd.isna(pair[0]), pair[0]))]


def _select(own: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    protocol, metric, k = measure
    same_k = own["k"].isna() if k is None else (own["k"] == k).fillna(False)
    return own[(own["protocol"] == protocol) & (own["metric"] == metric) & same_k]


def _mean(own: pd.DataFrame, measure: Measure) -> float:
    selected = _select(own, measure)
    return float(selected["mean"].iloc[0]) if len(selected) else float("nan")


def _cell(own: pd.DataFrame, measure: Measure) -> str:
    selected = _select(own, measure)
    if not len(selected):
        return "-"
    row = selected.iloc[0]
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['mean']:.3f}{interval}"


def _verdicts(setting: Sequence[str], comparisons: Mapping[Measure, list[Comparison]]) -> list[str]:
    """For each printed measure: the best method, and those that the data do not tell apart from it."""
    lines = []
    for (_, metric, k), found in comparisons.items():
        for comparison in (c for c in found if tuple(c.setting.values()) == tuple(setting)):
            others = ", ".join(comparison.best.indistinguishable) or "no other"
            lines.append(
                f"{_measure_name(metric, k)}: {comparison.best.name} is highest; cannot be told apart from it: "
                f"{others} (paired permutation test over {comparison.n_groups} groups, Holm)"
            )
    return lines
