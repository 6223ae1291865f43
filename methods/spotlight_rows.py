"""The examples that spotlights move over: embeddings, shifted and scaled, in memory or on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BLOCK_ROWS = 8_192  # made at once where not all are held: 17 MB of 512 dimensions


@dataclass(frozen=True, eq=False)
class Rows:
    """n examples of d dimensions, (values - shift) * factor, or the values themselves.

    Parameters
    ----------
    values : Tensor, shape (n, d)
        May be mapped from a file: then it is read in blocks, and never held as a whole.
    shift : Tensor, shape (d,), optional
    factor : Tensor, shape (), optional
        Given together with `shift`.

    Examples
    --------
    >>> rows = Rows(torch.tensor([[1.0], [3.0]]), shift=torch.tensor([2.0]), factor=torch.tensor(0.5))
    >>> rows.whole().tolist(), rows.norms.tolist(), rows[torch.tensor([1])].tolist()
    ([[-0.5], [0.5]], [0.25, 0.25], [[0.5]])
    """

    values: Tensor
    shift: Tensor | None = None
    factor: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self._mapped(self.values[rows])

    @property
    def n_dimensions(self) -> int:
        return self.values.shape[1]

    @cached_property
    def norms(self) -> Tensor:
        """Squared lengths: shape (n,)."""
        norms = self.values.new_empty(len(self))
        for at, block in self.blocks():
            norms[at] = torch.linalg.vecdot(block, block)
        return norms

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All of it, block by block, and where each block stands."""
        for start in range(0, len(self), BLOCK_ROWS):
            at = slice(start, start + BLOCK_ROWS)
            yield at, self[at]

    def whole(self) -> Tensor:
        """All of it at once: shape (n, d)."""
        return self._mapped(self.values)

    def _mapped(self, values: Tensor) -> Tensor:
        if self.shift is None or self.factor is None:
            return values
        return values.sub(self.shift).mul_(self.factor)
