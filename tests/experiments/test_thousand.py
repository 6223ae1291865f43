"""Hundreds of run folders: what status and collect say of them is right. (How long they take: scripts/benchmark.py.)"""

import json
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.keys import key_of
from experiments.manifest import Manifest, Wanted, write_manifest
from experiments.record import is_done

METHODS = ("random", "highest_loss")
SETTINGS = ("corruption=relabel_subclass", "corruption.n_seeds=1", "model.training.epochs=10")
N_SEEDS = 80
COMMAND = "slicebench run --multirun method=random,highest_loss seeds.method=range(80)"


def with_seed(run, seed, shift):
    """The folder of a finished run as it would be with another seed of the method, and other scores."""
    content = json.loads((run / "run.json").read_text())
    content["definition"]["seeds"]["method"] = content["seeds"]["method"] = seed
    folder = run.with_name(f"{run.name.rpartition('-')[0]}-{key_of(content['definition'])}")
    shutil.copytree(run, folder)
    scores = pd.read_parquet(run / "scores.parquet")
    scores = scores.assign(run=folder.name, seed=scores["seed"] * 0 + seed, value=scores["value"] + shift)
    scores.to_parquet(folder / "scores.parquet", index=False)
    content["files"]["scores.parquet"] = (folder / "scores.parquet").stat().st_size
    (folder / "config.yaml").write_text(yaml.safe_dump(content["definition"]))
    (folder / "run.json").write_text(json.dumps(content))
    return folder


def changed(folder, **content):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


@pytest.fixture
def runs(slicebench):
    """Finished runs of two methods with many seeds: of each method its folders."""
    assert slicebench("run", "--multirun", f"method={','.join(METHODS)}", *SETTINGS).exit_code == 0
    shutil.rmtree("outputs/sweeps")
    first = {method: next(Path("outputs/digits").glob(f"{method}-*")) for method in METHODS}
    return {
        method: [run, *(with_seed(run, seed, shift=seed / N_SEEDS) for seed in range(1, N_SEEDS))]
        for method, run in first.items()
    }


def precision(table):
    """The rows of the measure that is printed first."""
    return table[(table["protocol"] == "worst_slice") & (table["metric"] == "precision_at_k") & (table["k"] == 10)]


def board():
    return precision(pd.read_csv("outputs/collected/leaderboard.csv")).set_index("method")


def test_of_many_runs_each_is_found_and_counts_once(runs, slicebench):
    assert all(is_done(folder) for folders in runs.values() for folder in folders)
    lines = json.loads(slicebench("status", "--json").stdout)
    names = sorted(f"digits/{folder.name}" for folders in runs.values() for folder in folders)
    assert [(line["run"], line["status"]) for line in lines] == [(name, "done") for name in names]
    assert slicebench("status").stdout.strip() == f"{len(names)} done"

    done = slicebench("collect")
    assert (done.exit_code, done.stderr) == (0, "")
    scores = pd.read_parquet("outputs/collected/scores.parquet")
    one = {method: pd.read_parquet(folders[0] / "scores.parquet") for method, folders in runs.items()}
    assert len(scores) == N_SEEDS * sum(map(len, one.values()))
    assert set(scores["run"]) == {name.removeprefix("digits/") for name in names}
    pd.testing.assert_series_equal(scores.dtypes, one["random"].dtypes)
    for method, of_one in one.items():
        row = board().loc[method]
        assert (row["n_problems"], row["n_groups"]) == (10 * N_SEEDS, 10)
        assert row["mean"] == pytest.approx(precision(of_one)["value"].mean() + (N_SEEDS - 1) / 2 / N_SEEDS)


def test_those_that_are_not_done_are_shown_and_not_collected(runs, slicebench):
    random, highest = runs["random"], runs["highest_loss"]
    wanted = [Wanted((f"run={folder.name}",), f"digits/{folder.name}") for folder in (*random, *highest)]
    write_manifest(Path("outputs"), Manifest(COMMAND, tuple(wanted)))
    for folder in random[:5]:
        changed(folder, status="failed", error="KeyError: 3")
    for folder in random[5:12]:
        changed(folder, status="running")
    for folder in random[12:15]:
        (folder / "run.json").write_text("{")
    for folder in highest[:20]:
        shutil.rmtree(folder)
    states = {"done": 2 * N_SEEDS - 35, "failed": 5, "killed": 7, "unreadable": 3, "missing": 20}
    assert Counter(line["status"] for line in json.loads(slicebench("status", "--json").stdout)) == states
    text = slicebench("status").stdout
    assert "125 done, 5 failed, 7 killed, 3 unreadable, 20 missing" in text
    assert f"to finish: {COMMAND}\n" in text
    assert f"to try failed runs again: {COMMAND} compute.retry_failed=true\n" in text

    assert "and 25 others" in slicebench("collect").stderr
    assert board().loc["random", "n_problems"] == 10 * (N_SEEDS - 15)
    assert board().loc["highest_loss", "n_problems"] == 10 * (N_SEEDS - 20)
