import builtins

import numpy as np
import pytest
import torch

from methods.contract import InvalidInput, ModelOutputs, Unsupported
from methods.planespot import PlaneSpot

CENTERS = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [9.0, 9.0, 0.0]])


def blobs(wrong=(0, 0, 0, 0), n_each=50, margins=(2.0, 2.0, 2.0, 2.0), seed=0):
    """Four blobs in a plane; so many wrong predictions in each, and such a distance between the two logits."""
    generator = torch.Generator().manual_seed(seed)
    blob = torch.arange(4).repeat_interleave(n_each)
    embeddings = CENTERS[blob] + 0.5 * torch.randn(4 * n_each, 3, generator=generator)
    predictions = torch.randint(2, (4 * n_each,), generator=generator)
    is_wrong = torch.cat([torch.arange(n_each) < count for count in wrong])
    labels = torch.where(is_wrong, 1 - predictions, predictions)
    logits = torch.nn.functional.one_hot(predictions, 2) * torch.tensor(margins)[blob, None]
    ids = [f"{i:04d}" for i in range(4 * n_each)]
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, logits=logits)


def without(outputs, *names):
    fields = {name: getattr(outputs, name) for name in ("labels", "logits") if name not in names}
    return ModelOutputs(outputs.example_ids, outputs.embeddings, outputs.losses, outputs.correct, **fields)


def small(**options):
    return PlaneSpot(**{"reduce": "pca", "min_components": 1, "max_components": 9, **options})


def blob_of(slices, column):
    (blob,) = (slices.members[:, column].nonzero().flatten() // 50).unique().tolist()
    return blob


def test_bic_chooses_the_number_of_clear_blobs():
    method = small().fit(blobs())
    assert method.mixture_.n_components == 4
    assert min(method.bics_, key=method.bics_.get) == 4
    assert list(method.bics_) == list(range(1, 10))


def test_the_score_is_size_times_squared_error_rate():
    outputs = blobs(wrong=(5, 40, 0, 20))
    slices = small().fit(outputs).predict(outputs)
    scores = [entry["score"] for entry in slices.diagnostics]
    assert scores == pytest.approx([50 * 0.8**2, 50 * 0.4**2, 50 * 0.1**2, 0.0])
    assert [blob_of(slices, column) for column in range(4)] == [1, 3, 0, 2]


def test_order_by_loss():
    # a confident error has a larger loss than two unsure ones
    outputs = blobs(wrong=(10, 5, 0, 0), margins=(0.1, 20.0, 9.0, 9.0))
    assert blob_of(small(weight=0.0).fit(outputs).predict(outputs), 0) == 0
    assert blob_of(small(weight=0.0, order="loss").fit(outputs).predict(outputs), 0) == 1


def test_the_map_is_scaled_to_the_unit_square_and_the_confidence_by_its_weight():
    outputs = blobs()
    method = small().fit(outputs)
    plane = method.reducer_.transform(outputs.embeddings.double().numpy())
    points = method._points(plane, method._probabilities(outputs))
    np.testing.assert_allclose(points.min(axis=0)[:2], 0, atol=1e-12)
    np.testing.assert_allclose(points.max(axis=0)[:2], 1)
    np.testing.assert_allclose(points[:, 2], 0.025 / (1 + np.exp(-2)), rtol=1e-6)


def test_confidence_alone_can_tell_clusters_apart():
    outputs = blobs(margins=(0.0, 8.0, 0.0, 8.0))
    same_place = ModelOutputs(
        outputs.example_ids, torch.zeros(200, 3), outputs.losses, outputs.correct, outputs.labels, outputs.logits
    )
    assert small(weight=1.0, max_components=3).fit(same_place).mixture_.n_components == 2


def test_the_probability_may_be_that_of_the_label():
    outputs = blobs(wrong=(50, 0, 0, 0))
    of_label = small(probability="label")._probabilities(outputs)
    of_prediction = small()._probabilities(outputs)
    np.testing.assert_allclose(of_label[:50], 1 - of_prediction[:50])
    np.testing.assert_allclose(of_label[50:], of_prediction[50:])


def test_membership_is_the_posterior_of_the_members():
    outputs = blobs(wrong=(10, 10, 10, 10))
    method = small(max_components=2).fit(outputs)
    slices = method.predict(outputs)
    assert slices.members.sum(dim=1).eq(1).all()
    assert torch.equal(slices.membership > 0, slices.members)
    assert (slices.membership[slices.members] >= 0.5).all()


def test_new_examples_go_to_their_component():
    method = small(n_slices=1).fit(blobs(wrong=(0, 0, 40, 0)))
    new = blobs(seed=1)
    slices = method.predict(new)
    assert slices.members.flatten().nonzero().flatten().tolist() == list(range(100, 150))


def test_small_clusters_are_no_slices():
    assert small(min_size=51).fit(blobs()).components_ == []


def test_umap_finds_the_blobs_too_and_again():
    outputs = blobs(wrong=(0, 40, 0, 0), n_each=50)
    method = small(reduce="umap").fit(outputs)
    slices = method.predict(outputs)
    assert blob_of(slices, 0) == 1
    again = small(reduce="umap").fit(outputs).predict(outputs)
    assert torch.equal(slices.membership, again.membership)
    new = method.predict(blobs(seed=1))
    assert blob_of(new, 0) == 1


def test_a_few_examples_are_enough_for_umap():
    outputs = blobs(n_each=2)
    assert small(reduce="umap", max_components=2, min_size=1).fit(outputs).predict(outputs).members.shape[0] == 8


@pytest.mark.parametrize("d", [1, 3])
def test_constant_embeddings_are_no_failure(d):
    outputs = blobs(wrong=(10, 10, 10, 10))
    constant = ModelOutputs(
        outputs.example_ids, torch.ones(200, d), outputs.losses, outputs.correct, outputs.labels, outputs.logits
    )
    slices = small(max_components=3).fit(constant).predict(constant)
    assert slices.members[:, 0].all()


def test_it_needs_logits():
    with pytest.raises(Unsupported, match="PlaneSpot needs logits"):
        small().fit(without(blobs(), "logits"))


def test_it_needs_labels_only_for_their_probability():
    outputs = without(blobs(), "labels")
    assert small().fit(outputs).predict(outputs).n_slices > 0
    with pytest.raises(Unsupported, match="probability=label needs labels"):
        small(probability="label").fit(outputs)


def test_a_missing_package_is_named(monkeypatch):
    original = builtins.__import__

    def without_umap(name, *arguments, **keywords):
        if name == "umap":
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_umap)
    with pytest.raises(Unsupported, match="reduce=umap needs the package umap-learn"):
        small(reduce="umap").fit(blobs())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_components": 201}, "max_components is 201, expected at most 200"),
        ({"min_components": 5, "max_components": 4}, "min_components is 5, expected at most max_components, 4"),
        ({"weight": -1.0}, "weight is -1.0, expected at least 0"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        small(**options).fit(blobs())


def test_umap_refuses_a_handful_of_examples():
    with pytest.raises(InvalidInput, match="there are 4 examples, UMAP needs 5"):
        small(reduce="umap", max_components=2).fit(blobs(n_each=1))


def test_embeddings_of_another_dimension_are_refused():
    outputs = blobs()
    wider = ModelOutputs(
        outputs.example_ids, torch.zeros(200, 5), outputs.losses, outputs.correct, outputs.labels, outputs.logits
    )
    with pytest.raises(InvalidInput, match="embeddings has 5 columns, the method was fitted on 3"):
        small().fit(outputs).predict(wider)
