"""A small network for tables that trains in seconds on one core."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from torch import nn

from experiments.batches import as_is
from experiments.contract import Dataset, ModelUnderAudit
from experiments.reading.stored import Stored
from experiments.training import Training
from methods.contract import Unsupported


def _training() -> Training:
    return Training(epochs=10, batch_size=128, learning_rate=1e-3)


@dataclass(frozen=True)
class MLP:
    """Layers of neurons for tables; the last hidden layer is the embedding.

    Parameters
    ----------
    hidden : tuple of int
        Width of each hidden layer, at least one of them; a ReLU follows each.
    training : Training
    """

    version: ClassVar[int] = 1

    hidden: tuple[int, ...] = field(default=(64, 32), metadata={"min": 1, "min_items": 1})
    training: Training = field(default_factory=_training)

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        examples = next(iter(dataset.splits.values())).examples
        dataset.require("mlp", "table")
        if isinstance(examples, Stored):
            raise Unsupported(f"{dataset.name} has a model's outputs and no features: read them with model=precomputed")
        if not examples.is_floating_point():  # rows of users, of films: 7 is no more than 3
            raise Unsupported(
                f"mlp takes quantities; the examples of {dataset.name} are whole numbers that name something"
            )
        widths = (examples.shape[1], *self.hidden)
        layers = OrderedDict(
            hidden=nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU()))),
            classifier=nn.Linear(widths[-1], len(dataset.class_names)),
        )
        return ModelUnderAudit(nn.Sequential(layers), as_is, embedding_layer="hidden")
