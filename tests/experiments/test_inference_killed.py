"""Inference that is cut off by kill -9 leaves nothing behind that a later run would trust."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd

MODEL = """
import time
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
    time.sleep(0.004)
    return preprocess(image)
"""


def started(folder):
    overrides = ["model=custom", "model._target_=slow_model.Slow", "method=highest_loss", "compute.batch_size=10"]
    command = [sys.executable, "-m", "experiments.cli", "run", "--import-path", str(folder.parent), *overrides]
    environment = os.environ | {"SLICEBENCH_CACHE": str(folder / "cache")}
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*command, "tracking=none", "compute.threads=1"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


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


def test_a_run_that_was_killed_while_it_inferred_ends_with_the_same_scores(tmp_path):
    (tmp_path / "slow_model.py").write_text(MODEL)
    killed = started(tmp_path / "killed")
    wait_for_inference(tmp_path / "killed")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    forward = tmp_path / "killed/cache/forward"
    assert not list(forward.glob("*/done.json")), "inference was over before it was killed"

    undisturbed = started(tmp_path / "undisturbed")
    for folder, process in (("killed", started(tmp_path / "killed")), ("undisturbed", undisturbed)):
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, (folder, said)
    ours, theirs = (next((tmp_path / name).rglob("scores.parquet")) for name in ("killed", "undisturbed"))
    pd.testing.assert_frame_equal(pd.read_parquet(ours), pd.read_parquet(theirs), check_exact=True)
    for entry in forward.glob("[0-9a-f]*/"):
        assert (entry / "done.json").exists()
    (run,) = (tmp_path / "killed").rglob("run.json")
    assert json.loads(run.read_text())["seconds"]["infer: waiting for data"] >= 0
