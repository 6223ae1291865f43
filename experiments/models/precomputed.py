"""No model: outputs that were stored elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.batches import as_is
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.reading.stored import Stored
from methods.contract import Unsupported


@dataclass(frozen=True)
class Precomputed:
    """The outputs that a data set brings along (predictions, dcbench) instead of a model."""

    version: ClassVar[int] = 1

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        stored = next(iter(dataset.splits.values())).examples
        if not isinstance(stored, Stored):
            raise Unsupported(f"{dataset.name} has no stored outputs (dataset=predictions has): choose another model")
        return ModelUnderAudit(
            module=_Stored(stored.embeddings.shape[1]),
            preprocess=as_is,
            embedding_layer="embedding",
            to_targets=_outcomes,
            to_losses=_losses,
            to_correct=_correct,
        )


class _Stored(nn.Module):
    """Divides a row into embedding and logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.embedding = width, nn.Identity()

    def forward(self, rows: Tensor) -> Tensor:
        self.embedding(rows[:, : self.width])
        return rows[:, self.width :]


def _outcomes(split: Split) -> Tensor | None:
    """Tensor, shape (n, 2), float32: loss and correctness as they were stored, else as labels and logits say."""
    stored = split.examples
    losses, correct = stored.losses, stored.correct
    if losses is None and split.labels is not None and stored.logits is not None:
        losses = cross_entropy(stored.logits, split.labels, reduction="none")
    if correct is None and split.labels is not None and stored.logits is not None:
        correct = stored.logits.argmax(dim=1) == split.labels
    return None if losses is None or correct is None else torch.stack([losses, correct.float()], dim=1)


def _losses(logits: Tensor, outcomes: Tensor) -> Tensor:
    return outcomes[:, 0]


def _correct(logits: Tensor, outcomes: Tensor) -> Tensor:
    return outcomes[:, 1] > 0.5
