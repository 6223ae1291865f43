"""Image classifiers that were trained elsewhere: their embedding, and their outputs read as a data set's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.pixels import Pixels
from experiments.reading.imagenet import N_CLASSES
from methods.contract import InvalidInput, Unsupported
from methods.influence_gradients import logits_of

Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "lanczos", "box", "hamming"]
BACKGROUND = "background"  # some models of ImageNet have a first output of this name, beside the classes


def audited(
    name: str, module: nn.Module, pixels: Pixels, dataset: Dataset, output_names: Sequence[str] = ()
) -> ModelUnderAudit:
    """A classifier as the model under audit of a data set; what its last linear map sees is the embedding.

    Parameters
    ----------
    name : str
        For messages.
    module : nn.Module
        Images -> logits, or an output with a field `logits`.
    pixels : Pixels
    dataset : Dataset
    output_names : sequence of str
        What each output stands for, where that is known.

    Raises
    ------
    Unsupported
        Where the data set has no images, or the module no last linear map.
    InvalidInput
        Where the outputs are not the data set's classes.
    """
    dataset.require(name, "image")
    head, n_outputs = head_of(module)
    read = class_logits(name, n_outputs, dataset, output_names)
    return ModelUnderAudit(
        module=module.to(memory_format=torch.channels_last),  # saves a CPU 20 to 50% of the time of convolutions
        preprocess=pixels,
        embedding_layer=f"{head}.input",
        to_logits=partial(_logits, read),
        grouped=read if isinstance(read, Summed) and isinstance(module.get_submodule(head), nn.Linear) else None,
        embedding_pool="mean",  # over the positions that go into a convolution; into a linear map there go none
    )


@dataclass(frozen=True)
class Summed:
    """Logits of classes that are made of several of the outputs: the logarithm of the sum of their exponentials."""

    classes: Sequence[Sequence[int]]

    def __call__(self, outputs: Tensor) -> Tensor:
        return torch.stack([outputs[:, indices].logsumexp(dim=1) for indices in self.classes], dim=1)


def _logits(read: Callable[[Tensor], Tensor], module: nn.Module, batch: Tensor) -> Tensor:
    return read(logits_of(module(batch)))


def head_of(module: nn.Module) -> tuple[str, int]:
    """The name of the last linear map and how many outputs it has; without any, those of the last convolution.

    Examples
    --------
    >>> head_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Dropout()))
    ('2', 2)
    """
    for kind, width in ((nn.Linear, "out_features"), (nn.Conv2d, "out_channels")):
        found = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kind)]
        if found:
            return found[-1][0], getattr(found[-1][1], width)
    raise Unsupported(f"{type(module).__name__} has no linear map at its end, so that its embedding is not known")


def class_logits(
    name: str, n_outputs: int, dataset: Dataset, output_names: Sequence[str] = ()
) -> Callable[[Tensor], Tensor]:
    """How (b, n_outputs) logits become (b, c) logits of the data set's classes.

    A class that is made of several of ImageNet's has the sum of their probabilities, renormalised over the classes: the
    logarithm of the sum of their exponentials. Outputs with the data set's own names are put into its order.

    Raises
    ------
    InvalidInput
        Naming both counts, where there is no such reading.
    """
    first = int(n_outputs == N_CLASSES + 1 and [*output_names[:1]] == [BACKGROUND])
    if dataset.imagenet_classes is not None and n_outputs - first == N_CLASSES:
        groups = [[index + first for index in indices] for indices in dataset.imagenet_classes]
        alone = all(len(group) == 1 for group in groups)
        return partial(_chosen, [index for (index,) in groups]) if alone else Summed(groups)
    n_classes, names = len(dataset.class_names), output_names[first:]
    if n_outputs - first != n_classes:
        raise InvalidInput(
            f"{name} has {n_outputs} outputs, expected {n_classes}, the classes of {dataset.name}: choose a model of "
            "these classes"
        )
    columns = [names.index(label) for label in dataset.class_names] if set(names) == set(dataset.class_names) else ()
    columns = [first + column for column in columns or range(n_classes)]
    return _as_they_are if columns == list(range(n_outputs)) else partial(_chosen, columns)


def _chosen(columns: Sequence[int], outputs: Tensor) -> Tensor:
    return outputs[:, columns]


def _as_they_are(outputs: Tensor) -> Tensor:
    return outputs


def changed(pixels: Pixels, **settings: Any) -> Pixels:
    """These pixels, with the settings that are given instead of their own; None is not given."""
    return replace(pixels, **{name: value for name, value in settings.items() if value is not None})


def check_takes(name: str, module: nn.Module, pixels: Pixels, device: str = "cpu") -> None:
    """Raise `InvalidInput` where a classifier cannot work with what `pixels` gives.

    Parameters
    ----------
    name : str
    module : nn.Module
    pixels : Pixels
    device : {"cpu", "meta"}
        On "meta" nothing is computed; that is for modules all of whose tensors are parameters or buffers.
    """
    state = {key: values.to(device) for key, values in (*module.named_parameters(), *module.named_buffers())}
    module.eval()
    try:
        picture = pixels(Image.new("RGB", (64, 48)))[None].to(device)
        with torch.inference_mode():
            functional_call(module, state, (picture,))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidInput(f"{name} cannot take pictures from {pixels} ({reason}): change these settings") from None
