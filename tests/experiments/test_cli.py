"""What a person types, right and wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_lists_are_json_with_name_and_summary(slicebench):
    methods = json.loads(slicebench("list", "methods", "--json").stdout)
    assert {"random", "highest_loss", "confusion", "gmm", "spotlight"} <= {item["name"] for item in methods}
    assert all(set(item) == {"name", "summary"} and item["summary"] for item in methods)
    assert "demo" in [item["name"] for item in json.loads(slicebench("list", "experiments", "--json").stdout)]


def test_lists_for_reading_have_a_line_for_each(slicebench):
    text = slicebench("list").stdout
    assert "methods:" in text
    assert "  spotlight" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["method=spotlgiht"], "no method is called 'spotlgiht'; the nearest is spotlight"),
        (["experiment=dmo"], "no experiment is called 'dmo'; the nearest is demo"),
        (["dataset=digits", "method.size=0"], "method.size is 0, expected at least 1"),
        (["method.sise=3"], "there is no setting 'method.sise'; the nearest are size, sizes"),
        (["+method.sise=3"], "method has no setting 'sise'; the nearest are size, sizes"),
        (["sedes.method=3"], "there is no setting 'sedes'; the nearest is seeds"),
        (["+sedes=3"], "there is no setting 'sedes'; the nearest is seeds"),
        (["seeds.method=abc"], "seeds.method is 'abc', expected a whole number"),
        (["seeds.method=-1"], "seeds.method is -1, expected at least 0"),
        (["method.n_slices=foo"], "method.n_slices is 'foo', expected a whole number"),
        (["model.training.epochs=0"], "model.training.epochs is 0, expected at least 1"),
        (["method=gmm", "+method.seed=3"], "method.seed is set by seeds.method"),
        (["method=custom"], "method._target_ is missing"),
        (["method=custom", "method._target_=nope.Mine"], "'nope.Mine' cannot be imported: No module named 'nope'"),
        (["method=custom", "method._target_=os.system"], "expected a class that can fit and predict"),
        (["dataset.slice_size=few"], "dataset.slice_size is 'few', expected a whole number"),
        (["evaluation.protocols=[worst]"], "evaluation.protocols is ['worst'], expected a list"),
        (["paths.results=/dev/null/x"], "paths.results is /dev/null/x, which cannot be written to (Not a directory)"),
        (["paths.cache=/dev/null/x"], "paths.cache is /dev/null/x, which cannot be written to"),
        (["compute.device=gpu"], "compute.device is 'gpu', expected auto or cpu or cuda"),
        (["method.size=["], "no viable alternative at input '['"),
        (["=3"], "the command line cannot be read"),
        (["--import-path", "nowhere"], "--import-path nowhere is no folder"),
    ],
)
def test_a_mistake_is_explained_in_one_line_before_anything_is_computed(own_cache, slicebench, arguments, says):
    done = slicebench("run", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert not list(Path("outputs").rglob("*.json"))
    assert not list(own_cache.rglob("*.npy"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "method"], "no list is called 'method'; the nearest is methods"),
        (["status", "nowhere"], "nowhere is no folder"),
        (["collect", "."], "holds no runs"),
        (["check", "dataset=digts"], "no dataset is called 'digts'; the nearest is digits"),
        (["check", "digits"], "'digits' cannot be checked, expected dataset=NAME"),
        (["cache", "--prune", "-1"], "expected a number of days"),
    ],
)
def test_mistakes_with_other_verbs(slicebench, arguments, says):
    done = slicebench(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr


def test_debug_shows_the_traceback(slicebench):
    assert slicebench("run", "--debug", "method.size=0").exception is not None


def test_a_mistake_as_a_process_has_no_traceback(workspace):
    command = [sys.executable, "-m", "experiments.cli", "run", "method.size=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workspace)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "slicebench: method.size is 0, expected at least 1"
    assert "Traceback" not in done.stderr


def test_a_dry_run_computes_nothing_and_says_what_it_would(own_cache, slicebench):
    text = slicebench("run", "--dry-run", "method=gmm").stdout
    assert "train small_cnn" in text
    assert text.count("to compute") == 4
    assert "disk needed" in text
    assert not list(own_cache.rglob("*.npy"))
    assert not list(Path("outputs").rglob("*.json"))


def test_a_dry_run_knows_what_is_there(slicebench):
    slicebench("run", "method=random")
    text = slicebench("run", "--dry-run", "method=random").stdout
    assert text.count("cached") == 3
    assert "done: would be skipped" in text


def test_the_cache_is_shown_and_pruned(own_cache, slicebench):
    slicebench("run", "method=random")
    stages = json.loads(slicebench("cache", "--json").stdout)
    assert stages["model"]["entries"] == 1
    assert stages["forward"]["entries"] == 2
    assert "model" in slicebench("cache").stdout
    for folder in own_cache.glob("*/*"):
        os.utime(folder, (0, 0))
    assert "removed 3 entries" in slicebench("cache", "--prune", "1").stderr
    assert json.loads(slicebench("cache", "--json").stdout)["model"]["entries"] == 0


def test_check_counts_the_rows_of_a_data_set(slicebench):
    (found,) = json.loads(slicebench("check", "dataset=digits", "--json").stdout)
    assert found == {"what": "dataset digits", "state": "found", "note": "718 train, 179 validation, 900 test"}
    assert {"GPU", "SLURM", "packages"} <= {line["what"] for line in json.loads(slicebench("check", "--json").stdout)}


def test_own_configs_are_found_too(slicebench, workspace):
    folder = workspace / "mine" / "method"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("_target_: methods.highest_loss.HighestLoss\nsize: 7\n")
    done = slicebench("run", "--config-dir", "mine", "method=tiny")
    assert done.exit_code == 0, done.stderr
    assert list(Path("outputs/digits").glob("tiny-*"))


def test_it_works_from_a_folder_that_holds_a_folder_called_conf(workspace):
    (workspace / "conf").mkdir()
    (workspace / "conf" / "config.yaml").write_text("nothing: here\n")
    command = [Path(sys.executable).with_name("slicebench"), "run", "method=random", "tracking=none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workspace)
    assert done.returncode == 0, done.stderr
