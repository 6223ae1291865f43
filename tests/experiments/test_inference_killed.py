"""Inference that is cut off by kill -9 leaves nothing behind that a later run would trust."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd

MODEL = """
import os, time
from dataclasses import dataclass
import torch
from torch import nn
from experiments.contract import ModelUnderAudit
from experiments.models.small_cnn import preprocess

@dataclass(frozen=True)
class Slow:
    def build(self, dataset):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        return ModelUnderAudit(module, slowly, embedding_layer="0", key="")

def slowly(image):
    time.sleep(float(os.environ.get("SECONDS", 0)))
    return preprocess(image)
"""


OVERRIDES = ("model=custom", "model._target_=slow_model.Slow", "method=highest_loss", "compute.batch_size=10")


def started(folder, *arguments):
    """The run in a process of its own, which is slow."""
    command = [sys.executable, "-m", "experiments.cli", "run", "tracking=none", "compute.threads=1", *arguments]
    environment = os.environ | {"SLICEBENCH_CACHE": str(folder / "cache"), "SECONDS": "0.004"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_inference(folder):
    deadline = time.monotonic() + 90
    while True:
        assert time.monotonic() < deadline, "inference did not begin"
        for path in folder.rglob("progress.json"):
            try:
                if json.loads(path.read_text())["what"] == "infer":
                    return
            except (OSError, ValueError):  # it is being replaced
                pass
        time.sleep(0.01)


def test_a_run_that_was_killed_while_it_inferred_ends_with_the_same_scores(slicebench, tmp_path, monkeypatch):
    (tmp_path / "slow_model.py").write_text(MODEL)
    arguments = ("--import-path", str(tmp_path), *OVERRIDES)
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
    killed = started(tmp_path / "killed", *arguments)
    wait_for_inference(tmp_path / "killed")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    forward = tmp_path / "killed/cache/forward"
    assert not list(forward.glob("*/done.json")), "inference was over before it was killed"

    for name in ("killed", "undisturbed"):
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("SLICEBENCH_CACHE", str(tmp_path / name / "cache"))
        done = slicebench("run", *arguments)
        assert done.exit_code == 0, done.output
    ours, theirs = (next((tmp_path / name).rglob("scores.parquet")) for name in ("killed", "undisturbed"))
    pd.testing.assert_frame_equal(pd.read_parquet(ours), pd.read_parquet(theirs), check_exact=True)
    for entry in forward.glob("[0-9a-f]*/"):
        assert (entry / "done.json").exists()
    (run,) = (tmp_path / "killed").rglob("run.json")
    assert json.loads(run.read_text())["seconds"]["infer: waiting for data"] >= 0
