import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from methods import kmeans, lloyd
from methods.clusters import nearest, unit_rows
from methods.contract import ModelOutputs
from methods.kmeans import KMeansSlices, spherical_kmeans
from methods.lloyd import Points, centers_in_blocks, moved, started


def embeddings(n=3000, d=7, k=9, spread=1.0, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = 3 * torch.randn(k, d, generator=generator)
    return centers[torch.arange(n) % k] + spread * torch.randn(n, d, generator=generator) + offset


def sklearn_from(x, start, max_iter=300):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(len(start), init=start.numpy(), n_init=1, max_iter=max_iter, algorithm="lloyd")
        return model.fit(x.double().numpy())


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(lloyd, "BLOCK_ROWS", 512)  # the last block is a part of one


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("max_iter", [1, 3, 300])
def test_from_one_start_it_goes_where_scikit_learn_s_goes(max_iter, offset):
    x = embeddings(offset=offset)
    points = Points.of(x, unit=False)
    start = started(points, 12, np.random.RandomState(0))
    theirs = sklearn_from(x, start + points.origin, max_iter)
    ours = moved(points, start, max_iter)
    np.testing.assert_allclose(ours + points.origin, theirs.cluster_centers_, atol=1e-3)
    np.testing.assert_allclose(points.assigned(ours).inertia, theirs.inertia_, rtol=1e-5)


def test_an_empty_cluster_takes_the_farthest_point_as_scikit_learn_s_does():
    x = embeddings()
    points = Points.of(x, unit=False)
    start = torch.cat([started(points, 4, np.random.RandomState(0)), torch.full((2, 7), 1e3)]).double()
    assert points.assigned(start).sizes[4:].tolist() == [0, 0]
    theirs = sklearn_from(x, start + points.origin, max_iter=1)
    ours = moved(points, start, max_iter=1) + points.origin
    order = torch.cdist(ours, torch.from_numpy(theirs.cluster_centers_)).argmin(dim=1)  # either may take either
    assert order.sort().values.tolist() == list(range(6))
    np.testing.assert_allclose(ours, theirs.cluster_centers_[order], atol=1e-4)


def test_identical_points_leave_the_other_centres_where_they_are():
    centers = centers_in_blocks(torch.ones(1000, 3), n_clusters=4, n_init=1, max_iter=5, seed=0)
    torch.testing.assert_close(centers, torch.ones(4, 3, dtype=torch.float64))


def test_spherical_centres_are_as_good_as_those_without_blocks():
    x = embeddings()
    of = unit_rows(x.double())
    ours = centers_in_blocks(x, 9, n_init=3, max_iter=100, seed=0, unit=True)
    theirs = spherical_kmeans(of, 9, n_init=3, max_iter=100, seed=0)
    sums = [float((of @ centers.T).amax(dim=1).sum()) for centers in (ours, theirs)]
    assert sums[0] > 0.99 * sums[1]
    clusters = nearest(of, ours)
    totals = torch.stack([of[clusters == cluster].sum(dim=0) for cluster in range(9)])
    torch.testing.assert_close(ours, totals / totals.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-4)


def test_the_best_of_several_starts_is_kept():
    x = embeddings(spread=0.1)
    points = Points.of(x, unit=False)
    ends = [centers_in_blocks(x, 9, n_init, max_iter=100, seed=1) - points.origin for n_init in (1, 5)]
    inertias = [points.assigned(end).inertia for end in ends]
    assert inertias[1] <= inertias[0]
    assert inertias[1] < 1.1 * 3000 * 7 * 0.1**2


@pytest.mark.parametrize("normalise", [False, True])
def test_slices_by_blocks_are_those_in_memory_where_clusters_are_clear(monkeypatch, normalise):
    x = embeddings(spread=0.05)
    correct = torch.arange(3000) % 9 != 2
    outputs = ModelOutputs.from_arrays(embeddings=x, losses=(~correct).float(), correct=correct)
    method = KMeansSlices(n_slices=1, n_clusters=9, n_init=5, normalise=normalise)
    expected = method.fit(outputs).predict(outputs)
    monkeypatch.setattr(kmeans, "IN_MEMORY", 0)
    slices = method.fit(outputs).predict(outputs)
    assert torch.equal(slices.members[:, 0], ~correct)
    assert torch.equal(slices.members, expected.members)
    torch.testing.assert_close(slices.membership, expected.membership, rtol=1e-4, atol=1e-4)


def test_a_row_without_direction_does_not_move_a_spherical_centre():
    x = embeddings()
    with_zeros = torch.cat([x, torch.zeros(100, 7)])
    start = started(Points.of(x, unit=True), 5, np.random.RandomState(0))
    ends = [moved(Points.of(rows, unit=True), start, 20) for rows in (x, with_zeros)]
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)
