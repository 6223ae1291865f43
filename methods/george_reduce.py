"""GEORGE's first step: the embeddings of one class in few dimensions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

Array = npt.NDArray[np.float64]
Embeddings = npt.NDArray[np.float32]


class Reducer(Protocol):
    """What scikit-learn's PCA and UMAP have in common."""

    def fit(self, embeddings: Embeddings) -> object: ...

    def transform(self, embeddings: Embeddings) -> npt.NDArray[np.floating]: ...


@dataclass(frozen=True, eq=False)
class Reduction:
    """A learned map from embeddings to the coordinates in which a class is clustered.

    Parameters
    ----------
    normalise : bool
        Whether rows are divided by their lengths first.
    normal : ndarray, shape (d,), of length 1, optional
        The first coordinate is the component along it, and the reducer sees what is left.
    reducer : Reducer, optional
        Gives the (other) coordinates; without it there are none with a normal, all d without.

    Examples
    --------
    >>> Reduction(normalise=True)(np.array([[3.0, 4.0]], dtype=np.float32)).round(2).tolist()
    [[0.6, 0.8]]
    >>> Reduction(normalise=False, normal=np.array([0.0, 1.0]))(np.array([[3.0, 4.0]], dtype=np.float32)).tolist()
    [[4.0]]
    """

    normalise: bool
    normal: Array | None = None
    reducer: Reducer | None = None

    def fit(self, embeddings: Embeddings) -> None:
        if self.reducer is not None:
            self.reducer.fit(self._rest(self._scaled(embeddings)))

    def __call__(self, embeddings: Embeddings) -> Array:
        """Array, shape (n, d) to (n, r); the very rows of the fit keep the places that UMAP gave them there."""
        scaled = self._scaled(embeddings)  # (n, d)
        parts = [] if self.normal is None else [scaled @ self.normal[:, None]]  # (n, 1)
        if self.reducer is not None:
            parts.append(np.asarray(self.reducer.transform(self._rest(scaled))))
        return np.hstack(parts).astype(np.float64) if parts else scaled.astype(np.float64)

    def _scaled(self, embeddings: Embeddings) -> Embeddings:
        if not self.normalise:
            return embeddings
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)  # (n, 1)
        return np.asarray(embeddings / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    def _rest(self, scaled: Embeddings) -> Embeddings:
        if self.normal is None:
            return scaled
        return (scaled - (scaled @ self.normal[:, None]) * self.normal).astype(np.float32)


def reducer_for(
    kind: Literal["umap", "pca"],
    shape: tuple[int, ...],
    n_components: int,
    n_neighbors: int,
    min_dist: float,
    seed: int,
) -> Reducer:
    """An unfitted reducer for embeddings of this shape; PCA has at most min(n, d) components."""
    if kind == "pca":
        return _DoublePCA(min(n_components, *shape), seed)
    return _QuietUMAP(n_components, n_neighbors, min_dist, seed)


class _DoublePCA:
    """scikit-learn's PCA in double precision: it takes covariances as differences of squares."""

    def __init__(self, n_components: int, seed: int) -> None:
        self.pca = PCA(n_components, random_state=seed)

    def fit(self, embeddings: Embeddings) -> None:
        with np.errstate(invalid="ignore"):  # embeddings all in one place: shares of no variance
            self.pca.fit(embeddings.astype(np.float64))

    def transform(self, embeddings: Embeddings) -> Array:
        return np.asarray(self.pca.transform(embeddings.astype(np.float64)))


class _QuietUMAP:
    """UMAP, seeded: it runs on one thread then, and asking it for one keeps it from warning that it does."""

    def __init__(self, n_components: int, n_neighbors: int, min_dist: float, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # that there is no TensorFlow, which nobody asked for
            from umap import UMAP  # here, because it takes 4 seconds
        self.umap = UMAP(
            n_components=n_components, n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1
        )

    def fit(self, embeddings: Embeddings) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # where the spectral start fails it draws one
            self.umap.fit(embeddings)

    def transform(self, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        placed: npt.NDArray[np.float32] = self.umap.transform(embeddings)
        return placed


def decision_normal(embeddings: Embeddings, logits: npt.NDArray[np.float32]) -> Array:
    """The direction in which the second logit gains most on the first: the normal of a linear decision boundary.

    Least squares of the difference of the two logits on the embeddings and a constant. Where the embeddings are what
    the final linear layer sees this is the difference of its weights (within the span of the embeddings); for others
    it is the nearest linear model of the decision.

    Parameters
    ----------
    embeddings : ndarray, shape (n, d)
    logits : ndarray, shape (n, 2)

    Returns
    -------
    ndarray, shape (d,), float64
        Of length 1, or 0 where the logits do not depend on the embeddings.

    Examples
    --------
    >>> embeddings = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    >>> decision_normal(embeddings, embeddings @ np.array([[0, 3], [0, 4]], dtype=np.float32)).round(6).tolist()
    [0.6, 0.8]
    """
    centred = embeddings - embeddings.mean(axis=0, dtype=np.float64)  # (n, d)
    margins = (logits[:, 1] - logits[:, 0]).astype(np.float64)  # (n,)
    # the normal equations: d x d where embeddings are n x d; directions without variance get no weight
    slope = np.linalg.lstsq(centred.T @ centred, centred.T @ (margins - margins.mean()), rcond=1e-9)[0]
    length = np.linalg.norm(slope)
    return np.asarray(slope / length if length > 0 else slope)
