"""Frozen features: what a network that was trained elsewhere makes of images, as the examples of a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from experiments import inference
from experiments.cache import Entry
from experiments.console import say
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.inference import forward
from experiments.models.huggingface_image import HuggingFaceImage
from experiments.networks.classifiers import head_of
from experiments.settings import Compute


@dataclass(frozen=True)
class Frozen:
    """What an image classifier of Hugging Face hands to its last linear map, for images of any classes.

    A small model that is trained on such features is a head on a frozen network: seconds instead of minutes.

    Parameters
    ----------
    name : str
        Of a model for `AutoModelForImageClassification`, or a folder with one.
    image_size : int
        Pixels: of the shorter side, and of the square that is cut out of the middle.
    """

    version: ClassVar[int] = 1

    name: str
    image_size: int = field(default=128, metadata={"min": 1})

    def features(self, dataset: Dataset, cache: Path, compute: Compute) -> Dataset:
        """The data set with rows of features in place of images; they are computed once for each split.

        Raises
        ------
        Unsupported
            Where the data set has no images.
        InvalidInput
            Where the network cannot be loaded.
        """
        dataset.require(f"the frozen network {self.name}", "image", classes=False)
        pretrained = HuggingFaceImage(self.name, resize=self.image_size, crop=self.image_size)
        versions = [self.version, pretrained.version, inference.VERSION]
        identity = {"versions": versions, **asdict(self), **pretrained.identity()}
        model: list[ModelUnderAudit] = []  # loaded where something is missing, once

        def values(name: str, split: Split) -> Tensor:
            depends = {"frozen": identity, "data": dataset.fingerprint, "split": name}

            def fill(folder: Path) -> None:
                say(f"{dataset.name}: features of {split.n_examples:,} {name} images by {self.name}")
                if not model:
                    model.append(_model(pretrained))
                layer = model[0].final_hidden
                rows = forward(model[0], split, [layer], compute)[layer]
                np.save(folder / "values.npy", rows, allow_pickle=False)

            return torch.from_numpy(Entry(cache, "frozen", depends).get(fill)["values"])

        splits = {name: replace(split, examples=values(name, split)) for name, split in dataset.splits.items()}
        return dataset.derived({"frozen": identity}, modality="table", splits=splits)


def _model(pretrained: HuggingFaceImage) -> ModelUnderAudit:
    module = pretrained.network()
    return ModelUnderAudit(
        module=module.to(memory_format=torch.channels_last),
        preprocess=pretrained.pixels(),
        embedding_layer=f"{head_of(module)[0]}.input",
        to_logits=lambda module, batch: module(batch).logits,
        embedding_pool="mean",
    )
