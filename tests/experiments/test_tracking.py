import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tracking import Forgiving

RUN = ("corruption=relabel_subclass", "corruption.n_seeds=1", "method=highest_loss")


def inspected(folder):
    """What Weights & Biases' own reader finds in a run folder."""
    (offline,) = folder.glob("wandb/offline-run-*")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", offline]
    done = subprocess.run([*command[:3], "--summary", *command[3:]], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_an_offline_run_can_be_read_back_and_lies_below_the_run_folder(slicebench, workspace):
    done = slicebench("run", *RUN, "tracking=wandb")
    assert done.exit_code == 0, done.stderr
    (folder,) = [path.parent for path in Path("outputs").rglob("run.json")]
    text = inspected(folder)
    assert "worst_slice/precision_at_k/10" in text
    assert {path.name for path in workspace.iterdir()} <= {"outputs"}


def test_runs_of_one_process_are_tracked_apart(slicebench):
    done = slicebench("run", "--multirun", *RUN[:2], "method=random,highest_loss", "tracking=offline")
    assert done.exit_code == 0, done.stderr
    folders = [path.parent for path in Path("outputs").rglob("run.json")]
    assert [len(list(folder.glob("wandb/offline-run-*/*.wandb"))) for folder in folders] == [1, 1]


def test_without_tracking_nothing_is_written(slicebench):
    slicebench("run", *RUN)
    assert not list(Path("outputs").rglob("*wandb*"))


class Failing:
    def __init__(self, when):
        self.when, self.calls = when, []

    def start(self):
        self._call("start")
        return self

    def log(self, summary):
        self._call("log")

    def close(self, failed):
        self._call("close")

    def _call(self, what):
        self.calls.append(what)
        if what == self.when:
            raise OSError("no space left on device")


@pytest.mark.parametrize("when", ["start", "log", "close"])
def test_a_failing_tracker_is_said_once_and_never_raises(when, capsys):
    failing = Failing(when)
    tracker = Forgiving(failing.start)
    tracker.log({"f1": 1.0})
    tracker.log({"f1": 1.0})
    tracker.close(failed=False)
    assert capsys.readouterr().err.count("tracking stopped (OSError: no space left on device)") == 1
    assert failing.calls[-1] == when, "it was called again after it had failed"


def test_a_run_outlives_its_tracker(slicebench, monkeypatch):
    monkeypatch.setattr("experiments.tracking.Wandb.start", lambda *_: 1 / 0)
    done = slicebench("run", *RUN, "tracking=wandb")
    assert done.exit_code == 0
    assert "tracking stopped (ZeroDivisionError" in done.stderr
    (path,) = Path("outputs").rglob("run.json")
    assert json.loads(path.read_text())["status"] == "done"


def test_no_key_is_written(slicebench, monkeypatch):
    secret = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    slicebench("run", *RUN, "tracking=offline")
    for path in Path("outputs").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


@pytest.fixture(autouse=True)
def _environment():
    """Tracking points Weights & Biases at the run folder by environment variables; other tests must not see them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
