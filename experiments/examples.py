"""One row for each example of a run: what tables, pictures and reports are made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from experiments.audit import Audit
from experiments.contract import Dataset, Problem, ProblemSet, Split
from experiments.embedding import outputs_of
from experiments.settings import Evaluation
from methods.contract import ModelOutputs


def examples_table(audit: Audit) -> pd.DataFrame:
    """Columns id, split, label, prediction, loss, correct, path or text, attribute_<name>, map_x, map_y.

    Labels and predictions are class names, as the model and the data had them before any corruption; the map is the
    plane of the two leading principal components of each split's embeddings. Questions have neither label nor
    prediction.
    """
    outputs = {name: outputs_of(audit.predictions[name], embedded) for name, embedded in audit.embedded.items()}
    return pd.concat([_split(audit.dataset, name, of_split) for name, of_split in outputs.items()], ignore_index=True)


def examples_of_problems(data: Dataset | ProblemSet, problems: Sequence[Problem]) -> pd.DataFrame:
    """The same for problems that have examples of their own, with their names in front; empty where they share them."""
    if isinstance(data, Dataset):
        return pd.DataFrame()
    tables = [(problem.name, examples_table(problem.audit)) for problem in problems if problem.audit is not None]
    for name, table in tables:
        table.insert(0, "problem", name)
    return pd.concat([table for _, table in tables], ignore_index=True) if tables else pd.DataFrame()


def true_slices(problems: Sequence[Problem]) -> pd.DataFrame:
    """Rows with problem, true_slice and example_id: the members of each true slice in the half that is scored."""
    rows = [
        {"problem": problem.name, "true_slice": index, "example_id": problem.score.example_ids[row]}
        for problem in problems
        if problem.true_slices is not None
        for index, members in enumerate(problem.true_slices.cpu().T)
        for row in members.nonzero().flatten().tolist()
    ]
    return pd.DataFrame(rows)


def relabelled_examples(problems: Sequence[Problem], evaluation: Evaluation) -> pd.DataFrame:
    """Rows with problem, example_id, label, loss, correct: what problems change in the halves whose slices are kept."""
    tables = [
        _relabelled(problem, half, problem.audit, split)
        for problem in problems
        if problem.audit is not None
        for split, half in _kept(problem, evaluation).items()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _kept(problem: Problem, evaluation: Evaluation) -> dict[str, ModelOutputs]:
    fitted = {evaluation.fit_split: problem.fit} if evaluation.fit_slices else {}
    return {**fitted, evaluation.score_split: problem.score}


def _relabelled(problem: Problem, half: ModelOutputs, audit: Audit, split: str) -> pd.DataFrame:
    before, now = audit.predictions[split].split.labels, half.labels
    if before is None or now is None:
        return pd.DataFrame()
    rows = (now.cpu() != before).nonzero().flatten().numpy()
    labels = np.array(audit.dataset.class_names)[now.cpu().numpy()[rows]]
    columns = {"label": labels, "loss": half.losses.cpu().numpy()[rows]}
    columns["correct"] = half.correct.cpu().numpy()[rows]
    return pd.DataFrame({"problem": problem.name, "example_id": [half.example_ids[row] for row in rows], **columns})


def _texts(dataset: Dataset, split: Split) -> Sequence[str] | None:
    if dataset.modality in ("text", "text_pair"):
        return [str(text) for text in split.examples]
    return split.texts


def _split(dataset: Dataset, name: str, outputs: ModelOutputs) -> pd.DataFrame:
    split, classes = dataset.split(name), np.array(dataset.class_names)
    plane = _plane(outputs.embeddings.cpu().numpy())  # (n, 2)
    table = {
        "id": split.example_ids,
        "split": name,
        "label": None if outputs.labels is None else classes[outputs.labels.cpu().numpy()],
        "prediction": None if outputs.predictions is None else classes[outputs.predictions.cpu().numpy()],
        "loss": outputs.losses.cpu().numpy(),
        "correct": outputs.correct.cpu().numpy(),
        "path": split.paths,
        "text": _texts(dataset, split),
        **{f"attribute_{column}": split.attributes[column].to_numpy() for column in split.attributes},
        "map_x": plane[:, 0],
        "map_y": plane[:, 1],
    }
    return pd.DataFrame(table)


def _plane(embeddings: np.ndarray) -> np.ndarray:
    n_components = min(2, *embeddings.shape)
    plane = np.zeros((len(embeddings), 2), dtype=np.float32)
    if len(embeddings) > 1 and np.ptp(embeddings, axis=0).any():
        plane[:, :n_components] = PCA(n_components, svd_solver="full").fit_transform(embeddings.astype(np.float64))
    return plane
