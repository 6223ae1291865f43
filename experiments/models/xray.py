"""Chest x-ray networks of torchxrayvision, fine-tuned here."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlparse

from torch import Tensor, nn

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)
from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.checkpoints import HoldsObjects, downloaded, identity_of_file, load_weights, read_weights
from experiments.networks.pixels import Pixels
from experiments.training import Training
from methods.contract import InvalidInput

SIZES = {"densenet121": 224, "resnet50": 512}  # pixels that the published weights were trained with
HEADS = {"densenet121": "classifier", "resnet50": "fc"}
RANGE = 1024  # grey values are in [-1024, 1024]
THRESHOLDS = "op_threshs"  # beside the weights: where the published classifier would call a finding present


def _training() -> Training:
    return Training(epochs=5, batch_size=16, learning_rate=1e-4, weight_decay=0.0, optimizer="adam")


@dataclass(frozen=True)
class XRay:
    """A network trained on many chest x-rays (torchxrayvision), with a new last layer that is trained here.

    Of two classes there is one logit, and its binary cross-entropy is minimised.

    Parameters
    ----------
    architecture : {"densenet121", "resnet50"}
        Its last layer is called `classifier` or `fc`.
    weights : str, optional
        As torchxrayvision calls them: densenet121-res224-all, resnet50-res512-all ... They are downloaded once.
    state_dict : Path, optional
        A file with weights instead, whose last layer is not used. Without either, all of the network starts at random.
    image_size : int, optional
        Pixels: of the shorter side, and of the square that is cut out of the middle; by default what the published
        weights were trained with, 224 (densenet121) or 512 (resnet50).
    freeze : bool
        Train the new layer only.
    training : Training

    Notes
    -----
    Wang et al. (2023), appendix H: the text names a ResNet-50, the layers are a DenseNet's (`classifier`,
    `features.denseblock4.denselayer16.conv1` and `.conv2`). It does not say how it was trained.

    The library saved its DenseNets whole, and such files are not unpickled here: the refusal says how to make a state
    dict of one.
    """

    version: ClassVar[int] = 1

    architecture: Literal["densenet121", "resnet50"] = "densenet121"
    weights: str | None = "densenet121-res224-all"
    state_dict: Path | None = None
    image_size: int | None = field(default=None, metadata={"min": 32})
    freeze: bool = False
    training: Training = field(default_factory=_training)

    def identity(self) -> dict[str, str]:
        """A file is what it holds."""
        return {} if self.state_dict is None else {"state_dict": identity_of_file(self._path(), "model.state_dict")}

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("xray", "image")
        library, head = _library(), HEADS[self.architecture]
        n_outputs = 1 if len(dataset.class_names) == 2 else len(dataset.class_names)
        module = _random(self.architecture, library, n_outputs)
        path = self._path() if self.state_dict else self._downloaded(library)
        if path is not None:
            load_weights(module, self._read(path), path, but=(f"{head}.", THRESHOLDS))
        if self.freeze:
            _freeze(module, head)
        size = self.image_size or SIZES[self.architecture]
        pixels = Pixels(resize=size, crop=size, mean=(0.5,), std=(0.5 / RANGE,))
        return ModelUnderAudit(module, pixels, embedding_layer=f"{head}.input")

    def _path(self) -> Path:
        assert self.state_dict is not None
        return self.state_dict.expanduser()

    def _read(self, path: Path) -> dict[str, Tensor]:
        try:
            return read_weights(path)
        except HoldsObjects as error:
            if self.state_dict is not None or self.architecture != "densenet121":
                raise
            raise InvalidInput(
                f"{error}. The library publishes its DenseNets like this; if you trust it, convert it once, python -c "
                f"\"import torch, torchxrayvision as x; torch.save(x.models.DenseNet(weights='{self.weights}')"
                ".state_dict(), 'FILE.pt')\", and use model.state_dict=FILE.pt"
            ) from None

    def _downloaded(self, library: Any) -> Path | None:
        if self.weights is None:
            return None
        known = [name for name in library.models.model_urls if name.startswith(f"{self.architecture}-")]
        if self.weights not in known:
            what = f"null or, for {self.architecture}, one of {', '.join(known)}"
            raise InvalidInput(f"model.weights is {self.weights!r}, expected {what}")
        url = library.models.model_urls[self.weights]["weights_url"]
        return downloaded(url, Path(library.utils.get_cache_dir()) / os.path.basename(urlparse(url).path))


def _library() -> Any:
    try:
        with warnings.catch_warnings():  # on import, it silences all warnings of this process
            import torchxrayvision
    except ModuleNotFoundError:
        raise InvalidInput("model=xray needs torchxrayvision: pip install 'slicebench[xray]'") from None
    return torchxrayvision


def _random(architecture: str, library: Any, n_outputs: int) -> nn.Module:
    """A network with one input channel."""
    if architecture == "densenet121":
        return library.models.DenseNet(weights=None, num_classes=n_outputs)
    from torchvision.models import resnet50  # the library's own class is one around it, and wants weights

    module = resnet50(weights=None, num_classes=n_outputs)
    module.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return module


def _freeze(module: nn.Module, head: str) -> None:
    """Train the last layer only; batch normalisation does not go on counting either."""
    for name, part in module.named_children():
        if name != head:
            part.requires_grad_(False)
            part.register_forward_pre_hook(_as_in_evaluation)


def _as_in_evaluation(module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
    module.eval()
