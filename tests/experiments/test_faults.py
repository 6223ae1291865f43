"""What clusters and laptops do to sweeps: processes that want the same, kills, disks and memory that are full."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import inference, training
from experiments.files import naming_a_full_disk
from experiments.inference import LOGITS

TINY = ("model.training.epochs=1", "model.channels=2", "model.hidden=8")
QUICK = ("tracking=none", "compute.threads=1")
FOUR = (*TINY, "method=random,highest_loss", "seeds.method=0,1")
N_TRAIN, N_TEST = 718, 900  # examples of the digits
KB = 1024

COUNTING = """
import time
from dataclasses import dataclass
import torch
from torch import nn
from experiments.contract import ModelUnderAudit
from experiments.models.small_cnn import preprocess
from experiments.training import Training

@dataclass(frozen=True)
class Counting:
    training: Training | None = None

    def build(self, dataset):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        return ModelUnderAudit(module, slowly, embedding_layer="0")

def slowly(image):
    time.sleep(0.002)
    with open("seen", "a") as file:
        file.write("one\\n")
    return preprocess(image)
"""
METHODS = """
import mmap, os, signal, time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from methods.random_slices import RandomSlices

@dataclass
class Slow(RandomSlices):
    def fit(self, outputs):
        time.sleep(0.2)
        return super().fit(outputs)

@dataclass
class Deadly(RandomSlices):
    deadly: bool = False

    def fit(self, outputs):
        if self.deadly and not Path("spared").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(outputs)

@dataclass
class Greedy(RandomSlices):
    gigabytes: float = 0
    mapped: bool = False

    def fit(self, outputs):
        size = int(self.gigabytes * 2**30)
        if self.mapped:
            mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        else:
            np.empty(size, dtype=np.uint8)
        return super().fit(outputs)

@dataclass
class Filling(RandomSlices):
    file: str = ""
    broken: bool = False

    def fit(self, outputs):
        with suppress(OSError):
            Path(self.file).write_bytes(bytes(2**24))
        if self.broken:
            raise RuntimeError("not on such a disk")
        time.sleep(1.1)  # until news of the run are due
        return super().fit(outputs)

    def predict(self, outputs):
        Path(self.file).unlink()
        return super().predict(outputs)
"""
FORKS = """
import gc, json, os, resource, sys
import torch._dynamo
import experiments.launching, experiments.run
from experiments.cli import app
from experiments.settings import settings_of

settings_of(["tracking=none"]).dataset.instance.load(None, 0)
gc.freeze()  # else each child looks through all that was imported, and gets a copy of it thereby
for line in sys.stdin:
    order = json.loads(line)
    pids = []
    for number, arguments in enumerate(order["commands"]):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.chdir(order["folder"])
            os.environ |= order["environment"]
            if order["memory"]:
                resource.setrlimit(resource.RLIMIT_AS, (order["memory"], order["memory"]))
            os.dup2(os.open(f"said-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            app(arguments)  # exits
    print(json.dumps(pids), flush=True)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
"""


class Processes:
    """Each `slicebench run` in a process of its own; one that has imported everything is forked for them.

    A Python that is started for each would take most of the time.
    """

    def __init__(self, folder):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.parent = subprocess.Popen([sys.executable, "-c", FORKS], cwd=folder, text=True, **pipes)

    def start(self, *commands, memory=None):
        """Start all of these at once, each with so many bytes of memory at most: their pids."""
        order = {
            "commands": [["run", *QUICK, *command] for command in commands],
            "folder": os.getcwd(),
            "environment": {"SLICEBENCH_CACHE": os.environ["SLICEBENCH_CACHE"]},
            "memory": memory,
        }
        self.parent.stdin.write(f"{json.dumps(order)}\n")
        self.parent.stdin.flush()
        return json.loads(self.parent.stdout.readline())

    def end(self):
        """Wait for them: their exit codes, and what each said."""
        codes = json.loads(self.parent.stdout.readline())
        return codes, [Path(f"said-{number}").read_text() for number in range(len(codes))]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    forks = Processes(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.parent.stdin.close()
    assert forks.parent.wait(timeout=60) == 0
    forks.parent.stdout.close()


def counting(workspace, *more):
    (workspace / "counting.py").write_text(COUNTING)
    target = ["model=custom", "model._target_=counting.Counting"]
    return ["--import-path", str(workspace), *target, "compute.workers=1", "method=highest_loss", *more]


def a_method(workspace, name, *more):
    (workspace / "faulty.py").write_text(METHODS)
    return ["--import-path", str(workspace), *TINY, "method=custom", f"method._target_=faulty.{name}", *more]


def scores(results):
    """Of all runs below this folder, by the name of the run."""
    return {path.parent.name: pd.read_parquet(path) for path in sorted(Path(results).glob("*/*/scores.parquet"))}


def assert_same(ours, theirs):
    assert ours
    assert ours.keys() == theirs.keys()
    for name, frame in ours.items():
        pd.testing.assert_frame_equal(frame, theirs[name], check_exact=True)


def wait_for(happened, seconds=60):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def states(slicebench):
    """What `slicebench status` says of each run in a folder, and its note, by the run's name."""

    def read(folder):
        listed = slicebench("status", str(folder), "--json")
        assert listed.exit_code in (0, 1), listed.stderr
        return {Path(line["run"]).name: (line["status"], line["note"]) for line in json.loads(listed.stdout)}

    return read


def test_eight_processes_that_want_the_same_model_and_outputs_compute_them_once(workspace, own_cache, processes):
    wanted = counting(workspace, "+model.training.epochs=1")
    processes.start(*([*wanted, f"paths.results=results-{number}"] for number in range(8)))
    codes, said = processes.end()
    assert codes == [0] * 8, said
    assert len((workspace / "seen").read_text().splitlines()) == N_TRAIN + N_TEST
    first, *others = [scores(f"results-{number}") for number in range(8)]
    for other in others:
        assert_same(other, first)


def test_who_waited_for_a_killed_process_takes_its_work_over(workspace, own_cache, slicebench, processes):
    wanted = counting(workspace)
    pids = processes.start(*([*wanted, f"paths.results=results-{number}"] for number in range(2)))
    waiting = "waiting for another process, which works on forward"
    seen, *said = (workspace / name for name in ("seen", "said-0", "said-1"))
    wait_for(lambda: all(path.exists() for path in (seen, *said)) and seen.stat().st_size)
    wait_for(lambda: any(waiting in path.read_text() for path in said))
    holder = int(waiting in said[0].read_text())
    os.kill(pids[holder], signal.SIGKILL)
    codes, words = processes.end()
    assert codes[holder] == -signal.SIGKILL
    assert codes[1 - holder] == 0, words
    assert len(seen.read_text().splitlines()) > N_TEST
    shutil.rmtree(own_cache)
    assert slicebench("run", *wanted).exit_code == 0
    assert_same(scores(f"results-{1 - holder}"), scores("outputs"))


def test_two_sweeps_that_want_the_same_runs_do_each_once(workspace, own_cache, slicebench, processes):
    sweep = [*a_method(workspace, "Slow", "+method.size=20,30", "seeds.method=0,1"), "--multirun"]
    processes.start(sweep, sweep)
    codes, said = processes.end()
    assert codes == [0, 0], said
    assert sum(text.count("done in") for text in said) == 4
    assert all("done in" in text or "skipped" in text for text in said)
    assert slicebench("run", *sweep, "paths.results=undisturbed").exit_code == 0
    assert_same(scores("outputs"), scores("undisturbed"))


@pytest.fixture
def mount():
    """Mount something on a folder, for as long as the test lasts."""
    folders = []

    def mounted(folder, *arguments):
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root can mount file systems")
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mounted
    # lazily: arrays of the cache may still be mapped
    left = [folder for folder in reversed(folders) if subprocess.run(["umount", "--lazy", folder]).returncode != 0]
    assert not left


@pytest.fixture
def disk(mount, tmp_path):
    """Mount a disk of so many bytes."""
    numbers = itertools.count()
    return lambda size: mount(tmp_path / f"disk-{next(numbers)}", "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


def enlarge(disk):
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)


@pytest.mark.parametrize("full", ["results", "cache"])
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_space(workspace, slicebench, states, disk, full):
    def call(number, folder):
        folders = {"results": f"results-{number}", "cache": "cache", full: folder}
        called = slicebench("run", *TINY, "method=random", *(f"paths.{name}={at}" for name, at in folders.items()))
        return called, folders["results"]

    assert call("expected", "expected" if full == "results" else "cache")[0].exit_code == 0
    expected = scores("expected" if full == "results" else "results-expected")
    n_failed = 0
    for size in itertools.count(4 * KB, 16 * KB):  # so that every file is once the first that does not fit
        small = disk(size)
        called, results = call(size, small)
        if called.exit_code == 0:
            break
        n_failed += 1
        assert called.exit_code == 2, called.output
        assert called.stderr.startswith(f"slicebench: {small}: No space left on device: free some space, or choose")
        assert len(called.stderr.splitlines()) == 1
        if list(Path(results).rglob("run.json")):
            ((state, _),) = states(results).values()
            assert state in ("failed", "killed")
        enlarge(small)
        called, results = call(size, small)
        assert called.exit_code == 0, called.output
        assert_same(scores(results), expected)
        assert [state for state, _ in states(results).values()] == ["done"]
    assert n_failed >= 5


def test_a_sweep_on_a_full_disk_keeps_what_is_done_and_status_says_what_is_not(workspace, slicebench, states, disk):
    assert slicebench("run", "--multirun", *FOUR, "paths.results=undisturbed").exit_code == 0
    size = sum(path.stat().st_size for path in Path("undisturbed/digits").rglob("*.*"))
    small = disk(size // 2)
    sweep = ["run", "--multirun", *FOUR, f"paths.results={small}"]
    called = slicebench(*sweep)
    assert called.exit_code == 2, called.output
    assert "Traceback" not in called.output
    told = [line for line in called.stderr.splitlines() if "No space left on device" in line]
    assert len(told) == 1
    assert f"others): {small}: " in told[0]
    found = states(small)
    done = {name for name, (state, _) in found.items() if state == "done"}
    assert found.keys() == scores("undisturbed").keys()
    assert 0 < len(done) == called.stderr.count("done in") < 4
    assert {state for state, _ in found.values()} <= {"done", "failed", "killed", "missing"}
    enlarge(small)
    again = slicebench(*sweep, "compute.retry_failed=true")
    assert again.exit_code == 0, again.output
    assert again.stderr.count("done in") == 4 - len(done)
    assert_same(scores(small), scores("undisturbed"))


def test_an_error_is_shown_also_where_it_cannot_be_written_down(workspace, slicebench, states, disk):
    small = disk(256 * KB)
    filling = a_method(workspace, "Filling", f"+method.file={small / 'filling'}", f"paths.results={small}")
    called = slicebench("run", *filling, "+method.broken=true")
    assert str(called.exception) == "not on such a disk"
    assert [state for state, _ in states(small).values()] == ["killed"]


def test_news_of_a_run_that_find_no_space_do_not_end_it(workspace, slicebench, states, disk):
    small = disk(256 * KB)
    filling = a_method(workspace, "Filling", f"+method.file={small / 'filling'}", f"paths.results={small}")
    called = slicebench("run", *filling)
    assert called.exit_code == 0, called.output
    assert [state for state, _ in states(small).values()] == ["done"]


def test_only_a_full_disk_gets_a_name(tmp_path):
    with pytest.raises(OSError, match="No space left") as full, naming_a_full_disk(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert Path(full.value.filename).is_mount()
    with pytest.raises(OSError, match="I/O") as broken, naming_a_full_disk(tmp_path):
        raise OSError(errno.EIO, "I/O error")
    assert broken.value.filename is None


@pytest.fixture
def read_only(mount):
    """The same folder under another name, under which nothing can be written."""

    def bound(folder):
        folder.mkdir(exist_ok=True)
        other = mount(folder.with_name(f"{folder.name}-read-only"), "--bind", folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", other], check=True)
        return other

    return bound


@pytest.mark.parametrize("name", ["cache", "results"])
@pytest.mark.parametrize("sweep", [["method=random"], ["--multirun", "method=random,gmm"]], ids=["run", "sweep"])
def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_computed(
    workspace, own_cache, slicebench, read_only, name, sweep
):
    folder = read_only(workspace / name)
    called = slicebench("run", *sweep, f"paths.{name}={folder}")
    assert called.exit_code == 2, called.output
    said = [line for line in called.stderr.splitlines() if "Read-only file system" in line]
    assert len(said) == 1
    assert str(folder) in said[0]
    assert f"paths.{name}=DIR" in said[0]
    assert "Traceback" not in called.output
    assert not list(workspace.rglob("run.json"))
    assert not list(workspace.rglob("*.lock"))


def test_a_killed_run_is_told_from_a_running_one_also_by_who_may_only_read(workspace, slicebench, states, read_only):
    assert slicebench("run", *TINY, "method=random").exit_code == 0
    (run,) = Path("outputs").rglob("run.json")
    run.write_text(run.read_text().replace('"status": "done"', '"status": "running"'))
    assert [state for state, _ in states(read_only(workspace / "outputs")).values()] == ["killed"]


@pytest.mark.parametrize("stage", ["model", "forward"])
def test_what_is_cut_off_in_the_cache_is_computed_again_and_said_once(workspace, own_cache, slicebench, stage):
    wanted = ("run", *TINY, "method=highest_loss")
    assert slicebench(*wanted).exit_code == 0
    files = {path: path.read_bytes() for path in own_cache.glob(f"{stage}/*/*.npy")}
    damaged = max(files, key=lambda path: len(files[path]))
    os.truncate(damaged, len(files[damaged]) // 2)
    again = slicebench(*wanted, "paths.results=again")
    assert again.exit_code == 0, again.output
    assert again.stderr.count("was damaged") == again.stderr.count("computing it again") == 1
    assert {path: path.read_bytes() for path in files} == files
    assert_same(scores("again"), scores("outputs"))


def negated(*given, passed=inference._passed):
    for blocks in passed(*given):
        yield {layer: -rows if layer == LOGITS else rows for layer, rows in blocks.items()}


@pytest.mark.parametrize(
    ("module", "name", "as_it_was"),
    [(inference, "_passed", negated), (training, "_one_epoch", lambda *_: None)],
    ids=["inference", "training"],
)
def test_what_older_code_left_in_the_cache_is_not_used(
    workspace, own_cache, slicebench, monkeypatch, module, name, as_it_was
):
    wanted = ("run", *TINY, "method=highest_loss")
    with monkeypatch.context() as older:
        older.setattr(module, "VERSION", module.VERSION - 1)
        older.setattr(module, name, as_it_was)
        assert slicebench(*wanted).exit_code == 0
    assert slicebench(*wanted).exit_code == 0
    assert slicebench(*wanted, "paths.results=undisturbed", f"paths.cache={workspace / 'other'}").exit_code == 0
    expected, both = scores("undisturbed"), scores("outputs")
    (run,) = expected
    (older_run,) = both.keys() - expected.keys()
    assert_same({run: both[run]}, expected)
    assert not np.array_equal(both[older_run]["value"], both[run]["value"])


def test_runs_without_enough_memory_fail_alone_and_can_be_tried_again(
    workspace, own_cache, slicebench, states, processes
):
    greedy = a_method(workspace, "Greedy", "+method.gigabytes=0.001,3", "+method.mapped=false,true")
    sweep = ["--multirun", *greedy, "compute.workers=0"]
    processes.start(sweep, memory=4 * 2**30)
    (code,), (said,) = processes.end()
    assert code > 0, said
    reason = "there is not enough memory ("
    told = [line for line in said.splitlines() if reason in line]
    assert len(told) == 2
    assert all("+method.gigabytes=3" in line for line in told)
    found = sorted(states("outputs").values())
    assert [state for state, _ in found] == ["done", "done", "failed", "failed"]
    assert all(note.startswith(reason) for _, note in found[2:])
    again = slicebench("run", *sweep, "compute.retry_failed=true")
    assert again.exit_code == 0, again.output
    assert again.stderr.count("done in") == 2
    assert [state for state, _ in states("outputs").values()] == ["done"] * 4


def test_a_process_that_is_killed_takes_no_other_run_of_its_sweep_with_it(
    workspace, own_cache, slicebench, states, processes
):
    sweep = ["--multirun", *a_method(workspace, "Deadly", "+method.deadly=false,true")]
    parallel = [*sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    processes.start(parallel)
    (code,), (said,) = processes.end()
    assert code == 1, said
    assert "+method.deadly=True: its process was killed" in said
    assert sorted(state for state, _ in states("outputs").values()) == ["done", "killed"]
    (workspace / "spared").touch()
    processes.start(parallel)
    (code,), (said,) = processes.end()
    assert code == 0, said
    assert "1 done before, skipped, 1 to do" in said
    assert slicebench("run", *sweep, "paths.results=undisturbed").exit_code == 0
    assert_same(scores("outputs"), scores("undisturbed"))
