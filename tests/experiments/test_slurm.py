"""Sweeps on a real SLURM, which `scripts/slurm_local.sh` starts on this machine; without SLURM they are skipped."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments.slurm import GONE, QueueWatcher

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_local.sh"
TWELVE = ["method=random,highest_loss,confusion,kmeans", "seeds.method=0,1,2", "tracking=none", "compute.threads=1"]
LAUNCHER = ["hydra/launcher=cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
SLOW = """
import time
from methods.random_slices import RandomSlices


class Slow(RandomSlices):
    def fit(self, outputs):
        time.sleep(8)
        return super().fit(outputs)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which SLURM's commands find a cluster of this machine."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("SLURM is not installed here, or this is not root: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    environment = {**os.environ, "SLURM_LOCAL": str(folder), "SLURM_LOCAL_PORT": "17817"}
    up = subprocess.run([SCRIPT, "up"], env=environment, capture_output=True, text=True, timeout=60)
    assert up.returncode == 0, up.stderr
    yield {**environment, "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([SCRIPT, "down"], env=environment, check=True, timeout=60)
    assert not folder.exists()


def command(*arguments):
    return [Path(sys.executable).with_name("slicebench"), "run", "--multirun", *arguments]


def scores(root):
    """All scores of all runs below a folder."""
    parts = [pd.read_parquet(path) for path in sorted(root.glob("*/*/scores.parquet"))]
    return pd.concat(parts, ignore_index=True)


def wait_for(happened, seconds=60):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.2)


def running(environment):
    asked = subprocess.run(["squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i"], env=environment, capture_output=True)
    return asked.stdout.decode().split()


def test_jobs_that_the_cluster_has_forgotten_are_gone():
    watcher = QueueWatcher()
    for job in ("7_0", "7_1", "8_0"):
        watcher.register_job(job)
    states = {
        job: info["State"] for job, info in watcher.read_info(b"7_0|RUNNING\n7_1|CANCELLED\n9_3|RUNNING\n").items()
    }
    assert states == {"7_0": "RUNNING", "7_1": "CANCELLED", "8_0": GONE}


@pytest.mark.slurm
def test_a_sweep_gives_what_one_process_gives_bit_for_bit(cluster, workspace):
    done = subprocess.run(command(*TWELVE, *LAUNCHER), env=cluster, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    alone = subprocess.run(command(*TWELVE, "paths.results=alone"), capture_output=True, text=True, timeout=180)
    assert alone.returncode == 0, alone.stderr
    assert len(list(Path("outputs").glob("*/*/scores.parquet"))) == 12
    pd.testing.assert_frame_equal(scores(Path("outputs")), scores(Path("alone")), check_exact=True)
    assert "sacct" not in done.stderr


@pytest.mark.slurm
def test_a_cancelled_job_ends_the_sweep_when_the_others_are_done_and_is_named(cluster, workspace):
    """This cluster has no accounting."""
    (workspace / "slow.py").write_text(SLOW)
    slow = ["--import-path", ".", "method=custom", "method._target_=slow.Slow", "seeds.method=0,1,2", *TWELVE[2:]]
    sweep = subprocess.Popen(command(*slow, *LAUNCHER), env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: running(cluster))
    cancelled = running(cluster)[0]
    subprocess.run(["scancel", cancelled], env=cluster, check=True, timeout=10)
    _, said = sweep.communicate(timeout=120)
    assert sweep.returncode == 2
    assert f"SLURM job {cancelled} ended without a result (CANCELLED): see " in said.decode()
    assert "1 of 3 runs failed" in said.decode()
    assert "Traceback" not in said.decode()
    assert len(list(Path("outputs").glob("*/*/scores.parquet"))) == 2
    again = subprocess.run(command(*slow), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before, skipped") == 2


@pytest.mark.slurm
def test_a_job_sees_the_gpu_that_it_asked_for(cluster, workspace):
    ask = ["srun", "--partition=gpu", "--gres=gpu:1", "printenv", "CUDA_VISIBLE_DEVICES"]
    assert subprocess.run(ask, env=cluster, capture_output=True, text=True, timeout=30).stdout.strip() in ("0", "1")
