"""Where Domino's mixture starts: its coordinates, and who answers for whom at first."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn.functional import one_hot

from methods.clusters import nearest
from methods.domino_mixture import Block, Examples, Responsibilities
from methods.kmeans import IN_MEMORY
from methods.lloyd import centers_in_blocks

BLOCK_ROWS = 8_192  # at 512 dimensions 17 MB at once, however many examples there are


@dataclass(frozen=True, eq=False)
class Projection:
    """The mean of some embeddings and perhaps their principal directions.

    Parameters
    ----------
    mean : Tensor, shape (d,), float64
    basis : Tensor, shape (d, p), float32, optional
        Principal directions as columns, the largest variance first, not whitened.

    Examples
    --------
    >>> projection = Projection.learned(torch.tensor([[0.0, 1.0], [4.0, 1.0]]), n_components=1)
    >>> projection.coordinates(torch.tensor([[3.0, 7.0]])).abs().tolist()
    [[1.0]]
    """

    mean: Tensor
    basis: Tensor | None = None

    @classmethod
    def learned(cls, embeddings: Tensor, n_components: int | None) -> Self:
        """From embeddings of shape (n, d); no more than min(n, d) components are kept, all of d where None is asked."""
        # single within a block, double over blocks: to double the embeddings takes longer than an iteration of the fit
        mean = sum((block.sum(dim=0).double() for block in _blocks(embeddings)), torch.zeros(())) / len(embeddings)
        if n_components is None:
            return cls(mean)
        centre, n_kept = mean.float(), min(n_components, *embeddings.shape)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
        for block in _blocks(embeddings):
            centred = block - centre
            covariance += centred.T @ centred
        directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)  # (d, d)
        return cls(mean, directions[:, :n_kept].float())

    def coordinates(self, embeddings: Tensor) -> Tensor:
        """Tensor, shape (n, d) to (n, p); without a basis the embeddings themselves, not copied."""
        if self.basis is None:
            return embeddings
        coordinates = embeddings.new_empty(len(embeddings), self.basis.shape[1])
        for block, into in zip(_blocks(embeddings), _blocks(coordinates), strict=True):
            torch.matmul(block - self.mean.float(), self.basis, out=into)
        return coordinates

    @property
    def shift(self) -> Tensor:
        """What is yet to be subtracted from the coordinates: Tensor, shape (p,) or (), float64.

        A number of single precision, so that in either precision the same is subtracted.
        """
        return self.mean.float().double() if self.basis is None else self.mean.new_zeros(())


def _blocks(embeddings: Tensor) -> Iterator[Tensor]:
    return (embeddings[start : start + BLOCK_ROWS] for start in range(0, len(embeddings), BLOCK_ROWS))


def from_confusion(n_components: int, n_classes: int, noise: float, seed: int) -> Responsibilities:
    """Each component answers for one (label, prediction) cell of the confusion matrix, round and round.

    Parameters
    ----------
    n_components : int, at least n_classes squared
    n_classes : int
    noise : float, non-negative
        Largest uniform disturbance, without which the components of one cell would stay the same for ever.
    seed : int

    Notes
    -----
    The start of Eyuboglu et al. (2022), with soft predictions and the noise of their release.
    """
    generator = torch.Generator().manual_seed(seed)

    def of_block(block: Block) -> tuple[Tensor, Tensor]:
        labels = one_hot(block.labels, n_classes)  # (b, c)
        cells = (labels[:, :, None] * block.predictions[:, None, :]).flatten(1)  # (b, c * c)
        rounds = -(-n_components // cells.shape[1])
        weights = cells.repeat(1, rounds)[:, :n_components]  # (b, k)
        weights = weights / weights.sum(dim=1, keepdim=True)
        # drawn on the CPU: the same start on every device
        weights += noise * torch.rand(weights.shape, generator=generator, dtype=torch.float64).to(weights.device)
        return weights / weights.sum(dim=1, keepdim=True), weights.new_zeros(len(weights))

    return of_block


def from_kmeans(examples: Examples, n_components: int, seed: int) -> Responsibilities:
    """Each component answers for one cluster of the coordinates: the start of Domino's last release."""
    clusters = _clusters(examples.coordinates, n_components, seed).to(examples.labels.device)  # (n,)

    def of_block(block: Block) -> tuple[Tensor, Tensor]:
        weights = one_hot(clusters[block.rows], n_components).to(block.squares.dtype)
        return weights, weights.new_zeros(len(weights))

    return of_block


def _clusters(coordinates: Tensor, n_clusters: int, seed: int) -> Tensor:
    """The k-means cluster of each example: scikit-learn's where it may have a copy, else by blocks."""
    if 4 * coordinates.numel() > IN_MEMORY:
        centers = centers_in_blocks(coordinates, n_clusters, n_init=1, max_iter=300, seed=seed)
        return torch.cat([nearest(block.cpu().double(), centers) for block in _blocks(coordinates)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: some stay empty
        kmeans = KMeans(n_clusters, n_init=1, random_state=seed).fit(coordinates.cpu().numpy())
    return torch.from_numpy(kmeans.labels_).long()
