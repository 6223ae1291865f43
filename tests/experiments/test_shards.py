"""Inference in shards: bit for bit what one pass gives, shared between processes, and resumed where one was killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from experiments import inference
from experiments.inference import LOGITS, forward_entries, infer, infer_share
from experiments.loading import load_dataset
from experiments.shards import STAGE, bounds, growing
from experiments.training import train_or_load


@pytest.fixture
def made(own_cache, settings_of):
    """By the number of shards: settings, data, and a model with batch normalisation that has seen some batches."""
    torch.manual_seed(0)
    first = settings_of("compute.batch_size=32")
    dataset = load_dataset(first)
    model = train_or_load(first, dataset)
    features = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    hidden = nn.Sequential(*features, nn.LazyLinear(8))
    module = nn.Sequential()
    module.add_module("hidden", hidden)
    module.add_module("classifier", nn.Linear(8, 10))
    pixels = torch.stack([model.preprocess(example) for example in dataset.split("test").examples[:64]])
    module(pixels)
    normalised = replace(model, module=module.eval(), key="normalised")
    return lambda *overrides: (settings_of("compute.batch_size=32", *overrides), dataset, normalised)


def same(one, other):
    assert torch.equal(one["test"].logits, other["test"].logits)
    assert one["test"].hidden.keys() == other["test"].hidden.keys()
    assert all(torch.equal(rows, other["test"].hidden[layer]) for layer, rows in one["test"].hidden.items())


def shards_left(root):
    return [path for path in (root / STAGE).glob("*") if path.is_dir()]


def counted(monkeypatch):
    """The ranges of rows that are computed from now on."""
    ranges, passed = [], inference._passed

    def counting(*given):
        ranges.append(given[4])
        return passed(*given)

    monkeypatch.setattr(inference, "_passed", counting)
    return ranges


@pytest.mark.parametrize(("n", "batch", "shards"), [(100, 8, 4), (101, 8, 3), (7, 8, 4), (64, 1, 16), (33, 32, 9)])
def test_shards_are_whole_batches_that_cover_all_rows_once(n, batch, shards):
    found = bounds(n, batch, shards)
    assert [row for rows in found for row in rows] == list(range(n))
    assert all(rows.start % batch == 0 and len(rows) for rows in found)
    assert len(found) == min(shards, -(-n // batch))


@pytest.mark.parametrize("shards", [2, 5, 1000])
def test_shards_give_what_one_pass_gives_bit_for_bit(made, tmp_path, shards):
    assert made()[1].split("test").n_examples % 32, "the last batch must be a smaller one"
    whole = infer(*made(f"paths.cache={tmp_path}/whole"))
    settings, *rest = made(f"inference.shards={shards}")
    same(infer(settings, *rest), whole)
    assert not shards_left(settings.paths.cache)
    before, after = (
        forward_entries(replace(settings, paths=p), *rest, "test")[LOGITS].folder / "values.npy"
        for p in (made(f"paths.cache={tmp_path}/whole")[0].paths, settings.paths)
    )
    assert before.read_bytes() == after.read_bytes()


def test_shares_that_others_did_are_not_computed_again(made, monkeypatch):
    settings, dataset, model = made("inference.shards=4")
    for number in (0, 2):
        infer_share(settings, dataset, model, number)
    ranges = bounds(dataset.split("test").n_examples, 32, 4)
    computed = counted(monkeypatch)
    infer(settings, dataset, model)
    assert computed == [ranges[1], ranges[3]]
    infer_share(settings, dataset, model, 1)
    assert len(computed) == 2, "a shard of what is merged was computed"


def test_rows_written_block_by_block_are_what_numpy_writes(tmp_path):
    values = np.arange(21, dtype=np.float32).reshape(7, 3)
    with growing(tmp_path / "blocks.npy", 7) as append:
        for at in range(0, 7, 2):
            append(values[at : at + 2])
    np.save(tmp_path / "whole.npy", values)
    assert (tmp_path / "blocks.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


KILLED = """
import sys, time
from pathlib import Path
from experiments import inference
from experiments.loading import load_dataset
from experiments.settings import settings_of
from experiments.training import train_or_load

passed = inference._passed

def slow(*given):
    for at, blocks in enumerate(passed(*given)):
        yield blocks
        if given[4].start > 0:
            Path("in_second").touch()
            time.sleep(60)

inference._passed = slow
settings = settings_of(sys.argv[1:])
dataset = load_dataset(settings)
inference.infer(settings, dataset, train_or_load(settings, dataset))
"""


def test_a_killed_inference_goes_on_with_the_shards_that_are_missing(own_cache, settings_of, tmp_path, monkeypatch):
    overrides = ["tracking=none", "compute.batch_size=32", "inference.shards=4"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *overrides], env={**os.environ})
    until = time.monotonic() + 60
    while not Path("in_second").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    settings = settings_of(*overrides[1:])
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    computed = counted(monkeypatch)
    found = infer(settings, dataset, model)
    assert computed == bounds(dataset.split("test").n_examples, 32, 4)[1:]
    same(found, infer(settings_of(overrides[1], f"paths.cache={tmp_path}/whole"), dataset, model))


SHARING = """
import sys, time
from pathlib import Path
from experiments import inference
from experiments.loading import load_dataset
from experiments.settings import settings_of
from experiments.training import train_or_load

number, *overrides = sys.argv[1:]
passed = inference._passed

def slow(*given):
    print(given[4].start, given[4].stop)
    for blocks in passed(*given):
        yield blocks
        time.sleep(0.1)

inference._passed = slow
settings = settings_of(overrides)
dataset = load_dataset(settings)
model = train_or_load(settings, dataset)
Path(f"ready-{number}").touch()
while len(list(Path().glob("ready-*"))) < 2:
    time.sleep(0.01)
inference.infer(settings, dataset, model)
"""


def test_two_processes_at_once_share_the_shards_between_them(own_cache, settings_of, tmp_path):
    overrides = ["tracking=none", "compute.batch_size=32", "inference.shards=8"]
    settings = settings_of(*overrides[1:])
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    command = [sys.executable, "-c", SHARING]
    both = [subprocess.Popen([*command, str(i), *overrides], stdout=subprocess.PIPE, text=True) for i in range(2)]
    printed = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(printed), "one did everything"
    ranges = [f"{rows.start} {rows.stop}" for rows in bounds(dataset.split("test").n_examples, 32, 8)]
    assert sorted(printed[0] + printed[1]) == sorted(ranges), "a shard was computed twice, or not at all"
    assert not shards_left(settings.paths.cache)
    same(
        infer(settings, dataset, model),
        infer(settings_of(overrides[1], f"paths.cache={tmp_path}/whole"), dataset, model),
    )
