"""The examples with the largest loss, taken together as one slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from scipy.stats import rankdata

from methods.contract import ModelOutputs, Slices
from methods.ranges import check_ranges
from methods.sizes import check_size, largest


@dataclass
class HighestLoss:
    """One slice: the `size` examples of highest loss.

    It ignores the embedding. Where a model has few errors outside the true slice it is hard to beat, and a few
    mislabelled examples anywhere ruin it.

    Parameters
    ----------
    size : int
        Examples in the slice; at least 1, at most the number of examples.

    Notes
    -----
    The Spotlight paper (d'Eon et al. 2022, section 4) shows these examples beside its spotlights.

    Examples
    --------
    >>> outputs = ModelOutputs.from_arrays("abc", embeddings=torch.zeros(3, 1), losses=[0, 2, 1], correct=[1, 0, 0])
    >>> HighestLoss(size=2).fit(outputs).predict(outputs).members.flatten().tolist()
    [False, True, True]
    """

    version: ClassVar[int] = 1

    size: int = field(default=50, metadata={"min": 1})

    def fit(self, outputs: ModelOutputs) -> Self:
        """Learn nothing, but refuse a slice larger than the split."""
        check_ranges(self)
        check_size(self.size, outputs)
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        # ranks and not losses: membership must lie in [0, 1] whatever the losses' scale and sign
        ranks = torch.from_numpy(rankdata(outputs.losses.cpu().numpy()))
        membership = (ranks / outputs.n_examples).float().unsqueeze(1)  # (n, 1)
        return Slices(outputs.example_ids, membership, largest(membership, self.size))
