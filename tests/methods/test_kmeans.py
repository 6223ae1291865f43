import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.clusters import nearest, unit_rows
from methods.contract import InvalidInput, ModelOutputs
from methods.kmeans import KMeansSlices, spherical_kmeans

N_EACH = 30


def blobs(errors=(0, 15, 30), losses=(1.0, 1.0, 1.0), d=2, seed=0):
    """Three blobs in a row, with so many errors and such a loss for each example."""
    blob = torch.arange(3).repeat_interleave(N_EACH)
    noise = torch.randn(3 * N_EACH, d, generator=torch.Generator().manual_seed(seed))
    correct = torch.cat([torch.arange(N_EACH) >= wrong for wrong in errors])
    ids = [f"{i:03d}" for i in range(3 * N_EACH)]
    return ModelOutputs.from_arrays(
        ids, embeddings=10.0 * blob[:, None] + noise, losses=torch.tensor(losses)[blob], correct=correct
    )


def rays(n_each=40, seed=0):
    """Three directions of the plane, with lengths over four orders of magnitude; the second fails."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.tensor([0.0, 2.0, 4.0]).repeat_interleave(n_each) + 0.1 * torch.randn(
        3 * n_each, generator=generator
    )
    lengths = 10 ** (4 * torch.rand(3 * n_each, generator=generator) - 3)
    embeddings = lengths[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    correct = torch.tensor([True, False, True]).repeat_interleave(n_each)
    ids = [f"{i:03d}" for i in range(3 * n_each)]
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=(~correct).float(), correct=correct)


def identical(embeddings):
    ids = [f"{i:03d}" for i in range(len(embeddings))]
    n = len(embeddings)
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=[1.0] * n, correct=[False] * n)


def blob_of(slices, column):
    members = slices.members[:, column].reshape(3, N_EACH)
    assert (members.all(dim=1) | ~members.any(dim=1)).all()
    return members.any(dim=1).nonzero().flatten().tolist()


def found(outputs, **options):
    return KMeansSlices(**{"n_slices": 3, "n_clusters": 3, **options}).fit(outputs).predict(outputs)


def test_slices_are_ordered_by_error_and_not_by_loss():
    slices = found(blobs(errors=(0, 15, 30), losses=(9.0, 2.0, 1.0)))
    assert [blob_of(slices, column) for column in range(3)] == [[2], [1], [0]]
    assert [entry["accuracy"] for entry in slices.diagnostics] == [0.0, 0.5, 1.0]


def test_equal_accuracies_are_ordered_by_mean_loss():
    slices = found(blobs(errors=(10, 10, 10), losses=(2.0, 1.0, 3.0)))
    assert [blob_of(slices, column) for column in range(3)] == [[2], [0], [1]]


def test_order_by_loss():
    slices = found(blobs(errors=(0, 15, 30), losses=(9.0, 2.0, 1.0)), order="loss")
    assert [blob_of(slices, column) for column in range(3)] == [[0], [1], [2]]


def test_membership_by_hand():
    outputs = blobs()
    slices = found(outputs, n_slices=1)
    x = outputs.embeddings[60:].double()
    squared = (x - x.mean(dim=0)).square().sum(dim=1)
    torch.testing.assert_close(slices.membership[60:, 0], (1 / (1 + squared / squared.mean())).float())
    assert (slices.membership[:60] == 0).all()


def test_rank_by_loss():
    outputs = blobs()
    losses = torch.rand(90, generator=torch.Generator().manual_seed(0))
    ranked = ModelOutputs(outputs.example_ids, outputs.embeddings, losses, outputs.correct)
    slices = found(ranked, n_slices=1, rank="loss")
    assert torch.equal(slices.membership[60:, 0].argsort(), losses[60:].argsort())
    assert (slices.membership[:60] == 0).all()


def test_small_clusters_are_no_slices():
    assert found(blobs(), min_size=N_EACH).n_slices == 3
    assert found(blobs(), min_size=N_EACH + 1).n_slices == 0


def test_new_examples_go_to_the_nearest_centre():
    method = KMeansSlices(n_slices=1, n_clusters=3).fit(blobs())
    new = ModelOutputs.from_arrays(
        "abc", embeddings=[[0.0, 0.0], [16.0, 16.0], [99.0, 99.0]], losses=[0.0] * 3, correct=[True] * 3
    )
    slices = method.predict(new)
    assert slices.members.flatten().tolist() == [False, True, True]
    assert 0 < slices.membership[2, 0] < slices.membership[1, 0]


def test_spherical_clusters_are_directions_however_short_the_rows():
    outputs = rays()
    failed = ~outputs.correct
    spherical = found(outputs, n_slices=1, normalise=True)
    assert torch.equal(spherical.members[:, 0], failed)
    assert not torch.equal(found(outputs, n_slices=1).members[:, 0], failed)


def test_a_spherical_centre_is_the_direction_of_the_sum():
    x = unit_rows(rays().embeddings.double())
    centers = spherical_kmeans(x, n_clusters=3, n_init=2, max_iter=100, seed=0)
    clusters = nearest(x, centers)
    sums = torch.stack([x[clusters == cluster].sum(dim=0) for cluster in range(3)])
    torch.testing.assert_close(centers, sums / sums.norm(dim=1, keepdim=True))


def test_a_row_without_direction_is_in_no_spherical_slice():
    outputs = rays()
    embeddings = outputs.embeddings.clone()
    embeddings[:7] = 0
    slices = found(ModelOutputs(outputs.example_ids, embeddings, outputs.losses, outputs.correct), normalise=True)
    assert slices.n_slices == 3
    assert not slices.members[:7].any()
    assert slices.members[7:].sum(dim=1).eq(1).all()


def test_spherical_clusters_do_not_depend_on_the_rows_lengths():
    outputs = rays()
    scaled = ModelOutputs(outputs.example_ids, 128 * outputs.embeddings, outputs.losses, outputs.correct)
    assert torch.equal(found(outputs, normalise=True).membership, found(scaled, normalise=True).membership)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_embeddings_are_one_slice_or_none(normalise, value):
    slices = found(identical(torch.full((20, 4), value)), normalise=normalise)
    if normalise and value == 0:
        assert slices.n_slices == 0
    else:
        assert slices.members.all()
        torch.testing.assert_close(slices.membership, torch.ones(20, 1))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    rows=st.lists(st.lists(st.sampled_from([-1e20, -1.0, 0.0, 1e-30, 2.0]), min_size=2, max_size=2), min_size=3),
    normalise=st.booleans(),
    rank=st.sampled_from(["distance", "loss"]),
)
def test_duplicates_give_no_nan_and_examples_are_in_one_slice_at_most(rows, normalise, rank):
    slices = found(identical(torch.tensor(rows)), n_slices=5, min_size=1, normalise=normalise, rank=rank)
    assert (slices.members.sum(dim=1) <= 1).all()
    assert torch.equal(slices.membership > 0, slices.members)


def test_more_clusters_than_examples_are_refused():
    with pytest.raises(InvalidInput, match="n_clusters is 50, expected at most 3"):
        KMeansSlices().fit(identical(torch.eye(3)))


def test_embeddings_of_another_dimension_are_refused():
    with pytest.raises(InvalidInput, match="embeddings has 3 columns, the method was fitted on 2"):
        KMeansSlices(n_clusters=3).fit(blobs()).predict(identical(torch.eye(3)))
