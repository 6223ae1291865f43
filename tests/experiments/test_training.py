import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from experiments import training
from experiments.contract import Dataset
from experiments.loading import load_dataset
from experiments.training import model_entry, train_or_load
from methods.progress import listening


@pytest.fixture
def settings(own_cache, settings_of):
    return settings_of("model.training.epochs=3", "model.channels=4")


def weights(model):
    return torch.cat([values.flatten() for values in model.module.state_dict().values()])


def test_training_learns_and_is_done_once(own_cache, settings_of, monkeypatch):
    settings = settings_of("model.training.epochs=10")
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    split = dataset.split("test")
    pixels = torch.stack([model.preprocess(example) for example in split.examples])
    with torch.inference_mode():
        right = model.logits(pixels).argmax(dim=1) == split.labels
    assert right.float().mean() > 0.9
    monkeypatch.setattr(training, "_one_epoch", lambda *_: pytest.fail("trained again"))
    assert torch.equal(weights(train_or_load(settings, dataset)), weights(model))


class Interrupted(Exception):
    pass


@pytest.fixture
def cut_off(settings, monkeypatch):
    """(scratch folder, number of epochs that were trained since) of a training that was cut off after 2 of 3 epochs."""
    one_epoch, epochs = training._one_epoch, []

    def interrupted(*arguments):
        if len(epochs) == 2:
            raise Interrupted
        epochs.append(1)
        one_epoch(*arguments)

    monkeypatch.setattr(training, "_one_epoch", interrupted)
    with pytest.raises(Interrupted):
        train_or_load(settings, load_dataset(settings))
    resumed = []

    def counted(*arguments):
        resumed.append(1)
        one_epoch(*arguments)

    monkeypatch.setattr(training, "_one_epoch", counted)
    return model_entry(settings, load_dataset(settings)).scratch, resumed


@pytest.fixture
def undisturbed(own_cache, settings):
    elsewhere = replace(settings, paths=replace(settings.paths, cache=own_cache / "other"))
    return weights(train_or_load(elsewhere, load_dataset(settings)))


def test_a_training_that_was_cut_off_goes_on_and_ends_alike(settings, undisturbed, cut_off):
    scratch, resumed = cut_off
    assert [path.name for path in sorted(scratch.iterdir())] == [
        "checkpoint-000001.safetensors",
        "checkpoint-000002.safetensors",
    ]
    told = []
    with listening(lambda what, done, total: told.append((what, done, total))):
        assert torch.equal(weights(train_or_load(settings, load_dataset(settings))), undisturbed)
    assert len(resumed) == 1
    assert told[-1] == ("train", 3, 3)
    assert not scratch.exists()


def cut(path):
    os.truncate(path, 100)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [cut, flipped, lambda path: path.write_bytes(b"")], ids=["cut", "flipped", "empty"])
@pytest.mark.parametrize("n_damaged", [1, 2])
def test_a_damaged_checkpoint_is_put_aside(settings, undisturbed, cut_off, capsys, spoil, n_damaged):
    scratch, resumed = cut_off
    for path in sorted(scratch.iterdir(), reverse=True)[:n_damaged]:
        spoil(path)
    capsys.readouterr()
    assert torch.equal(weights(train_or_load(settings, load_dataset(settings))), undisturbed)
    assert len(resumed) == 1 + n_damaged
    assert capsys.readouterr().err.count("was damaged; put aside") == n_damaged


def test_checkpoints_are_synced_before_they_get_their_name(tmp_path, monkeypatch):
    module = nn.Linear(2, 1)
    synced = []
    monkeypatch.setattr(training, "sync_file", lambda path: synced.append((path.name, len(list(tmp_path.iterdir())))))
    training._checkpoint(tmp_path, module, torch.optim.AdamW(module.parameters()), epoch=1)
    assert synced == [("checkpoint.tmp", 1)]


def started(folder, *overrides):
    command = [sys.executable, "-m", "experiments.cli", "run", "tracking=none", "compute.threads=1", *overrides]
    environment = os.environ | {"SLICEBENCH_CACHE": str(folder / "cache")}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_run_that_was_killed_while_it_trained_ends_with_the_same_scores(slicebench, tmp_path, monkeypatch):
    overrides = ["method=highest_loss", "model.training.epochs=8", "model.channels=8", "model.training.batch_size=8"]
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "killed"
    killed = started(folder, *overrides)
    deadline = time.monotonic() + 60
    while not list(folder.rglob("checkpoint-*.safetensors")):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    (scratch,) = folder.rglob("*.partial")
    at = max(path.name for path in scratch.glob("checkpoint-*.safetensors"))
    assert at < "checkpoint-000008", "the training was over before it was killed"
    (run,) = folder.rglob("run.json")
    assert json.loads(run.read_text())["status"] == "running"

    for name in ("killed", "undisturbed"):
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("SLICEBENCH_CACHE", str(tmp_path / name / "cache"))
        done = slicebench("run", *overrides)
        assert done.exit_code == 0, done.output
    ours, theirs = (next((tmp_path / name).rglob("scores.parquet")) for name in ("killed", "undisturbed"))
    pd.testing.assert_frame_equal(pd.read_parquet(ours), pd.read_parquet(theirs), check_exact=True)
    assert not scratch.exists()


def test_another_seed_or_recipe_is_another_model(settings_of):
    plain = settings_of()
    dataset = load_dataset(plain)
    keys = {
        model_entry(settings, dataset).key
        for settings in (plain, settings_of("seeds.training=1"), settings_of("model.training.epochs=2"))
    }
    assert len(keys) == 3


def test_what_the_model_does_not_depend_on_leaves_it_cached(settings_of):
    plain = settings_of()
    dataset = load_dataset(plain)
    others = [settings_of("seeds.method=1"), settings_of("seeds.corruption=1"), settings_of("method=gmm")]
    assert {model_entry(settings, dataset).key for settings in [plain, *others]} == {model_entry(plain, dataset).key}


def test_training_does_not_disturb_the_global_generator(settings):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_or_load(settings, load_dataset(settings))
    assert torch.equal(torch.rand(1), expected)


def test_small_cnn_refuses_what_is_no_image(settings):
    dataset = load_dataset(settings)
    text = Dataset("reviews", "text", dataset.class_names, dataset.splits, "0")
    with pytest.raises(ValueError, match="small_cnn takes images; reviews has modality text"):
        settings.model.instance.build(text)


def test_the_checkpoint_restores_the_optimiser_too(tmp_path):
    def step(module, optimizer):
        module(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    def made():
        torch.manual_seed(0)
        module = nn.Linear(2, 1)
        return module, torch.optim.AdamW(module.parameters(), lr=0.1)

    module, optimizer = made()
    step(module, optimizer)
    training._checkpoint(tmp_path, module, optimizer, epoch=1)
    other, other_optimizer = made()
    assert training._resume(tmp_path, other, other_optimizer) == 1
    for _ in range(2):
        step(module, optimizer)
        step(other, other_optimizer)
    # gradients accumulate in both, and Adam's moments decide what they do
    assert not torch.equal(module.weight, made()[0].weight)
    module.zero_grad()
    assert torch.equal(other.bias, module.bias) == torch.equal(other.weight, module.weight)
