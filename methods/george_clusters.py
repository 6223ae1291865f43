"""GEORGE's second step: how many clusters a class has, and which parts of them stand alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCK_ENTRIES = 4_000_000  # of the distance matrix held at once: 32 MB
SILHOUETTE_FLOOR = 0.0  # a part must be better separated than this


@dataclass(frozen=True)
class Recipe:
    """How points are clustered.

    Parameters
    ----------
    kind : {"gmm", "kmeans"}
        A Gaussian mixture with full covariances, or k-means.
    n_init : int, at least 1
        The best of so many starts.
    seed : int, non-negative
    """

    kind: Literal["gmm", "kmeans"]
    n_init: int
    seed: int

    def fitted(self, x: Array, k: int) -> Clusterer:
        """Cluster points, shape (n, r), into k; raises `ValueError` where a covariance is not positive definite."""
        options = {"n_init": self.n_init, "random_state": self.seed}
        model = GaussianMixture(k, **options) if self.kind == "gmm" else KMeans(k, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
            return Clusterer(model.fit(x), k)


@dataclass(frozen=True, eq=False)
class Clusterer:
    """A fitted mixture or k-means of scikit-learn.

    Parameters
    ----------
    model : GaussianMixture or KMeans
    k : int
    """

    model: GaussianMixture | KMeans
    k: int

    def posteriors(self, x: Array) -> Array:
        """Array, shape (n, k), in [0, 1]; of k-means 0 or 1."""
        if isinstance(self.model, KMeans):
            return np.asarray(np.eye(self.k)[self.model.predict(x)])
        return np.asarray(self.model.predict_proba(x))


def silhouettes(x: Array, clusterings: Sequence[Integers]) -> list[Array]:
    """The silhouette of each point in each of several clusterings, from one pass over the distances.

    Parameters
    ----------
    x : ndarray, shape (n, r)
    clusterings : sequence of ndarray, shape (n,), int64

    Returns
    -------
    list of ndarray, shape (n,), in [-1, 1]
        (b - a) / max(a, b), with a the mean distance to the others of the cluster and b the least mean distance to
        another cluster; 0 for a point that is alone in its cluster, and where there is one cluster only.

    Notes
    -----
    Rousseeuw (1987); `sklearn.metrics.silhouette_samples` gives the same, at a distance matrix for each clustering.

    Examples
    --------
    >>> silhouettes(np.array([[0.0], [1.0], [4.0]]), [np.array([0, 0, 1])])[0].round(4).tolist()
    [0.75, 0.6667, 0.0]
    """
    points = torch.from_numpy(x)
    one_hots = [torch.nn.functional.one_hot(torch.from_numpy(c)).double() for c in clusterings]  # (n, k) each
    together = torch.cat(one_hots, dim=1)
    n_rows = max(1, BLOCK_ENTRIES // len(x))
    # by products of matrices only where that pays: points in one place must be at distance 0
    mode = "donot_use_mm_for_euclid_dist" if x.shape[1] <= 25 else "use_mm_for_euclid_dist"
    blocks = [torch.cdist(rows, points, compute_mode=mode) @ together for rows in torch.split(points, n_rows)]
    sums = torch.split(torch.cat(blocks), [one_hot.shape[1] for one_hot in one_hots], dim=1)  # (n, k) each
    return [_silhouettes(total, one_hot).numpy() for total, one_hot in zip(sums, one_hots, strict=True)]


def _silhouettes(sums: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
    """From the summed distances of each point to each cluster, shape (n, k), and the clusters: shape (n,)."""
    own, sizes = one_hot.bool(), one_hot.sum(dim=0)  # (n, k), (k,)
    size = sizes.expand_as(sums)[own]  # (n,)
    within = sums[own] / (size - 1).clamp(min=1)
    between = (sums / sizes).where(~own & (sizes > 0), torch.inf).min(dim=1).values
    values = (between - within) / torch.maximum(between, within)
    return values.where((size > 1) & between.isfinite(), 0.0).nan_to_num(0.0)  # 0 / 0: all in one place


def mean_by(values: npt.NDArray[np.floating], clusters: Integers, k: int) -> Array:
    """The mean of each cluster, 0 where it is empty: ndarray, shape (k,)."""
    sizes = np.bincount(clusters, minlength=k)
    totals = np.bincount(clusters, weights=values, minlength=k)
    return totals / np.maximum(sizes, 1)


def separation(values: Array, clusters: Integers) -> float:
    """The mean over clusters, however small, of their mean silhouette.

    Examples
    --------
    >>> separation(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 2]))
    0.5
    """
    present = np.unique(clusters)
    return float(mean_by(values, clusters, int(present[-1]) + 1)[present].mean())


def best(scores: Sequence[float]) -> int:
    """The index of the highest score, the last of equals.

    Examples
    --------
    >>> best([0.5, 0.7, 0.7, 0.1])
    2
    """
    return max(range(len(scores)), key=lambda index: (scores[index], index))


def search(x: Array, recipe: Recipe, max_k: int) -> tuple[Clusterer, float]:
    """Cluster points, shape (n, r), into 2 to max_k; of equal scores the more clusters win.

    Returns
    -------
    Clusterer
    float
        Its score: the mean over clusters of the mean silhouette.
    """
    candidates = [recipe.fitted(x, k) for k in range(2, max_k + 1)]
    clusterings = [candidate.posteriors(x).argmax(axis=1) for candidate in candidates]
    values = silhouettes(x, clusterings)
    scores = [separation(v, clusters) for v, clusters in zip(values, clusterings, strict=True)]
    chosen = best(scores)
    return candidates[chosen], scores[chosen]


def kept_parts(
    before: Array, after: Array, losses: Array, parent_losses: Array | float, sizes: Integers, min_size: float
) -> npt.NDArray[np.bool_]:
    """Which parts of a cluster may stand alone.

    Parameters
    ----------
    before, after : ndarray, shape (parts,), in [-1, 1]
        Mean silhouette of each part's points in the clustering without parts and with all of them; a part must gain,
        and end above 0.
    losses : ndarray, shape (parts,), in nats
        Mean loss, which must not be below the parent's.
    parent_losses : ndarray, shape (parts,), or float, in nats
    sizes : ndarray, shape (parts,), int64
    min_size : float
        A part must not be smaller.

    Examples
    --------
    >>> before, after, losses = np.zeros(3), np.array([0.4, 0.4, -0.1]), np.array([2.0, 0.5, 2.0])
    >>> kept_parts(before, after, losses, 1.0, np.array([30, 30, 30]), 25).tolist()
    [True, False, False]
    """
    separated = after > np.maximum(before, SILHOUETTE_FLOOR)
    return np.asarray(separated & (losses >= parent_losses) & (sizes >= min_size))


def leaves_of(kept: npt.NDArray[np.bool_]) -> list[int]:
    """The leaf of each part of a cluster: parts that are not kept merge back into the first, where there are such.

    Examples
    --------
    >>> leaves_of(np.array([False, True, False])), leaves_of(np.array([True, True])), leaves_of(np.array([False]))
    ([0, 1, 0], [0, 1], [0])
    """
    merged = 0 if kept.all() else 1
    return [merged + int(kept[:part].sum()) if keep else 0 for part, keep in enumerate(kept)]


@dataclass(frozen=True, eq=False)
class Split:
    """A cluster in parts, some of them merged back.

    Parameters
    ----------
    clusterer : Clusterer
    leaves : list of int
        The leaf of each part, 0 and up.
    """

    clusterer: Clusterer
    leaves: list[int]

    def posteriors(self, x: Array) -> tuple[Integers, Array]:
        """The leaf of each point's likeliest part, and that leaf's posterior: shapes (n,)."""
        of_parts = self.clusterer.posteriors(x)  # (n, parts)
        of_leaves = of_parts @ np.eye(max(self.leaves) + 1)[self.leaves]  # (n, leaves)
        leaves = np.asarray(self.leaves)[of_parts.argmax(axis=1)]
        return leaves, of_leaves[np.arange(len(x)), leaves]


@dataclass(frozen=True, eq=False)
class Leaves:
    """The clusters of a class in the end: those that were not split, and the leaves of those that were.

    Parameters
    ----------
    clusterer : Clusterer
    splits : dict of int to Split
        By cluster; what is missing was not split.
    centers : ndarray, shape (leaves, r)
    spreads : ndarray, shape (leaves,)
        Mean squared distance of a leaf's points to its centre.
    """

    clusterer: Clusterer
    splits: dict[int, Split]
    centers: Array
    spreads: Array

    @classmethod
    def measured(cls, clusterer: Clusterer, splits: dict[int, Split], x: Array) -> Self:
        """With the centres and spreads of the points of the fit, shape (n, r)."""
        unmeasured = cls(clusterer, splits, np.empty(0), np.empty(0))
        leaves, n_leaves = unmeasured.assign(x)[0], unmeasured.first[-1]
        centers = np.stack([mean_by(column, leaves, n_leaves) for column in x.T], axis=1)
        return cls(clusterer, splits, centers, mean_by(_squares(x, centers[leaves]), leaves, n_leaves))

    @property
    def first(self) -> list[int]:
        """The first leaf of each cluster, and at the end the number of leaves."""
        counts = [max(self.splits[c].leaves) + 1 if c in self.splits else 1 for c in range(self.clusterer.k)]
        return [0, *np.cumsum(counts).tolist()]

    def assign(self, x: Array) -> tuple[Integers, Array]:
        """The leaf of each point, and its posterior there: shapes (n,)."""
        of_clusters = self.clusterer.posteriors(x)  # (n, k)
        clusters, posteriors = of_clusters.argmax(axis=1), of_clusters.max(axis=1)
        leaves = np.asarray(self.first)[clusters]
        for cluster, split in self.splits.items():
            rows = np.flatnonzero(clusters == cluster)
            if len(rows):
                within, posterior = split.posteriors(x[rows])
                leaves[rows] += within
                posteriors[rows] *= posterior
        return leaves, posteriors

    def is_part(self, leaf: int) -> bool:
        """Whether the cluster that the leaf comes from was split."""
        return bool(np.searchsorted(self.first, leaf, side="right") - 1 in self.splits)

    def closeness(self, x: Array, leaves: Integers) -> Array:
        """1 / (1 + d^2 / mean d^2) of each point to the centre of its leaf: shape (n,), in (0, 1]."""
        spreads = self.spreads[leaves]
        return 1 / (1 + _squares(x, self.centers[leaves]) / np.where(spreads > 0, spreads, 1))


def _squares(x: Array, y: Array) -> Array:
    """The squared distance of each row of one to the same row of the other: shape (n,)."""
    return np.asarray(np.square(x - y).sum(axis=1))


def split_where_worse(
    x: Array, losses: npt.NDArray[np.floating], clusterer: Clusterer, recipe: Recipe, factor: int, min_size: float
) -> dict[int, Split]:
    """Over-clustering: every cluster is clustered again, and what `kept_parts` allows becomes a leaf of its own.

    Parameters
    ----------
    x : ndarray, shape (n, r)
    losses : ndarray, shape (n,), in nats
    clusterer : Clusterer
    recipe : Recipe
    factor : int, at least 2
        Parts of each cluster; those with fewer points than that, or than min_size, are left whole.
    min_size : float

    Returns
    -------
    dict of int to Split
        Of the clusters that have a part which is kept.
    """
    clusters = clusterer.posteriors(x).argmax(axis=1)  # (n,)
    sizes = np.bincount(clusters, minlength=clusterer.k)
    parts = clusters * factor  # (n,), a whole cluster being the first part of itself
    found = {}
    for cluster in np.flatnonzero(sizes >= max(min_size, factor)).tolist():
        rows = clusters == cluster
        found[cluster] = recipe.fitted(x[rows], factor)
        parts[rows] += found[cluster].posteriors(x[rows]).argmax(axis=1)
    kept = _kept(x, losses, clusters, parts, factor, min_size).reshape(-1, factor)  # (k, factor)
    return {c: Split(model, leaves_of(kept[c])) for c, model in found.items() if kept[c].any()}


def _kept(
    x: Array,
    losses: npt.NDArray[np.floating],
    clusters: Integers,
    parts: Integers,
    factor: int,
    min_size: float,
) -> npt.NDArray[np.bool_]:
    """Which of all parts of all clusters are kept: shape (k * factor,)."""
    before, after = silhouettes(x, [clusters, parts])
    k = int(clusters.max()) + 1
    parent_losses = np.repeat(mean_by(losses, clusters, k), factor)
    of_before, of_after, of_losses = (mean_by(values, parts, k * factor) for values in (before, after, losses))
    sizes = np.bincount(parts, minlength=k * factor)
    return kept_parts(of_before, of_after, of_losses, parent_losses, sizes, min_size)
