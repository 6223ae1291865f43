"""From a file with a model's outputs to slices."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.embedding import embed, outputs_of
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.models.precomputed import Precomputed
from experiments.training import train_or_load
from methods.contract import Unsupported

N = 60


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, N)
    centers = 2 * generator.normal(size=(3, 4))
    embeddings = (centers[labels] + generator.normal(size=(N, 4))).astype(np.float32)
    logits = (embeddings @ centers.T - (centers**2).sum(axis=1) / 2).astype(np.float32)
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(N), labels]
    return {"embeddings": embeddings, "labels": labels, "logits": logits, "losses": losses}


@pytest.fixture
def settings_for(tmp_path, own_cache, settings_of):
    """Settings of a run over a file with these arrays."""

    def settings(arrays, *overrides, name="outputs.npz"):
        np.savez(tmp_path / name, **arrays)
        return settings_of("dataset=predictions", f"dataset.path={tmp_path / name}", "model=precomputed", *overrides)

    return settings


def outputs(settings):
    dataset = load_dataset(settings)
    model = train_or_load(settings, dataset)
    predictions = infer(settings, dataset, model)
    return outputs_of(predictions["test"], embed(settings, dataset, model, predictions)["test"])


def only(arrays, *names):
    return {name: arrays[name] for name in names}


def test_methods_get_what_is_in_the_file(settings_for, arrays):
    found = outputs(settings_for(arrays))
    assert np.array_equal(found.embeddings, arrays["embeddings"])
    assert np.array_equal(found.logits, arrays["logits"])
    assert np.array_equal(found.labels, arrays["labels"])
    assert np.array_equal(found.correct, arrays["logits"].argmax(axis=1) == arrays["labels"])


def test_losses_are_computed_where_they_are_not_stored(settings_for, arrays):
    found = outputs(settings_for(only(arrays, "embeddings", "labels", "logits")))
    assert np.allclose(found.losses, arrays["losses"], atol=1e-5)


def test_stored_losses_and_correctness_count(settings_for, arrays):
    stored = {"losses": np.arange(N), "correct": np.arange(N) % 2 == 0}
    found = outputs(settings_for({**arrays, **stored}))
    assert found.losses.tolist() == stored["losses"].tolist()
    assert found.correct.tolist() == stored["correct"].tolist()


def test_losses_alone_give_neither_labels_nor_logits(settings_for, arrays):
    found = outputs(settings_for(only(arrays, "embeddings", "losses")))
    assert found.labels is None
    assert found.logits is None
    found = outputs(settings_for(only(arrays, "embeddings", "losses", "labels")))
    assert found.labels is not None
    assert found.logits is None


def test_influence_embeddings_need_no_model(settings_for, arrays):
    settings = settings_for(arrays, "embedding=influence", "embedding.hessian_split=test", "embedding.rank=4")
    found = outputs(settings)
    assert found.embeddings.shape == (N, 4)
    assert torch.isfinite(found.embeddings).all()


@pytest.mark.parametrize("names", [("embeddings", "losses"), ("embeddings", "losses", "labels")])
def test_influence_embeddings_of_losses_alone_are_refused(settings_for, arrays, names):
    settings = settings_for(only(arrays, *names), "embedding=influence", "embedding.hessian_split=test")
    with pytest.raises(Unsupported, match="influence embeddings need logits"):
        outputs(settings)


def run(slicebench, path, method, *more):
    numbers = ("dataset.slice_size=10", "dataset.n_components=3")
    return slicebench(
        "run", "dataset=predictions", f"dataset.path={path}", "model=precomputed", method, *numbers, *more
    )


@pytest.mark.parametrize("method", ["spotlight", "domino", "kmeans", "confusion", "highest_loss"])
def test_a_run_goes_from_the_file_to_slices(slicebench, tmp_path, arrays, method):
    np.savez(tmp_path / "outputs.npz", **arrays, age=np.arange(N))
    result = run(slicebench, "outputs.npz", f"method={method}")
    assert result.exit_code == 0, result.stderr
    (examples,) = (tmp_path / "outputs").glob("*/*/examples.parquet")
    assert pd.read_parquet(examples)["attribute_age"].tolist() == list(range(N))


def test_a_method_that_needs_labels_refuses_losses_alone(slicebench, tmp_path, arrays):
    np.savez(tmp_path / "outputs.npz", **only(arrays, "embeddings", "losses"))
    result = run(slicebench, "outputs.npz", "method=domino")
    assert result.exit_code != 0
    assert "Domino needs labels and logits; these outputs have no labels and no logits" in result.stderr
    assert run(slicebench, "outputs.npz", "method=kmeans").exit_code == 0


def test_a_run_is_the_same_wherever_the_file_lies(slicebench, tmp_path, arrays):
    np.savez(tmp_path / "outputs.npz", **arrays)
    assert "done in" in run(slicebench, "outputs.npz", "method=highest_loss").stderr
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs.npz").rename(tmp_path / "elsewhere/other.npz")
    assert "done before, skipped" in run(slicebench, "elsewhere/other.npz", "method=highest_loss").stderr


def test_a_data_set_without_stored_outputs_is_refused(settings_of):
    with pytest.raises(Unsupported, match="digits has no stored outputs"):
        Precomputed().build(load_dataset(settings_of()))


def test_a_dry_run_says_that_nothing_has_to_be_computed_first(slicebench, workspace):
    np.savez("outputs.npz", embeddings=np.eye(4), labels=[0, 1, 0, 1], logits=np.eye(4)[:, :2])
    done = slicebench("run", "dataset=predictions", "dataset.path=outputs.npz", "model=precomputed", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "infer" not in done.stdout
    assert "disk needed" in done.stdout
