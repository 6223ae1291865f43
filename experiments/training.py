"""Train a model under audit, or load its cached weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from experiments.cache import Entry
from experiments.clock import stage
from experiments.compute import device_of
from experiments.console import say
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.files import sync_file, sync_folder
from experiments.keys import derive
from experiments.settings import Compute, Settings
from methods.contract import InvalidInput
from methods.progress import progress

VERSION = 1
KEPT = 2  # checkpoints: the newest, and the one before in case it cannot be read


@dataclass(frozen=True)
class Training:
    """How a model is trained: Adam on the mean loss of shuffled batches.

    Parameters
    ----------
    epochs, batch_size : int
        At least 1.
    learning_rate : float
        Above 0.
    weight_decay : float
        Non-negative; decoupled (AdamW).
    """

    epochs: int = field(default=40, metadata={"min": 1})
    batch_size: int = field(default=32, metadata={"min": 1})
    learning_rate: float = field(default=2e-3, metadata={"above": 0})
    weight_decay: float = field(default=1e-4, metadata={"min": 0})


@stage("train")
def train_or_load(settings: Settings, dataset: Dataset) -> ModelUnderAudit:
    """The model under audit with its weights: from the cache, or trained and then cached."""
    loader, seed = settings.model.instance, settings.seeds.training
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "initial weights"))
        model = loader.build(dataset)
    settings.embedding.instance.hidden_layers(model)  # a layer that is not there must not cost a training run
    entry = model_entry(settings, dataset)
    weights = entry.get(lambda folder: _train(model, dataset, loader.training, settings, entry.scratch, folder))
    model.module.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    model.module.eval()
    return replace(model, key=entry.key)


def model_entry(settings: Settings, dataset: Dataset) -> Entry:
    """Where the weights are cached."""
    depends = {
        "data": dataset.fingerprint,
        "model": settings.model.defining(),
        "seed": settings.seeds.training,
        "versions": {"model": settings.model.version, "training": VERSION},
    }
    return Entry(settings.paths.cache, "model", depends)


def _train(
    model: ModelUnderAudit, dataset: Dataset, recipe: Training, settings: Settings, scratch: Path, folder: Path
) -> None:
    split = dataset.split("train")
    if split.labels is None:
        raise InvalidInput(f"{dataset.name} has no labels on its train split, which training needs")
    device = device_of(settings.compute)
    model.module.to(device)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    first = _resume(scratch, model.module, optimizer)
    with torch.random.fork_rng():
        for epoch in progress(range(first, recipe.epochs), "train", total=recipe.epochs, start=first):
            # seeded by epoch, so that a resumed training sees the same batches and the same dropout
            torch.manual_seed(derive(settings.seeds.training, f"epoch {epoch}"))
            _one_epoch(model, split, recipe, settings.compute, optimizer)
            _checkpoint(scratch, model.module, optimizer, epoch + 1)
    for name, values in model.module.to("cpu").state_dict().items():
        np.save(folder / f"{name}.npy", values.numpy(), allow_pickle=False)


def _one_epoch(
    model: ModelUnderAudit, split: Split, recipe: Training, compute: Compute, optimizer: torch.optim.Optimizer
) -> None:
    model.module.train()
    device = device_of(compute)
    batches = DataLoader(
        Preprocessed(split, model), batch_size=recipe.batch_size, shuffle=True, num_workers=compute.workers
    )
    for examples, labels in batches:
        optimizer.zero_grad()
        logits = model.logits(examples.to(device))
        model.loss(logits, labels.to(device)).mean().backward()
        optimizer.step()


class Preprocessed(TorchDataset[tuple[Tensor, Tensor]]):
    """A split as torch's data loader wants it: (preprocessed example, label); the label is -1 where there is none."""

    def __init__(self, split: Split, model: ModelUnderAudit) -> None:
        self.split, self.preprocess = split, model.preprocess

    def __len__(self) -> int:
        return self.split.n_examples

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        label = torch.tensor(-1) if self.split.labels is None else self.split.labels[row]
        return self.preprocess(self.split.examples[row]), label


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
