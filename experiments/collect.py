"""Gather the scores of many runs: one table, one leaderboard. `slicebench collect`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.console import say
from experiments.files import write_atomically, write_parquet, write_text
from experiments.keys import key_of
from experiments.leaderboard import OCCASION, Bootstrap, compare, differences, leaderboard
from experiments.runs import COLUMNS as TIDY
from experiments.runs import Results, Run, check_unchanged, commit_of, find_results
from experiments.tables import PRINTED, Report, markdown, print_leaderboard
from methods.errors import InvalidInput

NAMED = 10  # runs that are not in the table, at most


def collect(folder: Path, confidence: float | None, resamples: int | None, as_json: bool) -> None:
    """Write `scores.parquet`, `leaderboard.csv`, `leaderboard.md`, `differences.csv`; print the leaderboard.

    Raises
    ------
    InvalidInput
        Where there is no finished run, or a run folder was changed by hand.
    """
    results = find_results(folder)
    runs = results.runs
    done = [run for run in runs if run.state == "done"]
    if not done:
        raise InvalidInput(f"{folder} holds no finished run ({len(runs)} unfinished): `slicebench status {folder}`")
    for run in done:
        check_unchanged(run)
    bootstrap = _bootstrap(done, confidence, resamples)
    scores = _scores(done)
    board = leaderboard(scores, bootstrap)
    pairs = pd.concat([differences(scores, measure, bootstrap) for measure in PRINTED])
    comparisons = {measure: compare(scores, measure, alpha=1 - bootstrap.confidence) for measure in PRINTED}
    report = Report(board, pairs, comparisons, bootstrap)
    out = folder / "collected"
    write_parquet(out / "scores.parquet", scores[list(TIDY)])
    write_atomically(out / "leaderboard.csv", lambda file: board.to_csv(file, index=False))
    write_atomically(out / "differences.csv", lambda file: pairs.to_csv(file, index=False))
    write_text(out / "leaderboard.md", markdown(report))
    if as_json:
        print(board.to_json(orient="records", indent=2))
    else:
        print_leaderboard(report)
        print(f"results: {out}")
    _say_what_is_missing(results)


def _bootstrap(runs: Sequence[Run], confidence: float | None, resamples: int | None) -> Bootstrap:
    """As asked for, else as the runs' settings have it (the most careful ones, where they differ)."""
    settings = [run.content["definition"]["evaluation"] for run in runs]
    chosen = Bootstrap(
        confidence if confidence is not None else max(s["confidence"] for s in settings),
        resamples if resamples is not None else max(s["resamples"] for s in settings),
    )
    if not 0 < chosen.confidence < 1 or chosen.resamples < 1:
        raise InvalidInput("expected a confidence between 0 and 1, both excluded, and at least 1 resample")
    return chosen


def _scores(runs: Sequence[Run]) -> pd.DataFrame:
    """All scores; runs that differ in more than names and seeds tell are kept apart by their variant."""
    frames = [pd.read_parquet(run.folder / "scores.parquet").assign(**{OCCASION: _occasion(run)}) for run in runs]
    names = ("dataset", "model", "embedding", "corruption", "method", "variant")
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        alike.setdefault(tuple(str(frame[name].iloc[0]) for name in names), []).append(index)
    for identity, indices in alike.items():
        details = _with_data([runs[index] for index in indices])
        differing = [d for d in sorted(set().union(*details)) if len({x.get(d) for x in details}) > 1]
        for index, detail in zip(indices, details, strict=True):
            if differing:
                suffix = " ".join(f"{name}={detail.get(name)}" for name in differing)
                frames[index]["variant"] = (frames[index]["variant"] + " " + suffix).str.strip()
        if differing:
            say(f"{identity[4]}: runs that differ in {', '.join(differing)} are shown as different rows")
    return pd.concat(frames, ignore_index=True)


def _occasion(run: Run) -> str:
    """What makes the problems of a run, beside their names: the data, and all seeds but the method's."""
    definition = run.content["definition"]
    seeds = {name: seed for name, seed in definition["seeds"].items() if name != "method"}
    return key_of({"fingerprint": definition["fingerprint"], "seeds": seeds})


def _with_data(runs: Sequence[Run]) -> list[dict[str, str]]:
    """The details of runs, with the data's fingerprint where one seed of the splits has several."""
    definitions = [run.content["definition"] for run in runs]
    prints = {(d["seeds"]["split"], d["fingerprint"]) for d in definitions}
    is_ambiguous = len(prints) > len({seed for seed, _ in prints})
    extra = [{"fingerprint": d["fingerprint"][:8]} if is_ambiguous else {} for d in definitions]
    return [_details(run) | more for run, more in zip(runs, extra, strict=True)]


def _details(run: Run) -> dict[str, str]:
    """What defines a run beside its names and its seeds, flattened: versions of the code, splits, protocols ..."""
    definition = run.content["definition"]
    groups = ("dataset", "model", "embedding", "method", "corruption", "evaluation", "versions")
    return {f"{g}.{name}": json.dumps(value) for g in groups for name, value in definition[g].items()}


def _say_what_is_missing(results: Results) -> None:
    """What the table would hold if all were done, and whether one code made what it holds."""
    others = [f"{run.name} ({run.state})" for run in results.runs if run.state != "done"]
    others += [f"{one.run or ' '.join(one.overrides)} (missing)" for one in results.missing]
    if others:
        more = f" and {len(others) - NAMED} others" if len(others) > NAMED else ""
        say(f"not in the table: {', '.join(others[:NAMED])}{more}")
    commits = Counter(commit_of(run.content) for run in results.runs if run.state == "done")
    if len(commits) > 1:
        counted = ", ".join(f"{n} by {commit}" for commit, n in commits.most_common())
        say(f"runs were made by several commits, which count as one version of the code: {counted}")
