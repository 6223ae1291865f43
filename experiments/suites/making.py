"""Make one problem of a suite: manipulate the training split, train, look whether the model fails, and store it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from experiments import inference, training
from experiments.compute import threads
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.files import sync_file, sync_folder, write_json
from experiments.inference import LOGITS, forward
from experiments.keys import derive, key_of
from experiments.reading.dcbench import PREDICTIONS, ProblemEntry
from experiments.reading.panels import ID
from experiments.settings import Settings
from experiments.suites.fitness import GAP, Fitness, falls, fitness
from experiments.suites.manipulation import MANIPULATIONS, Cells, Manipulated
from experiments.suites.recipes import Block, Recipe, attribute_values
from experiments.suites.storing import prediction_columns, write_panel
from experiments.training import train_or_load
from methods.contract import InvalidInput

VERSION = 2
ARTIFACTS = "slice_discovery/problem/artifacts"  # below the suite's folder
REPORT = "problem.json"
N_PRED_SLICES = 5  # what dcbench allows a method
EVALUATED = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Workshop:
    """What the problems of a block have in common.

    Parameters
    ----------
    block : Block
    settings : Settings
        Of a run with the block's data set and model.
    dataset : Dataset
        Before any manipulation; with features in place of images, where the block says so.
    """

    block: Block
    settings: Settings
    dataset: Dataset

    def definition(self, recipe: Recipe) -> dict[str, Any]:
        """Everything that the problem depends on, as json values."""
        settings = self.settings.defining()
        return {
            "recipe": recipe.defining(),
            "least": self.block.least,
            "gap": GAP,
            "dataset": settings["dataset"],
            "model": settings["model"],
            "split_seed": self.settings.seeds.split,
            "data": self.dataset.fingerprint,
            "versions": {
                "making": VERSION,
                "dataset": self.settings.dataset.version,
                "model": self.settings.model.version,
                "training": training.VERSION,
                "inference": inference.VERSION,
            },
        }


class Unfit(Exception):
    """The data do not give this problem; the message says why."""


def make_problem(workshop: Workshop, recipe: Recipe, root: Path) -> dict[str, Any]:
    """Make a problem and store it below the root of a suite, whole or not at all.

    Parameters
    ----------
    workshop : Workshop
    recipe : Recipe
    root : Path

    Returns
    -------
    dict
        The report, as in `problem.json`: `fit`, or the reason why not; accuracies and sizes on the validation and the
        test split, and on the test split for a model that was trained on as many examples as they come (`control`).
    """
    folder = root / ARTIFACTS / recipe.name
    temporary = folder.with_name(f".{recipe.name}.making")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process; who calls this holds the problem's lock
    temporary.mkdir(parents=True)
    start = time.perf_counter()
    report = _made(workshop, recipe, temporary)
    definition = workshop.definition(recipe)
    report |= {"name": recipe.name, "seconds": time.perf_counter() - start}
    report |= {"definition": definition, "key": key_of(definition), "files": _sizes(temporary)}
    write_json(temporary / REPORT, report)
    if folder.exists():  # made with other settings
        older = folder.with_name(f".{recipe.name}.older")
        shutil.rmtree(older, ignore_errors=True)
        os.rename(folder, older)
        shutil.rmtree(older)
    os.rename(temporary, folder)
    sync_folder(folder.parent)
    return report


def read_report(root: Path, name: str) -> dict[str, Any] | None:
    """The report of a problem that was made before; None where there is none, or not all of the problem."""
    folder = root / ARTIFACTS / name
    try:
        report = json.loads((folder / REPORT).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(report, dict) and {"key", "fit", "name", "files"} <= set(report)
    return report if known and report["files"] == _sizes(folder) else None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a problem but its report."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / REPORT)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def by_manipulation(report: Mapping[str, Any]) -> bool:
    """Whether a model that was trained without the manipulation is better on each true slice, as fitness asks it."""
    pairs = zip(report["control_inside"], report["test_inside"], strict=True)
    return all(falls(before, after) for before, after in pairs)


def entry_of(report: Mapping[str, Any]) -> ProblemEntry:
    """What the index says of a fit problem."""
    recipe = report["definition"]["recipe"]
    panels = (*PREDICTIONS.values(), "test_slices", "activations")
    return ProblemEntry(
        container_id=report["name"],
        kind=recipe["kind"],
        target_name=recipe["class_name"],
        dataset=report["dataset"],
        alpha=recipe["strength"],
        slice_names=tuple(report["slice_names"]),
        n_pred_slices=N_PRED_SLICES,
        artifacts={name: f"{ARTIFACTS}/{report['name']}/{name}" for name in panels},
        class_names=tuple(report["class_names"]),
    )


def _made(workshop: Workshop, recipe: Recipe, folder: Path) -> dict[str, Any]:
    dataset, kind = workshop.dataset, MANIPULATIONS[recipe.kind]
    cells = {name: _cells(dataset, name, recipe) for name in ("train", *EVALUATED)}
    report: dict[str, Any] = {
        "fit": False,
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "slice_names": list(kind.slice_names(cells["train"])),
    }
    true_slices = {name: kind.true_slices(cells[name]) for name in EVALUATED}
    try:
        _check_sizes(true_slices, workshop.block.least)
        manipulated = _manipulated(dataset, recipe, cells["train"])
    except (Unfit, InvalidInput) as error:
        return report | {"reason": str(error)}
    settings = workshop.settings
    settings = replace(settings, seeds=replace(settings.seeds, training=recipe.seed))
    changed = _with_training(dataset, {"manipulated": recipe.defining()}, manipulated)
    with threads(settings.compute):
        control = _control(settings, dataset, recipe, len(manipulated.rows))
        model = train_or_load(settings, changed)
        outputs = {name: _outputs(settings, changed, model, name) for name in PREDICTIONS}
    found = {name: _fitness(changed.split(name), outputs[name][0], true_slices[name]) for name in EVALUATED}
    found["control"] = fitness(control, true_slices["test"])
    report |= {f"{name}_{what}": value for name, one in found.items() for what, value in vars(one).items()}
    report["n_train"] = changed.split("train").n_examples
    if not found["test"].fit:
        return report | {
            "reason": f"a slice is {100 * found['test'].gap:.1f} points below the rest, expected {100 * GAP:g}"
        }
    _store(folder, changed, outputs, true_slices["test"], model)
    return report | {"fit": True}


def _cells(dataset: Dataset, name: str, recipe: Recipe) -> Cells:
    split = dataset.split(name)
    assert split.labels is not None  # `Block.recipes` refuses data without
    return Cells(
        of_class=(split.labels == dataset.class_names.index(recipe.class_name)).numpy(),
        with_value=attribute_values(split, recipe.attribute) == recipe.value,
        class_name=recipe.class_name,
        value=f"{recipe.attribute}={recipe.value}",
    )


def _check_sizes(true_slices: Mapping[str, Tensor], least: int) -> None:
    for name, members in true_slices.items():
        smallest = int(members.sum(dim=0).min())
        if smallest < least:
            raise Unfit(f"a slice has {smallest} members in the {name} split, expected at least {least}")
        if members.any(dim=1).all():
            raise Unfit(f"nothing is outside of the slices in the {name} split")


def _manipulated(dataset: Dataset, recipe: Recipe, cells: Cells) -> Manipulated:
    labels = dataset.split("train").labels
    assert labels is not None
    seed = derive(recipe.seed, recipe.kind, recipe.class_name, recipe.attribute, recipe.value)
    kind = MANIPULATIONS[recipe.kind]
    return kind.train(labels, cells, recipe.strength, len(dataset.class_names), seed)


class _Rows(Sequence[Any]):
    """Some of the examples, still read when they are asked for."""

    def __init__(self, examples: Sequence[Any], rows: np.ndarray) -> None:
        self.examples, self.rows = examples, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        return _Rows(self.examples, self.rows[at]) if isinstance(at, slice) else self.examples[int(self.rows[at])]


def _with_training(dataset: Dataset, how: Mapping[str, Any], manipulated: Manipulated) -> Dataset:
    """The data set with another training split; `how` defines it."""
    split, rows = dataset.split("train"), manipulated.rows
    train = Split(
        example_ids=tuple(split.example_ids[row] for row in rows),
        examples=split.examples[torch.from_numpy(rows)]
        if isinstance(split.examples, Tensor)
        else _Rows(split.examples, rows),
        labels=manipulated.labels,
        attributes=split.attributes.iloc[rows],
        paths=None if split.paths is None else tuple(split.paths[row] for row in rows),
    )
    return dataset.derived({**how, "version": VERSION}, splits={**dataset.splits, "train": train})


def _control(settings: Settings, dataset: Dataset, recipe: Recipe, n_train: int) -> Tensor:
    """Where the same model is right on the test split, trained on as many examples without the manipulation.

    Tensor, shape (n,), bool.
    """
    labels = dataset.split("train").labels
    assert labels is not None
    if n_train < len(labels):
        drawn = np.random.default_rng(derive(recipe.seed, "control")).permutation(len(labels))[:n_train]
        rows = np.sort(drawn)
        dataset = _with_training(
            dataset, {"control": [n_train, recipe.seed]}, Manipulated(rows, labels[torch.from_numpy(rows)])
        )
    logits, _ = _outputs(settings, dataset, train_or_load(settings, dataset), "test")
    return logits.argmax(dim=1) == dataset.split("test").labels


def _outputs(settings: Settings, dataset: Dataset, model: ModelUnderAudit, name: str) -> tuple[Tensor, np.ndarray]:
    """Logits (n, c) and what goes into the last layer (n, d); not cached, since they are stored with the problem."""
    values = forward(model, dataset.split(name), [LOGITS, model.final_hidden], settings.compute)
    return torch.from_numpy(values[LOGITS]), values[model.final_hidden]


def _fitness(split: Split, logits: Tensor, true_slices: Tensor) -> Fitness:
    return fitness(logits.argmax(dim=1) == split.labels, true_slices)


def _store(
    folder: Path,
    dataset: Dataset,
    outputs: Mapping[str, tuple[Tensor, np.ndarray]],
    true_slices: Tensor,
    model: ModelUnderAudit,
) -> None:
    for name, panel in PREDICTIONS.items():
        split, (logits, _) = dataset.split(name), outputs[name]
        assert split.labels is not None
        probabilities = logits.double().softmax(dim=1).numpy()  # in float32 small ones would be lost beside large ones
        columns = prediction_columns(split.example_ids, split.labels.numpy(), probabilities, split.paths)
        write_panel(folder / f"{panel}.mk", columns)
    ids = [example_id for name in PREDICTIONS for example_id in dataset.split(name).example_ids]
    vectors = np.concatenate([outputs[name][1] for name in PREDICTIONS])
    write_panel(folder / "activations.mk", {ID: np.array(ids, dtype=object), "act": vectors})
    test_ids = np.array(dataset.split("test").example_ids, dtype=object)
    write_panel(folder / "test_slices.mk", {ID: test_ids, "slices": true_slices.numpy().astype(np.uint8)})
    weights = {name: values.contiguous() for name, values in model.module.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    sync_file(folder / "model.safetensors")
