"""Sweeps that are started again, in one process or in several: what is dropped, what is done, what is written down."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.cache import is_locked

TWO = ("--multirun", "method=random,highest_loss")
FRAGILE = """
from pathlib import Path
from methods.random_slices import RandomSlices

class Fragile(RandomSlices):
    def fit(self, outputs):
        if self.n_slices == 3 and not Path("mended").exists():
            raise RuntimeError("three is too many\\nfor me")
        return super().fit(outputs)
"""
THREE = (
    "--multirun",
    "--import-path",
    ".",
    "method=custom",
    "method._target_=fragile.Fragile",
    "+method.n_slices=2,3,4",
)


def manifests():
    return [json.loads(path.read_text()) for path in sorted(Path("outputs/sweeps").glob("*.json"))]


def written():
    """When each run's scores were."""
    return {path.parent.name: path.stat().st_mtime_ns for path in Path("outputs").glob("*/*/scores.parquet")}


def test_what_is_done_and_what_is_there_twice_is_dropped(slicebench):
    first = slicebench("run", *TWO, "seeds.method=0,0")
    assert first.exit_code == 0, first.output
    assert "4 runs: 2 there twice, 2 to do" in first.stderr
    assert first.stderr.count("done in") == 2
    before = written()
    more = slicebench("run", *TWO, "seeds.method=0,1")
    assert "4 runs: 2 done before, skipped, 2 to do" in more.stderr
    assert more.stderr.count("done in") == 2
    assert before.items() <= written().items()


def test_a_sweep_of_which_all_is_done_starts_nothing(slicebench):
    slicebench("run", *TWO)
    again = slicebench("run", *TWO, "hydra/launcher=basic")
    assert again.exit_code == 0, again.output
    assert again.stderr.splitlines() == ["2 runs: 2 done before, skipped"]


def test_a_run_that_failed_is_tried_again_when_that_is_asked_for_and_no_other(slicebench, workspace):
    (workspace / "fragile.py").write_text(FRAGILE)
    first = slicebench("run", *THREE)
    assert first.exit_code == 1
    assert len(written()) == 2
    status = slicebench("status")
    assert status.exit_code == 1
    assert "RuntimeError: three is too many\n" in status.stdout.replace("  ", "").replace(" \n", "\n")
    (workspace / "mended").touch()

    before = written()
    again = slicebench("run", *THREE)
    assert again.exit_code == 2
    assert "3 runs: 2 done before, skipped, 1 failed before" in again.stderr
    assert "n_slices=3" in again.stderr
    assert (
        "RuntimeError: three is too many (it failed before; compute.retry_failed=true tries it again)" in again.stderr
    )
    assert "Traceback" not in again.stderr
    assert written() == before

    retried = slicebench("run", *THREE, "compute.retry_failed=true")
    assert retried.exit_code == 0, retried.output
    assert "3 runs: 2 done before, skipped, 1 to do" in retried.stderr
    assert before.items() <= written().items()
    assert len(written()) == 3
    assert slicebench("status").exit_code == 0
    (manifest,) = manifests()
    assert "retry_failed" not in manifest["command"]


def test_a_refusal_is_kept_and_not_computed_again(slicebench):
    sweep = ("--multirun", "method=gmm", "method.n_components=2,5000")
    for said in ("2 runs: 2 to do", "2 runs: 1 done before, skipped, 1 failed before"):
        done = slicebench("run", *sweep)
        assert done.exit_code == 2
        assert said in done.stderr
        assert "n_components is 5000, expected at most 900" in done.stderr
        assert "retry_failed" not in done.stderr


def test_a_run_whose_settings_cannot_be_used_is_named_and_the_others_are_done(slicebench):
    done = slicebench("run", *TWO, "seeds.method=0,-1")
    assert done.exit_code == 2
    assert "4 runs: 2 with settings that cannot be used, 2 to do" in done.stderr
    assert done.stderr.count("seeds.method is -1, expected at least 0") == 1  # one line for both
    assert len(written()) == 2
    (manifest,) = manifests()
    assert [run["run"] is None for run in manifest["runs"]] == [False, True, False, True]
    assert {run["error"] for run in manifest["runs"]} == {
        None,
        "seeds.method is -1, expected at least 0 and at most 4294967295",
    }


def test_a_mistake_that_all_runs_share_is_one_line_and_no_sweep_that_anybody_waits_for(slicebench):
    done = slicebench("run", *TWO, "retry_failed=true")
    assert done.exit_code == 2
    assert "(and 1 others): there is no setting 'retry_failed'; there is compute.retry_failed" in done.stderr
    assert not Path("outputs/sweeps").exists()


def test_the_manifest_has_every_run_once_and_the_command(slicebench):
    slicebench("run", *TWO, "seeds.method=0,0,1", "method.label='a name'")
    (manifest,) = manifests()
    names = [run["run"] for run in manifest["runs"]]
    assert sorted(names) == sorted(f"digits/{name}" for name in written())
    assert manifest["command"].startswith("slicebench run --multirun")
    assert """'method.label='"'"'a name'"'"''""" in manifest["command"]  # to be pasted into a shell


def test_the_same_sweep_has_one_manifest_however_it_is_computed(slicebench):
    slicebench("run", *TWO)
    slicebench("run", *TWO, "compute.batch_size=7", "hydra/launcher=basic")
    (manifest,) = manifests()
    assert "hydra/launcher=basic" in manifest["command"]
    slicebench("run", *TWO, "seeds.method=1")
    assert len(manifests()) == 2


def test_settings_are_those_of_the_methods_that_are_swept_and_not_of_the_default_one(slicebench):
    done = slicebench("run", "--multirun", "method=gmm,domino", "method.n_components=25,30")
    assert done.exit_code == 0, done.output
    assert len(written()) == 4


def test_a_launcher_is_enough_to_say_that_it_is_a_sweep(slicebench):
    done = slicebench("run", "method=random", "hydra/launcher=basic")
    assert done.exit_code == 0, done.output
    assert len(manifests()) == len(written()) == 1


@pytest.mark.parametrize("launcher", ["joblib", "gpu"])
def test_a_dry_run_is_of_this_process_whatever_the_launcher(slicebench, launcher):
    done = slicebench("run", *TWO, "--dry-run", f"hydra/launcher={launcher}")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("discover and score") == 2
    assert not list(Path("outputs").glob("**/*.json"))
    assert not Path("outputs/.submitit").exists()


def test_a_dry_run_names_what_is_wrong(slicebench):
    done = slicebench("run", *TWO, "--dry-run", "seeds.method=-1", "hydra/launcher=gpu")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "slicebench: 2 of 2 runs failed"


def test_without_slurm_its_launcher_says_so(slicebench, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = slicebench("run", *TWO, "hydra/launcher=gpu")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "slicebench: there is no SLURM here (no sbatch): take hydra/launcher=joblib, or none"
    ]


def test_a_misspelt_launcher_gets_the_nearest_name(slicebench):
    done = slicebench("run", *TWO, "hydra/launcher=jobliib")
    assert done.exit_code == 2
    assert "the nearest is joblib" in done.stderr


def test_data_is_read_once_for_all_runs_that_share_it(slicebench, monkeypatch):
    from experiments.loaders.digits import Digits

    reads, load = [], Digits.load

    def counted(self, *arguments):
        reads.append(arguments)
        return load(self, *arguments)

    monkeypatch.setattr(Digits, "load", counted)
    slicebench("run", *TWO, "seeds.method=0,1", "seeds.split=0,1", "model.training.epochs=1", "model.channels=2")
    assert len(reads) == 8 + 2  # by each run, and before them once for each split


def test_more_runs_than_a_cluster_takes_at_once_are_launched_in_turn(slicebench):
    done = slicebench("run", *TWO, "seeds.method=0,1,2", "hydra.sweeper.max_batch_size=2")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("done in") == len(written()) == 6


HOLD = """
import sys
from experiments.cache import waiting_lock
from pathlib import Path
with waiting_lock(Path(sys.argv[1]), "a run"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_run_that_another_process_works_on_is_left_to_it_until_the_others_are_done(slicebench):
    slicebench("run", *TWO)
    folder = next(Path("outputs/digits").glob("random-*"))
    scores = pd.read_parquet(folder / "scores.parquet")
    (folder / "scores.parquet").unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    sweep = subprocess.Popen(
        [
            Path(sys.executable).with_name("slicebench"),
            "run",
            "tracking=none",
            "compute.threads=1",
            *TWO,
            "seeds.method=0,1",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    said = [sweep.stderr.readline() for _ in range(4)]
    assert [line.split(":")[-1].split(" in ")[0].strip() for line in said[1:3]] == ["done", "done"]  # the new ones
    assert said[3] == "waiting for other processes, which work on 1 of the runs\n"
    assert is_locked(folder / "lock")
    holder.communicate("\n")
    _, last = sweep.communicate(timeout=60)
    assert sweep.returncode == 0
    assert last.startswith(f"digits/{folder.name}: done in")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), scores, check_exact=True)
