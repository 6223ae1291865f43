"""Train a model under audit, or load its cached weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from experiments.batches import Batches
from experiments.cache import Entry
from experiments.clock import add, stage
from experiments.compute import device_of
from experiments.console import say
from experiments.contract import Dataset, ModelUnderAudit
from experiments.files import sync_file, sync_folder
from experiments.keys import derive
from experiments.settings import Settings
from methods.contract import InvalidInput
from methods.progress import progress

VERSION = 1
KEPT = 2  # checkpoints: the newest, and the one before in case it cannot be read


@dataclass(frozen=True)
class Training:
    """How a model is trained: the mean loss of shuffled batches is minimised.

    Parameters
    ----------
    epochs, batch_size : int
        At least 1.
    learning_rate : float
        Above 0.
    weight_decay : float
        Non-negative; decoupled for adamw.
    optimizer : {"adamw", "adam", "sgd"}
    momentum : float
        Of sgd, in [0, 1).
    decay_every : int, optional
        Epochs after which the learning rate is multiplied by `decay`; it stays where this is left out.
    decay : float
        In (0, 1].
    clip : float, optional
        The largest norm of the gradient of all parameters together.
    """

    epochs: int = field(default=40, metadata={"min": 1})
    batch_size: int = field(default=32, metadata={"min": 1})
    learning_rate: float = field(default=2e-3, metadata={"above": 0})
    weight_decay: float = field(default=1e-4, metadata={"min": 0})
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = field(default=0.9, metadata={"min": 0, "below": 1})
    decay_every: int | None = field(default=None, metadata={"min": 1})
    decay: float = field(default=0.1, metadata={"above": 0, "max": 1})
    clip: float | None = field(default=None, metadata={"above": 0})

    def start(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of this module's parameters that are to be trained."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        common = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=self.momentum, **common)
        return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.optimizer](parameters, **common)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        Examples
        --------
        >>> training = Training(learning_rate=1.0, decay_every=10)
        >>> [training.rate(epoch) for epoch in (0, 9, 10)]
        [1.0, 1.0, 0.1]
        """
        return self.learning_rate * self.decay ** (epoch // self.decay_every if self.decay_every else 0)


@stage("train")
def train_or_load(settings: Settings, dataset: Dataset) -> ModelUnderAudit:
    """The model under audit with its weights: from the cache, or trained and then cached."""
    model = build_model(settings, dataset)
    check_embedding(settings, dataset, model)  # a layer that is not there must not cost a training run
    recipe = recipe_of(settings)
    if recipe is not None:
        entry = model_entry(settings, dataset)
        weights = entry.get(lambda folder: _train(model, dataset, recipe, settings, entry.scratch, folder))
        model.module.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    model.module.eval()
    return model


def check_embedding(settings: Settings, dataset: Dataset, model: ModelUnderAudit) -> None:
    """Raise `InvalidInput` where a layer is not there, or what must be computed over it has no room in memory."""
    embedding = settings.embedding.instance
    embedding.hidden_layers(model)
    if hasattr(embedding, "check"):
        embedding.check(settings, dataset, model)


def recipe_of(settings: Settings) -> Training | None:
    """How the model is trained here; None for one that comes with its weights."""
    return getattr(settings.model.instance, "training", None)


def build_model(settings: Settings, dataset: Dataset) -> ModelUnderAudit:
    """The model under audit as its loader builds it, with the key of the weights that it has or will have."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(settings.seeds.training, "initial weights"))
        model = settings.model.instance.build(dataset)
    return replace(model, key=model_entry(settings, dataset).key)


def model_entry(settings: Settings, dataset: Dataset) -> Entry:
    """Where the weights are cached."""
    depends = {
        "data": dataset.train_fingerprint or dataset.fingerprint,
        "model": settings.model.defining(),
        "seed": settings.seeds.training,
        # the data's too: a loader that reads the same files in another way leaves their fingerprint as it is
        "versions": {"data": settings.dataset.version, "model": settings.model.version, "training": VERSION},
    }
    return Entry(settings.paths.cache, "model", depends)


def _train(
    model: ModelUnderAudit, dataset: Dataset, recipe: Training, settings: Settings, scratch: Path, folder: Path
) -> None:
    split = dataset.split("train")
    batches = Batches(split, model, settings.compute, recipe.batch_size, shuffle=True)
    if batches.targets is None:
        raise InvalidInput(f"{dataset.name} has no labels on its train split, which training needs")
    device = device_of(settings.compute)
    optimizer = recipe.start(model.module.to(device))
    first = _resume(scratch, model.module, optimizer)
    steps = progress(range(first, recipe.epochs), "train", total=recipe.epochs, start=first)
    with torch.random.fork_rng():
        for epoch in steps:
            # seeded by epoch, so that a resumed training sees the same batches and the same dropout
            torch.manual_seed(derive(settings.seeds.training, f"epoch {epoch}"))
            _one_epoch(model, batches, recipe, epoch, optimizer)
            _checkpoint(scratch, model.module, optimizer, epoch + 1)
    add("train: waiting for data", batches.waited)
    for name, values in model.module.to("cpu").state_dict().items():
        np.save(folder / f"{name}.npy", values.numpy(), allow_pickle=False)


def _one_epoch(
    model: ModelUnderAudit, batches: Batches, recipe: Training, epoch: int, optimizer: torch.optim.Optimizer
) -> None:
    model.module.train()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device = parameters[0].device
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate(epoch)
    steps = progress(range(len(batches)), "batches of an epoch", len(batches))
    for _, (examples, targets) in zip(steps, batches, strict=True):
        assert targets is not None  # `_train` refuses a split without
        optimizer.zero_grad()
        model.loss(model.logits(examples.to(device)), targets.to(device)).mean().backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()


def _checkpoint(scratch: Path, module: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Weights and the optimiser's state after `epoch` epochs, without pickle; it survives a power cut."""
    tensors = {f"weight.{name}": values.contiguous() for name, values in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"state.{index}.{name}": values.contiguous() for name, values in state.items()}
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = scratch / "checkpoint.tmp"
    save_file(tensors, temporary, metadata={"sha256": _digest(tensors)})
    sync_file(temporary)
    temporary.replace(scratch / f"checkpoint-{epoch:06d}.safetensors")
    sync_folder(scratch)
    for older in sorted(scratch.glob("checkpoint-*.safetensors"))[:-KEPT]:
        older.unlink()


def _resume(scratch: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take up the newest checkpoint that can be read; returns how many epochs it has behind it."""
    for path in sorted(scratch.glob("checkpoint-*.safetensors"), reverse=True):
        tensors = _read_checkpoint(path)
        if tensors is not None:
            _restore(tensors, module, optimizer)
            return int(path.stem.removeprefix("checkpoint-"))
        path.replace(path.with_suffix(".damaged"))
        say(f"train: {path} was damaged; put aside, going on from the checkpoint before it or from the start")
    return 0


def _read_checkpoint(path: Path) -> dict[str, Tensor] | None:
    """What `_checkpoint` wrote, None where the file holds anything else."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            stored = (file.metadata() or {}).get("sha256")
    except SafetensorError:
        return None
    return tensors if stored == _digest(tensors) else None


def _restore(tensors: Mapping[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    module.load_state_dict({n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, values in tensors.items():
        if name.startswith("state."):
            _, index, kind = name.split(".", 2)
            state.setdefault(int(index), {})[kind] = values
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Safetensors has no checksum of its own."""
    digest = hashlib.sha256()
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
