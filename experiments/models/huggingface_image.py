"""Image classifiers in the layout of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.classifiers import Interpolation, audited, changed, check_takes, head_of
from experiments.networks.pixels import Pixels
from experiments.networks.pretrained import identity_of_network, load_image_processor, load_pretrained
from methods.contract import Unsupported

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
NEAR = 0.02  # share of the standard deviation by which two programs may differ, which round to 8 bits in between
REMEDY = "say how, with model.resize, model.crop, model.mean and model.std"


@dataclass(frozen=True)
class HuggingFaceImage:
    """Any image classifier of Hugging Face (ViT, Swin, ConvNeXt, MobileNet ...), by name or from a folder.

    Outputs that have the data set's class names are put into its order; any others are taken as they come. Where the
    data set says of which of ImageNet's classes its own are made, a class has the sum of their probabilities,
    renormalised. The embedding is what the last linear map sees.

    Parameters
    ----------
    name : str
        Of a model for `AutoModelForImageClassification`, or a folder with one. No code of its own is run.
    resize, crop, mean, std, interpolation : optional
        As for `Pixels`; what is left out is as the model's `preprocessor_config.json` has it.
    """

    version: ClassVar[int] = 1

    name: str
    resize: int | tuple[int, int] | None = field(default=None, metadata={"min": 1})
    crop: int | None = field(default=None, metadata={"min": 1})
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = field(default=None, metadata={"above": 0})
    interpolation: Interpolation | None = None

    def identity(self) -> dict[str, str]:
        """Not where the model lies defines a run, but what it is."""
        return {"name": identity_of_network(self.name)}

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("image_classifier", "image")
        module = self.network()
        names = [name for _, name in sorted(module.config.id2label.items())]
        return audited(self.name, module, self.pixels(), dataset, names)

    def network(self) -> Any:
        """The classifier itself, once it is found to take such pictures and to end in a linear map."""
        module: Any = load_pretrained("AutoModelForImageClassification", self.name)
        _check_head(self.name, module)
        check_takes(self.name, module, self.pixels())
        return module

    def pixels(self) -> Pixels:
        """How a picture is prepared."""
        settings = {name: getattr(self, name) for name in ("resize", "crop", "mean", "std", "interpolation")}
        if self.resize and self.mean and self.std:
            return changed(Pixels(), **settings)
        processor = load_image_processor(self.name)
        pixels = _pixels_of(self.name, processor)
        _check_same(self.name, processor, pixels)
        return changed(pixels, **settings)


def _check_head(name: str, module: Any) -> None:
    head, n_outputs = head_of(module)
    if n_outputs != module.config.num_labels:
        raise Unsupported(
            f"{name} has {module.config.num_labels} outputs, but its last linear map ({head}) has {n_outputs}: what "
            "its embedding would be is not known"
        )


def _pixels_of(name: str, processor: Any) -> Pixels:
    """Our preparation of pictures, from the settings of theirs."""
    settings = processor.to_dict()
    mean, std = _normalisation(settings)
    return Pixels(
        resize=_side(name, settings.get("size")) if settings.get("do_resize") else None,
        crop=_square(name, settings.get("crop_size")) if settings.get("do_center_crop") else None,
        mean=mean,
        std=std,
        interpolation=RESAMPLING[settings.get("resample", 2)],
    )


def _normalisation(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of values in [0, 1], whatever theirs are scaled by."""
    largest = 255 * settings["rescale_factor"] if settings.get("do_rescale") else 255.0
    if not settings.get("do_normalize"):
        return (0.0,) * 3, (1 / largest,) * 3
    mean, std = (np.array(settings[part], dtype=np.float64) / largest for part in ("image_mean", "image_std"))
    return tuple(mean.tolist()), tuple(std.tolist())


def _side(name: str, size: Any) -> int | tuple[int, int]:
    if set(size or ()) == {"shortest_edge"}:
        return size["shortest_edge"]
    if set(size or ()) == {"height", "width"}:
        return size["height"], size["width"]
    raise Unsupported(f"{name} resizes pictures to {size}: {REMEDY}")


def _square(name: str, size: Any) -> int:
    if set(size or ()) == {"height", "width"} and size["height"] == size["width"]:
        return size["height"]
    raise Unsupported(f"{name} crops pictures to {size}, and only squares are cut out here: {REMEDY}")


def _check_same(name: str, processor: Any, pixels: Pixels) -> None:
    """Raise `Unsupported` where their preparation does something that ours does not: swaps channels, crops twice ..."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
    ours, theirs = pixels(picture), processor(picture, return_tensors="pt")["pixel_values"][0]
    if ours.shape != theirs.shape or (ours - theirs).abs().mean() > NEAR * theirs.std():
        raise Unsupported(f"{name} prepares pictures in a way of its own ({type(processor).__name__}): {REMEDY}")
