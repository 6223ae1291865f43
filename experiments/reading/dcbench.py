"""dcbench's slice discovery problems: an index, and panels with what a model gave, read without dcbench."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.reading.panels import ID, Panel, below, read_panel, read_yaml, short
from experiments.reading.sources import Absent
from experiments.reading.stored import Stored
from methods.errors import InvalidInput, InvalidSetting, unknown_name

INDEX = "slice_discovery/problems.yaml"  # below the root
KINDS = ("correlation", "noisy_label", "rare")
EMBEDDINGS = {"activations": "act", "clip": "emb"}  # the artifact, and its column
PREDICTIONS = {"validation": "val_predictions", "test": "test_predictions", "train": "train_predictions"}
PATH = "path"
MOST_UNJOINED = 0.05  # share of the ids of a split
SUM_TOLERANCE = 1e-3  # of probabilities
AGAIN = "get it again"

Choice = Mapping[str, str | tuple[str, ...] | None]


@dataclass(frozen=True)
class ProblemEntry:
    """What the index says of a problem.

    Parameters
    ----------
    container_id : str
    kind : str
        "rare", "correlation" or "noisy_label".
    target_name : str
        Of the class that the model tells from the others.
    dataset : str
        From which the images are.
    alpha : float
        How strong the corruption is; what it measures depends on the kind.
    slice_names : tuple of str
    n_pred_slices : int
        How many slices a method may give.
    artifacts : dict of str to str
        The id of each artifact: its path below the root, without an ending.
    class_names : tuple of str, optional
        Which dcbench does not say: there the classes are the target and all else.
    """

    container_id: str
    kind: str
    target_name: str
    dataset: str
    alpha: float
    slice_names: tuple[str, ...]
    n_pred_slices: int
    artifacts: dict[str, str]
    class_names: tuple[str, ...] | None = None

    @property
    def group(self) -> str:
        """Problems of one slice of the same data are not independent."""
        return f"{self.dataset} {', '.join(self.slice_names)}"


@dataclass(frozen=True, eq=False)
class StoredSplit:
    """What is stored of a split, in the order of the ids.

    Parameters
    ----------
    ids : tuple of str, length n
        Strictly increasing.
    stored : Stored
        Embeddings and logits.
    labels : Tensor, shape (n,), int64, in [0, c)
    paths : tuple of str, length n, optional
        Of each example's file, relative to the data root of whoever made the problem: ours have them.
    """

    ids: tuple[str, ...]
    stored: Stored
    labels: Tensor
    paths: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Content:
    """What is stored of a problem: a method is fitted on its validation split and scored on its test split.

    Parameters
    ----------
    entry : ProblemEntry
    validation : StoredSplit
        Its true slices are not known.
    test : StoredSplit
    train : StoredSplit, optional
        What the model was trained on, under the labels that it was trained with: dcbench publishes none.
    true_slices : Tensor, shape (n_test, n_slices), bool
        In the order of `entry.slice_names`.
    notes : tuple of str
        What was left out.
    """

    entry: ProblemEntry
    validation: StoredSplit
    test: StoredSplit
    train: StoredSplit | None
    true_slices: Tensor
    notes: tuple[str, ...]


_CHOOSE: dict[str, Callable[[ProblemEntry], str]] = {
    "problem": lambda entry: entry.container_id,
    "kind": lambda entry: entry.kind,
    "dataset": lambda entry: entry.dataset,
}


def read_index(path: Path) -> list[ProblemEntry]:
    """The problems of an index, in its order.

    Parameters
    ----------
    path : Path
        Of `problems.yaml`.

    Raises
    ------
    Absent
        Where the file is missing.
    InvalidInput
        Where it has a tag that is not dcbench's, no problems or one of them twice, or where a problem lacks a key or
        has a value of another type; the message names the file, the problem and the key.
    """
    if not path.is_file():
        raise Absent(f"{path} is missing: download {INDEX} from the public bucket dcbench")
    listed = read_yaml(path)
    if not isinstance(listed, list) or not listed:
        raise InvalidInput(f"{path} holds no list of problems: {AGAIN}")
    entries = [_entry(values, f"{path}: problem {number}") for number, values in enumerate(listed, start=1)]
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        other = seen.setdefault(entry.container_id, number)
        if other != number:
            raise InvalidInput(
                f"{path}: problems {other} and {number} both have the container_id {entry.container_id!r}, expected "
                "it once: remove one of them"
            )
    return entries


def _entry(values: Any, said: str) -> ProblemEntry:
    container_id = _get(values, "container_id", str, said)
    if not container_id.isprintable() or not container_id.strip():
        raise InvalidInput(f"{said}: container_id is {short(container_id)}, expected a name: {AGAIN}")
    said = f"{said} ({container_id})"
    attributes = _get(values, "attributes", dict, said)
    artifacts = _get(values, "artifacts", dict, said)
    return ProblemEntry(
        container_id=container_id,
        kind=_kind(attributes, said),
        target_name=_get(attributes, "target_name", str, said),
        dataset=_get(attributes, "dataset", str, said),
        alpha=_alpha(attributes, said),
        slice_names=_names(attributes, "slice_names", said),
        n_pred_slices=_n_pred_slices(attributes, said),
        artifacts={
            str(name): _get(artifact, "artifact_id", str, f"{said}: artifact {name}")
            for name, artifact in artifacts.items()
        },
        class_names=_names(attributes, "class_names", said) if "class_names" in attributes else None,
    )


def _get(values: Any, key: str, kind: type | tuple[type, ...], said: str) -> Any:
    """The value of a key, of this type; true and false are no numbers."""
    if not isinstance(values, dict) or key not in values:
        have = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise InvalidInput(f"{said} has no {key!r}, it has {have or 'nothing'}: {AGAIN}")
    value = values[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise InvalidInput(f"{said}: {key} is {short(value)}, expected {names}: {AGAIN}")
    return value


def _kind(attributes: dict[str, Any], said: str) -> str:
    kind = _get(attributes, "slice_category", str, said)
    if kind not in KINDS:
        raise InvalidInput(unknown_name(f"{said}: no kind of problem is called {kind!r}", kind, KINDS))
    return kind


def _alpha(attributes: dict[str, Any], said: str) -> float:
    alpha = float(_get(attributes, "alpha", (float, int), said))
    if not math.isfinite(alpha):
        raise InvalidInput(f"{said}: alpha is {alpha}, expected a finite number: {AGAIN}")
    return alpha


def _names(attributes: dict[str, Any], key: str, said: str) -> tuple[str, ...]:
    names = _get(attributes, key, list, said)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InvalidInput(f"{said}: {key} is {short(names)}, expected different names: {AGAIN}")
    return tuple(names)


def _n_pred_slices(attributes: dict[str, Any], said: str) -> int:
    n = _get(attributes, "n_pred_slices", int, said)
    if n < 1:
        raise InvalidInput(f"{said}: n_pred_slices is {n}, expected at least 1: {AGAIN}")
    return n


def chosen_entries(path: Path, chosen: Choice) -> list[ProblemEntry]:
    """The problems of an index that are chosen, in its order.

    Parameters
    ----------
    path : Path
        Of `problems.yaml`.
    chosen : mapping of {"problem", "kind", "dataset"} to str, tuple of str or None
        None chooses all.

    Raises
    ------
    Absent, InvalidInput
        As `read_index`.
    InvalidSetting
        Where no problem is as chosen, naming what there is.
    """
    entries = everything = read_index(path)
    given = {key: [v] if isinstance(v, str) else list(v) for key, v in chosen.items() if v is not None}
    for key, values in given.items():
        have = {_CHOOSE[key](entry) for entry in everything}
        unknown = next((value for value in values if value not in have), None)
        if unknown is not None:
            raise InvalidSetting(unknown_name(f"no {key} in {path} is called {unknown!r}", unknown, have))
        entries = [entry for entry in entries if _CHOOSE[key](entry) in values]
    if not entries:
        asked = " and ".join(f"{key} {' or '.join(values) or '[]'}" for key, values in given.items())
        raise InvalidSetting(f"no problem in {path} has the {asked}: choose others")
    return entries


def artifacts_of(entry: ProblemEntry, embedding: str = "activations") -> dict[str, str]:
    """The ids of the artifacts that are read of a problem, by their names; some are there in ours only."""
    read = (*PREDICTIONS.values(), "test_slices", embedding)
    return {name: entry.artifacts[name] for name in read if name in entry.artifacts}


def read_problem(root: Path, entry: ProblemEntry, embedding: str = "activations", with_train: bool = True) -> Content:
    """What is stored of a problem, joined on the ids.

    Parameters
    ----------
    root : Path
        The folder below which the ids of artifacts are paths.
    entry : ProblemEntry
        Of `read_index`.
    embedding : str
        "activations" (of the model) or "clip".
    with_train : bool
        Whether the training split is read, where there is one.

    Returns
    -------
    Content
        Rows in the order of their ids. Those that are not in all panels are left out, with a note.

    Raises
    ------
    Absent
        Where a panel is missing, or a file of one.
    InvalidInput
        Where a panel cannot be read, values are not what they should be, or more than 5% of a split's ids do not
        join; the message names the panel and the id.
    """
    if embedding not in EMBEDDINGS:
        raise InvalidInput(unknown_name(f"no embedding of a problem is called {embedding!r}", embedding, EMBEDDINGS))
    column = EMBEDDINGS[embedding]
    vectors = _panel(root, entry, embedding, column)
    slices = _panel(root, entry, "test_slices", "slices")
    truth = _true_slices(slices, entry)  # (rows of the panel, n_slices)
    validation, lost = _split(_predictions(root, entry, "validation"), vectors, column)
    test, lost_test = _split(_predictions(root, entry, "test"), vectors, column, slices)
    train, lost_train = None, ()
    if with_train and PREDICTIONS["train"] in entry.artifacts:
        train, lost_train = _split(_predictions(root, entry, "train"), vectors, column)
    _check_same_classes(entry, validation, test, train)
    rows = slices.ids.get_indexer(pd.Index(test.ids, dtype=object))
    notes = (*lost, *lost_test, *lost_train)
    return Content(entry, validation, test, train, torch.from_numpy(truth[rows]), notes)


def read_outcomes(root: Path, entry: ProblemEntry) -> tuple[Tensor, Tensor]:
    """Whether the model is right on each test example, shape (n,), and the true slices, shape (n, n_slices), both bool.

    Raises
    ------
    Absent, InvalidInput
        As `read_problem`.
    """
    slices, predictions = _panel(root, entry, "test_slices", "slices"), _predictions(root, entry, "test")
    ids, _ = _joined(predictions, None, slices)
    rows = predictions.ids.get_indexer(ids)
    correct = _logits(predictions)[rows].argmax(dim=1) == _labels(predictions)[rows]
    return correct, torch.from_numpy(_true_slices(slices, entry)[slices.ids.get_indexer(ids)])


def _predictions(root: Path, entry: ProblemEntry, split: str) -> Panel:
    return _panel(root, entry, PREDICTIONS[split], "target", "probs", optional=(PATH,))


def _panel(root: Path, entry: ProblemEntry, name: str, *columns: str, optional: Sequence[str] = ()) -> Panel:
    """A panel of a problem; columns that are not asked for are not opened."""
    if name not in entry.artifacts:
        have = ", ".join(entry.artifacts) or "none"
        raise InvalidInput(f"problem {entry.container_id} has no artifact {name!r} in the index, it has {have}")
    return read_panel(folder_of(root, entry, name), (ID, *columns), optional)


def folder_of(root: Path, entry: ProblemEntry, name: str) -> Path:
    """Where an artifact of a problem lies; `InvalidInput` where its id leads out of the root."""
    return below(root, f"{entry.artifacts[name]}.mk", f"problem {entry.container_id}: artifact_id of {name}")


def _split(
    predictions: Panel, vectors: Panel, column: str, slices: Panel | None = None
) -> tuple[StoredSplit, tuple[str, ...]]:
    """A split's rows that are in all panels, and a note on the rest."""
    logits, labels = _logits(predictions), _labels(predictions)
    ids, notes = _joined(predictions, vectors, slices)
    rows = predictions.ids.get_indexer(ids)
    embeddings = _embeddings(vectors, column, vectors.ids.get_indexer(ids))
    return StoredSplit(tuple(ids), Stored(embeddings, logits[rows]), labels[rows], _paths(predictions, rows)), notes


def _paths(panel: Panel, rows: np.ndarray) -> tuple[str, ...] | None:
    return tuple(map(str, panel.columns[PATH][rows])) if PATH in panel.columns else None


def _joined(predictions: Panel, vectors: Panel | None, slices: Panel | None) -> tuple[pd.Index, tuple[str, ...]]:
    """The ids that all panels have, in Python's order of strings, and a note on those that one lacks."""
    others = [panel for panel in (vectors, slices) if panel is not None]
    expected = predictions.ids
    if slices is not None:  # they are of the test split only: ids without a prediction do not join either
        expected = expected.union(slices.ids, sort=False)
    shared = predictions.ids
    for other in others:
        shared = shared[shared.isin(other.ids)]
    n_lost = len(expected) - len(shared)
    if n_lost == 0:
        return pd.Index(sorted(shared), dtype=object), ()
    first = expected[~expected.isin(shared)][0]
    lacking = next(panel for panel in (predictions, *others) if first not in panel.ids)
    what = f"{n_lost:,} of the {len(expected):,} ids of {predictions.folder} do not join"
    where = f"the first, {first!r}, is not in {lacking.folder}"
    if n_lost > MOST_UNJOINED * len(expected):
        sizes = ", ".join(f"{panel.folder.name} {panel.n_rows:,}" for panel in (predictions, *others))
        raise InvalidInput(
            f"{what} ({where}; rows: {sizes}), expected at most {MOST_UNJOINED:.0%}: get these panels again, all of "
            "one problem"
        )
    return pd.Index(sorted(shared), dtype=object), (f"{what} and are left out ({where})",)


def _matrix(panel: Panel, column: str) -> np.ndarray:
    """Numbers: array, shape (n, d), in their own type."""
    values = panel.columns[column]
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiub":
        raise InvalidInput(
            f"{panel.folder}: {column} has shape {values.shape} and type {values.dtype}, expected numbers "
            f"({panel.n_rows}, columns): {AGAIN}"
        )
    return values


def _single(panel: Panel, column: str) -> np.ndarray:
    """Numbers: array, shape (n,), float64; (n, 1) is as good."""
    values = panel.columns[column]
    if values.shape == (panel.n_rows, 1):
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise InvalidInput(
            f"{panel.folder}: {column} has shape {values.shape} and type {values.dtype}, expected a number a row: "
            f"{AGAIN}"
        )
    return values.astype(np.float64)


def _logits(panel: Panel) -> Tensor:
    """The logarithms of the probabilities: Tensor, shape (n, c), float32."""
    probabilities = _matrix(panel, "probs").astype(np.float64)  # (n, c)
    if probabilities.shape[1] < 2:
        raise InvalidInput(f"{panel.folder}: probs has 1 column, expected one a class, at least 2: {AGAIN}")
    panel.refuse_rows("probs", ~np.isfinite(probabilities).all(axis=1), f"finite numbers: {AGAIN}")
    panel.refuse_rows("probs", (probabilities < 0).any(axis=1), f"none below 0: {AGAIN}")
    off = np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE
    panel.refuse_rows("probs", off, f"a sum of 1 (within {SUM_TOLERANCE:g}): {AGAIN}")
    values = torch.from_numpy(probabilities.astype(np.float32))
    return values.clamp(min=torch.finfo(torch.float32).tiny).log()


def _labels(panel: Panel) -> Tensor:
    """Tensor, shape (n,), int64."""
    values = _single(panel, "target")
    n_classes = panel.columns["probs"].shape[1]
    bad = ~((values >= 0) & (values < n_classes) & (values % 1 == 0))
    panel.refuse_rows("target", bad, f"a column of probs: 0 to {n_classes - 1}: {AGAIN}")
    return torch.from_numpy(values.astype(np.int64))


def _embeddings(panel: Panel, column: str, rows: np.ndarray) -> Tensor:
    """Those of some rows: Tensor, shape (rows, d), float32."""
    with np.errstate(over="ignore"):
        values = _matrix(panel, column)[rows].astype(np.float32)
    bad = np.zeros(panel.n_rows, dtype=bool)
    bad[rows] = ~np.isfinite(values).all(axis=1)
    panel.refuse_rows(column, bad, f"finite float32 numbers: {AGAIN}")
    return torch.from_numpy(values)


def _true_slices(panel: Panel, entry: ProblemEntry) -> np.ndarray:
    """Array, shape (n, n_slices), bool, in the panel's order."""
    if panel.columns["slices"].ndim == 1:  # of a single slice
        panel = replace(panel, columns={**panel.columns, "slices": panel.columns["slices"][:, None]})
    values, n_slices = _matrix(panel, "slices"), len(entry.slice_names)
    if values.shape[1] != n_slices:
        raise InvalidInput(
            f"{panel.folder}: slices has {values.shape[1]} columns, the index names {n_slices} slices of problem "
            f"{entry.container_id}: {AGAIN}"
        )
    panel.refuse_rows("slices", ~np.isin(values, (0, 1)).all(axis=1), f"0 or 1: {AGAIN}")
    return values.astype(bool)


def _check_same_classes(entry: ProblemEntry, *splits: StoredSplit | None) -> None:
    counts = {
        PREDICTIONS[name]: split.stored.logits.shape[1]
        for name, split in zip(PREDICTIONS, splits, strict=True)
        if split is not None and split.stored.logits is not None
    }
    if entry.class_names is not None:
        counts["class_names"] = len(entry.class_names)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise InvalidInput(f"problem {entry.container_id} has so many classes: {said}; expected as many each: {AGAIN}")
