"""Gaussian mixture on the embeddings, its worst clusters first."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from methods.contract import InvalidInput, ModelOutputs, Slices
from methods.ranges import check_ranges


@dataclass
class GMM:
    """The clusters of a Gaussian mixture with the highest mean loss.

    The mixture sees embeddings only; losses rank its clusters. An example belongs to its most likely cluster, and its
    membership there is the posterior.

    Parameters
    ----------
    n_slices : int
        At least 1; fewer come back where fewer clusters are large enough.
    n_components : int
        Components of the mixture; at least 1, at most the number of examples.
    covariance_type : {"full", "diag", "tied", "spherical"}
        With fewer examples a component than dimensions, "full" hardly leaves its k-means start: every example keeps
        the component that it began in. `diagnostics` tells by `moved`, the share of examples that did change.
    min_size : int
        A cluster with fewer members, among the examples that it was fitted on, is no slice.
    reg_covar : float
        Added to the variances; non-negative.
    max_iter : int
        At least 1.
    seed : int
        Of the k-means start; non-negative.

    Attributes
    ----------
    mixture_ : sklearn.mixture.GaussianMixture
    clusters_ : ndarray, shape (n,)
        The component of each example of the fit.
    components_ : list of int
        The component of each slice, the worst first.
    moved_ : float
        Share of the examples that left the component of the k-means start.

    Raises
    ------
    InvalidInput
        Where there are more components than examples, or a component's covariance is not positive definite.

    Notes
    -----
    The clustering baseline of the Spotlight paper (d'Eon et al. 2022, section 4.6 and appendix B).

    Examples
    --------
    >>> ids = [f"{i:02d}" for i in range(40)]
    >>> embeddings = torch.tensor([[0.0], [0.1], [9.0], [9.1]]).repeat(10, 1)
    >>> losses, correct = [0, 0, 1, 1] * 10, [True, True, False, False] * 10
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=correct)
    >>> slices = GMM(n_slices=1, n_components=2).fit(outputs).predict(outputs)
    >>> slices.members[:4, 0].tolist()
    [False, False, True, True]
    """

    version: ClassVar[int] = 2

    n_slices: int = field(default=5, metadata={"min": 1})
    n_components: int = field(default=50, metadata={"min": 1})
    covariance_type: Literal["full", "diag", "tied", "spherical"] = "full"
    min_size: int = field(default=10, metadata={"min": 1})
    reg_covar: float = field(default=1e-6, metadata={"min": 0})
    max_iter: int = field(default=100, metadata={"min": 1})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        return self.fit_embeddings(outputs).fit_losses(outputs)

    def fit_embeddings(self, outputs: ModelOutputs) -> Self:
        """Learn the mixture, which losses do not matter to: many problems may share it."""
        check_ranges(self)
        if self.n_components > outputs.n_examples:
            raise InvalidInput(
                f"n_components is {self.n_components}, expected at most {outputs.n_examples}, the number of examples"
            )
        embeddings = _double(outputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the diagnostics say it
            self.mixture_, self.clusters_ = self._fitted_mixture(embeddings)
            # scikit-learn's own start, made again from the same seed
            start = KMeans(self.n_components, n_init=1, random_state=self.seed).fit_predict(embeddings)
        self.moved_ = float((self.clusters_ != start).mean())
        return self

    def fit_losses(self, outputs: ModelOutputs) -> Self:
        """Choose the components with the highest mean loss."""
        self.components_ = self._worst(self.clusters_, outputs.losses.cpu().numpy())
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        posteriors = torch.from_numpy(self.mixture_.predict_proba(_double(outputs)))  # (n, n_components)
        clusters = posteriors.argmax(dim=1, keepdim=True)  # (n, 1)
        members = clusters == torch.tensor(self.components_, dtype=torch.long)  # (n, s)
        membership = (posteriors[:, self.components_] * members).float().clamp(0, 1)
        diagnostics = {"converged": bool(self.mixture_.converged_), "moved": self.moved_}
        return Slices(outputs.example_ids, membership, members, tuple(diagnostics for _ in self.components_))

    def _fitted_mixture(self, embeddings: np.ndarray) -> tuple[GaussianMixture, np.ndarray]:
        """The mixture and each example's component, which its last E-step knows: shape (n,)."""
        mixture = GaussianMixture(
            self.n_components,
            covariance_type=self.covariance_type,
            reg_covar=self.reg_covar,
            max_iter=self.max_iter,
            random_state=self.seed,
        )
        try:
            return mixture, mixture.fit_predict(embeddings)
        except ValueError as error:
            raise InvalidInput(
                f"the mixture cannot be fitted ({error}): try covariance_type=diag or a larger reg_covar"
            ) from None

    def _worst(self, clusters: np.ndarray, losses: np.ndarray) -> list[int]:
        sizes = np.bincount(clusters, minlength=self.n_components)
        total = np.bincount(clusters, weights=losses, minlength=self.n_components)
        large_enough = np.flatnonzero(sizes >= self.min_size)
        mean_loss = total[large_enough] / sizes[large_enough]
        return [int(c) for c in large_enough[np.argsort(-mean_loss, kind="stable")][: self.n_slices]]


def _double(outputs: ModelOutputs) -> np.ndarray:
    """Embeddings in float64: full covariances of float32 data are not positive definite often enough."""
    return outputs.embeddings.cpu().numpy().astype(np.float64)
