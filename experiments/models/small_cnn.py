"""A convolutional network that trains in seconds on one core."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from experiments.contract import Dataset, ModelUnderAudit
from experiments.training import Training


@dataclass(frozen=True)
class SmallCNN:
    """Two convolutions, one hidden layer, for small images; one channel if the first image is grey, else three.

    Parameters
    ----------
    channels : int
        Of the first convolution; the second has twice as many.
    hidden : int
        Width of the final hidden layer: the embedding.
    training : Training
    """

    version: ClassVar[int] = 1

    channels: int = field(default=16, metadata={"min": 1})
    hidden: int = field(default=64, metadata={"min": 1})
    training: Training = field(default_factory=Training)

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("small_cnn", "image")
        n_inputs = preprocess(next(iter(dataset.splits.values())).examples[0]).shape[0]
        layers = OrderedDict(
            features=nn.Sequential(
                nn.Conv2d(n_inputs, self.channels, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.Conv2d(self.channels, 2 * self.channels, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(4),
                nn.Flatten(),
            ),
            hidden=nn.Sequential(nn.Linear(32 * self.channels, self.hidden), nn.ReLU()),
            classifier=nn.Linear(self.hidden, len(dataset.class_names)),
        )
        return ModelUnderAudit(nn.Sequential(layers), preprocess, embedding_layer="hidden")


def preprocess(image: Any) -> Tensor:
    """A PIL image as a tensor, shape (channels, height, width), float32 in [0, 1]."""
    picture = image if image.mode in ("L", "RGB") else image.convert("RGB")
    pixels = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1)
