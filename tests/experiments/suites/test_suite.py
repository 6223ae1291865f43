"""`slicebench make`: whole suites, by processes that are killed, interrupted and side by side."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from experiments.cli import app
from experiments.reading.dcbench import INDEX, read_index, read_problem
from experiments.suites import suite
from experiments.suites.making import ARTIFACTS

NINE = "b-rare-4-or-9-subclass-9-0.01-seed-0"
LONGER = "model.training.epochs=9"
FOUR = {"kinds": {"rare": [0.01], "noisy_label": [0.6]}, "seeds": [0, 1]}  # problems

# a network that notes when it is built: twice for each problem that is made, once of them for the control
NOTED = """
import os, time
from dataclasses import dataclass
from experiments.models.small_cnn import SmallCNN


@dataclass(frozen=True)
class Noted(SmallCNN):
    def build(self, dataset):
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{os.getpid()} {dataset.fingerprint}\\n")
        time.sleep(float(os.environ.get("SECONDS", 0)))
        return super().build(dataset)
"""


@pytest.fixture
def make(slicebench, suites, write_suite):
    """Make the small suite with these overrides and settings; gives what the command said."""

    def call(*arguments, **settings):
        suite._workshop.cache_clear()  # as in a new process
        return slicebench("make", write_suite(**settings), *arguments)

    return call


@pytest.fixture(scope="module")
def small(tmp_path_factory, a_block):
    """The small suite as `make` makes it: one problem."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(yaml.safe_dump({"b": a_block()}))
    done = made_here(folder, folder / "data", "small.yaml")
    assert done.exit_code == 0, done.output
    return folder / "data" / "suites" / "small"


@pytest.fixture
def there(small, suites):
    """The small suite, which is there already."""
    return shutil.copytree(small, suites / "small")


def names_in(index):
    return {entry.container_id for entry in read_index(index)}


def made(root):
    """The problems that are there whole."""
    return {path.parent.name for path in (root / ARTIFACTS).glob("[!.]*/problem.json")}


def report(root, name=NINE):
    return json.loads((root / ARTIFACTS / name / "problem.json").read_text())


def times(root):
    return {path: path.stat().st_mtime_ns for path in (root / ARTIFACTS).rglob("*")}


def content(root):
    """Every file of the problems and the index, beside the seconds that they took."""
    files = [path for path in (root / "slice_discovery").rglob("*") if path.is_file()]
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    return found | {name: json.loads(text) | {"seconds": 0} for name, text in found.items() if name.endswith(".json")}


def explained(done):
    """The one line of a command that was refused."""
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("slicebench: ")]
    return line


AT_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def started(folder, data, *arguments):
    """The command in a process of its own, with data and cache of its own."""
    command = [sys.executable, "-m", "experiments.cli", "make", *arguments]
    places = {"SLICEBENCH_DATA": str(data), "SLICEBENCH_CACHE": f"{data}-cache"}
    # what a shell starts in the background ignores interrupts, and so would its children
    command = [sys.executable, "-c", AT_A_TERMINAL, *command]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | places, stdout=-1, stderr=-1, text=True, process_group=0
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def made_here(folder, data, *arguments):
    """The same command in this process; gives what it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SLICEBENCH_DATA", str(data))
        patch.setenv("SLICEBENCH_CACHE", f"{data}-cache")
        suite._workshop.cache_clear()
        return CliRunner().invoke(app, ["make", *arguments])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, a_block):
    """The folder with `small.yaml`, which has four problems, and the suite that one process makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.yaml").write_text(yaml.safe_dump({"b": a_block(**FOUR)}))
    done = made_here(folder, folder / "data", "small.yaml")
    assert done.exit_code == 0, done.output
    assert ": fit" in done.stderr
    return folder, folder / "data" / "suites" / "small"


def test_a_killed_make_goes_on_where_it_was_and_ends_alike(undisturbed, tmp_path):
    folder, expected = undisturbed
    root = tmp_path / "data" / "suites" / "small"
    killed = started(folder, tmp_path / "data", "small.yaml")
    wait_for(lambda: made(root))
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    done = made(root)
    assert 1 <= len(done) < 4
    before = {path: written for path, written in times(root).items() if done & set(path.parts)}
    assert not (root / INDEX).exists()

    again = made_here(folder, tmp_path / "data", "small.yaml")
    assert again.exit_code == 0, again.output
    assert f"4 problems, {len(done)} of them there already" in again.stderr
    assert {path: times(root)[path] for path in before} == before, "a finished problem was made again"
    assert content(root) == content(expected)
    assert [path.name for path in (root / ARTIFACTS).iterdir() if path.name.startswith(".")] == []


def test_several_jobs_make_the_same_problems(undisturbed, tmp_path):
    folder, expected = undisturbed
    done = made_here(folder, tmp_path / "data", "small.yaml", "--jobs", "2")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("accuracy") == 4
    assert content(tmp_path / "data" / "suites" / "small") == content(expected)


def test_two_processes_make_each_problem_once(tmp_path, a_block, monkeypatch):
    """Another one, and this one while the other works on its first."""
    (tmp_path / "noting.py").write_text(NOTED)
    overrides = [one for one in a_block()["overrides"] if one != "model=small_cnn" and not one.startswith("model.")]
    sizes = ["+model.channels=8", "+model.hidden=16", "+model.training.epochs=8"]
    overrides += ["model=custom", "model._target_=noting.Noted", *sizes]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"b": a_block(**FOUR, overrides=overrides)}))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.syspath_prepend(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("SECONDS", "0.5")
        other = started(tmp_path, tmp_path / "data", "small.yaml")
    wait_for((tmp_path / "notes").exists)
    done = made_here(tmp_path, tmp_path / "data", "small.yaml")
    _, said = other.communicate(timeout=120)
    assert (other.returncode, done.exit_code) == (0, 0), said + done.output
    assert (said.count("accuracy"), done.stderr.count("accuracy")) == (4, 4), "both say how all problems are"
    built = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert {int(process) for process, _ in built} == {other.pid, os.getpid()}
    per_data = Counter(fingerprint for _, fingerprint in built)
    # four problems and two controls of rare; those of noisy_label, with two seeds, are trained on all data
    assert sorted(per_data.values()) == [1, 1, 1, 1, 1, 1, 2]
    root = tmp_path / "data" / "suites" / "small"
    assert names_in(root / INDEX) == made(root)
    assert len(made(root)) == 4


def test_an_interrupted_make_keeps_what_it_made_and_says_so(tmp_path, a_block):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"b": a_block(seeds=list(range(30)))}))
    root = tmp_path / "data" / "suites" / "small"
    process = started(tmp_path, tmp_path / "data", "small.yaml")
    wait_for(lambda: len(made(root)) > 1)  # many more are to come
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    assert 1 <= len(names_in(root / INDEX)) <= len(made(root)) < 30


def test_a_worker_that_is_killed_is_said_in_one_line(undisturbed, tmp_path):
    """As the system does where memory is short."""
    folder, _ = undisturbed
    root = tmp_path / "data" / "suites" / "small"

    def kill_one():
        wait_for(lambda: list(root.glob(".locks/*")))  # of the problems that they work on
        os.kill(workers()[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    done = made_here(folder, tmp_path / "data", "small.yaml", "--jobs", "2")
    killer.join()
    assert "slicebench: a process was killed" in explained(done)


def workers():
    """The ids of the processes that this one has started to work for it."""
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_what_is_there_is_not_made_again(make, there):
    before = times(there)
    again = make()
    assert again.exit_code == 0, again.output
    assert "1 problems, 1 of them there already" in again.stderr
    assert "accuracy" not in again.stderr
    assert times(there) == before


@pytest.mark.parametrize("override", ["compute.batch_size=50", "compute.workers=0", "seeds.split=0"])
def test_how_it_is_computed_makes_nothing_again(make, there, override):
    before = times(there)
    assert make(override).exit_code == 0
    assert times(there) == before


@pytest.mark.parametrize("override", ["method=gmm", "seeds.training=1", "+seeds.training=1", "paths.data=elsewhere"])
def test_a_setting_without_effect_is_refused(make, suites, override):
    line = explained(make(override))
    assert f"{override} has no effect here" in line
    assert "SLICEBENCH_DATA and --folder" in line
    assert not suites.exists()


def test_a_changed_setting_makes_the_problems_again(make, there):
    before = report(there)
    again = make(LONGER)
    assert again.exit_code == 0, again.output
    assert "0 of them there already" in again.stderr
    after = report(there)
    assert after["key"] != before["key"]
    assert after["definition"]["model"]["training"]["epochs"] == 9
    assert names_in(there / INDEX) == {NINE}


def test_a_suite_that_was_made_otherwise_is_another_run(make, slicebench, there):
    run = ("run", "dataset=suite", "dataset.name=small", "method=random")
    assert slicebench(*run).exit_code == 0
    make(LONGER)
    assert "skipped" not in slicebench(*run).stderr
    scores = [pd.read_parquet(path) for path in Path("outputs").rglob("scores.parquet")]
    assert len(scores) == 2
    assert len({scores["run"].iloc[0] for scores in scores}) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": "x", "fit": true, "name": "y"}'])
def test_a_problem_whose_report_is_damaged_is_made_again(make, there, text):
    before = content(there)
    (there / ARTIFACTS / NINE / "problem.json").write_text(text)
    again = make()
    assert "0 of them there already" in again.stderr
    assert content(there) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: shutil.rmtree(folder / "val_predictions.mk"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: os.truncate(next((folder / "activations.mk").rglob("data.npy")), 50),
    ],
    ids=["a panel is gone", "the weights are gone", "an array is cut off"],
)
def test_a_problem_that_has_lost_something_is_made_again(make, there, spoil):
    before = content(there)
    spoil(there / ARTIFACTS / NINE)
    assert make().exit_code == 0
    assert content(there) == before


def test_the_index_has_no_problem_that_is_no_longer_fit(make, there):
    assert names_in(there / INDEX) == {NINE}
    again = make(least=500)
    assert "unfit: a slice has 54 members" in again.stderr
    assert not (there / INDEX).exists() or NINE not in names_in(there / INDEX)


def test_a_problem_that_is_asked_for_no_longer_is_no_longer_in_the_index(make, suites):
    make(kinds={"rare": [0.01, 0.02]})
    assert len(names_in(suites / "small" / INDEX)) == 2
    again = make()
    assert "1 problems, 1 of them there already" in again.stderr
    assert names_in(suites / "small" / INDEX) == {NINE}


def test_unfit_problems_are_counted_with_their_reasons_and_are_not_in_the_index(make, suites):
    done = make(kinds={"rare": [0.01, 0.9], "noisy_label": [2]})
    assert done.exit_code == 0, done.output
    assert f"{NINE}: accuracy" in done.stderr
    assert "rare-4-or-9-subclass-9-0.9-seed-0: unfit: the slice '4 or 9 subclass=9' has 72 training" in done.stderr
    assert "unfit: strength is 2, expected a probability above 0 and at most 1" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0]: (line[1], line[-1]) for line in lines if line[:1] in (["rare"], ["noisy_label"])} == {
        "rare": ("1", "1"),
        "noisy_label": ("0", "1"),
    }
    assert names_in(suites / "small" / INDEX) == {NINE}


def test_a_slice_that_is_too_small_is_unfit(make):
    done = make(least=1000)
    assert "unfit: a slice has 54 members in the validation split, expected at least 1000" in done.stderr
    assert "no problem is fit" in done.stderr


def test_the_reasons_are_said_again_where_nothing_is_fit(make):
    """They stand above, says the last line."""
    make(least=1000)
    again = make(least=1000)
    assert "no problem is fit" in again.stderr
    assert "a slice has 54 members" in again.stderr


BAD = {
    "b: model=precomputed is not trained here": ["dataset=digits", "model=precomputed"],
    "digits has no validation split": ["dataset=digits", "dataset.validation_share=0"],
    "there is no setting 'model.trainin'; the nearest is training": ["dataset=digits", "model.trainin.epochs=1"],
    "no dataset is called 'digit'; the nearest is digits": ["dataset=digit"],
    "dataset.train_share is 2": ["dataset=digits", "dataset.train_share=2"],
    "'digits'": ["digits"],
    "dataset=digits,wine": ["dataset=digits,wine"],
    "dcbench": ["dataset=dcbench", "model=small_cnn"],
}


@pytest.mark.parametrize(("says", "overrides"), BAD.items(), ids=BAD)
def test_overrides_of_a_block_that_cannot_be_are_refused_before_anything_is_made(make, suites, says, overrides):
    assert says in explained(make(overrides=overrides))
    assert not suites.exists()


def test_problems_that_are_stored_are_nothing_to_make_problems_of(make):
    assert "b: " in explained(make(overrides=["dataset=dcbench"]))


def test_overrides_on_the_command_line_are_checked_too(make, suites):
    assert "no setting 'model.chanels'; the nearest is channels" in explained(make("model.chanels=3"))
    assert not suites.exists()


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"attribute": "subclass", "classes": ["4 or 8"]}, "digits has no class '4 or 8'; the nearest are"),
        ({"attribute": "subclas"}, "digits has no attribute 'subclas' beside labels: it has subclass"),
        ({"attribute": "subclass", "values": ["10"]}, "no training example of digits has subclass '10'"),
    ],
)
def test_slices_that_the_data_do_not_have_are_refused_before_anything_is_made(make, suites, choice, says):
    assert says in explained(make(slices=[{"attribute": "subclass"}, choice]))
    assert not suites.exists()


def test_the_same_problem_twice_is_refused(make, suites):
    twice = [{"attribute": "subclass", "classes": ["4 or 9"], "values": ["9"]}] * 2
    assert f"the suite small has the problem {NINE} twice" in explained(make(slices=twice))
    assert f"has the problem {NINE} twice" in explained(make(seeds=[0, 0]))
    assert not suites.exists()


def test_of_several_suites_all_are_read_before_the_first_is_made(slicebench, suites, write_suite):
    done = slicebench("make", write_suite(), "digts")
    assert "no suite is called 'digts'" in explained(done)
    assert not suites.exists()


def test_several_suites_are_made_by_one_command(slicebench, suites, write_suite):
    done = slicebench("make", write_suite("one"), write_suite("two"))
    assert done.exit_code == 0, done.output
    assert names_in(suites / "one" / INDEX) == names_in(suites / "two" / INDEX) == {NINE}


def test_a_command_without_a_suite_is_refused(slicebench, suites):
    """All that it was given are overrides."""
    done = slicebench("make", "dataset=digits")
    assert done.exit_code == 2


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_less_than_one_job_is_refused(make, jobs):
    assert f"--jobs is {jobs}, expected at least 1" in explained(make("--jobs", jobs))


def test_a_suite_may_be_put_elsewhere(make, suites, workspace, slicebench):
    assert make("--folder", str(workspace / "mine")).exit_code == 0
    assert not suites.exists()
    assert made(workspace / "mine" / "small") == {NINE}
    folder = f"dataset.folder={workspace / 'mine'}"
    assert slicebench("run", "dataset=suite", "dataset.name=small", folder, "method=random").exit_code == 0


@pytest.mark.parametrize("place", ["", "small", "small/slice_discovery", f"small/{ARTIFACTS}", "small/.locks"])
def test_a_folder_that_cannot_be_written_is_one_clear_line(make, suites, place):
    """A file has its name."""
    (suites / place).parent.mkdir(parents=True, exist_ok=True)
    (suites / place).write_text("in the way")
    line = explained(make())
    assert str(suites / place) in line
    assert "something else has this name: move it away" in line
    assert (suites / place).read_text() == "in the way"


def test_on_a_disk_that_may_only_be_read_another_folder_is_asked_for(make, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system", "/media/suites/small")

    monkeypatch.setattr(suite, "_lock_of", refuse)
    line = explained(make())
    assert "/media/suites/small: Read-only file system" in line
    assert "--folder" in line


def test_problems_have_different_weights_for_different_data(undisturbed):
    """Nothing is taken from the cache that belongs to another problem."""
    _, root = undisturbed
    weights = {(root / ARTIFACTS / name / "model.safetensors").read_bytes() for name in made(root)}
    assert len(weights) == 4
    entries = {entry.container_id: entry for entry in read_index(root / INDEX)}
    assert list(entries) == [
        "b-noisy_label-4-or-9-subclass-9-0.6-seed-0",
        "b-noisy_label-4-or-9-subclass-9-0.6-seed-1",
        "b-rare-4-or-9-subclass-9-0.01-seed-0",
        "b-rare-4-or-9-subclass-9-0.01-seed-1",
    ]
    assert len({read_problem(root, entry).train.ids for entry in entries.values()}) == 3  # noise leaves all of them
