"""From a picture to the tensor that a network wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pixels:
    """Resize, crop the centre, scale to [0, 1], subtract the mean, divide by the standard deviation.

    Parameters
    ----------
    resize : int or pair of int, optional
        Pixels of the shorter side, or (height, width) whatever the picture's shape; left out, it keeps its size.
    crop : int, optional
        Pixels of both sides of the square that is cut out of the middle.
    mean, std : tuple of float
        One a channel: three of them make the picture RGB, one makes it grey.
    interpolation : str
        A name of torchvision's `InterpolationMode`, in lower case.

    Examples
    --------
    >>> Pixels(resize=8, crop=4, mean=(0.5,), std=(0.5,))(Image.new("RGB", (20, 30), "white")).unique()
    tensor([1.])
    """

    resize: int | tuple[int, int] | None = field(default=None, metadata={"min": 1})
    crop: int | None = field(default=None, metadata={"min": 1})
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __call__(self, image: Any) -> Tensor:
        """Tensor, shape (channels, height, width), float32."""
        return self._steps(image.convert("L" if len(self.mean) == 1 else "RGB"))

    @cached_property
    def _steps(self) -> Callable[[Image.Image], Tensor]:
        from torchvision.transforms import InterpolationMode, v2  # two seconds

        steps: list[Any] = []
        if self.resize is not None:
            steps.append(v2.Resize(self.resize, interpolation=InterpolationMode(self.interpolation), antialias=True))
        if self.crop is not None:
            steps.append(v2.CenterCrop(self.crop))
        return v2.Compose(
            [*steps, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)]
        )
