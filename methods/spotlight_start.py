"""Where spotlights start: the units of the embeddings, and the first centre and precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from methods.spotlight_rows import Rows

IN_MEMORY = 2**29  # bytes of embeddings up to which a shifted and scaled copy is made; of more, blocks are made anew
BLOCK = 256  # examples whose distances to all others are held at once
BISECTIONS = 30  # of an interval of length 12, to about a float32's precision


@dataclass(frozen=True)
class EmbeddingMap:
    """A shift, a scale and perhaps a projection, learned on one split and applied to any.

    Parameters
    ----------
    mean : Tensor, shape (d,)
    scale : Tensor, shape (), > 0
    basis : Tensor, shape (d, p), optional
        Principal directions as columns, not whitened.

    Examples
    --------
    >>> x = torch.tensor([[0.0, 1.0], [4.0, 1.0]])
    >>> EmbeddingMap.learned(x, normalise=True, n_components=None)(x).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None = None

    @classmethod
    def learned(cls, embeddings: Tensor, *, normalise: bool, n_components: int | None) -> Self:
        """Centre on the mean; divide by the root mean square distance to it if `normalise`; project if asked.

        All of it commutes with multiplying the embeddings by a power of two, bit for bit.

        Parameters
        ----------
        embeddings : Tensor, shape (n, d)
        normalise : bool
        n_components : int, in [1, min(n, d)], optional
        """
        mean = embeddings.mean(dim=0)
        scale = embeddings.new_ones(())
        if normalise:
            # examples that differ by rounding alone must not be blown up to unit size
            scale = torch.maximum(_root_mean_square(Rows(embeddings, mean, scale)), 1e-6 * mean.norm())
            scale = torch.where(scale > 0, scale, 1.0)
        if n_components is None:
            return cls(mean, scale)
        basis = _principal_directions(Rows(embeddings, mean, 1 / scale), n_components)
        if normalise:
            size = _root_mean_square(Rows(cls(mean, scale, basis)(embeddings)))
            basis = basis / torch.where(size > 0, size, 1.0)
        return cls(mean, scale, basis)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Tensor, shape (n, d) to (n, p)."""
        rows = Rows(embeddings, self.mean, 1 / self.scale)
        return rows.whole() if self.basis is None else torch.cat([block @ self.basis for _, block in rows.blocks()])

    def rows(self, embeddings: Tensor) -> Rows:
        """The same; what is too large to be held twice (on a CPU) is mapped block by block whenever it is read."""
        is_large = embeddings.nbytes > IN_MEMORY and embeddings.device.type == "cpu"
        if is_large and self.basis is None:
            return Rows(embeddings, self.mean, 1 / self.scale)
        return Rows(self(embeddings))


def _root_mean_square(rows: Rows) -> Tensor:
    return rows.norms.mean().sqrt()


def _principal_directions(centred: Rows, n_components: int) -> Tensor:
    """The first eigenvectors of the covariance, the largest eigenvalue first: shape (d, p)."""
    d = centred.n_dimensions
    covariance = centred.values.new_zeros(d, d, dtype=torch.float64)
    for _, block in centred.blocks():
        covariance += block.T @ block
    directions: Tensor = torch.linalg.eigh(covariance).eigenvectors.flip(1)  # (d, d)
    return directions[:, :n_components].to(centred.values.dtype)


def covering(rows: Rows) -> tuple[Tensor, Tensor]:
    """A spotlight at the origin that just reaches the farthest example.

    Parameters
    ----------
    rows : Rows

    Returns
    -------
    center : Tensor, shape (d,)
    log_precision : Tensor, shape ()

    Examples
    --------
    >>> center, log_precision = covering(Rows(torch.tensor([[2.0], [-1.0]])))
    >>> center.tolist(), round(log_precision.exp().item(), 6)
    ([0.0], 0.25)
    """
    farthest = rows.norms.max()
    return farthest.new_zeros(rows.n_dimensions), -torch.where(farthest > 0, farthest, 1.0).log()


def worst_balls(x: Tensor, losses: Tensor, sizes: Tensor) -> Tensor:
    """For every row of losses the example whose S nearest neighbours, itself among them, have the largest mean loss.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    losses : Tensor, shape (b, n), in nats
    sizes : Tensor, shape (b,), int64, in [1, n]

    Returns
    -------
    Tensor, shape (b,), int64
        Its row in x.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
    >>> worst_balls(x, torch.tensor([[0.0, 1.0, 2.0, 2.0]]), torch.tensor([2])).tolist()
    [2]
    """
    norms = x.square().sum(dim=1)  # (n,)
    best = losses.new_full((len(losses),), -torch.inf)
    rows = torch.zeros_like(sizes)
    for start in range(0, len(x), BLOCK):
        block = slice(start, start + BLOCK)
        distances = norms + norms[block, None] - 2 * x[block] @ x.T  # (block, n)
        neighbours = distances.topk(int(sizes.max()), largest=False).indices  # (block, largest size), nearest first
        for lane, size in enumerate(sizes.tolist()):
            mean, row = losses[lane][neighbours[:, :size]].mean(dim=1).max(dim=0)
            if mean > best[lane]:
                best[lane], rows[lane] = mean, start + row
    return rows


def precisions_of_size(distances: Tensor, sizes: Tensor) -> Tensor:
    """The precisions at which the total weights are as given, by bisection.

    Parameters
    ----------
    distances : Tensor, shape (b, n), >= 0
        Squared, from each centre to all examples.
    sizes : Tensor, shape (b,), in (0, n)
        sum(k).

    Returns
    -------
    Tensor, shape (b,)
        Log precisions, within bounds: as if the smallest and the largest distance that matter were 0.001 and 100.

    Examples
    --------
    >>> distances = torch.tensor([[0.0, 1.0, 2.0, 8.0]])
    >>> round(precisions_of_size(distances, torch.tensor([1.75])).exp().item(), 4)
    0.4167
    """
    low, high = (torch.full_like(distances[:, 0], math.log(bound)) for bound in (0.01, 1000.0))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_large = (1 - middle.exp()[:, None] * distances).relu_().sum(dim=1) > sizes
        low, high = torch.where(is_large, middle, low), torch.where(is_large, high, middle)
    return low
