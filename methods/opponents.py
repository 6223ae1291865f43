"""The training examples that harm a slice most, and those that help it most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from methods.errors import InvalidInput

ROWS = 65_536  # training examples are multiplied by blocks: a memory-mapped array is never copied whole


class Opponent(NamedTuple):
    """A training example and its influence on a slice.

    Parameters
    ----------
    rank : int, >= 1
        1 for the strongest of its sign.
    sign : {-1, 1}
        -1 for an opponent, 1 for a proponent.
    example_id : str
    influence : float, in nats
        What the slice's total loss is predicted to gain if the example is removed and the model retrained: negative
        where the slice would be better off without it.
    """

    rank: int
    sign: int
    example_id: str
    influence: float


def opponents(
    train_embeddings: Tensor, train_ids: Sequence[str], slice_embeddings: Tensor, k: int = 50
) -> list[Opponent]:
    """The k strongest opponents of a slice, then its k strongest proponents.

    Parameters
    ----------
    train_embeddings : Tensor, shape (n', D)
        Influence embeddings mu(z') of training examples under their own labels.
    train_ids : sequence of str, length n'
    slice_embeddings : Tensor, shape (m, D)
        Influence embeddings of the slice's members, from the same Hessian.
    k : int, >= 1
        Fewer come back where fewer examples have an influence of that sign.

    Returns
    -------
    list of Opponent
        The strongest first; equal influences in the order of the rows.

    Raises
    ------
    InvalidInput

    Notes
    -----
    Influence on a slice is that on the total loss over its members: mu(z')^T sum mu(z), in float64.

    References
    ----------
    Wang et al. (2023), appendix C.6.

    Examples
    --------
    >>> train, members = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0, 0.1], [1.0, -0.1]])
    >>> for found in opponents(train, ["a", "b", "c"], members, k=1):
    ...     print(found)
    Opponent(rank=1, sign=-1, example_id='b', influence=-4.0)
    Opponent(rank=1, sign=1, example_id='a', influence=2.0)
    """
    _check(train_embeddings, train_ids, slice_embeddings, k)
    influences = _influences(train_embeddings, slice_embeddings)  # (n',)
    if not torch.isfinite(influences).all():
        row = int((~torch.isfinite(influences)).nonzero()[0])
        raise InvalidInput(f"the influence of training example {train_ids[row]!r} is not finite: look at its embedding")
    return [*_strongest(influences, train_ids, -1, k), *_strongest(influences, train_ids, 1, k)]


def _influences(train_embeddings: Tensor, slice_embeddings: Tensor) -> Tensor:
    total = slice_embeddings.double().sum(dim=0)  # (D,)
    blocks = [train_embeddings[start : start + ROWS] for start in range(0, len(train_embeddings), ROWS)]
    return torch.cat([block.to(total) @ total for block in blocks]).cpu()


def _strongest(influences: Tensor, train_ids: Sequence[str], sign: int, k: int) -> list[Opponent]:
    order = (sign * influences).argsort(descending=True, stable=True)[:k].tolist()
    of_sign = [row for row in order if sign * influences[row] > 0]
    return [Opponent(rank, sign, train_ids[row], influences[row].item()) for rank, row in enumerate(of_sign, start=1)]


def _check(train_embeddings: Tensor, train_ids: Sequence[str], slice_embeddings: Tensor, k: int) -> None:
    if k < 1:
        raise InvalidInput(f"k is {k}, expected at least 1")
    for name, values in (("train_embeddings", train_embeddings), ("slice_embeddings", slice_embeddings)):
        if values.ndim != 2 or len(values) == 0:
            raise InvalidInput(f"{name} has shape {tuple(values.shape)}, expected (examples, D) with an example")
    if train_embeddings.shape[1] != slice_embeddings.shape[1]:
        raise InvalidInput(
            f"slice_embeddings has {slice_embeddings.shape[1]} columns, train_embeddings "
            f"{train_embeddings.shape[1]}: expected influence embeddings from the same Hessian"
        )
    if len(train_ids) != len(train_embeddings):
        raise InvalidInput(f"train_ids has {len(train_ids)} entries, train_embeddings {len(train_embeddings)} rows")
