"""Run the model under audit over the splits that are asked for, once, and keep what it gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.cache import Arrays, Entry
from experiments.clock import stage
from experiments.compute import device_of
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.settings import Compute, Settings
from experiments.training import Preprocessed
from methods.progress import progress

VERSION = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model gave on one split.

    Parameters
    ----------
    split : Split
    logits : Tensor, shape (n, c), float32
    losses : Tensor, shape (n,), float32, in nats, optional
        None where the split has no labels; so is `correct`.
    correct : Tensor, shape (n,), bool, optional
    hidden : mapping from layer name to Tensor of shape (n, d), float32
        The outputs of the layers that the embedding asked for, flattened.
    """

    split: Split
    logits: Tensor
    losses: Tensor | None
    correct: Tensor | None
    hidden: Mapping[str, Tensor]


@stage("infer")
def infer(settings: Settings, dataset: Dataset, model: ModelUnderAudit) -> dict[str, Predictions]:
    """Predictions on every split that the run needs, cached; one forward pass gives logits and hidden layers."""
    return {name: _predict(settings, dataset, model, name) for name in needed_splits(settings)}


def needed_splits(settings: Settings) -> list[str]:
    return list(dict.fromkeys([settings.evaluation.fit_split, settings.evaluation.score_split]))


def forward_entries(settings: Settings, dataset: Dataset, model: ModelUnderAudit, split: str) -> dict[str, Entry]:
    """Where the outputs of a forward pass are cached: one entry for `logits`, one for each layer."""
    common = {"model": model.key, "data": dataset.fingerprint, "split": split, "version": VERSION}
    outputs = ("logits", *settings.embedding.instance.layers(model))
    return {name: Entry(settings.paths.cache, "forward", {**common, "output": name}) for name in outputs}


def _predict(settings: Settings, dataset: Dataset, model: ModelUnderAudit, name: str) -> Predictions:
    split = dataset.split(name)
    outputs = _forward(forward_entries(settings, dataset, model, name), model, split, settings.compute)
    logits = outputs.pop("logits")
    losses = None if split.labels is None else model.loss(logits, split.labels)
    correct = None if split.labels is None else logits.argmax(dim=1) == split.labels
    return Predictions(split, logits, losses, correct, outputs)


def _forward(entries: Mapping[str, Entry], model: ModelUnderAudit, split: Split, compute: Compute) -> dict[str, Tensor]:
    """What is cached is read; all that is missing is computed in one pass."""
    found = {name: entry.load() for name, entry in entries.items()}
    if any(arrays is None for arrays in found.values()):
        with entries["logits"].locked():
            found = {name: entry.load() for name, entry in entries.items()}
            missing = [name for name, arrays in found.items() if arrays is None]
            if missing:
                found |= _computed({name: entries[name] for name in missing}, model, split, compute)
    return {name: torch.from_numpy(arrays["values"]) for name, arrays in found.items() if arrays is not None}


def _computed(
    entries: Mapping[str, Entry], model: ModelUnderAudit, split: Split, compute: Compute
) -> dict[str, Arrays]:
    values = forward(model, split, [name for name in entries if name != "logits"], compute)
    stored: dict[str, Arrays] = {}
    for name, entry in entries.items():

        def fill(folder: Path, name: str = name) -> None:
            np.save(folder / "values.npy", values[name], allow_pickle=False)

        stored[name] = entry.store(fill)
    return stored


@torch.inference_mode()
def forward(model: ModelUnderAudit, split: Split, layers: Sequence[str], compute: Compute) -> Arrays:
    """Logits and the named layers' outputs, each (n, columns) float32, from one pass over the split."""
    device = device_of(compute)
    model.module.to(device).eval()
    batches = DataLoader(Preprocessed(split, model), batch_size=compute.batch_size, num_workers=compute.workers)
    rows: Arrays = {}
    start = 0
    with _recorded(model, layers) as outputs:
        for index, (examples, _) in zip(progress(range(len(batches)), "infer", len(batches)), batches, strict=True):
            outputs["logits"] = model.logits(examples.to(device))
            for name, values in outputs.items():
                block = values.flatten(start_dim=1).float().cpu().numpy()
                if index == 0:
                    rows[name] = np.empty((split.n_examples, block.shape[1]), dtype=np.float32)
                rows[name][start : start + len(block)] = block
            start += len(examples)
    model.module.to("cpu")
    return rows


@contextmanager
def _recorded(model: ModelUnderAudit, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict in which the outputs of these layers appear whenever the model runs."""
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in layers:

            def keep(_module: object, _inputs: object, output: Tensor, name: str = name) -> None:
                outputs[name] = output

            hooks.callback(model.layer(name).register_forward_hook(keep).remove)
        yield outputs
