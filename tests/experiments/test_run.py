"""Whole runs: what is written, what is skipped, what is refused, what survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from experiments.record import read_slices
from experiments.runs import COLUMNS
from methods.contract import InvalidInput, Slices

RELABELLED = ("corruption=relabel_subclass", "corruption.n_seeds=1", "method=highest_loss")


def the_run():
    (folder,) = [path.parent for path in Path("outputs").rglob("run.json")]
    return folder


def content(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_writes_everything_that_it_is_made_of(slicebench):
    done = slicebench("run", *RELABELLED)
    assert done.exit_code == 0, done.stderr
    folder = the_run()
    assert folder.parent.name == "digits"
    assert content(folder)["status"] == "done"
    scores = pd.read_parquet(folder / "scores.parquet")
    assert tuple(scores.columns) == COLUMNS
    assert scores["problem"].nunique() == 10
    assert scores["value"].notna().all()
    examples = pd.read_parquet(folder / "examples.parquet")
    assert len(examples) == 900
    assert set(examples["label"]) == {"0 or 6", "1 or 7", "2 or 3", "4 or 9", "5 or 8"}
    assert {"id", "split", "prediction", "loss", "correct", "attribute_subclass", "map_x", "map_y"} <= set(examples)


def test_the_stamp_says_what_it_was_measured_with(slicebench):
    slicebench("run", *RELABELLED)
    stamp = content(the_run())
    assert stamp["seeds"] == {"split": 0, "training": 0, "corruption": 0, "method": 0}
    assert stamp["threads"] == 1
    assert stamp["device"] == "cpu"
    assert stamp["packages"]["torch"] == torch.__version__
    assert set(stamp["seconds"]) >= {"train", "infer", "embed", "discover", "score"}
    assert set(stamp["definition"]["versions"]) >= {"dataset", "model", "training", "inference", "method", "scores"}
    assert "commit" in stamp["git"]


def test_slices_are_read_back(slicebench):
    slicebench("run", *RELABELLED, "compute.problems_per_part=3")
    slices = read_slices(the_run(), "7 draw 0")
    assert isinstance(slices, Slices)
    assert int(slices.members.sum()) == 50
    with pytest.raises(InvalidInput, match="no slices for a problem 'nope'"):
        read_slices(the_run(), "nope")


def test_a_finished_run_is_skipped(slicebench):
    slicebench("run", *RELABELLED)
    before = (the_run() / "scores.parquet").stat().st_mtime_ns
    again = slicebench("run", *RELABELLED)
    assert "done before, skipped" in again.stderr
    assert (the_run() / "scores.parquet").stat().st_mtime_ns == before


def test_how_it_is_computed_does_not_make_it_another_run(slicebench):
    slicebench("run", *RELABELLED)
    again = slicebench("run", *RELABELLED, "compute.batch_size=7", "compute.problems_per_part=2", "compute.threads=2")
    assert "skipped" in again.stderr
    the_run()


@pytest.mark.parametrize(
    "change", ["method.size=40", "seeds.corruption=1", "corruption.noise=0.1", "evaluation.k=[5]", "seeds.split=1"]
)
def test_what_is_computed_makes_it_another_run(slicebench, change):
    slicebench("run", *RELABELLED)
    slicebench("run", *RELABELLED, change)
    assert len(list(Path("outputs").rglob("run.json"))) == 2


def test_methods_may_be_fitted_on_another_split(slicebench):
    done = slicebench("run", "corruption=relabel_subclass", "corruption.n_seeds=1", "evaluation.fit_split=validation")
    assert done.exit_code == 0, done.stderr
    scores = pd.read_parquet(the_run() / "scores.parquet")
    top = scores[(scores["protocol"] == "worst_slice") & (scores["metric"] == "precision_at_k") & (scores["k"] == 10)]
    assert top["value"].mean() > 0.5
    assert set(pd.read_parquet(the_run() / "examples.parquet")["split"]) == {"validation", "test"}


def changed_by_hand(folder, name, value):
    path = folder / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    group, _, key = name.partition(".")
    if key:
        stored[group][key] = value
    else:
        stored[group] = value
    path.write_text(yaml.safe_dump(stored))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("method.size", 10, "method.size is 10, but this run has 50"),
        ("fingerprint", "f00", "fingerprint is 'f00', but"),
    ],
)
def test_a_folder_that_was_changed_by_hand_is_refused_with_the_field(slicebench, name, value, says):
    slicebench("run", *RELABELLED)
    changed_by_hand(the_run(), name, value)
    for command in (("run", *RELABELLED), ("collect", "outputs")):
        done = slicebench(*command)
        assert done.exit_code == 2
        assert says in done.stderr


def test_a_folder_without_its_config_is_refused(slicebench):
    slicebench("run", *RELABELLED)
    (the_run() / "config.yaml").unlink()
    done = slicebench("run", *RELABELLED)
    assert done.exit_code == 2
    assert "config.yaml is missing" in done.stderr


def test_a_refusal_of_every_problem_fails_the_run_with_the_reason(slicebench):
    done = slicebench("run", "method=gmm", "method.n_components=5000")
    assert done.exit_code == 2
    assert "n_components is 5000, expected at most 900" in done.stderr
    assert content(the_run())["status"] == "failed"
    listed = slicebench("status")
    assert listed.exit_code == 1
    assert "failed" in listed.stdout


def test_a_refusal_of_some_problems_is_counted(slicebench, workspace):
    (workspace / "choosy.py").write_text(CHOOSY)
    done = slicebench("run", *RELABELLED[:2], "--import-path", ".", "method=custom", "method._target_=choosy.Choosy")
    assert done.exit_code == 0, done.stderr
    refused = content(the_run())["refused"]
    assert refused
    assert set(refused.values()) == {"too many errors for me"}
    board = slicebench("collect", "outputs", "--json")
    rows = [row for row in json.loads(board.stdout) if row["metric"] == "f1" and row["protocol"] == "worst_slice"]
    assert [(row["n_problems"], row["n_refused"]) for row in rows] == [(10 - len(refused), len(refused))]


CHOOSY = """
from methods import InvalidInput, RandomSlices

class Choosy(RandomSlices):
    def fit(self, outputs):
        if outputs.correct.float().mean() < 0.89:
            raise InvalidInput("too many errors for me")
        return super().fit(outputs)
"""


@pytest.fixture
def custom(slicebench, workspace, monkeypatch):
    """Run a method of the user's from its source, imported anew each time."""

    def run(code, *overrides):
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (workspace / "mine.py").write_text(code)
        return slicebench("run", *overrides, "--import-path", ".", "method=custom", "method._target_=mine.Mine")

    return run


def a_class(fit="return self", predict="return None", init="pass", more=""):
    methods = {"__init__(self)": init, "fit(self, outputs)": fit, "predict(self, outputs)": predict}
    lines = [f"    def {name}:\n        {body}\n" for name, body in methods.items()]
    return f"import methods\n\nclass Mine:\n{''.join(lines)}{more}"


BROKEN = {
    "the method changed losses in place": a_class(fit="outputs.losses.zero_(); return self"),
    "fit must return the fitted method": a_class(fit="pass"),
    "predict returned Tensor, expected methods.Slices": a_class(predict="return outputs.losses"),
    "predict returned other example ids": a_class(predict="return methods.Slices.none(('x',))"),
    "fit_many one for each problem": a_class(more="    def fit_many(self, outputs, seeds):\n        return []\n"),
    "method cannot be made by Mine: not today": a_class(init="raise ValueError('not today')"),
    "cannot be imported: SyntaxError": "class Mine\n",
}


@pytest.mark.parametrize(("says", "code"), BROKEN.items(), ids=BROKEN)
def test_a_method_that_breaks_the_contract_is_told_so(custom, says, code):
    if "in place" in says:
        code = code.replace("return None", "return methods.Slices.none(outputs.example_ids)")
    done = custom(code)
    assert done.exit_code == 2, done.output
    assert says in done.stderr


DRAWING = """
import random, numpy, torch
from methods import Slices

class Mine:
    def __init__(self, seed, **more):
        self.seed = seed

    def fit(self, outputs):
        return self

    def predict(self, outputs):
        drawn = torch.rand(outputs.n_examples, 1) * random.random() * numpy.random.rand()
        return Slices(outputs.example_ids, drawn, drawn > 0.1)
"""


def test_a_method_may_draw_from_any_generator_and_still_be_reproduced(custom):
    overrides = ("corruption=relabel_subclass", "corruption.n_seeds=1", "+method.alpha=1")
    results = []
    for folder in ("one", "two"):
        done = custom(DRAWING, *overrides, f"paths.results={folder}")
        assert done.exit_code == 0, done.stderr
        results.append(pd.read_parquet(next(Path(folder).rglob("scores.parquet"))))
    pd.testing.assert_frame_equal(*results, check_exact=True)
    assert results[0]["value"].nunique() > 20


def test_a_method_whose_source_was_edited_is_run_again(custom):
    assert custom(DRAWING).exit_code == 0
    assert "skipped" in custom(DRAWING).stderr
    assert "skipped" not in custom(DRAWING.replace("0.1", "0.2")).stderr


def test_parts_that_do_not_hold_the_expected_problems_are_made_again(slicebench):
    assert slicebench("run", *RELABELLED, "compute.problems_per_part=5").exit_code == 0
    folder = the_run()
    expected = pd.read_parquet(folder / "scores.parquet")
    for lost in ("run.json", "scores.parquet", "parts/001.parquet"):
        (folder / lost).unlink()
    assert slicebench("run", *RELABELLED, "compute.problems_per_part=3").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), expected, check_exact=True)


@pytest.mark.parametrize("name", ["scores.parquet", "examples.parquet", "parts/000.npz", "parts/000.parquet"])
@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: os.truncate(p, 20)], ids=["deleted", "cut"])
def test_a_finished_run_that_lost_something_is_mended(slicebench, name, spoil):
    assert slicebench("run", *RELABELLED).exit_code == 0
    folder = the_run()
    expected = pd.read_parquet(folder / "scores.parquet")
    spoil(folder / name)
    again = slicebench("run", *RELABELLED)
    assert again.exit_code == 0, again.stderr
    assert "skipped" not in again.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), expected, check_exact=True)
    assert "skipped" in slicebench("run", *RELABELLED).stderr


def test_a_resumed_run_has_the_stamp_of_every_session(slicebench):
    assert slicebench("run", *RELABELLED).exit_code == 0
    (the_run() / "scores.parquet").unlink()
    assert slicebench("run", *RELABELLED, "compute.threads=2").exit_code == 0
    assert [session["threads"] for session in content(the_run())["sessions"]] == [1, 2]


def test_a_method_that_finds_nothing_anywhere_is_a_finished_run(slicebench):
    done = slicebench("run", "method=gmm", "method.min_size=1000")
    assert done.exit_code == 0, done.stderr
    scores = pd.read_parquet(the_run() / "scores.parquet")
    assert scores[["metric", "value"]].to_numpy().tolist() == [["n_slices", 0.0]]


def test_an_error_in_a_method_is_a_failed_run_and_shows_itself(slicebench, workspace):
    (workspace / "broken.py").write_text(
        "class Broken:\n    def fit(self, o): return self\n    def predict(self, o): 1 / 0\n"
    )
    done = slicebench("run", "--import-path", ".", "method=custom", "method._target_=broken.Broken")
    assert isinstance(done.exception, ZeroDivisionError)
    assert content(the_run())["error"] == "ZeroDivisionError: division by zero"


SLOW = """
import os, time
from methods import HighestLoss

class Mine(HighestLoss):
    def fit(self, outputs):
        time.sleep(float(os.environ.get("SECONDS", 0)))
        return super().fit(outputs)
"""


def started(workspace, *overrides, seconds):
    """What `custom` runs, in a process of its own, where each fit takes so many seconds longer."""
    (workspace / "mine.py").write_text(SLOW)
    command = [sys.executable, "-m", "experiments.cli", "run", "--import-path", "."]
    mine = ["method=custom", "method._target_=mine.Mine", "tracking=none", "compute.threads=1"]
    return subprocess.Popen(
        [*command, *mine, *overrides],
        cwd=workspace,
        env=os.environ | {"SECONDS": str(seconds)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_a_killed_run_goes_on_where_it_was_and_ends_alike(slicebench, custom, workspace):
    overrides = ["corruption=relabel_subclass", "corruption.n_seeds=1", "compute.problems_per_part=2"]
    killed = started(workspace, *overrides, seconds=0.1)
    parts = workspace / "outputs"
    wait_for(lambda: len(list(parts.rglob("parts/*.parquet"))) >= 2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(timeout=10)
    killed.stderr.close()
    folder = next(parts.rglob("run.json")).parent
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/*.parquet")}
    assert 2 <= len(finished) < 5
    assert json.loads(slicebench("status", "--json").stdout)[0]["status"] == "killed"

    for where in ("outputs", "undisturbed"):
        done = custom(SLOW, *overrides, f"paths.results={where}")
        assert done.exit_code == 0, done.output
    for name, written in finished.items():
        assert (folder / "parts" / name).stat().st_mtime_ns == written, "a finished part was done again"
    expected = next((workspace / "undisturbed").rglob("scores.parquet"))
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder / "scores.parquet"), pd.read_parquet(expected), check_exact=True
    )
    for path in sorted(folder.glob("parts/*.npz")):
        with np.load(path) as ours, np.load(expected.parent / "parts" / path.name) as theirs:
            assert set(ours) == set(theirs)
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_two_processes_that_want_the_same_run_do_it_once(custom, workspace):
    """This one comes second, and waits for the other."""
    process = started(workspace, seconds=1.5)
    wait_for(lambda: list(workspace.rglob("run.json")))
    done = custom(SLOW)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, done.exit_code) == (0, 0), said + done.output
    assert ": done in" in said
    assert ": done in" not in done.stderr
    assert "done before, skipped" in done.stderr
    with np.load(next(workspace.rglob("parts/000.npz"))) as arrays:
        assert "all/members" in arrays


def test_running_is_told_from_killed(slicebench, workspace):
    process = started(workspace, seconds=600)
    try:
        wait_for(lambda: list(workspace.rglob("run.json")))
        (run,) = json.loads(slicebench("status", "--json").stdout)
        assert run["status"] == "running"
        assert slicebench("status").exit_code == 0
    finally:
        process.kill()
        process.communicate()
    (run,) = json.loads(slicebench("status", "--json").stdout)
    assert run["status"] == "killed"
    assert slicebench("status").exit_code == 1
