"""Models whose outputs are compared with something else than labels, and models that are not trained here."""

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
from torch import nn

from experiments.audit import Audit
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.embedding import Embedded, outputs_of
from experiments.examples import examples_table
from experiments.inference import Predictions, infer
from experiments.loading import load_dataset
from experiments.plan import plan
from experiments.settings import Component
from experiments.training import Training, build_model, train_or_load
from methods.contract import InvalidInput


def questions(n=6):
    ids = tuple(f"q{row}" for row in range(n))
    spans = torch.stack([torch.arange(n), torch.arange(n) + 1], dim=1)
    attributes = pd.DataFrame(index=pd.Index(ids, name="id"))
    split = Split(ids, torch.eye(n), None, attributes, spans=spans)
    return Dataset("questions", "table", (), {"test": split}, "f")


def reader(n=6):
    """Right where the largest value stands at the span's start."""
    return ModelUnderAudit(
        nn.Sequential(nn.Identity()),
        lambda example: example,
        embedding_layer="0",
        key="reader",
        to_targets=lambda split: split.spans,
        to_losses=lambda logits, spans: nn.functional.cross_entropy(logits, spans[:, 0], reduction="none"),
        to_correct=lambda logits, spans: logits.argmax(dim=1) == spans[:, 0],
    )


def test_answers_are_judged_by_their_spans_and_are_no_classes(settings_of):
    settings, dataset = settings_of(), questions()
    predictions = infer(settings, dataset, reader())["test"]
    assert predictions.correct.all()
    assert predictions.losses[0] == pytest.approx(-torch.log_softmax(torch.eye(6)[0], dim=0)[0].item())
    embedded = Embedded(torch.eye(6))
    outputs = outputs_of(predictions, embedded)
    assert outputs.labels is None
    assert outputs.logits is None
    table = examples_table(Audit(dataset, {"test": predictions}, {"test": embedded}))
    assert table["label"].isna().all()
    assert table["correct"].all()


def test_a_split_with_labels_needs_names_for_them():
    labelled = replace(questions().split("test"), labels=torch.zeros(6, dtype=torch.int64))
    with pytest.raises(InvalidInput, match="at least two distinct names"):
        Dataset("x", "table", (), {"test": labelled}, "f")


def test_spans_have_two_columns():
    split = questions().split("test")
    with pytest.raises(InvalidInput, match="spans"):
        replace(split, spans=torch.zeros(6, 1, dtype=torch.int64))


@dataclass(frozen=True)
class Ready:
    """A model that comes with its weights."""

    def build(self, dataset):
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        with torch.no_grad():
            module[1].weight.fill_(0.5)
        return ModelUnderAudit(module, lambda image: torch.zeros(1, 8, 8), embedding_layer="0", key="")


@pytest.fixture
def ready(settings_of):
    settings = settings_of()
    return replace(settings, model=Component("ready", "tests.Ready", {}, Ready()))


def test_a_model_with_weights_is_not_trained(ready, own_cache):
    ready = replace(ready, paths=replace(ready.paths, cache=own_cache))
    model = train_or_load(ready, load_dataset(ready))
    assert (model.module[1].weight == 0.5).all()
    assert len(model.key) == 16
    assert not (own_cache / "model").exists()


def test_predictions_without_losses_are_refused():
    split = replace(questions().split("test"), spans=None)
    with pytest.raises(InvalidInput, match="no losses"):
        outputs_of(Predictions(split, torch.eye(6), None, None, {}), Embedded(torch.eye(6)))


def test_a_plan_has_no_training_where_there_is_none(ready, monkeypatch, capsys):
    monkeypatch.setattr("experiments.plan.check_settings", lambda config: ready)
    plan(None)
    said = capsys.readouterr().out
    assert "infer test" in said
    assert "train ready" not in said


def quadratic(training, epochs=60):
    """How far from its minimum at 3 a parameter is after so many steps."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    optimizer = training.start(module)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = training.rate(epoch)
        optimizer.zero_grad()
        ((module.weight - 3) ** 2).sum().backward()
        optimizer.step()
    return abs(module.weight.item() - 3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimiser_finds_the_minimum(optimizer):
    assert quadratic(Training(optimizer=optimizer, learning_rate=0.1, weight_decay=0.0, momentum=0.5)) < 0.5


def test_a_decayed_rate_stops_the_way():
    settings = {"optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0.0, "momentum": 0.0}
    assert quadratic(Training(decay_every=2, **settings)) > quadratic(Training(**settings))


def test_what_is_frozen_is_not_trained():
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    module[0].requires_grad_(False)
    assert len(Training().start(module).param_groups[0]["params"]) == 2


def weights_of(model):
    return torch.cat([values.flatten() for values in model.module.state_dict().values()])


def test_a_gradient_is_clipped(settings_of, own_cache):
    """With a tiny bound on the gradient, plain gradient descent hardly moves."""
    moved = []
    for clip in ("null", "1e-6"):
        settings = settings_of(
            f"model.training.clip={clip}",
            "model.training.optimizer=sgd",
            "model.training.momentum=0.0",
            "model.training.weight_decay=0.0",
            "model.training.epochs=1",
            f"paths.cache={own_cache}",
        )
        dataset = load_dataset(settings)
        trained = weights_of(train_or_load(settings, dataset))
        settings = settings_of("model.training.epochs=1", f"paths.cache={own_cache}")
        fresh = weights_of(build_model(settings, dataset))
        moved.append((trained - fresh).norm().item())
    assert moved[1] < 1e-3 * moved[0]


def test_a_loader_that_reads_the_same_files_in_another_way_leaves_no_stale_model(settings_of, monkeypatch):
    settings = settings_of()
    dataset = load_dataset(settings)
    before = build_model(settings, dataset).key
    monkeypatch.setattr(type(settings.dataset.instance), "version", 1000)
    assert build_model(settings, dataset).key != before


def test_a_split_that_is_not_there_costs_no_training(slicebench, workspace, own_cache):
    lacking = ["dataset.validation_share=0", "evaluation.fit_split=validation", "compute.threads=1"]
    done = slicebench("run", *lacking)
    assert done.exit_code == 2
    assert "digits has no validation split" in done.stderr
    assert not (own_cache / "model").exists()
