from dataclasses import replace

import pytest
import torch

from experiments import inference
from experiments.embedding import embed, outputs_of
from experiments.inference import LOGITS, forward, forward_entries, infer
from experiments.layers import Layer
from experiments.loading import load_dataset
from experiments.training import train_or_load
from methods.contract import InvalidInput


@pytest.fixture
def made(settings_of):
    settings = settings_of("evaluation.fit_split=validation")
    dataset = load_dataset(settings)
    return settings, dataset, train_or_load(settings, dataset)


def direct(model, split):
    pixels = torch.stack([model.preprocess(example) for example in split.examples])
    with torch.inference_mode():
        return model.module(pixels), model.module[:2](pixels)


def test_predictions_are_what_the_model_says(made):
    settings, dataset, model = made
    predictions = infer(settings, dataset, model)
    assert list(predictions) == ["validation", "test"]
    logits, hidden = direct(model, dataset.split("test"))
    torch.testing.assert_close(predictions["test"].logits, logits)
    torch.testing.assert_close(predictions["test"].hidden[Layer("hidden")], hidden)


def test_losses_are_in_nats_and_correct_is_the_largest_logit(made):
    settings, dataset, model = made
    predictions = infer(settings, dataset, model)["test"]
    labels = dataset.split("test").labels
    probabilities = predictions.logits.double().softmax(dim=1)[torch.arange(len(labels)), labels]
    torch.testing.assert_close(predictions.losses.double(), -probabilities.log(), rtol=1e-4, atol=1e-5)
    assert torch.equal(predictions.correct, predictions.logits.argmax(dim=1) == labels)


def test_inference_is_done_once(made, monkeypatch):
    settings, dataset, model = made
    infer(settings, dataset, model)
    monkeypatch.setattr(inference, "_passed", lambda *_: pytest.fail("inferred again"))
    infer(settings, dataset, model)


def test_only_what_is_missing_is_computed(made, monkeypatch):
    settings, dataset, model = made
    infer(settings, dataset, model)
    entry = forward_entries(settings, dataset, model, "test")[Layer("hidden")]
    (entry.folder / "done.json").unlink()
    asked = []
    passed = inference._passed
    monkeypatch.setattr(inference, "_passed", lambda *given: asked.append(given[2]) or passed(*given))
    infer(settings, dataset, model)
    assert asked == [[Layer("hidden")]]


def test_the_batch_size_hardly_matters(made):
    settings, dataset, model = made
    split = dataset.split("validation")
    sizes = [type(settings.compute)(batch_size=size) for size in (1, 64, 1000)]
    first, second, third = (forward(model, split, [LOGITS], compute)[LOGITS] for compute in sizes)
    torch.testing.assert_close(torch.from_numpy(first), torch.from_numpy(second))
    torch.testing.assert_close(torch.from_numpy(first), torch.from_numpy(third))


def test_no_hook_stays_on_the_model(made):
    settings, dataset, model = made
    forward(model, dataset.split("validation"), [Layer("hidden")], settings.compute)
    assert not any(module._forward_hooks for module in model.module.modules())


def test_outputs_hold_the_final_hidden_layer(made):
    settings, dataset, model = made
    predictions = infer(settings, dataset, model)
    outputs = outputs_of(predictions["test"], embed(settings, dataset, model, predictions)["test"])
    assert torch.equal(outputs.embeddings, predictions["test"].hidden[Layer("hidden")])
    assert outputs.example_ids == dataset.split("test").example_ids


def test_what_goes_into_a_layer_can_be_kept_too(made):
    settings, dataset, model = made
    layers = (Layer("classifier.input"), Layer("hidden"))
    rows = forward(model, dataset.split("validation"), layers, settings.compute)
    assert (rows[layers[0]] == rows[layers[1]]).all()
    assert replace(model, embedding_layer="classifier.input").final_hidden == layers[0]


def test_two_poolings_of_one_layer_are_kept_apart(settings_of):
    settings = settings_of("embedding=layer", "embedding.layer=features.3", "embedding.pool=mean")
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    convolution = replace(model, embedding_layer="features.3")  # what opponents, or final_hidden, would take whole
    layers = (Layer("features.3", "mean"), Layer("features.3", "flatten"))
    rows = forward(convolution, dataset.split("validation"), layers, settings.compute)
    assert [rows[layer].shape[1] for layer in layers] == [32, 32 * 64]


def test_no_key_depends_on_the_number_of_shards(settings_of):
    assert settings_of("inference.shards=16").defining() == settings_of().defining()


@pytest.mark.parametrize("given", ["0", "-1", "x", "1.5", "true", "null"])
def test_shards_must_be_a_positive_number(settings_of, given):
    with pytest.raises(InvalidInput, match=r"^inference\.shards is .*, expected"):
        settings_of(f"inference.shards={given}")
