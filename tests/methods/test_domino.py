import pytest
import torch

from methods import domino as domino_module
from methods import domino_start
from methods.contract import InvalidInput, ModelOutputs, Unsupported
from methods.domino import SINGLE_FROM, Domino


def outputs(n=600, n_classes=2, seed=0, sureness=4.0, scattered=0.0, **changed):
    """Eight blobs in six dimensions; of the second all predictions are wrong, of the others a scattered share."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.arange(n) % 8
    # the same blobs for every seed, other examples
    centers = 3 * torch.randn(8, 6, generator=torch.Generator().manual_seed(9))
    labels = blobs % n_classes
    wrong = (blobs == 1) | (torch.rand(n, generator=generator) < scattered)
    predictions = torch.where(wrong, (labels + 1) % n_classes, labels)
    logits = sureness * torch.nn.functional.one_hot(predictions, n_classes)
    arrays = {
        "embeddings": centers[blobs] + torch.randn(n, 6, generator=generator),
        "labels": labels,
        "logits": logits + torch.randn(n, n_classes, generator=generator),
    }
    return ModelOutputs.from_arrays([f"{i:04d}" for i in range(n)], **(arrays | changed))


def in_blob(n=600):
    return torch.arange(n) % 8 == 1


@pytest.mark.parametrize("start", ["confusion", "kmeans"])
def test_an_error_slice_is_found_among_other_errors(start):
    given = outputs(n_classes=4, scattered=0.05)
    slices = Domino(start=start).fit(given).predict(given)
    tops = slices.membership.topk(10, dim=0).indices  # (10, s)
    assert in_blob()[tops].all(dim=0).any()


@pytest.mark.parametrize("start", ["confusion", "kmeans"])
@pytest.mark.parametrize("rank", ["error_gap", "loss"])
def test_an_error_slice_comes_first(start, rank):
    given = outputs(n_classes=4)
    slices = Domino(start=start, rank=rank).fit(given).predict(given)
    top = slices.membership[:, 0].topk(10).indices
    assert in_blob()[top].all()


def test_the_confusion_start_finds_a_kind_of_error_that_the_embeddings_do_not_show():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    predictions = torch.where(torch.arange(400) < 60, 1, labels)  # 30 of class 0 are taken for 1
    logits = 6.0 * torch.nn.functional.one_hot(predictions, 2)
    given = outputs(400, embeddings=torch.randn(400, 4, generator=generator), labels=labels, logits=logits)
    domino = Domino(n_slices=1, n_components=4).fit(given)
    assert torch.equal(domino.predict(given).members[:, 0], ~given.correct)
    assert domino.diagnostics_[0]["overpredicted"] == 1


def test_diagnostics_tell_what_the_component_is():
    given = outputs(n_classes=4)
    domino = Domino().fit(given)
    worst = domino.predict(given).diagnostics[0]
    assert worst["component"] == domino.components_[0]
    assert worst["error_gap"] > 0.8
    assert worst["overpredicted"] == 2
    assert worst["converged"]
    assert worst["n_iterations"] == len(domino.log_likelihood_)
    assert 0 < worst["component_weight"] < 0.2
    assert worst["mean_loss"] > 2
    gaps = [entry["error_gap"] for entry in domino.diagnostics_]
    assert gaps == sorted(gaps, reverse=True)


def test_members_are_those_of_a_posterior_above_one_half():
    given = outputs()
    slices = Domino().fit(given).predict(given)
    assert torch.equal(slices.members, slices.membership > 0.5)
    assert (slices.membership.sum(dim=1) < 0.99).any()  # nobody is forced into a slice


def test_too_few_components_for_the_cells_are_refused_by_the_option_s_name():
    with pytest.raises(Unsupported, match=r"start=confusion needs .* 100 for 10 classes; n_components is 25.*kmeans"):
        Domino().fit(outputs(n_classes=10))


@pytest.mark.parametrize(("n_components", "taken"), [(25, "kmeans"), (100, "confusion")])
def test_the_fall_back_is_an_option_and_is_told(n_components, taken):
    given = outputs(n_classes=10)
    domino = Domino(n_components=n_components, start="confusion_or_kmeans").fit(given)
    assert domino.start_ == taken
    assert domino.predict(given).diagnostics[0]["start"] == taken


def test_what_it_needs_is_named():
    bare = ModelOutputs.from_arrays("ab", embeddings=torch.zeros(2, 1), losses=[0.0, 1.0], correct=[True, False])
    with pytest.raises(Unsupported, match="no labels and no logits"):
        Domino(n_components=1).fit(bare)


def test_more_components_than_examples_are_refused():
    with pytest.raises(InvalidInput, match="n_components is 25, expected at most 24"):
        Domino().fit(outputs(24))


def test_other_columns_than_in_the_fit_are_refused():
    domino = Domino().fit(outputs())
    with pytest.raises(InvalidInput, match="embeddings has 5 columns, expected 6"):
        domino.predict(outputs(embeddings=torch.zeros(600, 5)))
    with pytest.raises(InvalidInput, match="logits has 3 columns, expected 2"):
        domino.predict(outputs(logits=torch.zeros(600, 3)))


def test_row_order_does_not_matter():
    given = outputs()
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    arrays = {name: getattr(given, name)[order] for name in ("embeddings", "labels", "logits")}
    shuffled = ModelOutputs.from_arrays([given.example_ids[i] for i in order], **arrays)
    first, second = (Domino().fit(o).predict(o) for o in (given, shuffled))
    assert torch.equal(first.membership, second.membership)


def test_new_examples_of_the_slice_are_members():
    others = outputs(seed=1, n_classes=4)
    domino = Domino().fit(outputs(n_classes=4))
    top = domino.predict(others).membership[:, 0].topk(10).indices
    assert in_blob()[top].all()


def test_labels_of_new_examples_count():
    given = outputs()
    domino = Domino().fit(given)
    flipped = given.relabelled(1 - given.labels)
    assert domino.predict(given).members[in_blob()].any()
    assert not domino.predict(flipped).members[in_blob()].any()


def test_without_weights_labels_and_predictions_do_not_count():
    given = outputs()
    domino = Domino(start="kmeans", label_weight=0, prediction_weight=0).fit(given)
    flipped = ModelOutputs.from_arrays(
        given.example_ids, embeddings=given.embeddings, labels=1 - given.labels, logits=-given.logits
    )
    assert torch.equal(domino.predict(given).membership, domino.predict(flipped).membership)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sureness", [0.5, 4.0])
@pytest.mark.parametrize("weight", [0, 1, 10])
def test_the_likelihood_never_falls(seed, sureness, weight):
    domino = Domino(label_weight=weight, prediction_weight=weight, seed=seed)
    domino.fit(outputs(n_classes=4, seed=seed, sureness=sureness, scattered=0.05))
    history = torch.tensor(domino.log_likelihood_)
    assert len(history) > 2
    assert (history.diff() >= 0).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"embeddings": torch.zeros(600, 6)},
        {"embeddings": torch.full((600, 6), 1e4)},
        {"logits": torch.tensor([[9.0, -9.0]]).repeat(600, 1)},
        {"logits": torch.tensor([[1e4, 0.0]]).repeat(600, 1)},
        {"labels": torch.zeros(600)},
        {"embeddings": torch.eye(6).repeat(100, 1)},
    ],
    ids=["zeros", "constant", "one class predicted", "with certainty", "one label", "six places"],
)
@pytest.mark.parametrize("start", ["confusion", "kmeans"])
def test_degenerate_outputs_give_numbers(start, changed):
    given = outputs(**changed)
    domino = Domino(start=start).fit(given)
    assert torch.isfinite(domino.predict(given).membership).all()
    assert torch.isfinite(torch.tensor(domino.log_likelihood_)).all()


def test_a_component_without_examples_is_no_slice():
    domino = Domino(n_slices=30, n_components=30, start="kmeans").fit(outputs(embeddings=torch.eye(6).repeat(100, 1)))
    assert len(domino.components_) <= 6
    assert all(entry["component_weight"] > 0 for entry in domino.diagnostics_)


def test_few_dimensions_and_no_projection_are_no_problem():
    given = outputs()
    assert Domino(pca=128).fit(given).mixture_.means.shape == (25, 6)
    assert Domino(pca=2).fit(given).mixture_.means.shape == (25, 2)
    assert Domino(pca=None).fit(given).predict(given).n_slices == 5


@pytest.mark.parametrize("start", ["confusion", "kmeans"])
def test_many_examples_get_the_same_slices_in_single_precision(monkeypatch, start):
    given = outputs(2 * SINGLE_FROM, n_classes=4, scattered=0.05)
    single = Domino(start=start).fit(given)
    monkeypatch.setattr(domino_module, "SINGLE_FROM", 10**9)
    double = Domino(start=start).fit(given)
    assert single.log_likelihood_[-1] == pytest.approx(double.log_likelihood_[-1], rel=1e-6)
    assert single.log_likelihood_ != double.log_likelihood_
    first, second = single.predict(given), double.predict(given)
    assert (first.members != second.members).float().mean() < 1e-4


def test_many_embeddings_start_from_clusters_made_by_blocks(monkeypatch):
    given = outputs(n_classes=4)
    monkeypatch.setattr(domino_start, "IN_MEMORY", 0)
    slices = Domino(start="kmeans").fit(given).predict(given)
    assert in_blob()[slices.membership[:, 0].topk(10).indices].all()
