"""Image classifiers of torchvision."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)
from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.checkpoints import downloaded, identity_of_file, load_weights, read_weights
from experiments.networks.classifiers import Interpolation, audited, changed, check_takes, head_of
from experiments.networks.pixels import Pixels
from experiments.reading.imagenet import N_CLASSES
from methods.contract import InvalidInput
from methods.errors import unknown_name

IMAGENET_PIXELS = Pixels(resize=256, crop=224)
WITH_HELPERS = ("googlenet", "inception_v3")  # further classifiers inside, for training only


@dataclass(frozen=True)
class Torchvision:
    """Any image classifier of torchvision (ResNets, ViTs, ConvNeXts ...), with its ImageNet weights or your own.

    Where the data set says of which of ImageNet's classes its own are made, a class has the sum of their probabilities,
    renormalised. The embedding is what the last linear map sees; of SqueezeNets, which end in a convolution, the mean
    over positions of what that sees.

    Parameters
    ----------
    name : str
        As in `torchvision.models.list_models()`.
    weights : str, optional
        "DEFAULT" (the best), or another of torchvision's, such as IMAGENET1K_V1; they are downloaded once, and say how
        pictures are prepared. Left out: random, or from `state_dict` alone.
    state_dict : Path, optional
        A file with other weights of this architecture, `.safetensors` or what `torch.save(model.state_dict())` wrote.
        How many classes there are is seen in it. Nothing is downloaded then.
    resize, crop, mean, std, interpolation : optional
        As for `Pixels`; what is left out is as `weights` has it, else 256, 224, ImageNet's mean and std, bilinear.
    """

    version: ClassVar[int] = 1

    name: str = "resnet18"
    weights: str | None = "DEFAULT"
    state_dict: Path | None = None
    resize: int | tuple[int, int] | None = field(default=None, metadata={"min": 1})
    crop: int | None = field(default=None, metadata={"min": 1})
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = field(default=None, metadata={"above": 0})
    interpolation: Interpolation | None = None

    def identity(self) -> dict[str, str]:
        """Which weights "DEFAULT" is depends on torchvision's version, and a file is what it holds."""
        chosen = self._weights()
        named = {} if chosen is None else {"weights": chosen.name}
        if self.state_dict is None:
            return named
        return named | {"state_dict": identity_of_file(self._path(), "model.state_dict")}

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require(self.name, "image")  # before anything is downloaded
        pixels = self.pixels()
        path = self._path() if self.state_dict else self._downloaded()
        module = self._random(_n_outputs(dataset)) if path is None else self._loaded(path)
        model = audited(self.name, module, pixels, dataset)
        check_takes(self.name, module, pixels, device="meta")
        return model

    def pixels(self) -> Pixels:
        """How a picture is prepared."""
        weights = self._weights()
        pixels = IMAGENET_PIXELS if weights is None else _pixels_of(weights.transforms())
        return changed(
            pixels,
            resize=self.resize,
            crop=self.crop,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
        )

    def _weights(self) -> Any:
        """Torchvision's entry of these weights, or None."""
        import torchvision
        from torchvision.models import get_model_weights, list_models

        names = list_models(module=torchvision.models)
        if self.name not in names:
            raise InvalidInput(unknown_name(f"torchvision has no classifier {self.name!r}", self.name, names))
        if self.weights is None:
            return None
        entries = get_model_weights(self.name)
        if self.weights not in entries.__members__:
            known = ", ".join(entries.__members__)
            raise InvalidInput(f"model.weights is {self.weights!r}, expected null or, for {self.name}, one of {known}")
        return entries[self.weights]

    def _path(self) -> Path:
        assert self.state_dict is not None
        return self.state_dict.expanduser()

    def _downloaded(self) -> Path | None:
        weights = self._weights()
        if weights is None:
            return None
        file = os.path.basename(urlparse(weights.url).path)
        return downloaded(weights.url, Path(torch.hub.get_dir()) / "checkpoints" / file)

    def _loaded(self, path: Path) -> nn.Module:
        weights = {_present_name(name): values for name, values in read_weights(path).items()}
        module = self._random(N_CLASSES, weights)
        head, n_outputs = head_of(module)
        last = weights.get(f"{head}.weight")
        if last is not None and len(last) != n_outputs:
            module = self._random(len(last), weights)
        load_weights(module, weights, path)
        return _without_helpers(module)

    def _random(self, n_outputs: int, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        from torchvision.models import get_model

        options: dict[str, Any] = {}
        if self.name.startswith("vit_"):
            options["image_size"] = self.pixels().crop
        if self.name in WITH_HELPERS:
            options["aux_logits"] = any(name.lower().startswith("aux") for name in weights or ())
            options["init_weights"] = False
            options["transform_input"] = self.weights is not None  # theirs are for pictures in [-1, 1]
        try:
            return get_model(self.name, weights=None, num_classes=n_outputs, **options)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InvalidInput(f"{self.name} cannot be made: {error}: change model.crop") from None


def _without_helpers(module: nn.Module) -> nn.Module:
    for helper in ("aux1", "aux2", "AuxLogits"):
        if hasattr(module, helper):
            setattr(module, helper, None)
            module.aux_logits = False
    return module


def _n_outputs(dataset: Dataset) -> int:
    """Of random weights."""
    return len(dataset.class_names) if dataset.imagenet_classes is None else N_CLASSES


def _pixels_of(transforms: Any) -> Pixels:
    return Pixels(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _present_name(name: str) -> str:
    """The published files of DenseNets are older than a change of their layers' names."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", name)
