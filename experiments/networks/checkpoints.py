"""Weights that come as files: read without running what is in them, and compared before they are used."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.console import say
from methods.contract import InvalidInput

INSIDE = ("state_dict", "model")  # under which training programs keep the weights in a larger checkpoint
OPTIONAL = "num_batches_tracked"  # the last part of names that files of early torch versions lack


class HoldsObjects(InvalidInput):
    """A file holds more than tensors, which cannot be read without running what it says."""


def identity_of(name: str, setting: str, what: str) -> str:
    """What a name stands for: of a file or folder, its content; elsewhere the name.

    Parameters
    ----------
    name : str
        A path, or the name of a model.
    setting, what : str
        Where the name stands in the config, and what it is of, for the message: "model.name", "a classifier".

    Raises
    ------
    InvalidInput
        Where there is nothing at what can only be a path.
    """
    path = Path(name)
    if not path.exists():
        if name.startswith(("/", ".", "~")):  # no model is called so: said here, a typo costs no training run
            raise InvalidInput(f"{setting} is {name!r}, expected a folder with {what} or a model's name")
        return name
    content = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
        content.update(file.name.encode() if path.is_dir() else b"")
        for block in _blocks(file):
            content.update(block)
    return content.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(partial(file.read, 1 << 20), b"")


def identity_of_file(path: Path, setting: str) -> str:
    """The content of a file of weights; `InvalidInput` where it is not there."""
    if not path.is_file():
        raise InvalidInput(f"{setting} is {str(path)!r}, expected a file with weights (.safetensors, .pt or .pth)")
    return identity_of(str(path), setting, "weights")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, those of half precision as float32.

    Parameters
    ----------
    path : Path
        A `.safetensors` file, or what `torch.save` wrote: a state dict, or a checkpoint with one inside.

    Raises
    ------
    InvalidInput
        Naming the file, what is wrong with it and what to do.
    """
    held = _read(path)
    inside = next((held[name] for name in INSIDE if _is_mapping(held) and _is_mapping(held.get(name))), held)
    if not _is_mapping(inside) or not inside or not all(isinstance(values, Tensor) for values in inside.values()):
        raise InvalidInput(f"{path} holds no state dict, expected what torch.save(model.state_dict(), ...) writes")
    for name, values in inside.items():
        if values.is_floating_point() and not values.isfinite().all():
            raise InvalidInput(f"{path}: {name} is not finite: get this file again")
    return {name: values.float() if values.is_floating_point() else values for name, values in inside.items()}


def _is_mapping(held: object) -> bool:
    return isinstance(held, Mapping)


def _read(path: Path) -> Any:
    """What a file of weights holds."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses aloud what the file may be
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InvalidInput(f"{path} is missing, expected a file with weights") from None
    except pickle.UnpicklingError as error:
        objects = re.search(r"GLOBAL (\S+)", str(error))
        raise HoldsObjects(
            f"{path} is not read: it holds {f'an object ({objects[1]})' if objects else 'something'} beside tensors, "
            "and loading that could run any code: save model.state_dict(), best as safetensors"
        ) from None
    except (SafetensorError, RuntimeError, ValueError, LookupError, EOFError, OSError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidInput(f"{path} cannot be read as weights ({reason}): get this file again") from None


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path, but: tuple[str, ...] = ()) -> None:
    """Put weights into a module, if every tensor is there in the right shape.

    Parameters
    ----------
    module : nn.Module
    weights : mapping from str to Tensor
    path : Path
        Where they are from, for messages.
    but : tuple of str
        Beginnings of names whose tensors stay as they are in the module, and are passed over in the weights.

    Raises
    ------
    InvalidInput
        Naming the first tensor that differs, and both shapes.
    """
    expected = {name: tuple(values.shape) for name, values in module.state_dict().items() if not name.startswith(but)}
    found = {name: tuple(values.shape) for name, values in weights.items() if not name.startswith(but)}
    for name in chain(expected, found):
        if found.get(name) != expected.get(name) and not (name.endswith(OPTIONAL) and name not in found):
            raise InvalidInput(f"{path} has other weights: {_difference(name, found.get(name), expected.get(name))}")
    module.load_state_dict({name: weights[name] for name in found}, strict=False)


def _difference(name: str, found: tuple[int, ...] | None, expected: tuple[int, ...] | None) -> str:
    remedy = "choose the architecture that they are of"
    if found is None:
        return f"{name} is missing, expected shape {expected}: {remedy}"
    if expected is None:
        return f"{name} of shape {found} is not in the model: {remedy}"
    return f"{name} has shape {found}, expected {expected}: {remedy}"


def downloaded(url: str, path: Path) -> Path:
    """The file at `path`, downloaded where it is not there yet.

    Torch's own convention: a name like `resnet18-f37072fd.pth` holds the beginning of the file's sha256, which is
    compared.

    Raises
    ------
    InvalidInput
        With the address, and where the file would have to lie.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    checksum = torch.hub.HASH_REGEX.search(path.name)
    say(f"downloading {url}")
    try:
        torch.hub.download_url_to_file(url, str(path), checksum and checksum[1], progress=False)
    except (OSError, RuntimeError) as error:  # no network, or another file than expected
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidInput(f"{url} cannot be downloaded ({reason}): put that file at {path}") from None
    return path
