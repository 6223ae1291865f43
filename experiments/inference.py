"""Run the model under audit over the splits that are asked for, once, and keep what it gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.cache import Arrays, Entry
from experiments.clock import add, stage
from experiments.compute import device_of
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.layers import Layer
from experiments.reading.stored import Stored
from experiments.settings import Compute, Settings
from methods.contract import InvalidInput
from methods.progress import progress

VERSION = 2
LOGITS = Layer("(logits)")  # no submodule can have this name


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model gave on one split.

    Parameters
    ----------
    split : Split
    logits : Tensor, shape (n, c), float32
    losses : Tensor, shape (n,), float32, in nats, optional
        None where the split has nothing to compare outputs with; so is `correct`.
    correct : Tensor, shape (n,), bool, optional
    hidden : mapping from Layer to Tensor of shape (n, d), float32
        The outputs of the layers that were asked for: one layer may be there in two poolings.
    """

    split: Split
    logits: Tensor
    losses: Tensor | None
    correct: Tensor | None
    hidden: Mapping[Layer, Tensor]


@stage("infer")
def infer(settings: Settings, dataset: Dataset, model: ModelUnderAudit) -> dict[str, Predictions]:
    """Predictions on every split that the run needs, cached; one forward pass gives logits and hidden layers."""
    return {name: _predict(settings, dataset, model, name) for name in needed_splits(settings)}


def needed_splits(settings: Settings) -> list[str]:
    """The splits that are evaluated, then those that only embeddings need."""
    more = settings.explainer
    explained = [] if more is None else [settings.evaluation.opponents_from, *more.splits()]
    return list(dict.fromkeys([*evaluated_splits(settings), *settings.embedding.instance.splits(), *explained]))


def needed_layers(settings: Settings, model: ModelUnderAudit) -> list[Layer]:
    """The layers whose outputs the embedding, or what explains slices, needs."""
    users = [settings.embedding.instance, *([] if settings.explainer is None else [settings.explainer])]
    return list(dict.fromkeys(layer for user in users for layer in user.hidden_layers(model)))


def evaluated_splits(settings: Settings) -> list[str]:
    """The splits that methods are fitted on and scored on."""
    return list(dict.fromkeys([settings.evaluation.fit_split, settings.evaluation.score_split]))


def forward_entries(settings: Settings, dataset: Dataset, model: ModelUnderAudit, split: str) -> dict[Layer, Entry]:
    """Where the outputs of a forward pass are cached: one entry for `logits`, one for each layer."""
    common = {"model": model.key, "data": dataset.fingerprint, "split": split, "version": VERSION}
    outputs = (LOGITS, *needed_layers(settings, model))
    return {
        layer: Entry(settings.paths.cache, "forward", {**common, "output": layer.name, "pool": layer.pool})
        for layer in outputs
    }


def _predict(settings: Settings, dataset: Dataset, model: ModelUnderAudit, name: str) -> Predictions:
    split = dataset.split(name)
    if isinstance(split.examples, Stored):
        outputs = _stored(split.examples, needed_layers(settings, model))
    else:
        outputs = _forward(forward_entries(settings, dataset, model, name), model, split, settings.compute)
    logits = outputs.pop(LOGITS)
    targets = model.targets(split)
    losses = None if targets is None else model.loss(logits, targets)
    correct = None if targets is None else model.correct(logits, targets)
    return Predictions(split, logits, losses, correct, outputs)


def _stored(stored: Stored, layers: Sequence[Layer]) -> dict[Layer, Tensor]:
    """What ran elsewhere is there: nothing to compute, and nothing to keep."""
    logits = torch.empty(len(stored), 0) if stored.logits is None else stored.logits
    return {LOGITS: logits, **dict.fromkeys(layers, stored.embeddings)}


def _forward(
    entries: Mapping[Layer, Entry], model: ModelUnderAudit, split: Split, compute: Compute
) -> dict[Layer, Tensor]:
    """What is cached is read; all that is missing is computed in one pass."""
    found = {layer: entry.load() for layer, entry in entries.items()}
    if any(arrays is None for arrays in found.values()):
        with entries[LOGITS].locked():
            found = {layer: entry.load() for layer, entry in entries.items()}
            missing = [layer for layer, arrays in found.items() if arrays is None]
            if missing:
                found |= _computed({layer: entries[layer] for layer in missing}, model, split, compute)
    return {layer: torch.from_numpy(arrays["values"]) for layer, arrays in found.items() if arrays is not None}


def _computed(
    entries: Mapping[Layer, Entry], model: ModelUnderAudit, split: Split, compute: Compute
) -> dict[Layer, Arrays]:
    values = forward(model, split, list(entries), compute)
    stored: dict[Layer, Arrays] = {}
    for layer, entry in entries.items():

        def fill(folder: Path, layer: Layer = layer) -> None:
            np.save(folder / "values.npy", values[layer], allow_pickle=False)

        stored[layer] = entry.store(fill)
    return stored


@torch.inference_mode()
def forward(model: ModelUnderAudit, split: Split, layers: Sequence[Layer], compute: Compute) -> dict[Layer, np.ndarray]:
    """Logits (`LOGITS`, if asked for) and layers' outputs, each (n, columns) float32, from one pass over the split.

    Raises
    ------
    InvalidInput
        Where a layer takes no part in the model's forward pass, or gives no tensor.
    """
    device = device_of(compute)
    model.module.to(device).eval()
    batches = Batches(split, model, compute, with_targets=False)
    rows: dict[Layer, np.ndarray] = {}
    start = 0
    with _recorded(model, [layer for layer in layers if layer != LOGITS]) as outputs:
        for index, (examples, _) in zip(progress(range(len(batches)), "infer", len(batches)), batches, strict=True):
            outputs[LOGITS] = LOGITS.rows(model.logits(examples.to(device)))
            for layer in layers:
                block = _seen(outputs, layer).float().cpu().numpy()
                if index == 0:
                    rows[layer] = np.empty((split.n_examples, block.shape[1]), dtype=np.float32)
                rows[layer][start : start + len(block)] = block
            start += len(examples)
    model.module.to("cpu")
    add("infer: waiting for data", batches.waited)
    return rows


def _seen(outputs: Mapping[Layer, Tensor], layer: Layer) -> Tensor:
    if layer not in outputs:
        raise InvalidInput(f"the layer {layer.name!r} takes no part in what the model computes: choose another one")
    return outputs[layer]


@contextmanager
def _recorded(model: ModelUnderAudit, layers: Sequence[Layer]) -> Iterator[dict[Layer, Tensor]]:
    """A dict in which the rows that these layers give appear whenever the model runs."""
    outputs: dict[Layer, Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:

            def keep_output(_module: object, _inputs: object, output: object, layer: Layer = layer) -> None:
                outputs[layer] = _rows(layer, output)

            def keep_input(_module: object, inputs: Sequence[object], layer: Layer = layer) -> None:
                outputs[layer] = _rows(layer, inputs)

            module = model.layer(layer.name)
            hook = (
                module.register_forward_pre_hook(keep_input)
                if layer.takes_input
                else module.register_forward_hook(keep_output)
            )
            hooks.callback(hook.remove)
        yield outputs


def _rows(layer: Layer, value: object) -> Tensor:
    """A copy: a ReLU that works in place may follow."""
    while isinstance(value, tuple | list | Mapping) and value:  # what else it gives (states, weights) comes after it
        value = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
    if not isinstance(value, Tensor) or value.ndim < 2:
        raise InvalidInput(f"the layer {layer.name!r} gives a {type(value).__name__}, expected a tensor (b, ...)")
    return layer.rows(value).clone()
