"""Slices of a given number of examples."""

from __future__ import annotations

import torch

from methods.contract import InvalidInput, ModelOutputs


def check_size(size: int, outputs: ModelOutputs) -> None:
    """Raise `InvalidInput` where a slice of this size does not fit into the split."""
    if size > outputs.n_examples:
        raise InvalidInput(
            f"size is {size}, expected at most {outputs.n_examples}, the number of examples of the split"
        )


def largest(membership: torch.Tensor, size: int) -> torch.Tensor:
    """The `size` largest of each column as a mask: Tensor, shape (n, s), bool. All of them where n is smaller."""
    members = torch.zeros_like(membership, dtype=torch.bool)
    rows = membership.topk(min(size, len(membership)), dim=0).indices  # (size, s)
    return members.scatter_(0, rows, True)
