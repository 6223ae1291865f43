"""InfEmbed-Rule: split by k-means again and again until the parts are bad enough, or too small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from methods.clusters import ClusterShapes, Rank, check_columns, double_rows, nearest
from methods.contract import ModelOutputs, Slices
from methods.kmeans import kmeans_centers
from methods.ranges import check_ranges

Path = tuple[int, ...]  # the branches taken from the root, () for the root itself


@dataclass
class InfEmbedRule:
    """All nodes of a tree of k-means splits that have a low accuracy and enough examples.

    It asks for a rule in place of a number of slices, and a part that satisfies the rule is not split further. There
    may be no slice at all, or many; an example is in at most one.

    Parameters
    ----------
    max_accuracy : float, in [0, 1]
        A: the accuracy of a slice is at most this.
    min_size : int, >= 1
        S: a slice has at least this many examples, among those that the tree was grown on.
    branching : int, >= 2
        B, parts of a split; fewer where a node has fewer examples, or fewer distinct ones.
    max_depth : int, in [0, 100]
        Splits between the root and a leaf; a node at this depth is a slice or dropped. The paper gives no number, the
        released notebooks 5 or 7.
    rank : {"distance", "loss"}
        What puts an example first within its slice: being near the slice's mean, or a high loss.
    n_init : int, >= 1
        Starts of each k-means, of which the one that ends best is kept.
    seed : int, >= 0

    Attributes
    ----------
    splits_ : dict of tuple of int to Tensor, shape (b, d), float64
        The centres of each node that was split, by its path: the branches taken from the root.
    paths_ : list of tuple of int, length s
        Where the slices are, the lowest accuracy first, equal ones by mean loss.
    shapes_ : ClusterShapes
        Means and mean squared distances of the slices.
    diagnostics_ : tuple of dict, length s
        path, depth, and the size, accuracy and mean_loss (nats) among the examples that the tree was grown on.

    Raises
    ------
    InvalidInput
        Where the embeddings' dimension is not that of the fit.

    Notes
    -----
    Algorithm 6 of Wang et al. (2023), appendix C.4, with the thresholds of its ImageNet experiment (40% and 25); meant
    for influence embeddings, but any will do. A node whose examples all coincide cannot be split and is dropped. New
    examples go to the nearest centre at each split, until they reach a slice or a dropped node; among them a slice need
    not satisfy the rule. Examples in no slice have membership 0.

    Examples
    --------
    >>> embeddings = torch.tensor([[0.0], [0.1], [9.0], [9.1]]).repeat(10, 1)
    >>> losses, correct = [0, 0, 1, 1] * 10, [True, True, False, False] * 10
    >>> ids = [f"{i:02d}" for i in range(40)]
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=correct)
    >>> slices = InfEmbedRule(min_size=20, branching=2).fit(outputs).predict(outputs)
    >>> slices.members[:4].flatten().tolist(), slices.diagnostics[0]["depth"], slices.diagnostics[0]["accuracy"]
    ([False, False, True, True], 1, 0.0)
    """

    version: ClassVar[int] = 1

    max_accuracy: float = field(default=0.4, metadata={"min": 0, "max": 1})
    min_size: int = field(default=25, metadata={"min": 1})
    branching: int = field(default=3, metadata={"min": 2})
    max_depth: int = field(default=5, metadata={"min": 0, "max": 100})
    rank: Rank = "distance"
    n_init: int = field(default=1, metadata={"min": 1})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        check_ranges(self)
        x = double_rows(outputs)  # (n, d)
        self.splits_: dict[Path, Tensor] = {}
        found = sorted(self._search(x, outputs, torch.arange(len(x)), ()), key=_badness)
        self.paths_ = [tuple(entry["path"]) for entry in found]
        self.diagnostics_ = tuple(found)
        members = self._members(x)
        means = [x[of].mean(dim=0) for of in members.T]
        self.shapes_ = ClusterShapes.learned(x, members, torch.stack(means) if means else x[:0])
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        check_columns(outputs, self.shapes_.centers.shape[1])
        x = double_rows(outputs)  # (n, d)
        members = self._members(x)
        membership = self.shapes_.membership(x, members, outputs.losses, self.rank)
        return Slices(outputs.example_ids, membership, members, self.diagnostics_)

    def _search(self, x: Tensor, outputs: ModelOutputs, rows: Tensor, path: Path) -> Iterator[dict[str, Any]]:
        """The diagnostics of all slices at or below the node with these rows; its split is stored."""
        size = len(rows)
        accuracy = int(outputs.correct[rows].sum()) / size  # of whole numbers: 10 of 25 must not exceed 0.4
        if accuracy <= self.max_accuracy and size >= self.min_size:
            loss = float(outputs.losses[rows].double().mean())
            yield {"path": list(path), "depth": len(path), "size": size, "accuracy": accuracy, "mean_loss": loss}
        elif size >= self.min_size and len(path) < self.max_depth:
            centers = self._split(x[rows])
            if len(centers) > 1:
                self.splits_[path] = centers
                for branch, part in self._parts(x, rows, path):
                    yield from self._search(x, outputs, part, (*path, branch))

    def _split(self, x: Tensor) -> Tensor:
        """Centres of the parts, none of them empty: shape (b, d)."""
        centers = kmeans_centers(x, min(self.branching, len(x)), self.n_init, max_iter=300, seed=self.seed)
        sizes = nearest(x, centers).bincount(minlength=len(centers))
        return centers[sizes > 0]

    def _parts(self, x: Tensor, rows: Tensor, path: Path) -> Iterator[tuple[int, Tensor]]:
        """Each branch of a node and the rows that go there: in the fit and afterwards by the same rule."""
        branches = nearest(x[rows], self.splits_[path])  # (rows,)
        for branch in range(len(self.splits_[path])):
            yield branch, rows[branches == branch]

    def _members(self, x: Tensor) -> Tensor:
        """The slices as sets: shape (n, s), bool."""
        members = torch.zeros(len(x), len(self.paths_), dtype=torch.bool)
        for path, rows in self._routed(x, torch.arange(len(x)), ()):
            members[rows, self.paths_.index(path)] = True
        return members

    def _routed(self, x: Tensor, rows: Tensor, path: Path) -> Iterator[tuple[Path, Tensor]]:
        """The slices at or below a node and the rows that reach them."""
        if path in self.splits_:
            for branch, part in self._parts(x, rows, path):
                yield from self._routed(x, part, (*path, branch))
        elif path in self.paths_:
            yield path, rows


def _badness(diagnostics: dict[str, Any]) -> tuple[float, float]:
    return diagnostics["accuracy"], -diagnostics["mean_loss"]
