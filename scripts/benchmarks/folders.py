"""1,000 finished run folders: how long people look at `status` and `collect`; and at `--help` and `list`."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import yaml
from benchmarks.measuring import Row, Section, measured

from experiments.collect import collect
from experiments.files import write_json, write_parquet, write_text
from experiments.keys import key_of
from experiments.manifest import Manifest, Wanted, write_manifest
from experiments.status import show_status

THREADS = 1
SLICEBENCH = (sys.executable, "-m", "experiments.cli")
METHODS = ("random", "highest_loss", "confusion", "gmm", "kmeans", "ball", "ridge", "domino", "infembed", "spotlight")
SETTINGS = ("corruption=relabel_subclass", "corruption.n_seeds=1", "tracking=none", "compute.threads=1")
N_RUNS = 1_000


def section() -> Section:
    """Time the commands on folders that have been checked."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "outputs")
        n_runs, n_rows = _make(results)
        rows = [
            _row("`slicebench --help`", lambda: _slicebench("--help"), 0.5),
            _row("`slicebench list`", lambda: _slicebench("list"), 0.5),
            _row("`slicebench status`", lambda: _slicebench("status", str(results)), 1),
            _row("the same without imports", lambda: _silently(lambda: show_status(results, as_json=False))),
            _row("`slicebench collect`", lambda: _slicebench("collect", str(results)), 5),
            _row("the same without imports", lambda: _silently(lambda: collect(results, None, None, False))),
        ]
    return Section(
        f"{n_runs:,} finished run folders with {n_rows:,} scores: {len(METHODS)} methods on digits, run once each and "
        f"copied with {n_runs // len(METHODS)} seeds.",
        rows,
    )


def _row(work: str, act: Callable[[], object], limit: float | None = None) -> Row:
    ours = measured(act, runs=7)
    if limit is None:
        return Row(work, ours)
    return Row(work, ours, target=f"under {limit:g} s", reached=ours.seconds < limit)


def _make(results: Path) -> tuple[int, int]:
    """The folders, from one real run of each method; how many runs and scores."""
    seeds = range(N_RUNS // len(METHODS))
    sweep = ("--multirun", f"method={','.join(METHODS)}", f"paths.results={results}", *SETTINGS)
    _slicebench("run", *sweep)
    first = sorted(path.parent for path in results.glob("*/*/run.json"))
    runs = {_with_seed(run, seed): seed for run in first for seed in seeds}
    wanted = [Wanted((f"seeds.method={seed}",), str(run.relative_to(results))) for run, seed in runs.items()]
    write_manifest(results, Manifest(" ".join(["slicebench run", *sweep]), tuple(wanted)))
    return len(runs), _check(results, first, len(seeds))


def _with_seed(run: Path, seed: int) -> Path:
    """The folder of a finished run as it would be with another seed of the method."""
    content = json.loads((run / "run.json").read_text())
    definition = content["definition"]
    definition["seeds"]["method"] = content["seeds"]["method"] = seed
    folder = run.with_name(f"{run.name.rpartition('-')[0]}-{key_of(definition)}")
    if folder != run:
        shutil.copytree(run, folder, copy_function=os.link)  # what is written below takes the place of its link
        scores = pd.read_parquet(run / "scores.parquet").assign(run=folder.name)
        scores["seed"] = pd.Series(seed, scores.index, dtype="Int64")
        write_parquet(folder / "scores.parquet", scores)
        content["files"]["scores.parquet"] = (folder / "scores.parquet").stat().st_size
        write_text(folder / "config.yaml", yaml.safe_dump(definition, sort_keys=False))
        write_json(folder / "run.json", content)
    return folder


def _check(results: Path, first: Sequence[Path], n_seeds: int) -> int:
    """That all that was made is found; the number of scores."""
    status = json.loads(_slicebench("status", str(results), "--json"))
    assert [line["status"] for line in status] == ["done"] * len(first) * n_seeds
    board = pd.DataFrame(json.loads(_slicebench("collect", str(results), "--json")))
    problems = {run.name.rpartition("-")[0]: pd.read_parquet(run / "scores.parquet") for run in first}
    for method, scores in problems.items():
        counts = board[(board["method"] == method) & board["protocol"].notna()]["n_problems"]
        assert set(counts) == {scores["problem"].nunique() * n_seeds}, method
    scores = pd.read_parquet(results / "collected" / "scores.parquet", columns=["run"])
    assert scores["run"].nunique() == len(first) * n_seeds
    assert len(scores) == n_seeds * sum(map(len, problems.values()))
    return len(scores)


def _slicebench(*arguments: str) -> str:
    """Let the command line do something, in a process of its own: what it printed."""
    return subprocess.run([*SLICEBENCH, *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout


def _silently(act: Callable[[], object]) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        act()
