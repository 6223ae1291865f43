"""Measure what people wait for: python scripts/benchmark.py [NAME ...], all of it by default.

Each command is warmed up once and then measured several times, with one thread; the medians go to
scripts/benchmark.md, where benchmarks that are not named keep what stands there.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}

import pandas as pd
import typer
import yaml

from experiments.collect import collect
from experiments.files import write_json, write_parquet, write_text
from experiments.keys import key_of
from experiments.manifest import Manifest, Wanted, write_manifest
from experiments.status import show_status

SLICEBENCH = (sys.executable, "-m", "experiments.cli")
TABLES = Path(__file__).with_suffix(".md")
REPEATS = 7

METHODS = ("random", "highest_loss", "confusion", "gmm", "kmeans", "ball", "ridge", "domino", "infembed", "spotlight")
SETTINGS = ("corruption=relabel_subclass", "corruption.n_seeds=1", "tracking=none", "compute.threads=1")
N_RUNS = 1_000


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Parameters
    ----------
    what : str
    seconds : float
        The median.
    target : float, optional
        Seconds that it should stay below.
    """

    what: str
    seconds: float
    target: float | None = None


def folders() -> tuple[str, list[Row]]:
    """1,000 finished run folders: how long people look at `status` and `collect`."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "outputs")
        seeds = range(N_RUNS // len(METHODS))
        sweep = ("--multirun", f"method={','.join(METHODS)}", f"paths.results={results}", *SETTINGS)
        _slicebench("run", *sweep)
        first = sorted(path.parent for path in results.glob("*/*/run.json"))
        runs = {_with_seed(run, seed): seed for run in first for seed in seeds}
        wanted = [Wanted((f"seeds.method={seed}",), str(run.relative_to(results))) for run, seed in runs.items()]
        write_manifest(results, Manifest(" ".join(["slicebench run", *sweep]), tuple(wanted)))
        n_rows = _check(results, first, len(seeds))
        rows = [
            Row("`slicebench status`", median(lambda: _slicebench("status", str(results))), target=1),
            Row("the same without imports", median(lambda: _silently(lambda: show_status(results, as_json=False)))),
            Row("`slicebench collect`", median(lambda: _slicebench("collect", str(results))), target=5),
            Row("the same without imports", median(lambda: _silently(lambda: collect(results, None, None, False)))),
        ]
    what = (
        f"{len(runs):,} finished run folders with {n_rows:,} scores: {len(METHODS)} methods on digits, run once each "
        f"and copied with {len(seeds)} seeds."
    )
    return what, rows


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


def median(act: Callable[[], object]) -> float:
    """Seconds of the middle one of several calls, after one that does not count."""
    return statistics.median(list(_seconds(act))[1:])


def _seconds(act: Callable[[], object]) -> Iterator[float]:
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        act()
        yield time.perf_counter() - start


BENCHMARKS: dict[str, Callable[[], tuple[str, list[Row]]]] = {"folders": folders}


def main(names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(BENCHMARKS)}.")] = None) -> None:
    """Measure, and write the table."""
    unknown = set(names or ()) - set(BENCHMARKS)
    if unknown:
        raise typer.BadParameter(f"there is no {', '.join(sorted(unknown))}, expected some of {', '.join(BENCHMARKS)}")
    sections = _sections()
    for name in names or BENCHMARKS:
        sections[name] = _section(*BENCHMARKS[name]())
        print(sections[name])
    head = "What `python scripts/benchmark.py` measured: medians, in seconds."
    write_text(TABLES, "\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n")


def _sections() -> dict[str, str]:
    """What stands in the file now, by benchmark."""
    text = TABLES.read_text() if TABLES.exists() else ""
    return {name: body.strip() for name, body in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)}


def _section(what: str, rows: Sequence[Row]) -> str:
    lines = ["| what | seconds | target |", "| --- | --- | --- |"]
    lines += [f"| {r.what} | {r.seconds:.2f} | {'' if r.target is None else f'under {r.target:g}'} |" for r in rows]
    return "\n".join([f"{what} {_machine()}", "", *lines])


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = found[1] if found else platform.processor()
    return (
        f"{processor}, {os.cpu_count()} cores of which one is used, Python {platform.python_version()}; "
        f"medians of {REPEATS} after one that does not count."
    )


if __name__ == "__main__":
    typer.run(main)
