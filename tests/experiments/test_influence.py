"""Influence embeddings in the pipeline, and the opponents that they name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import training
from experiments.audit import Audit
from experiments.corruption import make_problems
from experiments.embedding import embed
from experiments.embeddings.influence import Influence, _check_linear
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.networks.classifiers import Summed
from experiments.record import read_slices
from experiments.training import train_or_load
from methods.contract import InvalidInput, Unsupported
from methods.influence import ModuleInfluence
from methods.influence_gradients import LayerGradients
from methods.influence_hessian import HessianFactors

QUICK = ("embedding=influence", "embedding.krylov_dim=40", "embedding.rank=10", "embedding.n_hessian=300")


@pytest.fixture
def made(settings_of):
    def make(*overrides):
        settings = settings_of(*QUICK, *overrides)
        dataset = load_dataset(settings)
        model = train_or_load(settings, dataset)
        predictions = infer(settings, dataset, model)
        return settings, dataset, model, predictions

    return make


def other_labels(labels):
    return (labels + 1) % 5


def factors_of(settings):
    (folder,) = (path.parent for path in (settings.paths.cache / "influence_factors").glob("*/done.json"))
    return HessianFactors.from_arrays({path.stem: np.load(path) for path in folder.glob("*.npy")})


@pytest.mark.parametrize("layers", ["null", "[classifier]", "[hidden,classifier]"])
def test_embeddings_follow_the_label(made, own_cache, layers):
    settings, dataset, model, predictions = made(f"embedding.layers={layers}", "model.training.epochs=5")
    embedded = embed(settings, dataset, model, predictions)["test"]
    split = dataset.split("test")
    assert embedded.values.shape == (900, 10)
    torch.testing.assert_close(embedded.values, embedded.relabelled(split.labels))
    if layers == "null":
        return
    names = layers.strip("[]").split(",")
    influence = ModuleInfluence(LayerGradients(model.module, tuple(names)), factors_of(settings))
    pixels = torch.stack([model.preprocess(split.examples[row]) for row in range(20)])
    labels = other_labels(split.labels)
    expected = influence.embed(pixels, labels[:20]).float()
    torch.testing.assert_close(embedded.relabelled(labels)[:20], expected, rtol=1e-3, atol=1e-3)


def test_the_final_layer_in_closed_form_is_the_final_layer_by_autograd(made, own_cache):
    """Up to the start of the iteration: what is compared is the influence of examples on each other."""
    many = ("embedding.krylov_dim=325", "embedding.rank=20", "model.training.epochs=3")
    gram = []
    for layers in ("null", "[classifier]"):
        settings, dataset, model, predictions = made(*many, f"embedding.layers={layers}")
        values = embed(settings, dataset, model, predictions)["test"].values[:100].double()
        gram.append(values @ values.T)
    assert ((gram[0] - gram[1]).norm() / gram[0].norm()) < 0.02


def test_a_head_whose_outputs_are_summed_runs_alone_and_gives_what_the_whole_model_gives(made, own_cache):
    """As ImageNet's classes are in a superclass: logits are then no linear map of the final hidden layer."""
    summed = Summed(((0, 1), (1, 2), (2, 3), (3, 4), (4, 0)))

    def to_logits(module, batch):
        return summed(module(batch))

    values = []
    for layers in ("null", "[classifier]"):
        settings, dataset, model, _ = made("model.training.epochs=3", f"embedding.layers={layers}")
        as_summed = {"to_logits": to_logits, "grouped": summed, "embedding_layer": "classifier.input"}
        model = replace(model, **as_summed, key=f"{model.key}, summed")
        embedded = embed(settings, dataset, model, infer(settings, dataset, model))["test"]
        values.append((embedded.values, embedded.relabelled(other_labels(dataset.split("test").labels))))
    for alone, whole in zip(*values, strict=True):
        assert (alone - whole).norm() < 1e-3 * whole.norm()


def test_relabelled_problems_have_relabelled_embeddings(slicebench):
    done = slicebench("run", *QUICK, "corruption=relabel_subclass", "corruption.n_seeds=1", "method=gmm")
    assert done.exit_code == 0, done.stderr


def test_the_run_says_how_much_curvature_was_captured(slicebench):
    assert slicebench("run", *QUICK, "method=random").exit_code == 0
    (path,) = Path("outputs").rglob("run.json")
    report = json.loads(path.read_text())["embedding"]["test"]
    assert len(report["eigenvalues"]) == 10
    assert sorted(report["eigenvalues"], reverse=True) == report["eigenvalues"]
    assert 1 <= report["effective_rank"] <= 10
    assert 0 < report["captured_curvature"] <= 1
    assert report["hessian_examples"] == 300


def test_factors_and_tables_are_computed_once(made, monkeypatch):
    settings, dataset, model, predictions = made("embedding.layers=[classifier]")
    first = embed(settings, dataset, model, predictions)["test"].values
    monkeypatch.setattr(ModuleInfluence, "fit", lambda *_, **__: pytest.fail("factored again"))
    monkeypatch.setattr(ModuleInfluence, "table", lambda *_: pytest.fail("projected again"))
    assert torch.equal(embed(settings, dataset, model, predictions)["test"].values, first)


def test_a_layer_that_is_not_there_costs_no_training(own_cache, slicebench, monkeypatch):
    monkeypatch.setattr(training, "_one_epoch", lambda *_: pytest.fail("trained"))
    done = slicebench("run", "embedding=influence", "embedding.layers=[clasifier]")
    assert done.exit_code == 2
    assert "no layer 'clasifier'; the nearest are classifier" in done.stderr


def test_more_examples_than_there_are_is_refused(slicebench):
    done = slicebench("run", "embedding=influence", "embedding.n_hessian=10000")
    assert done.exit_code == 2
    assert "embedding.n_hessian is 10000, expected at most 718" in done.stderr


def test_a_layer_that_is_no_input_of_a_linear_one_is_refused():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, 5, generator=generator)
    _check_linear(features, features @ torch.randn(5, 3, generator=generator) + 1)
    with pytest.raises(Unsupported, match="not the input of a final linear layer"):
        _check_linear(features, features**2)


@pytest.mark.parametrize("method", ["highest_loss", "gmm"])
@pytest.mark.parametrize("source", ["train", "test"])
def test_opponents_of_any_method_s_slices(slicebench, method, source):
    overrides = ("corruption=relabel_subclass", "corruption.n_seeds=1", f"method={method}")
    done = slicebench("run", *overrides, "evaluation.opponents=3", f"evaluation.opponents_from={source}")
    assert done.exit_code == 0, done.stderr
    (folder,) = (path.parent for path in Path("outputs").rglob("run.json"))
    rows = pd.read_parquet(folder / "opponents.parquet")
    assert list(rows.columns) == ["problem", "slice", "rank", "sign", "example_id", "influence"]
    assert rows["problem"].nunique() == 10
    assert (rows["influence"] * rows["sign"] > 0).all()
    assert (rows.groupby(["problem", "slice", "sign"]).size() <= 3).all()
    own = rows[(rows["problem"] == "3 draw 0") & (rows["slice"] == 0) & (rows["sign"] == 1)]
    assert own["influence"].is_monotonic_decreasing


def test_opponents_are_computed_from_gradients_under_the_problem_s_labels(slicebench, settings_of):
    overrides = ("corruption=relabel_subclass", "corruption.n_seeds=1", "method=highest_loss", "evaluation.opponents=2")
    assert slicebench("run", *overrides).exit_code == 0
    (folder,) = (path.parent for path in Path("outputs").rglob("run.json"))
    rows = pd.read_parquet(folder / "opponents.parquet").query("problem == '0 draw 0' and sign == 1")

    settings = settings_of(*overrides)
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    predictions = infer(settings, dataset, model)
    problem = make_problems(settings, Audit(dataset, predictions, embed(settings, dataset, model, predictions)))[0]
    members = read_slices(folder, "0 draw 0").members[:, 0]
    both = Influence().embed_splits(settings, dataset, model, predictions, ["train", "test"])
    total = both["test"].relabelled(problem.score.labels)[members].double().sum(dim=0)
    influences = both["train"].values.double() @ total
    strongest = influences.argsort(descending=True)[:2]
    assert [dataset.split("train").example_ids[row] for row in strongest] == rows["example_id"].tolist()
    assert rows["influence"].tolist() == pytest.approx(influences[strongest].tolist(), rel=1e-4)


def test_without_labels_there_are_no_influence_embeddings(made):
    settings, dataset, model, predictions = made()
    split = replace(dataset.split("test"), labels=None)
    unlabelled = replace(predictions["test"], split=split, losses=None, correct=None)
    with pytest.raises(InvalidInput, match="the test split has no labels"):
        embed(settings, dataset, model, {**predictions, "test": unlabelled})
