"""What methods have in common that cut the embedding space into clusters and keep the worst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from methods.contract import InvalidInput, ModelOutputs
from methods.products import products

Rank = Literal["distance", "loss"]

BLOCK_ROWS = 8_192  # in double precision at once: at 512 dimensions 34 MB


@dataclass(frozen=True, eq=False)
class Rows:
    """Embeddings that are doubled where they are looked at, so that there need not be room for all of them.

    Parameters
    ----------
    embeddings : Tensor, shape (n, d), float32
        May be memory-mapped.
    unit : bool
        Whether rows are divided by their length.

    Examples
    --------
    >>> rows = Rows(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), unit=True)
    >>> len(rows), rows[torch.tensor([0])]
    (2, tensor([[0.6000, 0.8000]], dtype=torch.float64))
    """

    embeddings: Tensor
    unit: bool = False

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Tensor, shape (rows, d), float64, on the CPU."""
        x = self.embeddings[rows].detach().cpu().double()
        return unit_rows(x) if self.unit else x

    def blocks(self) -> Iterator[slice]:
        return (slice(start, start + BLOCK_ROWS) for start in range(0, len(self), BLOCK_ROWS))


@dataclass(frozen=True, eq=False)
class ClusterStatistics:
    """How a model did on each cluster of a split.

    Parameters
    ----------
    sizes : ndarray, shape (k,), int64
    accuracies : ndarray, shape (k,), float64, in [0, 1]
    mean_losses : ndarray, shape (k,), float64, in nats
        Both are 0 for an empty cluster.
    """

    sizes: np.ndarray
    accuracies: np.ndarray
    mean_losses: np.ndarray

    @classmethod
    def of(cls, clusters: Tensor, outputs: ModelOutputs, n_clusters: int) -> Self:
        """Statistics of the clusters 0 to n_clusters - 1; examples of cluster -1 are in none.

        Parameters
        ----------
        clusters : Tensor, shape (n,), int64, in [-1, n_clusters)
        outputs : ModelOutputs
        n_clusters : int
        """
        in_one = (clusters >= 0).numpy()
        indices = clusters.numpy()[in_one]
        sizes = np.bincount(indices, minlength=n_clusters)

        def mean(values: Tensor) -> np.ndarray:
            total = np.bincount(indices, weights=values.cpu().numpy()[in_one], minlength=n_clusters)
            return total / np.maximum(sizes, 1)

        return cls(sizes, mean(outputs.correct), mean(outputs.losses))

    def worst(self, order: Literal["accuracy", "loss"], min_size: int) -> list[int]:
        """The clusters of at least `min_size` (>= 1) examples, the worst first.

        By accuracy, the lowest first, equal ones by mean loss; or by mean loss alone.

        Examples
        --------
        >>> statistics = ClusterStatistics(np.array([5, 5, 5, 1]), np.array([1, 0, 1, 0]), np.array([3, 2, 4, 9]))
        >>> statistics.worst("accuracy", min_size=2), statistics.worst("loss", min_size=2)
        ([1, 2, 0], [2, 0, 1])
        """
        accuracies = self.accuracies if order == "accuracy" else np.zeros_like(self.accuracies)
        ranked = np.lexsort((-self.mean_losses, accuracies))  # the last key counts first; stable
        return [int(cluster) for cluster in ranked if self.sizes[cluster] >= min_size]

    def of_cluster(self, cluster: int) -> dict[str, Any]:
        """Size, accuracy and mean loss of one cluster as json values."""
        return {
            "size": int(self.sizes[cluster]),
            "accuracy": float(self.accuracies[cluster]),
            "mean_loss": float(self.mean_losses[cluster]),
        }


@dataclass(frozen=True, eq=False)
class ClusterShapes:
    """Where clusters lie and how wide they are, which is what ranks the examples within them.

    Parameters
    ----------
    centers : Tensor, shape (s, d), float64
    spreads : Tensor, shape (s,), float64, >= 0
        Mean squared distance of a cluster's examples to its centre.
    """

    centers: Tensor
    spreads: Tensor

    @classmethod
    def learned(cls, x: Tensor | Rows, members: Tensor, centers: Tensor) -> Self:
        """Spreads from the examples that the clusters were fitted on.

        Parameters
        ----------
        x : Tensor, shape (n, d), float64, or Rows
        members : Tensor, shape (n, s), bool
            Each column has at least one.
        centers : Tensor, shape (s, d), float64
        """
        spreads = [_squared(x, _rows(of), c).mean() for of, c in zip(members.T, centers, strict=True)]
        return cls(centers, torch.stack(spreads) if spreads else centers.new_zeros(0))

    def membership(self, x: Tensor | Rows, members: Tensor, losses: Tensor, rank: Rank) -> Tensor:
        """Positive for members and 0 for others: precision-at-k must not be left to ties.

        By distance a member has 1 / (1 + d^2 / spread); by loss the share of the slice's members, itself among them,
        that have no larger loss.

        Parameters
        ----------
        x : Tensor, shape (n, d), float64, or Rows
        members : Tensor, shape (n, s), bool
        losses : Tensor, shape (n,), in nats
        rank : {"distance", "loss"}

        Returns
        -------
        Tensor, shape (n, s), float32, in [0, 1]
        """
        membership = torch.zeros(members.shape)
        for column in range(members.shape[1]):
            rows = _rows(members[:, column])
            if rank == "loss":
                membership[rows, column] = loss_ranks(losses[rows])
            else:
                distances = _squared(x, rows, self.centers[column])  # (members,)
                membership[rows, column] = closeness(distances, self.spreads[column])
        return membership


def _rows(members: Tensor) -> Tensor:
    return members.nonzero().flatten()


def _squared(x: Tensor | Rows, rows: Tensor, center: Tensor) -> Tensor:
    """From some rows to one centre, by blocks: shape (rows,)."""
    return torch.cat([squared_distances(x[part], center) for part in torch.split(rows, BLOCK_ROWS)])


def closeness(squared: Tensor, spread: Tensor) -> Tensor:
    """1 / (1 + d^2 / spread): Tensor, shape (m,), float32, in (0, 1].

    Where the cluster is a single point (a spread of 0), the unit of distance is that of the embeddings.

    Examples
    --------
    >>> closeness(torch.tensor([0.0, 2.0, 6.0]), torch.tensor(2.0)).tolist()
    [1.0, 0.5, 0.25]
    """
    near = 1 / (1 + squared / torch.where(spread > 0, spread, 1.0))
    return near.float().clamp_min(torch.finfo(torch.float32).tiny)  # a member, however far


def loss_ranks(losses: Tensor) -> Tensor:
    """The share of examples with no larger loss: Tensor, shape (m,), float32, in (0, 1].

    Examples
    --------
    >>> loss_ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist()
    [1.0, 0.25, 1.0, 0.5]
    """
    losses = losses.cpu()
    return torch.searchsorted(losses.sort().values, losses, right=True).float() / max(len(losses), 1)


def nearest(x: Tensor, centers: Tensor) -> Tensor:
    """The nearest centre of each row, the first of equally near ones: Tensor, shape (n,), int64.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    centers : Tensor, shape (k, d), k >= 1

    Examples
    --------
    >>> nearest(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([[1.0], [3.0]])).tolist()
    [0, 0, 1]
    """
    lengths = centers.square().sum(dim=1)  # (k,)
    scores = lengths - 2 * products(x, centers)  # (n, k), squared distances less |x|^2
    best, clusters = scores.min(dim=1)
    second = scores.scatter(1, clusters[:, None], torch.inf).amin(dim=1)
    error = 8 * x.shape[1] * torch.finfo(x.dtype).eps * (x.square().sum(dim=1) + lengths.max())  # more than of both
    # a product's rounding of a row depends on which other rows there are, so where it could decide it must not
    doubtful = (~(second - best > error)).nonzero().flatten()
    distances = torch.cdist(x[doubtful], centers, compute_mode="donot_use_mm_for_euclid_dist")  # (doubtful, k)
    clusters[doubtful] = distances.min(dim=1).indices
    return clusters


def squared_distances(x: Tensor, center: Tensor) -> Tensor:
    """From each row to one centre: Tensor, shape (n,)."""
    return (x - center).square().sum(dim=1)


def double_rows(outputs: ModelOutputs) -> Tensor:
    """The embeddings for scikit-learn: Tensor, shape (n, d), float64, on the CPU."""
    return outputs.embeddings.detach().cpu().double()


def unit_rows(embeddings: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays one.

    Parameters
    ----------
    embeddings : Tensor, shape (n, d)

    Examples
    --------
    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    # in float64, where no square of a float32 overflows or vanishes
    lengths = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True, dtype=torch.float64)  # (n, 1)
    return embeddings.div(torch.where(lengths > 0, lengths, 1.0)).to(embeddings.dtype)


def check_columns(outputs: ModelOutputs, expected: int) -> None:
    """Raise `InvalidInput` where embeddings are not of the dimension that a method was fitted on."""
    n_columns = outputs.embeddings.shape[1]
    if n_columns != expected:
        raise InvalidInput(f"embeddings has {n_columns} columns, the method was fitted on {expected}")


def check_clusters(n_clusters: int, outputs: ModelOutputs, name: str = "n_clusters") -> None:
    """Raise `InvalidInput` where there are more clusters than examples."""
    if n_clusters > outputs.n_examples:
        raise InvalidInput(f"{name} is {n_clusters}, expected at most {outputs.n_examples}, the number of examples")
