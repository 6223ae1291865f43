"""Slices drawn at random: the floor under every leaderboard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch

from methods.contract import ModelOutputs, Slices
from methods.ranges import check_ranges
from methods.sizes import check_size, largest


@dataclass
class RandomSlices:
    """Each slice is `size` examples drawn without replacement, whatever the model did.

    Parameters
    ----------
    n_slices : int
        At least 1.
    size : int
        Examples in a slice; at least 1, at most the number of examples.
    seed : int
        Non-negative.

    Examples
    --------
    >>> outputs = ModelOutputs.from_arrays("abcd", embeddings=torch.zeros(4, 1), losses=[0] * 4, correct=[1] * 4)
    >>> RandomSlices(n_slices=3, size=2).fit(outputs).predict(outputs).members.sum(dim=0).tolist()
    [2, 2, 2]
    """

    version: ClassVar[int] = 1

    n_slices: int = field(default=5, metadata={"min": 1})
    size: int = field(default=50, metadata={"min": 1})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        """Learn nothing, but refuse a slice larger than the split."""
        check_ranges(self)
        check_size(self.size, outputs)
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        generator = torch.Generator().manual_seed(self.seed)
        membership = torch.rand(outputs.n_examples, self.n_slices, generator=generator)  # (n, s)
        return Slices(outputs.example_ids, membership, largest(membership, self.size))
