"""Gather the scores of many runs: one table, one leaderboard. `slicebench collect`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.console import say
from experiments.files import write_atomically, write_text
from experiments.keys import key_of
from experiments.leaderboard import OCCASION, Bootstrap, Measure, compare, differences, leaderboard
from experiments.runs import COLUMNS as TIDY
from experiments.runs import Results, Run, check_unchanged, commit_of, find_results
from experiments.tables import PRINTED, Report, markdown, print_leaderboard
from methods.errors import InvalidInput

WORDS = tuple(name for name in TIDY if name not in ("seed", "true_slice", "slice", "k", "value"))
NAMES = ("dataset", "model", "embedding", "corruption", "method", "variant")  # of a run, the same in all its rows
NAMED = 10  # runs that are not in the table, and commits, at most


def collect(folder: Path, confidence: float | None, resamples: int | None, as_json: bool) -> None:
    """Write `scores.parquet`, `leaderboard.csv`, `leaderboard.md`, `differences.csv`; print the leaderboard.

    Raises
    ------
    InvalidInput
        Where there is no finished run, or a run folder was changed by hand.
    """
    results = find_results(folder)
    done = [run for run in results.runs if run.state == "done"]
    others = not_collected(results)
    if not done:
        count = f"{len(others)} are failed, running or missing"
        raise InvalidInput(f"{folder} holds no finished run ({count}): `slicebench status {folder}`")
    for run in done:
        check_unchanged(run)
    table, report = gathered(done, confidence, resamples)
    board, pairs = report.board, report.pairs
    out = folder / "collected"
    write_atomically(out / "scores.parquet", lambda file: _write(table.select(TIDY), file))
    write_atomically(out / "leaderboard.csv", lambda file: board.to_csv(file, index=False))
    write_atomically(out / "differences.csv", lambda file: pairs.to_csv(file, index=False))
    write_text(out / "leaderboard.md", markdown(report))
    if as_json:
        print(board.to_json(orient="records", indent=2))
    else:
        print_leaderboard(report)
        print(f"results: {out}")
    _say_what_is_missing(others)
    _say_whose_code(done)


def gathered(
    done: Sequence[Run],
    confidence: float | None = None,
    resamples: int | None = None,
    measures: Sequence[Measure] | None = None,
) -> tuple[pa.Table, Report]:
    """All scores of finished runs, and what a leaderboard says of them, or of these measures: intervals take time."""
    bootstrap = _bootstrap(done, confidence, resamples)
    table = _scores(done)
    scores = _frame(table)
    pairs = pd.concat([differences(scores, measure, bootstrap) for measure in PRINTED])
    comparisons = {measure: compare(scores, measure, alpha=1 - bootstrap.confidence) for measure in PRINTED}
    return table, Report(leaderboard(scores, bootstrap, measures), pairs, comparisons, bootstrap)


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


def _scores(runs: Sequence[Run]) -> pa.Table:
    """All scores, with their occasion; runs that differ in more than names and seeds tell have other variants.

    Words are dictionaries: among millions of rows there are few.
    """
    tables = [_read(run.folder / "scores.parquet") for run in runs]
    run_of = np.repeat(np.arange(len(runs)), list(map(len, tables)))  # (number of scores,)
    identities = [tuple(str(table[name][0]) for name in NAMES) for table in tables]
    variants = pd.Categorical(_variants(runs, identities)).take(run_of)
    occasions = pd.Categorical([_occasion(run) for run in runs]).take(run_of)
    table = pa.concat_tables(tables, promote_options="permissive")
    table = table.set_column(table.schema.get_field_index("variant"), "variant", pa.array(variants))
    return table.append_column(OCCASION, pa.array(occasions)).unify_dictionaries()


def _read(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path, read_dictionary=WORDS) as file:
            return file.read(columns=list(TIDY), use_threads=False)  # of few rows each
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} cannot be read ({error}): delete its folder and run again") from None


def _frame(table: pa.Table) -> pd.DataFrame:
    """For sums over groups: words as categories, in alphabetical order."""
    frame = table.to_pandas()
    words = frame.select_dtypes("category")
    return frame.assign(
        **{name: column.cat.reorder_categories(sorted(column.cat.categories)) for name, column in words.items()}
    )


def _write(table: pa.Table, file: BinaryIO) -> None:
    """For everybody: words as text, as the runs have them."""
    with pq.ParquetWriter(file, table.schema, store_schema=False) as writer:  # which would say that they are no text
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)  # the types that pandas reads back


def _variants(runs: Sequence[Run], identities: Sequence[tuple[str, ...]]) -> list[str]:
    """The variant of each run, with what tells it from others of the same names."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, identity in enumerate(identities):
        alike.setdefault(identity, []).append(index)
    variants, said = [identity[-1] for identity in identities], {}
    for identity, indices in alike.items():
        details = _with_data([runs[index] for index in indices])
        differing = [d for d in sorted(set().union(*details)) if len({x.get(d) for x in details}) > 1]
        if not differing:
            continue
        for index, detail in zip(indices, details, strict=True):
            own = " ".join(f"{name}={detail.get(name)}" for name in differing)
            variants[index] = f"{variants[index]} {own}".strip()
        said[f"{identity[4]}: runs that differ in {', '.join(differing)} are shown as different rows"] = None
    for line in said:  # once, of however many data sets and models
        say(line)
    return variants


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


def not_collected(results: Results) -> list[str]:
    """What is not in the table, and in which state it is."""
    others = [f"{run.name} ({run.state})" for run in results.runs if run.state != "done"]
    others += [f"{one.run} (missing)" if one.run else f"{sweep.words(one)} (failed)" for sweep, one in results.missing]
    return others + [f"{path} (unreadable)" for path in results.unreadable]


def _say_what_is_missing(others: Sequence[str]) -> None:
    if others:
        more = f" and {len(others) - NAMED} others" if len(others) > NAMED else ""
        say(f"not in the table: {', '.join(others[:NAMED])}{more}")


def _say_whose_code(runs: Sequence[Run]) -> None:
    """Whether one code made all runs."""
    commits = Counter(commit_of(run.content) for run in runs)
    if len(commits) > 1:
        counted = ", ".join(f"{n} by {commit}" for commit, n in commits.most_common(NAMED))
        counted += f" and others by {len(commits) - NAMED} more" if len(commits) > NAMED else ""
        say(f"runs were made by several commits, which count as one version of the code: {counted}")
