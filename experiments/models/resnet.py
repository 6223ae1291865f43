"""ResNets of torchvision, trained here from nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)
from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.pixels import Pixels
from experiments.training import Training


def _training() -> Training:
    return Training(epochs=2, batch_size=64, learning_rate=3e-4, weight_decay=0.0, optimizer="adam")


@dataclass(frozen=True)
class ResNet:
    """A ResNet (He et al. 2016) with random initial weights, trained on the data set; embeddings of 512 or 2,048.

    Parameters
    ----------
    depth : {18, 50}
    image_size : int
        Pixels: of the shorter side, and of the square that is cut out of the middle.
    training : Training
        By default the Spotlight paper's for FairFace: two epochs of Adam at 3e-4.
    """

    version: ClassVar[int] = 1

    depth: Literal[18, 50] = 18
    image_size: int = field(default=224, metadata={"min": 32})
    training: Training = field(default_factory=_training)

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("resnet", "image")
        from torchvision.models import get_model

        module = get_model(f"resnet{self.depth}", weights=None, num_classes=len(dataset.class_names))
        pixels = Pixels(resize=self.image_size, crop=self.image_size)
        return ModelUnderAudit(module, pixels, embedding_layer="avgpool")
