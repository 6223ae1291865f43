from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments import training
from experiments.contract import Dataset
from experiments.loading import load_dataset
from experiments.training import model_entry, train_or_load


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


def test_a_training_that_was_cut_off_goes_on_and_ends_alike(own_cache, settings, settings_of, monkeypatch):
    dataset = load_dataset(settings)
    undisturbed = weights(
        train_or_load(replace(settings, paths=replace(settings.paths, cache=own_cache / "other")), dataset)
    )
    one_epoch, epochs = training._one_epoch, []

    def cut_off(*arguments):
        if len(epochs) == 2:
            raise Interrupted
        epochs.append(1)
        one_epoch(*arguments)

    monkeypatch.setattr(training, "_one_epoch", cut_off)
    with pytest.raises(Interrupted):
        train_or_load(settings, dataset)
    assert list(model_entry(settings, dataset).scratch.glob("checkpoint-000002.safetensors"))
    resumed = []

    def counted(*arguments):
        resumed.append(1)
        one_epoch(*arguments)

    monkeypatch.setattr(training, "_one_epoch", counted)
    assert torch.equal(weights(train_or_load(settings, dataset)), undisturbed)
    assert len(resumed) == 1
    assert not model_entry(settings, dataset).scratch.exists()


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
