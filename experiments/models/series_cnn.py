"""A convolutional network over time for series of any number of channels and any length."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from torch import nn

from experiments.batches import as_is
from experiments.contract import Dataset, ModelUnderAudit
from experiments.training import Training


def _training() -> Training:
    return Training(epochs=10, batch_size=32, learning_rate=1e-3)


@dataclass(frozen=True)
class SeriesCNN:
    """Convolutions over time, their mean over time, one hidden layer; for series of any length.

    Parameters
    ----------
    channels : tuple of int
        Of each convolution, at least one; each halves the length.
    kernel_size : int
        Samples that a convolution sees at once.
    hidden : int
        Width of the final hidden layer: the embedding.
    training : Training
    """

    version: ClassVar[int] = 1

    channels: tuple[int, ...] = field(default=(16, 32, 32), metadata={"min": 1, "min_items": 1})
    kernel_size: int = field(default=7, metadata={"min": 1})
    hidden: int = field(default=32, metadata={"min": 1})
    training: Training = field(default_factory=_training)

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("series_cnn", "series")
        n_inputs = next(iter(dataset.splits.values())).examples[0].shape[0]
        blocks = [self._block(before, after) for before, after in pairwise((n_inputs, *self.channels))]
        layers = OrderedDict(
            features=nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            hidden=nn.Sequential(nn.Linear(self.channels[-1], self.hidden), nn.ReLU()),
            classifier=nn.Linear(self.hidden, len(dataset.class_names)),
        )
        return ModelUnderAudit(nn.Sequential(layers), as_is, embedding_layer="hidden")

    def _block(self, before: int, after: int) -> nn.Module:
        convolution = nn.Conv1d(before, after, self.kernel_size, stride=2, padding=self.kernel_size // 2)
        return nn.Sequential(convolution, nn.BatchNorm1d(after), nn.ReLU())
