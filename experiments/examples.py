"""One row for each example of a run: what tables, pictures and reports are made from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from experiments.contract import Dataset
from experiments.embedding import Embedded, outputs_of
from experiments.inference import Predictions
from methods.contract import ModelOutputs


def examples_table(
    dataset: Dataset, predictions: Mapping[str, Predictions], embedded: Mapping[str, Embedded]
) -> pd.DataFrame:
    """Columns id, split, label, prediction, loss, correct, path or text, attribute_<name>, map_x, map_y.

    Labels and predictions are class names, as the model and the data had them before any corruption; the map is the
    plane of the two leading principal components of each split's embeddings. Questions have neither label nor
    prediction.
    """
    tables = [_split(dataset, name, outputs_of(predictions[name], embedded[name])) for name in embedded]
    return pd.concat(tables, ignore_index=True)


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
    if len(embeddings) > 1 and embeddings.var() > 0:
        plane[:, :n_components] = PCA(n_components, svd_solver="full").fit_transform(embeddings.astype(np.float64))
    return plane
