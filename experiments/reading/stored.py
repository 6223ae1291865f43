"""What a model gave elsewhere, stored: no model is needed to look for its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stored(Sequence[Tensor]):
    """The outputs of a model for the examples of a split: what `model=precomputed` reads.

    An example is the row of its embedding, followed by that of its logits.

    Parameters
    ----------
    embeddings : Tensor, shape (n, d), float32
    logits : Tensor, shape (n, c), float32, optional
        Of probabilities, their logarithms.
    losses : Tensor, shape (n,), float32, in nats, optional
        The cross-entropy of logits and labels where they are left out.
    correct : Tensor, shape (n,), bool, optional
        Whether the largest logit is the label's where it is left out.
    """

    embeddings: Tensor
    logits: Tensor | None = None
    losses: Tensor | None = None
    correct: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    @overload
    def __getitem__(self, row: int) -> Tensor: ...

    @overload
    def __getitem__(self, row: slice) -> Stored: ...

    def __getitem__(self, row: int | slice) -> Tensor | Stored:
        if isinstance(row, slice):
            return Stored(*(None if values is None else values[row] for values in vars(self).values()))
        parts = [self.embeddings[row]] if self.logits is None else [self.embeddings[row], self.logits[row]]
        return torch.cat(parts)
