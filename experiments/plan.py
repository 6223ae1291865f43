"""What a run would do, stage by stage, without doing it: `slicebench run --dry-run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.cache import Entry
from experiments.compute import threads
from experiments.console import printer, say
from experiments.contract import Dataset, ModelUnderAudit, ProblemSet, Split
from experiments.inference import LOGITS, evaluated_splits, forward, forward_entries, needed_layers, needed_splits
from experiments.layers import Layer
from experiments.loading import load_dataset
from experiments.reading.stored import Stored
from experiments.record import Record
from experiments.settings import Settings, check_settings
from experiments.training import build_model, check_embedding, model_entry, recipe_of


@dataclass(frozen=True)
class Step:
    """One line of the plan: a stage, whether its result is there, and the bytes that it would write."""

    stage: str
    state: str
    size: int


def plan(config: DictConfig) -> None:
    """Check the settings, then print every stage of the run: cached or not, and the disk space that it needs."""
    settings = check_settings(config)
    dataset = load_dataset(settings)
    record = Record.planned(settings, dataset)
    stages = [] if isinstance(dataset, ProblemSet) else _stages(settings, dataset)
    steps = [*stages, Step("discover and score", _state_of(record), 0)]
    table = Table("stage", "state", "to write", box=SIMPLE_HEAD, pad_edge=False)
    for step in steps:
        table.add_row(step.stage, step.state, f"{step.size / 1e6:.1f} MB" if step.size else "")
    console = printer()
    console.print(f"\n{record.folder}", soft_wrap=True)
    console.print(table)
    if not (isinstance(dataset, ProblemSet) or record.done):
        _forecast(settings, dataset)
    console.print(f"disk needed in {settings.paths.cache}: {sum(step.size for step in steps) / 1e6:.1f} MB")


def _stages(settings: Settings, dataset: Dataset) -> list[Step]:
    model, steps = build_model(settings, dataset), []
    if recipe_of(settings) is not None:
        weights = sum(values.nbytes for values in model.module.state_dict().values())
        steps.append(_step(f"train {settings.model.name}", model_entry(settings, dataset), weights))
    for split in needed_splits(settings):
        if isinstance(dataset.split(split).examples, Stored):
            continue  # read, not computed
        columns = _columns(settings, model, dataset.split(split))
        for output, at in forward_entries(settings, dataset, model, split).items():
            size = dataset.split(split).n_examples * columns[output] * 4
            steps.append(_step(f"infer {split} {output.name}", at, size))
    embedding = _embedding(settings)
    if hasattr(embedding, "kept"):
        kept = embedding.kept(settings, dataset, model, _embedded_splits(settings))
        steps += [_step(stage, entry, size) for stage, (entry, size) in kept.items()]
    return steps


def _forecast(settings: Settings, dataset: Dataset) -> None:
    """Print what an embedding that takes long will take, measured on some examples with the weights before training."""
    embedding = _embedding(settings)
    if not hasattr(embedding, "forecast"):
        return
    model = build_model(settings, dataset)
    check_embedding(settings, dataset, model)
    say("measuring the embedding on a few examples, which may take some seconds")
    with threads(settings.compute):
        found = embedding.forecast(settings, dataset, model, _embedded_splits(settings))
    if found is not None:
        printer().print(found.text(), soft_wrap=True)


def _embedding(settings: Settings) -> Any:
    """The one that takes long, which what explains slices may be beside that of the method."""
    return settings.explainer or settings.embedding.instance


def _embedded_splits(settings: Settings) -> list[str]:
    more = [] if settings.explainer is None else [settings.evaluation.opponents_from]
    return list(dict.fromkeys([*evaluated_splits(settings), *more]))


def _columns(settings: Settings, model: ModelUnderAudit, split: Split) -> dict[Layer, int]:
    """The width of every output of a forward pass, found by one example."""
    one = Split(split.example_ids[:1], [split.examples[0]], None, split.attributes.iloc[:1])
    layers = (LOGITS, *needed_layers(settings, model))
    return {layer: values.shape[1] for layer, values in forward(model, one, layers, settings.compute).items()}


def _step(stage: str, entry: Entry, size: int) -> Step:
    return Step(stage, "cached", 0) if entry.exists else Step(stage, "to compute", size)


def _state_of(record: Record) -> str:
    if record.done:
        return "done: would be skipped"
    parts = len(list((record.folder / "parts").glob("*.parquet")))
    return f"to go on after {parts} parts" if parts else "to compute"
