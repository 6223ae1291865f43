"""What a report says of all runs together: its first page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysing import ANALYSIS, RECORD
from experiments.collect import gathered, not_collected
from experiments.compare import HEADER, Analysed, cells
from experiments.finished import FinishedRun
from experiments.leaderboard import METHOD
from experiments.published import rows_of
from experiments.report.assets import Assets
from experiments.report.graphics import Axis, Dot
from experiments.runs import Results, Run, commit_of
from experiments.tables import PRINTED, Report, measure_name, notes_of, ranked_settings, select, title_of, who_is
from methods.errors import InvalidInput

NAMES = ("dataset", "model", "embedding", "corruption")  # of a run, beside its method
WORDS = {"dataset": "data set"}


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, as a number and as a drawing."""

    mean: float
    low: float
    high: float
    dot: Dot


@dataclass(frozen=True)
class Board:
    """The leaderboard of one setting: rows of (method, a cell for each measure), the best first."""

    title: str
    measures: list[str]
    axis: Axis
    rows: list[tuple[str, list[Cell | None]]]
    notes: list[str]


@dataclass(frozen=True)
class Compared:
    """A paper's experiment: what was published beside what was measured, why they differ, and pictures."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    reasons: list[str]
    pictures: list[tuple[str, str]]


@dataclass(frozen=True)
class Line:
    """One run in the table of runs; its names are those that not all runs share, its gap is the largest of a slice."""

    title: str
    names: tuple[str, ...]
    n_problems: int
    n_refused: int
    n_slices: int
    gap: float
    seconds: float
    page: str | None


@dataclass(frozen=True)
class Overview:
    """The first page.

    Parameters
    ----------
    title : str
    boards : list of Board
    compared : list of Compared
    heads : list of str
        Of the names in `lines`.
    shared : list of (str, str)
        What all runs have in common: names and values.
    lines : list of Line
    missing : list of str
        What is not in the report, and why.
    commits, devices : list of str
    """

    title: str
    boards: list[Board]
    compared: list[Compared]
    heads: list[str]
    shared: list[tuple[str, str]]
    lines: list[Line]
    missing: list[str]
    commits: list[str]
    devices: list[str]

    @property
    def has_problems(self) -> bool:
        """Whether any run has more than one."""
        return any(line.n_problems > 1 for line in self.lines)


def overview(
    title: str, folder: Path, results: Results, runs: Sequence[tuple[FinishedRun, str, str | None]], assets: Assets
) -> Overview:
    """Of runs with their titles and the addresses of their pages."""
    done = [run for run in results.runs if run.state == "done"]
    values = {name: {run.identity[name] for run, _, _ in runs} for name in NAMES}
    heads = [name for name in NAMES if len(values[name]) > 1]
    return Overview(
        title=title,
        boards=_boards(done),
        compared=_compared(folder, assets),
        heads=[WORDS.get(name, name) for name in heads],
        shared=[(WORDS.get(name, name), next(iter(values[name]))) for name in NAMES if name not in heads],
        lines=[_line(run, title, heads, page) for run, title, page in runs],
        missing=not_collected(results),
        commits=sorted({commit_of(run.content) for run in done}),
        devices=sorted({str(run.content.get("device", "unknown")) for run in done}),
    )


def _boards(done: Sequence[Run]) -> list[Board]:
    _, report = gathered(done, measures=PRINTED)
    return [_board(setting, report) for setting, _ in ranked_settings(report.board)]


def _board(setting: tuple[str, ...], report: Report) -> Board:
    block = dict(ranked_settings(report.board))[setting]
    axis = Axis(0.0, 1.0)  # of all printed measures
    rows = [
        (who_is(key), [_cell(select(own, measure), axis) for measure in PRINTED])
        for key, own in block.groupby(list(METHOD), dropna=False)
    ]
    rows.sort(key=lambda row: -(row[1][0].mean if row[1][0] else -1))
    measures = [measure_name(measure) for measure in PRINTED]
    return Board(title_of(setting), measures, axis, rows, notes_of(setting, block, report))


def _cell(selected: pd.DataFrame, axis: Axis) -> Cell | None:
    if selected.empty:
        return None
    mean, low, high = (float(selected.iloc[0][name]) for name in ("mean", "low", "high"))
    return Cell(mean, low, high, Dot.of(axis, mean, low, high))


def _compared(folder: Path, assets: Assets) -> list[Compared]:
    """Of experiments that were analysed; the others have nothing to compare."""
    found = []
    for path in sorted(folder.rglob(RECORD)):
        try:
            one = Analysed.read(path.parent)
        except InvalidInput:
            continue
        rows = [cells(row) for row in rows_of(one.comparison)]
        title = f"{one.name}, scale {one.summary['scale']}"
        kept = [at for at in range(len(HEADER)) if any(row[at] for row in rows)]  # mostly there is no note
        header, *rows = (tuple(row[at] for at in kept) for row in [HEADER, *rows])
        found.append(Compared(title, header, rows, one.reasons, _pictures(one, assets)))
    return found


def _pictures(one: Analysed, assets: Assets) -> list[tuple[str, str]]:
    """The addresses of all pictures that are there, with what they show."""
    folder, drawn = one.folder / ANALYSIS, one.summary["pictures"]
    paths = [(folder / f"{Path(picture['file']).name}.png", str(picture["caption"])) for picture in drawn]
    return [(assets.add(path.read_bytes(), "png"), caption) for path, caption in paths if path.is_file()]


def _line(run: FinishedRun, title: str, heads: Sequence[str], page: str | None) -> Line:
    spent = sum(value for stage, value in run.content["seconds"].items() if ": " not in stage)
    n_refused = int((run.scores["metric"] == "refused").sum())
    names = tuple(run.identity[name] for name in heads)
    own = run.scores[run.scores["protocol"].isna()].groupby("metric")["value"]
    n_slices, gap = own.sum().get("n_slices", 0), own.max().get("gap", np.nan)
    return Line(title, names, len(run.problems), n_refused, int(n_slices), float(gap), spent, page)
