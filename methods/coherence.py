"""How alike the training examples explain the members of a slice: what InfEmbed's clustering is meant to keep small."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from methods.errors import InvalidInput

ROWS = 65_536  # training examples are multiplied by blocks: a memory-mapped array is never copied whole


class Coherence(NamedTuple):
    """How far apart the influence explanations of a slice's members are; smaller is more coherent.

    Parameters
    ----------
    n : int
        Members.
    distance : float, in nats^2
        Mean of ||E(z) - E(w)||^2 over all ordered pairs of members, as the inner sum of equation 6 runs over them: a
        member and itself are a pair too, so that one member alone has 0. It is twice the mean squared distance to the
        slice's mean explanation.
    bound : float, in nats^2
        The right side of lemma 1, averaged alike: C ||mu(z) - mu(w)||^2 with the paper's C, the trace of the Gram
        matrix.
    tight_bound : float, in nats^2
        The same with its largest eigenvalue, the smallest constant that holds for all embeddings.
    """

    n: int
    distance: float
    bound: float
    tight_bound: float


def gram_matrix(train_embeddings: Tensor) -> Tensor:
    """What distances between influence explanations are measured with: the sum of mu(z') mu(z')^T.

    Parameters
    ----------
    train_embeddings : Tensor, shape (n', D)
        Influence embeddings of training examples under their own labels.

    Returns
    -------
    Tensor, shape (D, D), float64, on the CPU
    """
    _check("train_embeddings", train_embeddings)
    gram = torch.zeros(train_embeddings.shape[1], train_embeddings.shape[1], dtype=torch.float64)
    for start in range(0, len(train_embeddings), ROWS):
        block = train_embeddings[start : start + ROWS].double().cpu()
        gram += block.T @ block
    return gram


def coherence(gram: Tensor, slice_embeddings: Tensor) -> Coherence:
    """The mean distance between the influence explanations of a slice's members, and what lemma 1 bounds it by.

    Parameters
    ----------
    gram : Tensor, shape (D, D)
        See `gram_matrix`.
    slice_embeddings : Tensor, shape (m, D)
        Influence embeddings of the slice's members, from the same Hessian.

    Returns
    -------
    Coherence

    Raises
    ------
    InvalidInput

    Notes
    -----
    The influence explanation E(z) has an entry mu(z')^T mu(z) for each of the n' training examples. No vector of n'
    entries is needed: ||E(z) - E(w)||^2 = (mu(z) - mu(w))^T G (mu(z) - mu(w)) with the Gram matrix G, so that the mean
    over pairs is twice the sum of the entries of G times those of the covariance.

    Equation 6 sums what is averaged here: a slice adds n^2 times `distance` on its left and n^2 times `bound` on its
    right. (k-means itself makes the sum of n times these small, so that large slices count less.)

    References
    ----------
    Wang et al. (2023), equations 3, 4 and 6, lemma 1 and its proof in appendix C.2.

    Examples
    --------
    >>> gram = gram_matrix(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    >>> coherence(gram, torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
    Coherence(n=2, distance=2.0, bound=20.0, tight_bound=18.0)
    """
    _check("slice_embeddings", slice_embeddings)
    if slice_embeddings.shape[1] != len(gram):
        raise InvalidInput(
            f"slice_embeddings has {slice_embeddings.shape[1]} columns, the Gram matrix {len(gram)}: expected "
            "influence embeddings from the same Hessian"
        )
    centred = slice_embeddings.double().cpu()
    centred = centred - centred.mean(dim=0)  # (m, D)
    covariance = centred.T @ centred / len(centred)  # (D, D)
    apart = 2 * float(covariance.trace())  # mean of ||mu(z) - mu(w)||^2 over ordered pairs
    return Coherence(
        n=len(centred),
        distance=2 * max(float((gram * covariance).sum()), 0.0),  # rounding may leave less than nothing of nothing
        bound=float(gram.trace()) * apart,
        tight_bound=float(torch.linalg.eigvalsh(gram)[-1]) * apart,
    )


def _check(name: str, values: Tensor) -> None:
    if values.ndim != 2 or 0 in values.shape:
        raise InvalidInput(f"{name} has shape {tuple(values.shape)}, expected (examples, D) with an example")
    finite = torch.isfinite(values).all(dim=1)  # (rows,)
    if not finite.all():
        raise InvalidInput(f"{name} is not finite at row {int((~finite).nonzero()[0])}")
