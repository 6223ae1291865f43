"""The data set of a finished run, read again: what its folder does not hold, pictures above all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from experiments.contract import WORDS, Dataset, Loader, ProblemSet
from experiments.finished import FinishedRun
from experiments.own_code import located
from experiments.reading.sources import data_root
from experiments.schema import construct, parameters_of, takes_anything
from experiments.settings import Numbers
from methods.errors import InvalidInput, Unsupported

STORED = "experiments.models.precomputed.Precomputed"
BESIDE = ("_target_", *Numbers.__dataclass_fields__)  # entries of a definition that no loader takes


def dataset_of(run: FinishedRun) -> Dataset:
    """The data set below the data root, loaded as the run did.

    Raises
    ------
    InvalidInput
        Where it is not on this machine, or no longer what the run saw; `Unsupported` where there are outputs alone.
    """
    definition = run.definition
    noted = dict(run.content.get("data", {}))  # with paths, which define no run
    root = next((root for root in map(Path, filter(None, [noted.pop("root", None)])) if root.is_dir()), data_root())
    settings = json.dumps({**definition["dataset"], **noted}, sort_keys=True)
    dataset = _loaded(settings, int(definition["seeds"]["split"]), root)
    if not isinstance(dataset, Dataset):
        raise Unsupported(f"{dataset.name} has outputs of models that ran elsewhere, and no examples")
    if dataset.fingerprint != definition["fingerprint"]:
        raise InvalidInput(f"what lies below {root} is not what the run saw: get the same files, or run again")
    return dataset


@lru_cache(maxsize=2)  # the runs of a data set, and its analyses, follow each other
def _loaded(settings: str, seed: int, root: Path) -> Dataset | ProblemSet:
    entries = json.loads(settings)
    target = located(entries["_target_"], "dataset._target_")
    known = entries if takes_anything(target) else parameters_of(target)  # `identity` adds entries of its own
    values = {name: value for name, value in entries.items() if name in known and name not in BESIDE}
    loader: Loader = construct(target, values, "dataset")
    return loader.load(root, seed)


def pictures(run: FinishedRun, split: str, ids: Iterable[str]) -> dict[str, Image.Image]:
    """Examples of one split as the model got them, with whatever the loader planted, by id.

    Raises
    ------
    InvalidInput
        Where they are not on this machine; `Unsupported` where examples are no pictures.
    """
    picture_of = picture_reader(run, split)
    return {example_id: picture_of(example_id) for example_id in ids}


def picture_reader(run: FinishedRun, split: str) -> Callable[[str], Image.Image]:
    """What reads the picture of one example of a split, by id, and raises `InvalidInput` where it cannot be read.

    Raises
    ------
    InvalidInput
        As `pictures`.
    """
    if run.has_own_examples:  # reading their index takes long, and tells no more
        raise Unsupported(f"{run.dataset} has problems with examples of their own, and no pictures")
    has_texts, has_files = (name in run.examples and run.examples[name].notna().any() for name in ("text", "path"))
    if (has_texts or _is_stored(run)) and not has_files:  # known without loading them
        raise Unsupported(f"{run.dataset} has {'texts' if has_texts else 'outputs alone'}")
    dataset = dataset_of(run)
    of_split = dataset.split(split)
    shown = of_split.examples if dataset.modality == "image" else of_split.pictures
    if shown is None:
        raise Unsupported(f"{run.dataset} has {WORDS[dataset.modality]}")
    rows = {example_id: row for row, example_id in enumerate(of_split.example_ids)}
    return lambda example_id: shown[rows[example_id]]


def _is_stored(run: FinishedRun) -> bool:
    """Whether there are outputs of a model, and no examples."""
    return str(run.definition["model"]["_target_"]) == STORED


def examples_of(run: FinishedRun, split: str, problem: str = "all") -> pd.DataFrame:
    """Label, text and attributes of each example of a split, indexed by id: from the run's folder, else from its data.

    Where problems have examples of their own, they are those of this one.

    Returns
    -------
    DataFrame
        With columns label, text and attribute_<name>; labels are class names, and None where there are none.

    Raises
    ------
    InvalidInput
        Where the folder does not hold this split and the data cannot be read.
    """
    table = run.examples_of(problem)
    kept = [name for name in table.columns if name in ("label", "text") or name.startswith("attribute_")]
    own = table.loc[table["split"] == split].set_index("id")[kept]
    found = own if len(own) else _of_dataset(dataset_of(run), split)
    return found.reindex(columns=list(dict.fromkeys(["label", "text", *found])))


def _of_dataset(dataset: Dataset, split: str) -> pd.DataFrame:
    of_split, classes = dataset.split(split), np.array(dataset.class_names)
    has_texts = dataset.modality in ("text", "text_pair")
    return of_split.attributes.add_prefix("attribute_").assign(
        label=None if of_split.labels is None else classes[of_split.labels.numpy()],
        text=[str(text) for text in of_split.examples] if has_texts else None,
    )
