"""Sweeps on a real SLURM, which `scripts/slurm_local.sh` starts on this machine; without SLURM they are skipped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments.runs import find_results
from experiments.slurm import GONE, QueueWatcher

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_local.sh"
PLAIN = ["tracking=none", "compute.threads=1"]
LAUNCHER = ["hydra/launcher=cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
TWELVE = ["method=random,highest_loss,confusion,kmeans", "seeds.method=0,1,2", *PLAIN]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which SLURM's commands find a cluster of this machine, two jobs wide, without accounting."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("SLURM is not installed here, or this is not root: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    environment = {**os.environ, "SLURM_LOCAL": str(folder), "SLURM_LOCAL_PORT": "17817", "SLURM_LOCAL_CPUS": "2"}
    up = subprocess.run([SCRIPT, "up"], env=environment, capture_output=True, text=True, timeout=60)
    assert up.returncode == 0, up.stderr
    yield {**environment, "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([SCRIPT, "down"], env=environment, check=True, timeout=60)
    assert not folder.exists()


def command(*arguments):
    return [Path(sys.executable).with_name("slicebench"), "run", "--multirun", *arguments]


@pytest.fixture
def start():
    """Start a sweep in the background; one that a test leaves behind is killed."""
    started = []

    def begin(environment, *arguments):
        process = subprocess.Popen(command(*arguments), env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def run(environment, *arguments):
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=180)


def ask(environment, *words):
    """What a command of SLURM's says."""
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout


def in_state(environment, state):
    return ask(environment, "squeue", "--noheader", "--array", f"--states={state}", "--format=%i").split()


def node_processes(environment):
    """The daemon of the only node, and what watches over its jobs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, place = (process / "cmdline").read_text(), (process / "cwd").readlink()
        except OSError:  # over
            continue
        if str(place) == environment["SLURM_LOCAL"] and words.startswith(("slurmd\0", "slurmstepd")):
            found.append(int(process.name))
    return found


def status():
    """The state of each run that has begun."""
    return {run.name: run.state for run in find_results(Path("outputs")).runs}


def scores(root):
    """All scores of all runs below a folder."""
    parts = [pd.read_parquet(path) for path in sorted(root.glob("*/*/scores.parquet"))]
    return pd.concat(parts, ignore_index=True)


def wait_for(happened, seconds=60):
    until = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def test_jobs_that_the_cluster_has_forgotten_are_gone():
    watcher = QueueWatcher()
    for job in ("7_0", "7_1", "8_0"):
        watcher.register_job(job)
    found = watcher.read_info(b"7_0|RUNNING\n7_1|CANCELLED\n9_3|RUNNING\n")
    assert {job: info["State"] for job, info in found.items()} == {"7_0": "RUNNING", "7_1": "CANCELLED", "8_0": GONE}


@pytest.mark.slurm
def test_twelve_runs_give_what_one_process_gives_bit_for_bit(cluster, slicebench):
    done = run(cluster, *TWELVE, *LAUNCHER)
    assert done.returncode == 0, done.stderr
    alone = slicebench("run", "--multirun", *TWELVE, "paths.results=alone")
    assert alone.exit_code == 0, alone.stderr
    assert len(list(Path("outputs").glob("*/*/scores.parquet"))) == 12
    pd.testing.assert_frame_equal(scores(Path("outputs")), scores(Path("alone")), check_exact=True)


MIXED = """
import os, time
from pathlib import Path
from methods.random_slices import RandomSlices


class Mixed(RandomSlices):
    def fit(self, outputs):
        if self.n_slices == 2 and not Path("mended").exists():
            raise RuntimeError("two is one too many\\nfor me")
        if self.n_slices == 3 and not Path("mended").exists():
            Path("waits").write_text(str(os.getpid()))
            time.sleep(600)
        Path("gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
        return super().fit(outputs)
"""


@pytest.mark.slurm
def test_a_job_that_raises_and_one_that_is_cancelled_are_named_and_the_rest_is_done(cluster, workspace, start):
    """Without accounting nobody tells the launcher of a job that was cancelled."""
    (workspace / "mixed.py").write_text(MIXED)
    sweep = ["--import-path", ".", "method=custom", "method._target_=mixed.Mixed", "+method.n_slices=1,2,3", *PLAIN]
    first = start(cluster, *sweep, *LAUNCHER)
    wait_for(Path("waits").exists)
    wait_for(lambda: sorted(status().values()) == ["done", "failed", "running"])
    (cancelled,) = in_state(cluster, "RUNNING")
    ask(cluster, "scancel", cancelled)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 1
    assert f"SLURM job {cancelled} ended without a result (CANCELLED): see " in said
    assert "n_slices=2" in said
    assert "RuntimeError: two is one too many\n" in said
    assert said.splitlines()[-1] == "slicebench: 2 of 3 runs failed"
    assert sorted(status().values()) == ["done", "failed", "killed"]

    Path("mended").touch()
    again = run(cluster, *sweep, *LAUNCHER)
    assert again.returncode == 2
    assert "3 runs: 1 done before, skipped, 1 failed before, 1 to do" in again.stderr
    retried = run(cluster, *sweep, *LAUNCHER, "compute.retry_failed=true")
    assert retried.returncode == 0, retried.stderr
    assert "3 runs: 2 done before, skipped, 1 to do" in retried.stderr
    assert list(status().values()) == ["done"] * 3


@pytest.mark.slurm
def test_a_job_has_the_gpu_that_its_launcher_asks_for_and_outlives_its_node(cluster, workspace, start):
    (workspace / "mixed.py").write_text(MIXED)
    sweep = ["--import-path", ".", "method=custom", "method._target_=mixed.Mixed", "+method.n_slices=3", *PLAIN]
    launcher = ["hydra/launcher=gpu", "hydra.launcher.partition=gpu", *LAUNCHER[1:]]
    process = start(cluster, *sweep, *launcher)
    wait_for(lambda: Path("waits").exists() and Path("waits").read_text())
    Path("mended").touch()
    node = ask(cluster, "sinfo", "--noheader", "--format=%n").split()[0]
    for pid in [*node_processes(cluster), int(Path("waits").read_text())]:
        os.kill(pid, signal.SIGKILL)
    ask(cluster, "scontrol", "update", f"nodename={node}", "state=down", "reason=vanished")
    wait_for(lambda: in_state(cluster, "PENDING") and list(status().values()) == ["killed"])
    ask(cluster, "slurmd")  # another one, as it were
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert list(status().values()) == ["done"]
    assert Path("gpus").read_text() in ("0", "1")


SLOW = """
import os, time
from dataclasses import dataclass
from pathlib import Path

from experiments.models.small_cnn import SmallCNN
from methods.random_slices import RandomSlices

if "SLURM_ARRAY_TASK_ID" in os.environ:
    Path(f"pid-{os.environ['SLURM_ARRAY_TASK_ID']}").write_text(str(os.getpid()))


def wait(seconds):
    if Path("slow").exists():
        time.sleep(seconds)


@dataclass(frozen=True)
class SlowCNN(SmallCNN):
    def build(self, dataset):
        model = super().build(dataset)
        model.module.register_forward_pre_hook(lambda module, _: wait(0.02 if module.training else 0.15))
        return model


class SlowSlices(RandomSlices):
    def fit(self, outputs):
        wait(0.25)
        return super().fit(outputs)


def slow_fsync(descriptor, fsync=os.fsync):
    if "/parts/" in os.readlink(f"/proc/self/fd/{descriptor}"):
        wait(0.4)
    fsync(descriptor)


os.fsync = slow_fsync
"""
SMALL = ["dataset.train_share=0.2", "dataset.validation_share=0.7", "model.channels=2", "model.hidden=8"]
DISTURBED = [
    *("--import-path", ".", "model=custom", "model._target_=slow.SlowCNN", "+model.training.epochs=8"),
    *("method=custom", "method._target_=slow.SlowSlices", "corruption=relabel_subclass", "corruption.n_seeds=1"),
    *("compute.batch_size=10", "compute.problems_per_part=2", "+" + SMALL[2], "+" + SMALL[3], *SMALL[:2], *PLAIN),
]


class Disturbance:
    """What is done to one job of the sweep, once it is so far."""

    def __init__(self, task, run, when, act):
        self.task, self.folder, self.when, self.act = task, Path("outputs") / run, when, act

    def happens(self):
        if not self.when(self.folder):
            return False
        self.act(self.task)
        return True


def is_at(*stages):
    def so_far(folder):
        try:
            return json.loads((folder / "progress.json").read_text())["what"] in stages
        except (OSError, ValueError):  # not begun, or being replaced
            return False

    return so_far


def has_parts(folder):
    return len(list(folder.glob("parts/*.parquet"))) >= 1


def is_writing(folder):
    return bool(list(folder.glob("parts/.*")))


def send(signal_):
    return lambda task: os.kill(int(Path(f"pid-{task}").read_text()), signal_)


KILL, PREEMPT = send(signal.SIGKILL), send(signal.SIGUSR2)  # the latter is what SLURM sends before a job's end


@pytest.mark.slurm
def test_whatever_happens_to_its_jobs_a_sweep_started_again_ends_as_one_left_alone(cluster, workspace, start):
    (workspace / "slow.py").write_text(SLOW)
    (workspace / "slow").touch()
    sweep = [*DISTURBED, "seeds.training=0,1,2,3,4,5,6"]
    launcher = start(cluster, *sweep, *LAUNCHER)
    (manifest,) = wait_for(lambda: list(Path("outputs/sweeps").glob("*.json")))
    runs = [one["run"] for one in json.loads(manifest.read_text())["runs"]]
    (array,) = {job.split("_")[0] for job in wait_for(lambda: in_state(cluster, "RUNNING"))}

    def slurm(*words):
        return lambda task: ask(cluster, *words, f"{array}_{task}")

    happenings = [
        (has_parts, slurm("scontrol", "requeue")),
        (has_parts, PREEMPT),
        (is_at("train", "batches of an epoch"), KILL),
        (is_at("infer"), KILL),
        (has_parts, KILL),
        (is_writing, KILL),
        (has_parts, slurm("scancel")),
    ]
    left = [Disturbance(task, runs[task], *what) for task, what in enumerate(happenings)]

    def all_happened():
        left[:] = [one for one in left if not one.happens()]
        return not left

    wait_for(all_happened, seconds=120)
    launcher.kill()
    launcher.wait(timeout=10)
    wait_for(lambda: f"{array}_6" not in in_state(cluster, "RUNNING,COMPLETING"))  # it is given a moment
    (workspace / "slow").unlink()
    wait_for(lambda: not in_state(cluster, "PENDING,RUNNING,COMPLETING"))
    states = status()
    assert [states[name] for name in runs] == ["done", "done", *["killed"] * 5], "the first two go on by themselves"
    before = {path: path.stat().st_mtime_ns for path in Path("outputs").glob("*/*/parts/*.parquet")}

    again = run(cluster, *sweep, *LAUNCHER)
    assert again.returncode == 0, again.stderr
    assert "7 runs: 2 done before, skipped, 5 to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished part was made again"
    alone = run(cluster, *sweep, "paths.results=alone", "paths.cache=alone/cache")
    assert alone.returncode == 0, alone.stderr
    pd.testing.assert_frame_equal(scores(Path("outputs")), scores(Path("alone")), check_exact=True)


TRACED = """
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from experiments.models.small_cnn import SmallCNN


def trace(module, _):
    if not module.training and "SLURM_ARRAY_TASK_ID" in os.environ:
        task = os.environ["SLURM_ARRAY_TASK_ID"]
        Path("inferred-" + os.environ["SLURM_ARRAY_JOB_ID"] + "_" + task).touch()
        if task == "2" and Path("dies").exists():
            Path("dies").unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class TracedCNN(SmallCNN):
    def build(self, dataset):
        model = super().build(dataset)
        model.module.register_forward_pre_hook(trace)
        return model
"""


@pytest.mark.slurm
@pytest.mark.parametrize("dies", [False, True])
def test_an_array_of_jobs_infers_for_all_runs_of_a_sweep(cluster, workspace, own_cache, dies):
    (workspace / "traced.py").write_text(TRACED)
    if dies:  # one of the jobs, over its shard
        (workspace / "dies").touch()
    model = ["--import-path", ".", "model=custom", "model._target_=traced.TracedCNN", "+model.training.epochs=1"]
    sweep = [*model, "method=random,highest_loss", "compute.batch_size=32", *PLAIN]
    environment = {**cluster, "SLICEBENCH_CACHE": str(own_cache)}
    done = run(environment, *sweep, *LAUNCHER, "inference.shards=4")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("inference first: 4 jobs, a shard each") == 1
    names = [path.name.removeprefix("inferred-").split("_") for path in Path().glob("inferred-*")]
    tasks = sorted((int(array), int(task)) for array, task in names)
    first = [task for array, task in tasks if array == tasks[0][0]]
    assert first == [0, 1, 2, 3]
    assert (len(tasks) > len(first)) == dies, "a run infers what a job left undone, and nothing else"
    assert not Path("dies").exists()
    alone = run(environment, *sweep, "paths.results=alone", "paths.cache=alone/cache")
    assert alone.returncode == 0, alone.stderr
    pd.testing.assert_frame_equal(scores(Path("outputs")), scores(Path("alone")), check_exact=True)
