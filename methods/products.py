"""Products of tall matrices of embeddings with a few rows of something: most of what clustering costs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_weight

BATCHES = 32  # with more than 16 torch takes oneDNN also on one thread


def products(x: Tensor, w: Tensor) -> Tensor:
    """Each row of one with each row of the other, x @ w.T: Tensor, shape (n, k).

    Single precision on a CPU goes through a convolution of width 1, which is oneDNN's, where products of matrices are
    MKL's: on a Zen 5 that took 2 to 2.5 times as long.

    Parameters
    ----------
    x : Tensor, shape (n, d), rows contiguous
    w : Tensor, shape (k, d), of the same dtype

    Examples
    --------
    >>> products(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 1.0]])).tolist()
    [[12.0], [34.0]]
    """
    if not _convolves(x):
        return (w @ x.T).T  # MKL takes this way round half the time of the other, in double precision
    return conv2d(_as_images(x), w[:, :, None, None]).permute(0, 2, 3, 1).reshape(len(x), len(w))


def sums(weights: Tensor, x: Tensor) -> Tensor:
    """The rows of x, summed with each column of weights, weights.T @ x: Tensor, shape (k, d).

    Parameters
    ----------
    weights : Tensor, shape (n, k), rows contiguous
    x : Tensor, shape (n, d), rows contiguous, of the same dtype

    Examples
    --------
    >>> sums(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[7.0, 10.0]]
    """
    if not _convolves(x):
        return weights.T @ x
    size = (weights.shape[1], x.shape[1], 1, 1)  # such sums are the gradient of the convolution's weights
    gradient: Tensor = conv2d_weight(_as_images(x), size, _as_images(weights))  # type: ignore[no-untyped-call]
    return gradient.flatten(1)


def _convolves(x: Tensor) -> bool:
    single = x.dtype == torch.float32 and x.device.type == "cpu"
    return single and len(x) >= 8 * BATCHES and len(x) % BATCHES == 0 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _as_images(rows: Tensor) -> Tensor:
    """Rows as the pixels of images, their columns as channels, without a copy: shape (batches, d, n / batches, 1)."""
    return rows.view(BATCHES, len(rows) // BATCHES, 1, rows.shape[1]).permute(0, 3, 1, 2)
