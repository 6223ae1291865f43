"""k-means by blocks of rows: embeddings may be memory-mapped, and no second copy of them is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from methods.products import products, sums

BLOCK_ROWS = 4_096
SAMPLE = 32_768  # examples among which k-means++ chooses where to start
TOL = 1e-4  # scikit-learn's: centres that move by less, together and squared, than this share of the variance stop


class Assignment(NamedTuple):
    """Which centre is nearest to each point, and what the points of each centre sum up to.

    Parameters
    ----------
    clusters : Tensor, shape (n,), int64
    squared : Tensor, shape (n,), float32
        Distances to the nearest centre.
    sums : Tensor, shape (k, d), float64
    sizes : Tensor, shape (k,), float64
    """

    clusters: Tensor
    squared: Tensor
    sums: Tensor
    sizes: Tensor

    @property
    def inertia(self) -> float:
        return float(self.squared.sum(dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Points:
    """Embeddings about their mean or, for spherical k-means, of length 1.

    Parameters
    ----------
    embeddings : Tensor, shape (n, d), float32
    origin : Tensor, shape (d,), float32
        What is subtracted; zeros where rows get length 1.
    divisors : Tensor, shape (n, 1), float32
        The rows' lengths, or ones.
    squares : Tensor, shape (n,), float32
        Squared lengths of the points.
    unit : bool
    """

    embeddings: Tensor
    origin: Tensor
    divisors: Tensor
    squares: Tensor
    unit: bool

    @classmethod
    def of(cls, embeddings: Tensor, unit: bool) -> Self:
        n, d = embeddings.shape
        points = cls(embeddings, torch.zeros(d), torch.ones(n, 1), torch.empty(n), unit)
        if unit:
            for rows, x in points.blocks():
                lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64)  # no square vanishes
                points.divisors[rows] = torch.where(lengths > 0, lengths, 1.0).float()
        else:
            points.origin.copy_(sum((x.sum(dim=0).double() for _, x in points.blocks()), torch.zeros(())) / n)
        for rows, x in points.blocks():
            points.squares[rows] = x.square().sum(dim=1)
        return points

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.embeddings), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            yield rows, self[rows]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        x = self.embeddings[rows]
        return x / self.divisors[rows] if self.unit else x - self.origin

    def assigned(self, centers: Tensor) -> Assignment:
        """One pass over the points, for centres of shape (k, d), float64."""
        n, c = len(self.embeddings), centers.float()
        result = Assignment(
            torch.empty(n, dtype=torch.long), torch.empty(n), torch.zeros_like(centers), centers.new_zeros(len(c))
        )
        for rows, x in self.blocks():
            scores = products(x, c).mul_(-2).add_(c.square().sum(dim=1))  # (b, k), squared distances less |x|^2
            values, clusters = scores.min(dim=1)
            of_rows = torch.zeros_like(scores).scatter_(1, clusters[:, None], 1)  # (b, k), 1 at the nearest
            result.clusters[rows] = clusters
            result.squared[rows] = values.add_(self.squares[rows]).clamp_(min=0)
            result.sums.add_(sums(of_rows, x))
            result.sizes.add_(of_rows.sum(dim=0))
        return result


def centers_in_blocks(
    embeddings: Tensor, n_clusters: int, n_init: int, max_iter: int, seed: int, unit: bool = False
) -> Tensor:
    """k-means centres of many embeddings, of the start that ends best: Tensor, shape (n_clusters, d), float64.

    Distances are single, sums over examples double precision. The starts are k-means++ on a sample of 32,768 examples;
    for the rest it goes and stops as scikit-learn's does.

    Parameters
    ----------
    embeddings : Tensor, shape (n, d), float32, n >= n_clusters
        May be memory-mapped: it is read once a round. Beside it 24 bytes an example are held.
    n_clusters, n_init, max_iter : int, >= 1
    seed : int
    unit : bool
        Spherical k-means: rows are divided by their length, and centres too.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [8.0], [9.0]])
    >>> centers_in_blocks(x, n_clusters=2, n_init=1, max_iter=10, seed=0).sort(dim=0).values.tolist()
    [[0.5], [8.5]]
    """
    points, random = Points.of(embeddings.detach().cpu(), unit), np.random.RandomState(seed)
    ends = [moved(points, started(points, n_clusters, random), max_iter) for _ in range(n_init)]
    best = ends[0] if n_init == 1 else min(ends, key=lambda centers: points.assigned(centers).inertia)
    return best + points.origin.double()


def started(points: Points, n_clusters: int, random: np.random.RandomState) -> Tensor:
    """k-means++ on a sample: Tensor, shape (n_clusters, d), float64."""
    n = len(points.embeddings)
    rows = np.sort(random.choice(n, min(n, SAMPLE), replace=False))
    centers, _ = kmeans_plusplus(points[torch.from_numpy(rows)].numpy(), n_clusters, random_state=random)
    return torch.from_numpy(centers).double()


def moved(points: Points, centers: Tensor, max_iter: int) -> Tensor:
    """Lloyd's rounds, until no point changes its centre, or centres hardly move: Tensor, shape (k, d), float64."""
    enough = 0.0 if points.unit else TOL * float(points.squares.mean(dtype=torch.float64)) / centers.shape[1]
    clusters = None
    for _ in range(max_iter):
        assignment = points.assigned(centers)
        if clusters is not None and torch.equal(clusters, assignment.clusters):
            break
        clusters, before = assignment.clusters, centers
        centers = _directions(assignment, centers) if points.unit else _means(points, assignment, centers)
        if float((centers - before).square().sum()) <= enough:
            break
    return centers


def _directions(assignment: Assignment, centers: Tensor) -> Tensor:
    lengths = assignment.sums.norm(dim=1, keepdim=True)  # (k, 1)
    # an empty cluster, or one whose rows cancel each other, stays where it is
    return torch.where(lengths > 0, assignment.sums / lengths, centers)


def _means(points: Points, assignment: Assignment, centers: Tensor) -> Tensor:
    """Of the clusters; an empty one takes the point that is farthest from its own centre, as scikit-learn has it."""
    empty = (assignment.sizes == 0).nonzero().flatten().tolist()
    far = assignment.squared.topk(len(empty)).indices
    for cluster, row in zip(empty, far[assignment.squared[far] > 0].tolist(), strict=False):
        point, of = points[torch.tensor([row])][0], int(assignment.clusters[row])
        assignment.sums[of] -= point
        assignment.sizes[of] -= 1
        assignment.sums[cluster] += point
        assignment.sizes[cluster] += 1
    sizes = assignment.sizes[:, None]  # (k, 1)
    return torch.where(sizes > 0, assignment.sums / sizes, centers)
