"""Ridge regression of the loss on the embedding: the examples that it expects to go worst."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from torch import Tensor

from methods.clusters import check_columns
from methods.contract import InvalidInput, ModelOutputs, Slices
from methods.ranges import check_ranges
from methods.sizes import check_size, largest
from methods.spotlight_start import EmbeddingMap


@dataclass
class Ridge:
    """One slice: the examples of highest predicted loss, each predicted without having seen its own loss.

    Parameters
    ----------
    size : int, in [1, n]
        Examples in the slice; in a smaller split, all of them.
    pca : int, >= 1, optional
        Regress on this many principal directions, cut to what n and d allow; without it (null) on the embedding itself.
    penalties : tuple of float, each > 0
        Candidates for the ridge penalty divided by the number of examples, for embeddings of unit root mean square
        length: at 1 a direction that had all of the variance would keep half of its weight. Chosen by leave-one-out
        error within the examples that the regression sees.
    n_folds : int, >= 2
        Each fold is predicted from the others; at least two examples a fold.
    seed : int, >= 0
        Of the folds.

    Attributes
    ----------
    embedding_map_ : EmbeddingMap
    model_ : sklearn.linear_model.RidgeCV
        Fitted on all examples.
    example_ids_ : tuple of str, length n
    embeddings_ : Tensor, shape (n, d)
        Of the fit, not copied.
    out_of_fold_ : ndarray, shape (n,), in nats
        The loss that the other folds predict for each example of the fit.
    r_squared_ : float or None, <= 1
        Share of the losses' variance that the out-of-fold predictions explain: at or below 0 the slice means nothing.
        None where all losses are equal.

    Raises
    ------
    InvalidInput
        Where there are fewer than two examples a fold, the slice would be larger than the split, or the embeddings'
        dimension is not that of the fit.

    Notes
    -----
    Membership is the rank of the predicted loss divided by n. A split with the ids and the embeddings of the fit *is*
    the fit, and gets the out-of-fold predictions: a regression would find its own noise again in losses that it was
    fitted on. Other examples get the predictions of the model fitted on all.

    Principal directions come from the embeddings of all folds, which tells nothing about losses.

    Examples
    --------
    >>> ids = [f"{i:02d}" for i in range(40)]
    >>> position = torch.arange(40.0)
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=position[:, None], losses=position / 10, correct=[True] * 40)
    >>> Ridge(size=2).fit(outputs).predict(outputs).members[-3:].flatten().tolist()
    [False, True, True]
    """

    version: ClassVar[int] = 1

    size: int = field(default=50, metadata={"min": 1})
    pca: int | None = field(default=256, metadata={"min": 1})
    penalties: tuple[float, ...] = field(default=(1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0), metadata={"above": 0})
    n_folds: int = field(default=5, metadata={"min": 2})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        self._check(outputs)
        n, d = outputs.embeddings.shape
        n_components = None if self.pca is None else min(self.pca, n, d)
        self.embedding_map_ = EmbeddingMap.learned(outputs.embeddings, normalise=True, n_components=n_components)
        x = self._mapped(outputs)  # (n, p)
        losses = outputs.losses.cpu().numpy().astype(np.float64)
        model = RidgeCV(alphas=n * np.array(self.penalties))
        folds = KFold(self.n_folds, shuffle=True, random_state=self.seed)
        self.out_of_fold_ = cross_val_predict(model, x, losses, cv=folds)
        self.r_squared_ = _r_squared(losses, self.out_of_fold_)
        self.model_ = model.fit(x, losses)
        self.example_ids_, self.embeddings_ = outputs.example_ids, outputs.embeddings
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        check_columns(outputs, self.embeddings_.shape[1])
        predicted = self.out_of_fold_ if self._is_of_the_fit(outputs) else self.model_.predict(self._mapped(outputs))
        membership = torch.from_numpy(rankdata(predicted) / len(predicted)).float().unsqueeze(1)  # (n, 1)
        penalty = float(self.model_.alpha_ / len(self.example_ids_))
        diagnostics = {"out_of_fold_r_squared": self.r_squared_, "penalty": penalty}
        return Slices(outputs.example_ids, membership, largest(membership, self.size), (diagnostics,))

    def _check(self, outputs: ModelOutputs) -> None:
        check_ranges(self)
        check_size(self.size, outputs)
        if len(self.penalties) == 0:
            raise InvalidInput("penalties is empty, expected at least one candidate")
        if 2 * self.n_folds > outputs.n_examples:
            raise InvalidInput(
                f"n_folds is {self.n_folds}, which needs {2 * self.n_folds} examples: there are {outputs.n_examples}"
            )

    def _mapped(self, outputs: ModelOutputs) -> np.ndarray:
        mapped: np.ndarray = self.embedding_map_(outputs.embeddings).cpu().numpy().astype(np.float64)
        return mapped

    def _is_of_the_fit(self, outputs: ModelOutputs) -> bool:
        return outputs.example_ids == self.example_ids_ and _equal(outputs.embeddings, self.embeddings_)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.device == other.device and torch.equal(one, other))


def _r_squared(losses: np.ndarray, predicted: np.ndarray) -> float | None:
    total = np.square(losses - losses.mean()).sum()
    return float(1 - np.square(losses - predicted).sum() / total) if total > 0 else None
