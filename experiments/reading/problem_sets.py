"""Stored problems as what a run loads: those that are chosen and there, each read when it is needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from functools import partial as bound
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from experiments.contract import Dataset, ProblemSet, Split, StoredProblem
from experiments.keys import key_of
from experiments.reading.assembly import contents_of_files
from experiments.reading.dcbench import (
    INDEX,
    PREDICTIONS,
    Choice,
    Content,
    ProblemEntry,
    StoredSplit,
    artifacts_of,
    chosen_entries,
    folder_of,
    read_problem,
)
from experiments.reading.panels import META
from experiments.reading.sources import Absent, Partial
from methods.errors import InvalidInput

MOST_MISSING = 0.05  # share of the problems


def problem_set(
    name: str,
    root: Path,
    chosen: Choice,
    embedding: str = "activations",
    partial: bool = False,
    remedy: str = "get them",
) -> ProblemSet:
    """The problems below a root that are chosen: each is read when it is needed.

    Parameters
    ----------
    name : str
    root : Path
        With the index, and the folder below which the ids of artifacts are paths.
    chosen
        As for `chosen_entries`.
    embedding : str
        As for `read_problem`.
    partial : bool
        Whether problems may be left out, however many are missing.
    remedy : str
        Where some are missing: the command that gets them.

    Raises
    ------
    Absent
        Where the index is missing, or all problems.
    Partial
        Where more than 5% of the problems are missing, and `partial` is not set.
    InvalidInput
        As `chosen_entries`.
    """
    entries = chosen_entries(root / INDEX, chosen)
    files = {entry.container_id: _files(root, entry, embedding) for entry in entries}
    there = [entry for entry in entries if files[entry.container_id]]
    notes = _missing(name, root, entries, there, partial, remedy)
    contents = contents_of_files(root, [file for entry in there for file in files[entry.container_id]])
    keys = {
        entry.container_id: key_of(
            {
                "entry": asdict(entry),
                "embedding": embedding,
                "files": {file: contents[file] for file in files[entry.container_id]},
            }
        )
        for entry in there
    }
    return ProblemSet(
        name=name,
        problems=tuple(
            StoredProblem(e.container_id, e.group, e.kind, bound(_read, root, e, embedding, keys[e.container_id]))
            for e in there
        ),
        splits=tuple(s for s, panel in PREDICTIONS.items() if all(panel in entry.artifacts for entry in there)),
        fingerprint=key_of({"problems": keys}),
        notes=notes,
    )


def _files(root: Path, entry: ProblemEntry, embedding: str) -> list[str]:
    """All files of the panels that are read, relative to the root; none where a panel is missing."""
    folders = [folder_of(root, entry, name) for name in artifacts_of(entry, embedding)]
    if not all((folder / META).is_file() for folder in folders):
        return []
    return [
        path.relative_to(root).as_posix()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".dill"  # those are not opened
    ]


def _missing(
    name: str, root: Path, entries: Sequence[ProblemEntry], there: Sequence[ProblemEntry], partial: bool, remedy: str
) -> tuple[str, ...]:
    """A note on the problems that are missing."""
    n_missing = len(entries) - len(there)
    if not n_missing:
        return ()
    found = {entry.container_id for entry in there}
    first = next(entry.container_id for entry in entries if entry.container_id not in found)
    said = f"{n_missing:,} of {len(entries):,} problems of {name} are missing below {root}, {first} the first"
    if not there:
        raise Absent(f"{said}: {remedy}.")
    if n_missing > MOST_MISSING * len(entries) and not partial:
        raise Partial(f"{said}: {remedy}, choose others, or use what is there with dataset.partial=true")
    return (f"{said}: left out",)


def _read(root: Path, entry: ProblemEntry, embedding: str, key: str, splits: Collection[str]) -> tuple[Dataset, Tensor]:
    """A problem as a data set of stored outputs, and its true slices."""
    content = read_problem(root, entry, embedding, with_train="train" in splits)
    try:
        return _as_dataset(entry, content, key), content.true_slices
    except InvalidInput as error:
        raise InvalidInput(f"problem {entry.container_id}: {error}") from None


def _as_dataset(entry: ProblemEntry, content: Content, key: str) -> Dataset:
    splits = {"train": content.train, "validation": content.validation, "test": content.test}
    return Dataset(
        name=entry.container_id,
        modality="table",
        class_names=entry.class_names or _class_names(entry, content.test),
        splits={name: _as_split(split, content) for name, split in splits.items() if split is not None},
        fingerprint=key,
        notes=content.notes,
    )


def _class_names(entry: ProblemEntry, split: StoredSplit) -> tuple[str, ...]:
    n_classes = 0 if split.stored.logits is None else split.stored.logits.shape[1]
    return (f"not {entry.target_name}", entry.target_name) if n_classes == 2 else tuple(map(str, range(n_classes)))


def _as_split(split: StoredSplit, content: Content) -> Split:
    names = [""] * len(split.ids)
    if split is content.test:  # in words, since the slices of the problems of a run have different names
        columns = [
            np.where(c, name, "") for c, name in zip(content.true_slices.T, content.entry.slice_names, strict=True)
        ]
        names = ["; ".join(filter(None, row)) for row in zip(*columns, strict=True)]
    return Split(
        example_ids=split.ids,
        examples=split.stored,
        labels=split.labels,
        attributes=pd.DataFrame({"true_slice": names}, index=pd.Index(split.ids, name="id")),
        paths=split.paths,
    )
