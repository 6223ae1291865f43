"""Run the model under audit over the splits that are asked for, once, and keep what it gave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.cache import Arrays, Entry
from experiments.clock import add, stage
from experiments.compute import device_of
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.files import naming_a_full_disk
from experiments.layers import Layer
from experiments.reading.stored import Stored
from experiments.settings import Compute, Settings
from experiments.shards import bounds, growing, merge, remove, shard_of
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


def uncached(settings: Settings, dataset: Dataset, model: ModelUnderAudit) -> list[Entry]:
    """The outputs of forward passes that a run needs and that are not there."""
    return [
        entry
        for name in needed_splits(settings)
        if not isinstance(dataset.split(name).examples, Stored)
        for entry in forward_entries(settings, dataset, model, name).values()
        if not entry.exists
    ]


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
        work = _Work(model, split, settings.compute, settings.inference.shards)
        outputs = _forward(forward_entries(settings, dataset, model, name), work)
    logits = outputs.pop(LOGITS)
    targets = model.targets(split)
    losses = None if targets is None else model.loss(logits, targets)
    correct = None if targets is None else model.correct(logits, targets)
    return Predictions(split, logits, losses, correct, outputs)


def _stored(stored: Stored, layers: Sequence[Layer]) -> dict[Layer, Tensor]:
    """What ran elsewhere is there: nothing to compute, and nothing to keep."""
    logits = torch.empty(len(stored), 0) if stored.logits is None else stored.logits
    return {LOGITS: logits, **dict.fromkeys(layers, stored.embeddings)}


@dataclass(frozen=True, eq=False)
class _Work:
    """What runs over which examples, and in how many shards."""

    model: ModelUnderAudit
    split: Split
    compute: Compute
    n_shards: int

    def ranges(self) -> list[range]:
        return bounds(self.split.n_examples, self.compute.batch_size, self.n_shards)


def infer_share(settings: Settings, dataset: Dataset, model: ModelUnderAudit, number: int) -> None:
    """Compute one shard of each split that the run needs, if nobody has done so or is at it."""
    for name in needed_splits(settings):
        split = dataset.split(name)
        work = _Work(model, split, settings.compute, settings.inference.shards)
        entries = forward_entries(settings, dataset, model, name)
        if not isinstance(split.examples, Stored) and number < len(work.ranges()):
            _shard(entries, work, number, wait=False)


def _forward(entries: Mapping[Layer, Entry], work: _Work) -> dict[Layer, Tensor]:
    """What is cached is read; all that is missing is computed in one pass."""
    found, missing = _found(entries)
    if missing:
        if work.n_shards > 1:  # before the lock of the whole: other processes share the work
            for number in range(len(work.ranges())):
                _shard(entries, work, number, wait=False)
        with entries[LOGITS].locked():
            found, missing = _found(entries)
            if missing:
                found |= _computed(missing, work) if work.n_shards == 1 else _merged(entries, missing, work)
    return {layer: torch.from_numpy(arrays["values"]) for layer, arrays in found.items()}


def _found(entries: Mapping[Layer, Entry]) -> tuple[dict[Layer, Arrays], dict[Layer, Entry]]:
    """What is there, and the entries that are not."""
    loaded = {layer: entry.load() for layer, entry in entries.items()}
    found = {layer: arrays for layer, arrays in loaded.items() if arrays is not None}
    return found, {layer: entry for layer, entry in entries.items() if layer not in found}


def _merged(entries: Mapping[Layer, Entry], wholes: Mapping[Layer, Entry], work: _Work) -> dict[Layer, Arrays]:
    """All shards, waiting for those of others, put together; a shard whose process died is computed here."""
    ranges = work.ranges()
    for number in range(len(ranges)):
        _shard(entries, work, number, wait=True)
    parts = {layer: [shard_of(whole, rows) for rows in ranges] for layer, whole in wholes.items()}
    stored = {layer: merge(whole, parts[layer], work.split.n_examples) for layer, whole in wholes.items()}
    for shards in parts.values():
        remove(shards)
    return stored


def _shard(entries: Mapping[Layer, Entry], work: _Work, number: int, wait: bool) -> None:
    """Compute what is missing of one shard, unless it is there or, without `wait`, somebody is at it."""
    ranges = work.ranges()
    rows = ranges[number]
    gate = shard_of(entries[LOGITS], rows)  # the same for all, whichever layers they miss: else two could block
    with gate.locked() if wait else gate.locked_if_free() as free:
        if free is False:
            return
        shards = {layer: shard_of(whole, rows) for layer, whole in entries.items() if not whole.exists}
        # asked again: who merges stores the whole, then removes its shards
        missing = {layer: shard for layer, shard in _found(shards)[1].items() if not entries[layer].exists}
        if missing:
            _computed(missing, work, rows, f"infer, shard {number + 1} of {len(ranges)}")


def _computed(
    entries: Mapping[Layer, Entry], work: _Work, rows: range | None = None, what: str = "infer"
) -> dict[Layer, Arrays]:
    """Let the model run over these rows, writing batch by batch: their outputs may not fit into memory."""
    n_rows = work.split.n_examples if rows is None else len(rows)
    with ExitStack() as held:
        for entry in entries.values():
            held.enter_context(entry.locked())
        for entry in entries.values():
            held.callback(shutil.rmtree, entry.scratch, ignore_errors=True)  # half of a file is of use to nobody
        with naming_a_full_disk(next(iter(entries.values())).folder), ExitStack() as files:  # closing writes too
            append = {
                layer: files.enter_context(growing(_unfinished(entry), n_rows)) for layer, entry in entries.items()
            }
            for blocks in _passed(work.model, work.split, list(entries), work.compute, rows, what):
                for layer, block in blocks.items():
                    append[layer](block)
        return {layer: entry.store(partial(_take, entry)) for layer, entry in entries.items()}


def _unfinished(entry: Entry) -> Path:
    entry.scratch.mkdir(parents=True, exist_ok=True)
    return entry.scratch / "values.npy"


def _take(entry: Entry, folder: Path) -> None:
    os.replace(entry.scratch / "values.npy", folder / "values.npy")


def forward(model: ModelUnderAudit, split: Split, layers: Sequence[Layer], compute: Compute) -> dict[Layer, np.ndarray]:
    """Logits (`LOGITS`, if asked for) and layers' outputs, each (n, columns) float32, from one pass over the split.

    Raises
    ------
    InvalidInput
        Where a layer takes no part in the model's forward pass, or gives no tensor.
    """
    rows: dict[Layer, np.ndarray] = {}
    start = 0
    for blocks in _passed(model, split, layers, compute):
        for layer, block in blocks.items():
            if start == 0:
                rows[layer] = np.empty((split.n_examples, block.shape[1]), dtype=np.float32)
            rows[layer][start : start + len(block)] = block
        start += max(map(len, blocks.values()), default=0)
    return rows


def _passed(
    model: ModelUnderAudit,
    split: Split,
    layers: Sequence[Layer],
    compute: Compute,
    rows: range | None = None,
    what: str = "infer",
) -> Iterator[dict[Layer, np.ndarray]]:
    """The outputs of one batch after the other."""
    device = device_of(compute)
    model.module.to(device).eval()
    batches = Batches(split, model, compute, rows=rows, with_targets=False)
    with _recorded(model, [layer for layer in layers if layer != LOGITS]) as outputs:
        for _, (examples, _) in zip(progress(range(len(batches)), what, len(batches)), batches, strict=True):
            with torch.inference_mode():  # not around the loop: who takes the blocks would be in it too
                outputs[LOGITS] = LOGITS.rows(model.logits(examples.to(device)))
                blocks = {layer: _seen(outputs, layer).float().cpu().numpy() for layer in layers}
            yield blocks
    model.module.to("cpu")
    add("infer: waiting for data", batches.waited)


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
