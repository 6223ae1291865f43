"""One row for each example of a run: what tables, pictures and reports are made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from experiments.audit import Audit
from experiments.contract import Dataset, Problem, ProblemSet
from experiments.embedding import outputs_of
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
        "text": [str(text) for text in split.examples] if dataset.modality in ("text", "text_pair") else None,
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
