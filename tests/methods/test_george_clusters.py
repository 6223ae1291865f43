import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from methods import george_clusters
from methods.george_clusters import Leaves, Recipe, Split, best, kept_parts, leaves_of, search, separation, silhouettes
from methods.george_reduce import decision_normal

RECIPES = [Recipe(kind, n_init=3, seed=0) for kind in ("gmm", "kmeans")]


def blobs(k, n=40, seed=0):
    generator = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(k) / k
    centers = 10 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([center + generator.normal(size=(n, 2)) for center in centers])


@pytest.mark.parametrize("block_entries", [1, 100_000])
@pytest.mark.parametrize("dimensions", [2, 40])
def test_silhouettes_are_scikit_learn_s(monkeypatch, block_entries, dimensions):
    monkeypatch.setattr(george_clusters, "BLOCK_ENTRIES", block_entries)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, dimensions))
    clusterings = [generator.integers(0, k, 60) for k in (2, 7)]
    clusterings.append(np.r_[np.zeros(59, dtype=int), 3])  # one point alone, and two clusters without any
    for ours, clusters in zip(silhouettes(x, clusterings), clusterings, strict=True):
        np.testing.assert_allclose(ours, silhouette_samples(x, clusters), atol=1e-6)


def test_one_cluster_or_one_place_has_no_silhouette():
    x, same = np.random.default_rng(0).normal(size=(10, 2)), np.zeros((10, 2))
    assert silhouettes(x, [np.zeros(10, dtype=int)])[0].tolist() == [0] * 10
    assert silhouettes(same, [np.arange(10) % 2])[0].tolist() == [0] * 10


def test_small_clusters_count_as_much_as_large_ones():
    assert separation(np.array([0.9] * 9 + [0.1]), np.array([0] * 9 + [1])) == pytest.approx(0.5)


def test_of_equal_scores_the_more_clusters_win():
    assert best([0.2, 0.6, 0.6]) == 2
    assert best([0.6, 0.2, 0.5]) == 0


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_as_many_clusters_as_there_are_blobs(recipe, k):
    clusterer, score = search(blobs(k), recipe, max_k=10)
    assert clusterer.k == k
    assert score > 0.6


# a part that is kept, and one change to each of its four conditions
GOOD = {"before": 0.1, "after": 0.3, "losses": 2.0, "sizes": 30}


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, True),
        ({"after": 0.1}, False),  # no gain
        ({"before": -0.5, "after": -0.1}, False),  # a gain, but below zero
        ({"before": -0.5, "after": 0.01}, True),
        ({"losses": 0.9}, False),  # better than its parent
        ({"losses": 1.0}, True),  # as bad
        ({"sizes": 24}, False),
        ({"sizes": 25}, True),
    ],
)
def test_which_parts_are_kept(changed, kept):
    part = {name: np.array([value]) for name, value in (GOOD | changed).items()}
    assert kept_parts(**part, parent_losses=1.0, min_size=25).tolist() == [kept]


@pytest.mark.parametrize(
    ("kept", "leaves"),
    [
        ([False, False, False], [0, 0, 0]),  # all merge back: the cluster as it was
        ([True, False, False], [1, 0, 0]),
        ([False, True, True], [0, 1, 2]),
        ([True, True, True], [0, 1, 2]),  # nothing is left of the cluster
    ],
)
def test_the_others_merge_back(kept, leaves):
    assert leaves_of(np.array(kept)) == leaves


@pytest.mark.parametrize("recipe", RECIPES)
def test_leaves_are_numbered_over_split_and_whole_clusters(recipe):
    x = blobs(4)
    pairs = np.repeat([0, 0, 1, 1], 40)
    clusterer = recipe.fitted(np.stack([10.0 * pairs, 10.0 * pairs], axis=1) + 0.01 * x, 2)
    first = int(clusterer.posteriors(np.array([[0.0, 0.0]]))[0].argmax())
    split = Split(recipe.fitted(0.01 * x[:80], 2), [1, 0])
    leaves = Leaves.measured(clusterer, {first: split}, 10.0 * pairs[:, None] + 0.01 * x)
    assigned, posteriors = leaves.assign(10.0 * pairs[:, None] + 0.01 * x)
    assert leaves.first[-1] == 3
    assert sorted(np.bincount(assigned)) == [40, 40, 80]
    assert [leaves.is_part(int(assigned[row])) for row in (0, 40, 80)] == [True, True, False]
    assert posteriors.min() > 0.99
    closeness = leaves.closeness(10.0 * pairs[:, None] + 0.01 * x, assigned)
    assert 0 < closeness.min() < closeness.max() <= 1


def test_a_leaf_has_the_posteriors_of_all_its_parts():
    x = blobs(3)
    model = RECIPES[0].fitted(x, 3)
    middle = np.zeros((1, 2))
    assert Split(model, [0, 0, 0]).posteriors(middle)[1] == pytest.approx(1.0)
    assert Split(model, [1, 0, 2]).posteriors(middle)[1] == pytest.approx(model.posteriors(middle).max())


def test_the_normal_is_the_difference_of_the_last_layer_s_weights():
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(200, 5)).astype(np.float32) + 3
    weights = generator.normal(size=(5, 2)).astype(np.float32)
    difference = weights[:, 1] - weights[:, 0]
    normal = decision_normal(embeddings, embeddings @ weights + np.array([1, -2], dtype=np.float32))
    np.testing.assert_allclose(normal, difference / np.linalg.norm(difference), atol=1e-5)


def test_logits_that_do_not_depend_on_the_embeddings_have_no_normal():
    embeddings = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    assert decision_normal(embeddings, np.zeros((20, 2), dtype=np.float32)).tolist() == [0, 0, 0]
