import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods import clusters
from methods.clusters import ClusterShapes, ClusterStatistics, Rows, nearest, unit_rows
from methods.contract import ModelOutputs


def outputs_of(losses, correct):
    ids = [f"{i:03d}" for i in range(len(losses))]
    return ModelOutputs.from_arrays(ids, embeddings=torch.zeros(len(losses), 1), losses=losses, correct=correct)


def test_statistics_count_each_cluster_and_pass_over_examples_in_none():
    outputs = outputs_of([1.0, 3.0, 5.0, 100.0], [True, False, False, False])
    statistics = ClusterStatistics.of(torch.tensor([2, 2, 0, -1]), outputs, n_clusters=3)
    assert statistics.sizes.tolist() == [1, 0, 2]
    assert statistics.accuracies.tolist() == [0.0, 0.0, 0.5]
    assert statistics.mean_losses.tolist() == [5.0, 0.0, 2.0]
    assert statistics.of_cluster(2) == {"size": 2, "accuracy": 0.5, "mean_loss": 2.0}


def test_empty_clusters_are_never_among_the_worst():
    statistics = ClusterStatistics.of(torch.tensor([0, 2]), outputs_of([1.0, 2.0], [True, True]), n_clusters=3)
    assert statistics.worst("accuracy", min_size=1) == [2, 0]


def test_membership_falls_with_distance_and_is_zero_outside():
    x = torch.tensor([[0.0], [2.0], [4.0], [7.0]], dtype=torch.float64)
    members = torch.tensor([[True], [True], [True], [False]])
    shapes = ClusterShapes.learned(x, members, torch.tensor([[2.0]], dtype=torch.float64))
    assert shapes.spreads.tolist() == [pytest.approx(8 / 3)]
    membership = shapes.membership(x, members, torch.zeros(4), "distance").flatten().tolist()
    assert membership == pytest.approx([1 / (1 + 4 / (8 / 3)), 1.0, 1 / (1 + 4 / (8 / 3)), 0.0])


def test_membership_by_loss_ranks_within_the_slice():
    members = torch.tensor([[True, False], [True, False], [False, True]])
    shapes = ClusterShapes(torch.zeros(2, 1), torch.ones(2))
    membership = shapes.membership(torch.zeros(3, 1), members, torch.tensor([1.0, 2.0, 0.0]), "loss")
    assert membership.tolist() == [[0.5, 0.0], [1.0, 0.0], [0.0, 1.0]]


@settings(deadline=None, derandomize=True)
@given(
    rows=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20),
    rank=st.sampled_from(["distance", "loss"]),
)
def test_members_have_positive_membership_whatever_the_scale(rows, rank):
    x = torch.tensor(rows, dtype=torch.float64)[:, None]
    members = torch.ones(len(rows), 1, dtype=torch.bool)
    shapes = ClusterShapes.learned(x[:1], members[:1], x[:1] + 1)
    membership = shapes.membership(x, members, x[:, 0].float(), rank)
    assert ((membership > 0) & (membership <= 1)).all()


def test_where_a_row_goes_does_not_depend_on_the_other_rows():
    generator = torch.Generator().manual_seed(0)
    x, centers = torch.randn(500, 33, generator=generator), torch.randn(7, 33, generator=generator)
    together = nearest(x, centers)
    assert torch.equal(together, torch.cat([nearest(row[None], centers) for row in x]))
    assert torch.equal(together, torch.cdist(x.double(), centers.double()).argmin(dim=1))


def test_unit_rows_are_so_for_tiny_and_huge_values():
    rows = unit_rows(torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("spread", [0.0, 1e-14, 1e-7, 1.0])
def test_the_nearest_centre_is_that_by_distances_also_where_it_is_close(spread):
    generator = torch.Generator().manual_seed(0)
    centers = 1 + spread * torch.randn(20, 30, generator=generator, dtype=torch.float64)
    x = 1 + torch.randn(3000, 30, generator=generator, dtype=torch.float64)
    expected = torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    assert torch.equal(nearest(x, centers), expected)
    assert torch.equal(torch.cat([nearest(x[:7], centers), nearest(x[7:], centers)]), expected)


def test_rows_by_blocks_have_the_distances_of_all_at_once(monkeypatch):
    x = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    members, centers = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1)) < 0.7, x[:2].double()
    losses = torch.rand(1000)
    whole = ClusterShapes.learned(x.double(), members, centers)
    expected = whole.membership(x.double(), members, losses, "distance")
    monkeypatch.setattr(clusters, "BLOCK_ROWS", 64)
    shapes = ClusterShapes.learned(Rows(x), members, centers)
    assert torch.equal(shapes.spreads, whole.spreads)
    assert torch.equal(shapes.membership(Rows(x), members, losses, "distance"), expected)
