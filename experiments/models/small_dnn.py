"""The small network of InfEmbed's bone-age experiment."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from torch import nn

from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.pixels import Pixels
from experiments.training import Training
from methods.contract import InvalidInput

KERNEL = 5


def _training() -> Training:
    return Training(
        epochs=20, batch_size=64, learning_rate=0.01, weight_decay=0.0, optimizer="sgd", decay_every=10, decay=0.1
    )


@dataclass(frozen=True)
class SmallDNN:
    """Blocks of convolution 5x5, ReLU, batch normalisation and max-pooling, then two linear layers.

    Parameters
    ----------
    channels : int
        Of the first block's convolution; each further one has twice as many.
    n_blocks : int
        Each halves the picture's sides.
    hidden : int
        Width of the final hidden layer: the embedding.
    image_size : int
        Pixels: of the shorter side, and of the square that is cut out of the middle.
    grey : bool
        One channel, else three.
    training : Training
        By default the paper's: SGD with momentum 0.9, its learning rate 0.01 divided by 10 every 10 epochs.

    Notes
    -----
    Wang et al. (2023), appendix G. It does not say how many blocks, channels, hidden units and epochs there are, how
    large a batch is, nor whether pictures are padded: they are here, so that only pooling makes them smaller.
    """

    version: ClassVar[int] = 1

    channels: int = field(default=16, metadata={"min": 1})
    n_blocks: int = field(default=4, metadata={"min": 1})
    hidden: int = field(default=128, metadata={"min": 1})
    image_size: int = field(default=96, metadata={"min": 1})
    grey: bool = True
    training: Training = field(default_factory=_training)

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("small_dnn", "image")
        side = self.image_size // 2**self.n_blocks  # of what the last block gives
        if side == 0:
            least = f"{2**self.n_blocks}, which {self.n_blocks} blocks halve to 1"
            raise InvalidInput(f"model.image_size is {self.image_size}, expected at least {least}")
        widths = [1 if self.grey else 3, *(self.channels * 2**block for block in range(self.n_blocks))]
        layers = OrderedDict(
            features=nn.Sequential(*(_block(*pair) for pair in pairwise(widths)), nn.Flatten()),
            hidden=nn.Sequential(nn.Linear(widths[-1] * side**2, self.hidden), nn.ReLU()),
            classifier=nn.Linear(self.hidden, len(dataset.class_names)),
        )
        half = (0.5,) * widths[0]
        pixels = Pixels(resize=self.image_size, crop=self.image_size, mean=half, std=half)
        return ModelUnderAudit(nn.Sequential(layers), pixels, embedding_layer="hidden")


def _block(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_inputs, n_outputs, KERNEL, padding=KERNEL // 2),
        nn.ReLU(),
        nn.BatchNorm2d(n_outputs),
        nn.MaxPool2d(2),
    )
