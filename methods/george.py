"""GEORGE: slices from clusters within each class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from methods.contract import InvalidInput, ModelOutputs, Slices, Unsupported
from methods.george_clusters import Array, Integers, Leaves, Recipe, mean_by, search, split_where_worse
from methods.george_reduce import Embeddings, Reduction, decision_normal, reducer_for
from methods.progress import progress
from methods.ranges import check_ranges


class OfClass(NamedTuple):
    """What was learned about the examples of one class.

    Parameters
    ----------
    reduction : Reduction
    leaves : Leaves
    silhouette : float, in [-1, 1]
        Of the number of clusters that was chosen.
    sizes : ndarray, shape (leaves,), int64
    losses : ndarray, shape (leaves,), in nats
        Means.
    """

    reduction: Reduction
    leaves: Leaves
    silhouette: float
    sizes: Integers
    losses: Array


@dataclass
class GEORGE:
    """The clusters within classes that have the highest mean loss.

    The examples of each class are reduced to few dimensions and clustered, so a slice never spans two labels. An
    example belongs to one cluster of its class; its membership there is the posterior of a mixture, and of k-means
    1 / (1 + d^2 / mean d^2) with its distance d to the centre.

    Parameters
    ----------
    n_slices : int
        At least 1; fewer come back where there are fewer clusters.
    reduce : {"umap", "pca", "none", "hardness"}
        "hardness", for two classes: the component along the normal of the decision boundary, and UMAP of what is left
        in the n_components - 1 others. The normal is a least-squares fit of the difference of the logits on the
        embeddings, which on final hidden ones is that of the last layer's weights (their release reads those).
    n_components : int
        Dimensions of the reduction; at least 1.
    n_neighbors : int
        Of UMAP; at least 2.
    min_dist : float
        Of UMAP; in [0, 1].
    normalise : bool
        Divide each embedding by its length first.
    cluster : {"gmm", "kmeans"}
        A Gaussian mixture with full covariances, or k-means.
    max_k : int
        A class gets the number of clusters in 2 to max_k with the highest mean over clusters of the mean silhouette.
    n_init : int
        Starts of each clustering, the best of which counts; at least 1.
    overcluster : int
        1 for none (the default of their release). Otherwise each cluster is clustered again into so many parts (there
        5), and a part becomes a slice of its own where its silhouette gains and is positive, its mean loss is not
        below its cluster's, and it is large enough; the others merge back.
    min_size : int
        A part needs so many examples, and min_share of its class; at least 1.
    min_share : float
        In [0, 1].
    min_class_size : int
        A class with fewer examples is refused; at least 3. The paper's rule calls no part of fewer than 25 examples
        reliable, so we ask for three times as many: with the 50 a class of ImageNet's validation split two clusters
        would exhaust a class, and there is nothing left to choose (d'Eon et al. saw it fail there).
    seed : int
        Of UMAP and of the clustering; non-negative.

    Attributes
    ----------
    classes_ : dict of int to OfClass
        By label; a label without examples is missing, and its later examples are in no slice.
    slices_ : list of (int, int)
        Label and cluster of each slice, the worst first.

    Raises
    ------
    Unsupported
        Without labels; where a class has too few examples; where "hardness" does not have two classes' logits.
    InvalidInput
        Where a covariance is not positive definite.

    Notes
    -----
    The first stage of Sohoni et al. (2020), which estimates subclasses, with the ranking by mean loss of d'Eon et al.
    (2022, section 4). Their release asks a part for 25 examples in the validation split too, which is not here.
    Silhouettes take time in the square of a class's size.

    Examples
    --------
    >>> ids = [f"{i:03d}" for i in range(160)]
    >>> embeddings = torch.tensor([[1.0, 0.0], [9.0, 0.0], [0.0, 1.0], [0.0, 9.0]]).repeat(40, 1)
    >>> embeddings += 0.1 * torch.randn(160, 2, generator=torch.Generator().manual_seed(0))
    >>> labels, losses, correct = [0, 0, 1, 1] * 40, [0.0, 2.0, 0.0, 1.0] * 40, [True, False, True, False] * 40
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, losses=losses, correct=correct)
    >>> slices = GEORGE(n_slices=2, reduce="none", normalise=False, max_k=3).fit(outputs).predict(outputs)
    >>> slices.members[:4].int().tolist()
    [[0, 0], [1, 0], [0, 0], [0, 1]]
    """

    version: ClassVar[int] = 1

    n_slices: int = field(default=5, metadata={"min": 1})
    reduce: Literal["umap", "pca", "none", "hardness"] = "umap"
    n_components: int = field(default=2, metadata={"min": 1})
    n_neighbors: int = field(default=10, metadata={"min": 2})
    min_dist: float = field(default=0.0, metadata={"min": 0, "max": 1})
    normalise: bool = True
    cluster: Literal["gmm", "kmeans"] = "gmm"
    max_k: int = field(default=10, metadata={"min": 2})
    n_init: int = field(default=3, metadata={"min": 1})
    overcluster: int = field(default=1, metadata={"min": 1})
    min_size: int = field(default=25, metadata={"min": 1})
    min_share: float = field(default=0.005, metadata={"min": 0, "max": 1})
    min_class_size: int = field(default=75, metadata={"min": 3})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        check_ranges(self)
        labels = _labels(outputs)
        self._check_class_sizes(labels)
        embeddings, losses = outputs.embeddings.cpu().numpy(), outputs.losses.cpu().numpy()
        normal = self._normal(outputs)
        self.classes_ = {}
        present = np.unique(labels).tolist()
        for label in progress(present, "classes", len(present)):
            rows = labels == label
            self.classes_[label] = self._of_class(label, embeddings[rows], losses[rows], normal)
        self.slices_ = self._worst()
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        labels, embeddings = _labels(outputs), outputs.embeddings.cpu().numpy()
        membership = torch.zeros(outputs.n_examples, len(self.slices_))  # (n, s)
        for label in {label for label, _ in self.slices_} & set(labels.tolist()):
            rows = np.flatnonzero(labels == label)
            clusters, closeness = self._assigned(label, embeddings[rows])  # (rows,) both
            for column in [s for s, slice_ in enumerate(self.slices_) if slice_[0] == label]:
                inside = clusters == self.slices_[column][1]
                membership[rows[inside], column] = torch.from_numpy(closeness[inside]).float().clamp(0, 1)
        diagnostics = tuple(self._diagnostics(*slice_) for slice_ in self.slices_)
        return Slices(outputs.example_ids, membership, membership > 0, diagnostics)

    def _check_class_sizes(self, labels: Integers) -> None:
        needed = max(self.min_class_size, self.max_k + 1)
        if self.reduce in ("umap", "hardness"):
            needed = max(needed, self.n_neighbors + 1)
        for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
            if size < needed:
                raise Unsupported(
                    f"class {label} has {size} examples, GEORGE needs at least {needed} in each class to cluster it "
                    f"(min_class_size={self.min_class_size}, max_k={self.max_k}, n_neighbors={self.n_neighbors})"
                )

    def _normal(self, outputs: ModelOutputs) -> Array | None:
        if self.reduce != "hardness":
            return None
        if outputs.logits is None:
            raise Unsupported("reduce=hardness needs logits; these outputs have none: choose reduce=umap")
        if outputs.logits.shape[1] != 2:
            n_classes = outputs.logits.shape[1]
            raise Unsupported(f"reduce=hardness is for two classes, these are {n_classes}: choose reduce=umap")
        return decision_normal(outputs.embeddings.cpu().numpy(), outputs.logits.cpu().numpy())

    def _of_class(
        self, label: int, embeddings: Embeddings, losses: npt.NDArray[np.float32], normal: Array | None
    ) -> OfClass:
        reduction = self._reduction(embeddings.shape, normal)
        reduction.fit(embeddings)
        x = reduction(embeddings)  # (n, r)
        try:
            leaves, silhouette = self._leaves(x, losses)
        except ValueError as error:
            raise InvalidInput(
                f"class {label} cannot be clustered ({error}): choose reduce=pca or cluster=kmeans"
            ) from None
        clusters, n_leaves = leaves.assign(x)[0], leaves.first[-1]
        sizes = np.bincount(clusters, minlength=n_leaves)
        return OfClass(reduction, leaves, silhouette, sizes, mean_by(losses, clusters, n_leaves))

    def _reduction(self, shape: tuple[int, ...], normal: Array | None) -> Reduction:
        n_components = self.n_components - (normal is not None)
        if self.reduce == "none" or n_components == 0:
            return Reduction(self.normalise, normal)
        kind: Literal["umap", "pca"] = "pca" if self.reduce == "pca" else "umap"
        reducer = reducer_for(kind, shape, n_components, self.n_neighbors, self.min_dist, self.seed)
        return Reduction(self.normalise, normal, reducer)

    def _leaves(self, x: Array, losses: npt.NDArray[np.float32]) -> tuple[Leaves, float]:
        recipe = Recipe(self.cluster, self.n_init, self.seed)
        clusterer, silhouette = search(x, recipe, self.max_k)
        splits = {}
        if self.overcluster > 1:
            min_size = max(self.min_share * len(x), self.min_size)
            splits = split_where_worse(x, losses, clusterer, recipe, self.overcluster, min_size)
        return Leaves.measured(clusterer, splits, x), silhouette

    def _worst(self) -> list[tuple[int, int]]:
        """Label and cluster, by mean loss; clusters that no example is in are none."""
        slices = [(label, int(c)) for label, learned in self.classes_.items() for c in np.flatnonzero(learned.sizes)]
        return sorted(slices, key=lambda slice_: -self.classes_[slice_[0]].losses[slice_[1]])[: self.n_slices]

    def _assigned(self, label: int, embeddings: Embeddings) -> tuple[Integers, Array]:
        """The cluster of each example of a class, and its membership there: shapes (n,)."""
        learned = self.classes_[label]
        x = learned.reduction(embeddings)  # (n, r)
        clusters, posteriors = learned.leaves.assign(x)
        return clusters, posteriors if self.cluster == "gmm" else learned.leaves.closeness(x, clusters)

    def _diagnostics(self, label: int, cluster: int) -> dict[str, Any]:
        learned = self.classes_[label]
        return {
            "label": label,
            "cluster": cluster,
            "n_clusters": int((learned.sizes > 0).sum()),
            "silhouette": learned.silhouette,
            "size": int(learned.sizes[cluster]),
            "mean_loss": float(learned.losses[cluster]),
            "part": learned.leaves.is_part(cluster),
        }


def _labels(outputs: ModelOutputs) -> Integers:
    if outputs.labels is None:
        raise Unsupported("GEORGE clusters each class: it needs labels, and these outputs have none")
    return outputs.labels.cpu().numpy()
