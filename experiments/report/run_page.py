"""What a report says of one run: which slices it found, and in what problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.describing.problems import FoundProblem
from experiments.finished import FinishedRun
from experiments.report.assets import Assets
from experiments.report.examples import Gallery
from experiments.report.graphics import Axis
from experiments.report.map_picture import LOOKS, map_picture
from experiments.report.slice_section import SliceSection, section
from experiments.runs import commit_of
from experiments.tables import PRINTED, measure_name

MOST_SLICES = 10  # of a problem that are shown one by one
PROTOCOL = PRINTED[0][0]


@dataclass(frozen=True)
class ProblemRow:
    """One line of the table of problems; the scores stand in the order of `experiments.tables.PRINTED`."""

    name: str
    group: str
    kind: str
    n_slices: int
    scores: list[float | None]
    refused: str | None


@dataclass(frozen=True)
class ProblemSection:
    """A problem that is shown with its slices.

    Parameters
    ----------
    name : str
    why : str
        Why it is shown, of many; empty where it is the only one.
    split : str
    n, accuracy, mean_loss
        Of the split.
    slices : list of SliceSection
    n_slices : int
        That were found.
    map : str, optional
        The address of a picture.
    on_map : int
        How many slices are on it.
    axis : Axis
        Of the gaps.
    truths : list of int
        The sizes of the true slices.
    n_relabelled : int
        Examples whose labels the problem changed.
    """

    name: str
    why: str
    split: str
    n: int
    accuracy: float
    mean_loss: float
    slices: list[SliceSection]
    n_slices: int
    map: str | None
    on_map: int
    axis: Axis
    truths: list[int]
    n_relabelled: int


@dataclass(frozen=True)
class RunPage:
    """One run.

    Parameters
    ----------
    id : str
        What addresses of its slices begin with.
    title : str
    facts, work : list of (str, str)
        What was run, and how it was made: names and values.
    notes : list of str
        What a reader of the results must know.
    held_out : bool
        Whether slices are shown on other examples than those that they were found in.
    measures : list of str
        Heads of the columns of scores.
    rows : list of ProblemRow
        Empty where there is one problem only.
    problems : list of ProblemSection
    confidence : float
        Of the intervals.
    """

    id: str
    title: str
    facts: list[tuple[str, str]]
    work: list[tuple[str, str]]
    notes: list[str]
    held_out: bool
    measures: list[str]
    rows: list[ProblemRow]
    problems: list[ProblemSection]
    confidence: float


def run_page(run: FinishedRun, name: str, title: str, assets: Assets, n_problems: int) -> RunPage:
    """All about a run, with at most so many of its problems in detail."""
    gallery, rows = Gallery(run, assets), _rows(run)
    problems = [_problem(FoundProblem(run, name), why, gallery) for name, why in _chosen(rows, n_problems)]
    evaluated = run.definition["evaluation"]
    return RunPage(
        id=name,
        title=title,
        facts=_facts(run),
        work=_work(run),
        notes=[
            *_notes(run),
            *(f"pictures of the {s} split are missing: {why}" for s, why in gallery.reasons.items()),
        ],
        held_out=evaluated["fit_split"] != evaluated["score_split"],
        measures=[measure_name(measure) for measure in PRINTED],
        rows=rows if len(rows) > 1 else [],
        problems=problems,
        confidence=float(evaluated.get("confidence", 0.95)),
    )


def _rows(run: FinishedRun) -> list[ProblemRow]:
    scores = run.scores.astype({"problem": str})
    refused: Mapping[str, str] = run.content.get("refused", {})
    counts = scores[scores["metric"] == "n_slices"].set_index("problem")["value"]
    columns = [_of_measure(scores, *measure) for measure in PRINTED]
    firsts = scores.drop_duplicates("problem").set_index("problem")
    return [
        ProblemRow(
            name,
            str(firsts.at[name, "group"]),
            str(firsts.at[name, "kind"]),
            int(counts.get(name, 0)),
            [float(column[name]) if name in column else None for column in columns],
            str(refused[name]) if name in refused else None,
        )
        for name in run.problems
    ]


def _of_measure(scores: pd.DataFrame, protocol: str, metric: str, k: int | None) -> dict[str, float]:
    same_k = scores["k"].isna() if k is None else (scores["k"] == k).fillna(False)
    own = scores[(scores["protocol"] == protocol) & (scores["metric"] == metric) & same_k]
    return own.groupby("problem")["value"].mean().dropna().to_dict()


def _chosen(rows: Sequence[ProblemRow], n: int) -> list[tuple[str, str]]:
    """The problems that are shown, and why: from the lowest to the highest score, at even distances."""
    found = [row for row in rows if row.refused is None]
    scored = sorted((row for row in found if row.scores[0] is not None), key=_rank)
    if len(found) <= 1 or not scored:
        return [(row.name, "") for row in found[:n]]
    last, measure = len(scored) - 1, measure_name(PRINTED[0])
    places = dict.fromkeys(last * step // max(n - 1, 1) for step in range(n))
    names = {place: f"lowest but {place}" for place in places} | {last // 2: "middle", last: "highest", 0: "lowest"}
    return [(scored[place].name, f"the {names[place]} {measure} of {len(scored)} problems") for place in places]


def _rank(row: ProblemRow) -> tuple[Any, ...]:
    """Sorts by the first score, among equal ones by the last, which has more steps."""
    return row.scores[0], row.scores[-1] or 0, row.name


def _problem(problem: FoundProblem, why: str, gallery: Gallery) -> ProblemSection:
    found, numbers = problem.scored, problem.numbers
    picture = map_picture(found)
    indices = range(1, min(MOST_SLICES, found.slices.n_slices) + 1)
    shown = numbers.loc[list(indices)]
    truth = problem.truth
    return ProblemSection(
        name=problem.name,
        why=why,
        split=found.split,
        n=len(found.examples),
        accuracy=float(found.examples["correct"].astype(bool).mean()),
        mean_loss=float(found.examples["loss"].mean()),
        slices=[section(problem, index, gallery) for index in indices],
        n_slices=found.slices.n_slices,
        map=None if picture is None else gallery.assets.add(picture, "png"),
        on_map=min(len(LOOKS), found.slices.n_slices),
        axis=Axis.around([*shown["gap_low"], *shown["gap_high"], *shown["gap"]], 0.0),
        truths=[] if truth is None else [int(size) for size in truth.sum(axis=0)],
        n_relabelled=problem.n_relabelled,
    )


def _facts(run: FinishedRun) -> list[tuple[str, str]]:
    """What was run."""
    identity = run.identity
    names = [(n, identity[n]) for n in ("dataset", "model", "embedding", "corruption") if identity[n] != "none"]
    settings = {n: v for n, v in run.definition["method"].items() if n != "_target_" and v is not None}
    method = ", ".join(f"{name}={_plain(value)}" for name, value in settings.items())
    return [*names, ("method", f"{run.method} ({method})" if method else run.method)]


def _work(run: FinishedRun) -> list[tuple[str, str]]:
    """How it was made."""
    content = run.content
    device, threads = (content.get(name, "unknown") for name in ("device", "threads"))  # to old runs
    stages = {stage: taken for stage, taken in content["seconds"].items() if ": " not in stage and taken >= 0.05}
    spent = ", ".join(f"{stage} {taken:.1f} s" for stage, taken in stages.items())
    return [
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in run.definition["seeds"].items())),
        ("work", f"{spent or 'nothing that takes time'}; on {device}, threads: {threads}"),
        ("code", commit_of(content)),
        ("folder", run.folder.name),
    ]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _notes(run: FinishedRun) -> list[str]:
    """What the data, and the embedding, have to say."""
    reports = run.content.get("embedding", {}).values()
    embedding = (f"embedding: {note}" for report in reports for note in report.get("notes", ()))
    stand_ins = (f"stand-in: {one}" for one in run.content.get("scale", {}).get("stand_ins", ()))
    return list(dict.fromkeys([*map(str, run.content.get("dataset_notes", ())), *embedding, *stand_ins]))
