"""What a person types, right and wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_lists_are_json_with_name_and_summary(slicebench):
    methods = json.loads(slicebench("list", "methods", "--json").stdout)
    assert {"random", "highest_loss", "confusion", "gmm", "spotlight"} <= {item["name"] for item in methods}
    assert all(set(item) == {"name", "summary"} and item["summary"] for item in methods)
    assert "demo" in [item["name"] for item in json.loads(slicebench("list", "experiments", "--json").stdout)]


def test_all_lists_are_one_with_the_kind_of_each_item(slicebench):
    everything = json.loads(slicebench("list", "--json").stdout)
    assert all(set(item) == {"name", "summary", "kind"} for item in everything)
    assert ("methods", "spotlight") in {(item["kind"], item["name"]) for item in everything}


def test_lists_for_reading_have_a_line_for_each(slicebench):
    text = slicebench("list").stdout
    assert "methods:" in text
    assert "  spotlight" in text


def test_lists_on_a_terminal_are_tables(slicebench, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    text = slicebench("list").stdout
    assert "methods:" not in text
    assert "methods" in text
    assert max(map(len, text.splitlines())) < 120  # with what makes bold; a line each has up to 150 letters


def test_lists_and_help_need_nothing_heavy():
    check = "assert not {'torch', 'pandas', 'hydra', 'scipy'} & set(sys.modules)"
    for arguments in (["list"], ["--help"]):
        program = f"import sys; from experiments.cli import app; app({arguments}, standalone_mode=False); {check}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_tables_of_scores_need_no_torch():
    program = "import sys, experiments.collect, experiments.status; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "scipy.stats", "hydra", "matplotlib"} & set(loaded)


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(given, expected):
    program = (
        "import os; from experiments.cli import app; app(['list'], standalone_mode=False); print(*os.environ.items())"
    )
    others = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=others | given, check=True
    )
    assert f"('OMP_WAIT_POLICY', '{expected}')" in done.stdout


def test_the_version_and_the_exit_codes_are_shown(slicebench):
    assert slicebench("--version").stdout.startswith("slicebench 0.")
    assert all(f"{code} " in slicebench("--help").stdout for code in (0, 1, 2, 130))


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
        (
            ["method=custom", "method._target_=nope.Mine"],
            "No module named 'nope' (a module in a folder: --import-path DIR)",
        ),
        (["method=custom", "method._target_=os.system"], "expected a class that can fit and predict"),
        (["dataset.slice_size=few"], "dataset.slice_size is 'few', expected a whole number"),
        (["evaluation.protocols=[worst]"], "evaluation.protocols is ['worst'], expected a list"),
        (["paths.results=/dev/null/x"], "paths.results is /dev/null/x, which cannot be written to (Not a directory)"),
        (["paths.cache=/dev/null/x"], "paths.cache is /dev/null/x, which cannot be written to"),
        (["compute.device=gpu"], "compute.device is 'gpu', expected auto or cpu or cuda"),
        (["method.size=["], "no viable alternative at input '['"),
        (["=3"], "the command line cannot be read"),
        (["method.label=☃"], "'method.label=☃' cannot be read, expected KEY=VALUE"),
        (["seeds=3"], "seeds is 3, expected its settings: seeds.split, "),
        (["tracking=offline", "tracking.media=perhaps"], "tracking.media is 'perhaps', expected true or false"),
        (["paths.results="], "paths.results= names no folder: is a variable empty?"),
        (["--nope"], "the command line cannot be read: unrecognized arguments: --nope"),
        (["--cfg", "nope"], "invalid choice: 'nope' (choose from 'job', 'hydra', 'all')"),
        (["--dry-run", "--json"], "--dry-run is for people to look at, --json for programs"),
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
        (["status", "--jsn"], "No such option: --jsn"),
        (["status", "--watch", "--json"], "--watch is for people to look at"),
        (["collect", "."], "holds no runs"),
        (["collect", "--resamples", "99999999"], "should be less than or equal to"),
        (["collect", "--compare"], "outputs holds no experiment"),
        (["fetch", "digits", "layout"], "'layout' is no setting, expected KEY=VALUE"),
        (["make", "digits", "--jobs", "0"], "--jobs is 0, expected at least 1"),
        (["make", "digits", "--folder", "/dev/null/x"], "something else has this name: move it away"),
        (["check", "dataset=digts"], "no dataset is called 'digts'; the nearest is digits"),
        (["check", "digits"], "'digits' cannot be checked, expected dataset=NAME"),
        (["cache", "--prune", "-1"], "--prune is -1, expected a number of days"),
        (["cache", "--prune", "nan"], "--prune is nan, expected a number of days"),
        (["cache", "--prune", "inf"], "--prune is inf, expected a number of days"),
    ],
)
def test_mistakes_with_other_verbs(slicebench, arguments, says):
    done = slicebench(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr


def test_results_that_cannot_be_read_are_named(slicebench, workspace):
    Path("outputs/digits/random-0").mkdir(parents=True)
    Path("outputs/digits/random-0/run.json").write_text("{")
    done = slicebench("status")
    assert done.exit_code == 1
    assert "run.json cannot be read" in done.stdout
    done = slicebench("collect")
    assert done.exit_code == 2
    assert "outputs holds no finished run" in done.stderr
    Path("outputs/experiment.json").write_text("[]")
    assert "experiment.json cannot be read" in slicebench("collect", "--analyse").stderr


def test_a_working_directory_that_is_gone_is_said(slicebench, workspace, monkeypatch):
    folder = workspace / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    done = slicebench("check", "dataset=digits")
    assert done.exit_code == 2
    assert done.stderr == "slicebench: the working directory is gone: change to another one\n"


def test_a_reader_that_goes_away_is_no_error(workspace):
    reader, writer = os.pipe()
    os.close(reader)  # as `| head -1` does when it has its line
    command = [Path(sys.executable).with_name("slicebench"), "list", "methods"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=workspace)
    os.close(writer)
    assert done.stderr == ""


def test_debug_shows_the_traceback(slicebench):
    assert slicebench("run", "--debug", "method.size=0").exception is not None


def test_a_mistake_as_a_process_has_no_traceback(workspace):
    command = [sys.executable, "-m", "experiments.cli", "run", "method.size=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workspace)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["slicebench: method.size is 0, expected at least 1"]


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


def test_check_counts_the_rows_of_a_data_set(slicebench, workspace, monkeypatch):
    (found,) = json.loads(slicebench("check", "dataset=digits", "--json").stdout)
    note, rows = "718 train, 179 validation, 900 test", {"train": 718, "validation": 179, "test": 900}
    assert found == {"what": "dataset digits", "state": "found", "note": note, "rows": rows}
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace))  # all data sets: without their files it is quick
    assert {"GPU", "SLURM", "packages"} <= {line["what"] for line in json.loads(slicebench("check", "--json").stdout)}


def test_runs_are_json_for_programs(slicebench):
    done = slicebench("run", "--json", "method=random")
    (run,) = json.loads(done.stdout)
    assert run == {"folder": run["folder"], "status": "done", "overrides": None, "error": None}
    assert (Path(run["folder"]) / "scores.parquet").exists()

    done = slicebench("run", "--json", "--multirun", "method=random", "seeds.method=0,-1")
    assert done.exit_code == 2
    again, failed = json.loads(done.stdout)
    assert again == run
    assert (failed["folder"], failed["status"]) == (None, "failed")
    assert failed["overrides"].endswith("method=random seeds.method=-1")
    assert failed["error"].startswith("seeds.method is -1, expected at least 0")

    done = slicebench("run", "--json", "method=infembed", "embedding=layer", "embedding.layer=nope")
    assert done.exit_code == 2
    assert json.loads(done.stdout)[0]["status"] in ("failed", "refused")


def test_runs_of_a_prepared_experiment_are_json_too(slicebench):
    overrides = ("scale=here", "dataset=digits", "method=random", "corruption.noise=0.0")
    done = slicebench("run", "--json", "experiment=spotlight/synthetic", *overrides)
    assert done.exit_code == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert run["status"] == "done"
    assert "spotlight/synthetic-here/digits/random-" in run["folder"]
    assert "results: " in done.stderr


def test_data_sets_and_suites_that_were_got_are_json_too(slicebench):
    assert json.loads(slicebench("fetch", "digits", "--json").stdout)["state"] == "found"
    problems = json.loads(slicebench("make", "digits", "--folder", "suites", "--json", "compute.threads=1").stdout)
    assert {problem["kind"] for problem in problems} == {"rare", "noisy_label", "correlation"}
    assert all(problem["set"] == "digits" and 0 <= problem["accuracy_out"] <= 1 for problem in problems)
    assert {"fit", "reason", "slices", "members", "accuracy_in", "strength", "problem"} <= set(problems[0])


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


def test_a_sweep_names_every_run_that_failed(slicebench, workspace):
    (workspace / "divides.py").write_text(
        "class Divides:\n    def fit(self, o): return self\n    def predict(self, o): 1 / 0\n"
    )
    options = ["--multirun", "--import-path", ".", "method=custom", "seeds.method=0,-1,-2"]
    done = slicebench("run", *options, "method._target_=methods.random_slices.RandomSlices")
    assert done.exit_code == 2
    *named, total = done.stderr.splitlines()[-3:]
    for seed, line in zip((-1, -2), named, strict=True):
        assert f"seeds.method={seed}" in line
        assert f": seeds.method is {seed}, expected at least 0" in line
    assert total == "slicebench: 2 of 3 runs failed"
    assert "Traceback" not in done.stderr
    assert len(list(Path("outputs").rglob("scores.parquet"))) == 1

    done = slicebench("run", *options, "method._target_=divides.Divides")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    *named, total = done.stderr.splitlines()[-4:]
    for said, line in zip(("division by zero", "method is -1, expected", "method is -2, expected"), named, strict=True):
        assert said in line
    assert total == "slicebench: 3 of 3 runs failed"


def test_own_folders_hide_nothing_of_ours(workspace):
    for name in ("methods", "evaluation", "conf", "experiments"):
        (workspace / "mine" / name).mkdir(parents=True)
        (workspace / "mine" / name / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    (workspace / "mine" / "own.py").write_text("from methods import HighestLoss\n\nclass Own(HighestLoss): ...\n")
    command = [Path(sys.executable).with_name("slicebench"), "run", "tracking=none", "--import-path", "mine"]
    arguments = ["method=custom", "method._target_=own.Own"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=workspace)
    assert done.returncode == 0, done.stderr


def test_an_empty_variable_is_no_cache_in_the_working_directory(slicebench, workspace, monkeypatch):
    monkeypatch.setenv("HOME", str(workspace / "home"))
    monkeypatch.setenv("SLICEBENCH_CACHE", "")
    (workspace / "stage" / "folder").mkdir(parents=True)
    assert json.loads(slicebench("cache", "--json").stdout) == {}
    monkeypatch.setenv("SLICEBENCH_CACHE", "")
    text = slicebench("run", "--cfg", "job", "--resolve").stdout
    assert "cache: ~/.cache/slicebench" in text


def test_a_dry_run_refuses_a_folder_that_was_changed_by_hand(slicebench):
    slicebench("run", "method=random")
    (config,) = Path("outputs").rglob("config.yaml")
    config.write_text(config.read_text().replace("n_slices: ", "n_slices: 9"))
    done = slicebench("run", "--dry-run", "method=random")
    assert done.exit_code == 2
    assert "config.yaml: method.n_slices is 9" in done.stderr


WAITS = """
import time
from pathlib import Path

class Waits:
    def fit(self, outputs):
        Path("fitting").touch()
        time.sleep(600)

    def predict(self, outputs): ...
"""


@pytest.mark.parametrize("sweep", [[], ["--multirun"]], ids=["one run", "a sweep"])
def test_an_interrupted_run_ends_with_one_line_and_130(workspace, sweep):
    (workspace / "waits.py").write_text(WAITS)
    # a shell that starts things in the background makes them ignore Ctrl-C, and so their children
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", f"{start}from experiments.cli import main; main()", "run", *sweep]
    overrides = ["--import-path", ".", "tracking=none", "method=custom", "method._target_=waits.Waits"]
    process = subprocess.Popen([*command, *overrides], cwd=workspace, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (workspace / "fitting").exists():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert said.splitlines() == ["interrupted; the same command goes on from here"]
