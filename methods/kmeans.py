"""k-means on the embeddings, its worst clusters first; on influence embeddings this is InfEmbed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from methods.clusters import (
    ClusterShapes,
    ClusterStatistics,
    Rank,
    Rows,
    check_clusters,
    check_columns,
    nearest,
)
from methods.contract import ModelOutputs, Slices
from methods.lloyd import centers_in_blocks
from methods.ranges import check_ranges

IN_MEMORY = 2**29  # bytes that the embeddings may take as doubles, for scikit-learn to have them


@dataclass
class KMeansSlices:
    """The k-means clusters on which the model errs most.

    The clusters come from the embeddings alone; losses and errors rank them. An example belongs to the cluster of the
    nearest centre, also an example that was not there when the clusters were fitted.

    Parameters
    ----------
    n_slices : int, >= 1
        Fewer come back where fewer clusters are large enough.
    n_clusters : int, in [1, n]
        K, the paper's number of slices: it returns all of them.
    normalise : bool
        Spherical k-means: rows are divided by their length and centres too, so that directions alone count. For
        influence embeddings: examples that the model fits well have gradients near zero, whatever their direction, and
        otherwise share one large cluster at the origin. A row of zeros has no direction and is in no slice.
    order : {"accuracy", "loss"}
        What makes a cluster worse than another: a lower accuracy (equal ones by mean loss), or a higher mean loss.
    rank : {"distance", "loss"}
        What puts an example first within its slice: being near the centre, or a high loss. Neither paper nor released
        code says.
    min_size : int, >= 1
        A cluster with fewer members, among the examples that it was fitted on, is no slice.
    n_init : int, >= 1
        Starts (k-means++), of which the one that ends best is kept.
    max_iter : int, >= 1
        Rounds of a start.
    seed : int, >= 0

    Attributes
    ----------
    centers_ : Tensor, shape (n_clusters, d), float64
        Of all clusters; fewer where fewer than n_clusters rows have a direction.
    clusters_ : list of int, length s
        The cluster of each slice, the worst first.
    shapes_ : ClusterShapes
        Centres and mean squared distances of the slices.
    diagnostics_ : tuple of dict, length s
        size, accuracy and mean_loss (nats) of each slice among the examples that it was fitted on.

    Raises
    ------
    InvalidInput
        Where there are more clusters than examples, or the embeddings' dimension is not that of the fit.

    Notes
    -----
    InfEmbed (Wang et al. 2023, algorithm 5) is this on influence embeddings: the sum of squared distances bounds, up to
    a factor, how much the influence explanations of a slice's examples differ (lemma 1). Membership is
    1 / (1 + d^2 / m), with m the mean of d^2 over the slice in the fit, and 0 for examples that are not members.

    Spherical k-means follows Dhillon and Modha (2001): the sum of cosines to the centres grows with each round.

    Embeddings that take more than 512 MB in double precision (131,072 of 512 dimensions) may be memory-mapped, and are
    not copied: they are clustered by blocks (`methods.lloyd.centers_in_blocks`), all others by scikit-learn.

    Examples
    --------
    >>> embeddings = torch.tensor([[0.0], [0.1], [9.0], [9.1]]).repeat(10, 1)
    >>> losses, correct = [0, 0, 1, 1] * 10, [True, True, False, False] * 10
    >>> ids = [f"{i:02d}" for i in range(40)]
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=correct)
    >>> slices = KMeansSlices(n_slices=1, n_clusters=2).fit(outputs).predict(outputs)
    >>> slices.members[:4, 0].tolist()
    [False, False, True, True]
    """

    version: ClassVar[int] = 3  # many examples by blocks

    n_slices: int = field(default=5, metadata={"min": 1})
    n_clusters: int = field(default=50, metadata={"min": 1})
    normalise: bool = False
    order: Literal["accuracy", "loss"] = "accuracy"
    rank: Rank = "distance"
    min_size: int = field(default=10, metadata={"min": 1})
    n_init: int = field(default=1, metadata={"min": 1})
    max_iter: int = field(default=300, metadata={"min": 1})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        return self.fit_embeddings(outputs).fit_losses(outputs)

    def fit_embeddings(self, outputs: ModelOutputs) -> Self:
        """Learn the centres, which losses do not matter to: many problems may share them."""
        check_ranges(self)
        check_clusters(self.n_clusters, outputs)
        self.centers_ = self._fitted_centers(self._rows(outputs))
        return self

    def fit_losses(self, outputs: ModelOutputs) -> Self:
        """Choose the clusters with the lowest accuracy, or the highest mean loss."""
        x = self._rows(outputs)  # (n, d)
        clusters = self._assigned(x)  # (n,)
        statistics = ClusterStatistics.of(clusters, outputs, len(self.centers_))
        self.clusters_ = statistics.worst(self.order, self.min_size)[: self.n_slices]
        self.diagnostics_ = tuple(statistics.of_cluster(cluster) for cluster in self.clusters_)
        self.shapes_ = ClusterShapes.learned(x, self._members(clusters), self.centers_[self.clusters_])
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        check_columns(outputs, self.centers_.shape[1])
        x = self._rows(outputs)  # (n, d)
        members = self._members(self._assigned(x))
        membership = self.shapes_.membership(x, members, outputs.losses, self.rank)
        return Slices(outputs.example_ids, membership, members, self.diagnostics_)

    def _rows(self, outputs: ModelOutputs) -> Rows:
        return Rows(outputs.embeddings, self.normalise)

    def _fitted_centers(self, rows: Rows) -> Tensor:
        options = (self.n_clusters, self.n_init, self.max_iter, self.seed)
        if 8 * rows.embeddings.numel() > IN_MEMORY:
            return centers_in_blocks(rows.embeddings, *options, unit=self.normalise)
        x = rows[:]  # (n, d)
        return spherical_kmeans(x[x.any(dim=1)], *options) if self.normalise else kmeans_centers(x, *options)

    def _assigned(self, rows: Rows) -> Tensor:
        """The cluster of each row, -1 where it has none: shape (n,), int64."""
        return torch.cat([self._assigned_block(rows[block]) for block in rows.blocks()])

    def _assigned_block(self, x: Tensor) -> Tensor:
        if len(self.centers_) == 0:
            return torch.full((len(x),), -1)
        clusters = nearest(x, self.centers_)
        return torch.where(x.any(dim=1), clusters, -1) if self.normalise else clusters

    def _members(self, clusters: Tensor) -> Tensor:
        """The slices as sets: shape (n, s), bool."""
        return clusters[:, None] == torch.tensor(self.clusters_, dtype=torch.long)


def kmeans_centers(x: Tensor, n_clusters: int, n_init: int, max_iter: int, seed: int) -> Tensor:
    """scikit-learn's k-means: Tensor, shape (n_clusters, d), float64.

    Parameters
    ----------
    x : Tensor, shape (n, d), float64, n >= n_clusters
    n_clusters, n_init, max_iter : int, >= 1
    seed : int
    """
    kmeans = KMeans(n_clusters, n_init=n_init, max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some are empty
        return torch.from_numpy(kmeans.fit(x.numpy()).cluster_centers_)


def spherical_kmeans(x: Tensor, n_clusters: int, n_init: int, max_iter: int, seed: int) -> Tensor:
    """k-means by cosine: the unit centres of the start with the largest sum of cosines.

    Parameters
    ----------
    x : Tensor, shape (n, d), float64
        Rows of length 1.
    n_clusters, n_init, max_iter : int, >= 1
    seed : int

    Returns
    -------
    Tensor, shape (min(n_clusters, n), d), float64
        Rows of length 1.

    Examples
    --------
    >>> from methods.clusters import unit_rows
    >>> x = unit_rows(torch.tensor([[1.0, 0.0], [5.0, 0.1], [0.0, 2.0], [0.1, 9.0]], dtype=torch.float64))
    >>> nearest(x, spherical_kmeans(x, n_clusters=2, n_init=1, max_iter=10, seed=0)).unique(return_counts=True)[1]
    tensor([2, 2])
    """
    if len(x) == 0:
        return x
    random = np.random.RandomState(seed)
    runs = []
    for _ in range(n_init):
        start, _ = kmeans_plusplus(x.numpy(), min(n_clusters, len(x)), random_state=random)
        runs.append(_climbed(x, torch.from_numpy(start), max_iter))
    return max(runs, key=lambda centers: float((x @ centers.T).amax(dim=1).sum()))


def _climbed(x: Tensor, centers: Tensor, max_iter: int) -> Tensor:
    """Unit centres of shape (k, d), once no row changes its cluster any more."""
    clusters = (x @ centers.T).argmax(dim=1)  # (n,)
    for _ in range(max_iter):
        sums = torch.zeros_like(centers).index_add_(0, clusters, x)  # (k, d)
        lengths = sums.norm(dim=1, keepdim=True)
        # an empty cluster, or one whose rows cancel each other, stays where it is
        centers = torch.where(lengths > 0, sums / lengths, centers)
        before, clusters = clusters, (x @ centers.T).argmax(dim=1)
        if torch.equal(before, clusters):
            break
    return centers
