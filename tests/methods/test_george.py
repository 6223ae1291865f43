import pytest
import torch

from methods.contract import ModelOutputs, Unsupported
from methods.george import GEORGE


def outputs(n=400, seed=0, n_classes=2, **changed):
    """Four blobs at the corners of a rhombus, two a class; the second is wrong."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.arange(n) % 4
    labels = blobs // 2
    centers = 8.0 * torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]])
    predictions = torch.where(blobs == 1, 1 - labels, labels)
    logits = 4.0 * torch.nn.functional.one_hot(predictions, n_classes)
    arrays = {
        "embeddings": centers[blobs] + 0.5 * torch.randn(n, 4, generator=generator),
        "labels": labels,
        "logits": logits + 0.1 * torch.randn(n, n_classes, generator=generator),
    }
    return ModelOutputs.from_arrays([f"{i:04d}" for i in range(n)], **(arrays | changed))


def in_blob(n=400):
    return torch.arange(n) % 4 == 1


@pytest.mark.parametrize("cluster", ["gmm", "kmeans"])
@pytest.mark.parametrize("reduce", ["pca", "none"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_cluster_of_errors_within_a_class_is_the_worst_slice(cluster, reduce, normalise):
    given = outputs()
    slices = GEORGE(reduce=reduce, cluster=cluster, normalise=normalise).fit(given).predict(given)
    assert torch.equal(slices.members[:, 0], in_blob())
    assert slices.n_slices == 4
    assert slices.diagnostics[0]["n_clusters"] == 2
    assert slices.diagnostics[0]["silhouette"] > 0.6
    assert (slices.diagnostics[0]["label"], slices.diagnostics[0]["size"]) == (0, 100)


def test_umap_finds_it_too_and_warns_of_nothing():
    given, others = outputs(320), outputs(320, seed=1)
    george = GEORGE(max_k=3).fit(given)
    slices = george.predict(given)
    assert torch.equal(slices.members[:, 0], in_blob(320))
    assert (george.predict(others).members[:, 0] == in_blob(320)).float().mean() > 0.95
    # the rows of the fit keep their places: as many in each slice as were counted there
    assert slices.members.sum(dim=0).tolist() == [entry["size"] for entry in slices.diagnostics]
    assert torch.equal(GEORGE(max_k=3).fit(given).predict(given).membership, slices.membership)


def test_no_slice_spans_two_labels_and_no_example_is_in_two():
    given = outputs(n=800)
    slices = GEORGE(reduce="pca", n_slices=30, max_k=4).fit(given).predict(given)
    for column in slices.members.T:
        assert len(given.labels[column].unique()) == 1
    assert (slices.members.sum(dim=1) == 1).all()


def test_slices_come_by_mean_loss():
    given = outputs()
    slices = GEORGE(reduce="pca", n_slices=3, max_k=4).fit(given).predict(given)
    losses = [float(given.losses[column].mean()) for column in slices.members.T]
    assert losses == sorted(losses, reverse=True)
    assert losses == pytest.approx([entry["mean_loss"] for entry in slices.diagnostics], rel=1e-5)


def test_new_examples_go_to_the_clusters_of_their_class():
    george = GEORGE(reduce="pca", max_k=4).fit(outputs())
    assert torch.equal(george.predict(outputs(seed=1)).members[:, 0], in_blob())
    swapped = outputs(labels=1 - torch.arange(400) % 4 // 2)
    assert not george.predict(swapped).members[in_blob(), 0].any()


def test_a_label_without_examples_in_the_fit_is_in_no_slice():
    george = GEORGE(reduce="pca", max_k=4).fit(outputs(n_classes=3))
    others = outputs(n_classes=3, labels=torch.full((400,), 2))
    assert not george.predict(others).members.any()


@pytest.mark.parametrize("cluster", ["gmm", "kmeans"])
def test_membership_ranks_members_and_is_zero_for_others(cluster):
    given = outputs()
    slices = GEORGE(reduce="pca", cluster=cluster, max_k=4).fit(given).predict(given)
    assert torch.equal(slices.membership > 0, slices.members)
    assert (len(slices.membership[:, 0].unique()) > 90) == (cluster == "kmeans")


@pytest.mark.parametrize("n_per_class", [20, 50, 74])
def test_too_few_examples_in_a_class_are_refused_with_the_class_and_the_count(n_per_class):
    labels = (torch.arange(400) >= n_per_class).long()
    with pytest.raises(Unsupported, match=f"class 0 has {n_per_class} examples, GEORGE needs at least 75"):
        GEORGE().fit(outputs(labels=labels))


def test_more_neighbours_than_a_class_has_examples_are_refused():
    with pytest.raises(Unsupported, match="class 0 has 200 examples, GEORGE needs at least 251"):
        GEORGE(n_neighbors=250).fit(outputs())


def test_without_labels_it_is_refused():
    bare = ModelOutputs.from_arrays("ab", embeddings=torch.zeros(2, 1), losses=[0.0, 1.0], correct=[True, False])
    with pytest.raises(Unsupported, match="needs labels"):
        GEORGE().fit(bare)


def by_margin(n=400):
    """One class, half of it on the wrong side; only the decision's direction, of little variance, tells the halves."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, 4, generator=generator) * torch.tensor([0.1, 5.0, 5.0, 5.0])
    labels = torch.arange(n) % 2
    wrong = torch.arange(n) % 4 == 1
    embeddings[:, 0] += torch.where(wrong, 1 - labels, labels) * 4.0 - 2.0
    logits = torch.stack([torch.zeros(n), 3 * embeddings[:, 0]], dim=1)
    arrays = {"embeddings": embeddings, "labels": labels, "logits": logits}
    return ModelOutputs.from_arrays([f"{i:04d}" for i in range(n)], **arrays), wrong


def test_hardness_sees_what_the_decision_sees():
    given, wrong = by_margin()
    slices = GEORGE(reduce="hardness", n_components=1, normalise=False, max_k=4).fit(given).predict(given)
    assert torch.equal(slices.members[:, 0], wrong)


def test_hardness_takes_the_rest_from_umap():
    given, _ = by_margin(200)
    george = GEORGE(reduce="hardness", n_components=2, normalise=False, max_k=2).fit(given)
    x = george.classes_[1].reduction(given.embeddings[given.labels == 1].numpy())
    assert x.shape == (100, 2)
    torch.testing.assert_close(
        torch.from_numpy(x[:, 0]).float(), given.embeddings[given.labels == 1, 0], atol=1e-4, rtol=0
    )


def test_hardness_is_for_two_classes():
    with pytest.raises(Unsupported, match="two classes, these are 3"):
        GEORGE(reduce="hardness").fit(outputs(n_classes=3))


def test_hardness_needs_logits():
    given = outputs()
    bare = ModelOutputs(given.example_ids, given.embeddings, given.losses, given.correct, given.labels)
    with pytest.raises(Unsupported, match="needs logits"):
        GEORGE(reduce="hardness").fit(bare)


@pytest.mark.parametrize("cluster", ["gmm", "kmeans"])
def test_embeddings_all_in_one_place_are_one_slice_a_class(cluster):
    given = outputs(embeddings=torch.full((400, 4), 0.3))
    slices = GEORGE(reduce="pca", cluster=cluster, max_k=4).fit(given).predict(given)
    assert slices.members.sum(dim=0).tolist() == [200, 200]
    assert torch.isfinite(slices.membership).all()


@pytest.mark.parametrize("cluster", ["gmm", "kmeans"])
def test_a_knot_of_errors_in_a_wide_cluster_is_split_off(cluster):
    generator = torch.Generator().manual_seed(0)
    labels, knot = torch.arange(800) % 2, torch.arange(800) % 20 == 0
    embeddings = torch.randn(800, 2, generator=generator) + 12.0 * (torch.arange(800) % 4 // 2)[:, None]
    embeddings[knot] = torch.tensor([-3.0, -3.0]) + 0.05 * torch.randn(40, 2, generator=generator)
    logits = torch.nn.functional.one_hot(torch.where(knot, 1 - labels, labels), 2) * 5.0
    given = outputs(800, embeddings=embeddings, labels=labels, logits=logits)
    options = {"reduce": "none", "normalise": False, "cluster": cluster, "max_k": 2}
    whole, split = (GEORGE(overcluster=f, **options).fit(given).predict(given) for f in (1, 5))
    assert whole.members[:, 0].sum() > 150
    assert not whole.diagnostics[0]["part"]
    assert split.members[knot, 0].all()
    assert split.members[:, 0].sum() < 1.5 * knot.sum()
    assert split.diagnostics[0]["part"]
    assert (split.members.sum(dim=1) <= 1).all()
    assert (split.membership[split.members] > 0).all()
