"""PlaneSpot: a Gaussian mixture on two dimensions of the embedding and the model's confidence."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from methods.clusters import ClusterStatistics, check_clusters, check_columns, double_rows
from methods.contract import InvalidInput, ModelOutputs, Slices, Unsupported
from methods.progress import progress
from methods.ranges import check_ranges


@dataclass
class PlaneSpot:
    """Clusters in a two-dimensional map of the embeddings, those with many errors and a high error rate first.

    Parameters
    ----------
    n_slices : int, >= 1
        Fewer come back where fewer clusters are large enough.
    reduce : {"umap", "pca"}
        How the embedding becomes two-dimensional; the paper takes scvis. `umap` needs umap-learn.
    n_neighbors : int, >= 2
        Of UMAP; cut to n - 1.
    probability : {"prediction", "label"}
        What is appended: the probability of the predicted class, or that of the label.
    weight : float, >= 0
        The appended probability is multiplied by this.
    min_components, max_components : int, >= 1, at most n
        The mixture has as many components, from the one to the other, as give the lowest BIC.
    order : {"score", "loss"}
        What makes a cluster worse than another: size x (error rate)^2, the paper's; or the mean loss.
    min_size : int, >= 1
        A cluster with fewer members, among the examples that it was fitted on, is no slice.
    seed : int, >= 0
        Of UMAP and of the mixtures' k-means starts.

    Attributes
    ----------
    n_columns_ : int
        d, of the embeddings.
    reducer_ : object with transform(X)
    plane_ : ndarray, shape (n, 2)
        The map of the examples of the fit.
    low_, span_ : ndarray, shape (2,)
        What it was shifted and divided by, so that the examples of the fit lie in [0, 1].
    mixture_ : sklearn.mixture.GaussianMixture
    bics_ : dict of int to float
        By number of components.
    components_ : list of int, length s
        The component of each slice, the worst first.
    diagnostics_ : tuple of dict, length s
        score, size, accuracy and mean_loss (nats) of each slice among the examples of the fit; n_components.

    Raises
    ------
    Unsupported
        Without logits (and labels, where they are asked for), or where umap-learn is not installed.
    InvalidInput
        Where there are too few examples, or a covariance is not positive definite.

    Notes
    -----
    Plumb et al. 2022 (Towards a more rigorous science of blindspot discovery in image classification models). They look
    at binary classifiers, for which "the model's confidence" is one number an example; for several classes it is read
    here as the probability of the predicted class, so that no label is needed. The released code takes one minus the
    probability that it is given for the error of an example, which is sensible for that of the label; here an error is
    a wrong prediction (`correct`), as in the paper's "number of errors times error rate". It divides the shifted map by
    its largest value before the shift; here by its range. Its mixtures have n_slices to 32 components.

    An example belongs to its most likely component and has its posterior as membership, 0 in other slices.

    Examples
    --------
    >>> spread = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    >>> embeddings = spread + 20 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    >>> labels = torch.tensor([0, 0, 1]).repeat(20)
    >>> logits = torch.tensor([3.0, -3.0]).repeat(60, 1)
    >>> ids = [f"{i:02d}" for i in range(60)]
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, logits=logits)
    >>> method = PlaneSpot(n_slices=1, reduce="pca", min_components=1, max_components=6).fit(outputs)
    >>> method.mixture_.n_components, method.predict(outputs).members[:3, 0].tolist()
    (3, [False, False, True])
    """

    version: ClassVar[int] = 2  # the plane is made once for problems that share embeddings

    n_slices: int = field(default=5, metadata={"min": 1})
    reduce: Literal["umap", "pca"] = "umap"
    n_neighbors: int = field(default=15, metadata={"min": 2})
    probability: Literal["prediction", "label"] = "prediction"
    weight: float = field(default=0.025, metadata={"min": 0})
    min_components: int = field(default=5, metadata={"min": 1})
    max_components: int = field(default=32, metadata={"min": 1})
    order: Literal["score", "loss"] = "score"
    min_size: int = field(default=10, metadata={"min": 1})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        return self.fit_embeddings(outputs).fit_losses(outputs)

    def fit_embeddings(self, outputs: ModelOutputs) -> Self:
        """Learn the plane, and the mixtures too where these do not depend on labels: many problems may share them.

        Examples without a confidence are refused here, before that.
        """
        self._check(outputs)
        self._probabilities(outputs)
        x = double_rows(outputs).numpy()  # (n, d)
        self.n_columns_ = x.shape[1]
        self.reducer_ = self._fitted_reducer(x)
        self.plane_ = self.reducer_.transform(x)  # (n, 2)
        self.low_ = self.plane_.min(axis=0)
        ranges = self.plane_.max(axis=0) - self.low_
        self.span_ = np.where(ranges > 0, ranges, 1.0)
        if self.probability == "prediction":
            self.mixture_ = self._best_mixture(self._points(self.plane_, self._probabilities(outputs)))
        return self

    def fit_losses(self, outputs: ModelOutputs) -> Self:
        """Rank the components of the best mixture by errors."""
        points = self._points(self.plane_, self._probabilities(outputs))
        if self.probability == "label":
            self.mixture_ = self._best_mixture(points)
        self._choose(torch.from_numpy(self.mixture_.predict(points)), outputs)
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        check_columns(outputs, self.n_columns_)
        probabilities = self._probabilities(outputs)
        points = self._points(self.reducer_.transform(double_rows(outputs).numpy()), probabilities)
        posteriors = torch.from_numpy(self.mixture_.predict_proba(points))  # (n, n_components)
        clusters = posteriors.argmax(dim=1, keepdim=True)  # (n, 1)
        members = clusters == torch.tensor(self.components_, dtype=torch.long)  # (n, s)
        membership = (posteriors[:, self.components_] * members).float().clamp(0, 1)
        return Slices(outputs.example_ids, membership, members, self.diagnostics_)

    def _check(self, outputs: ModelOutputs) -> None:
        check_ranges(self)
        check_clusters(self.max_components, outputs, "max_components")
        if self.min_components > self.max_components:
            raise InvalidInput(
                f"min_components is {self.min_components}, expected at most max_components, {self.max_components}"
            )
        if self.reduce == "umap" and outputs.n_examples < 5:
            raise InvalidInput(f"there are {outputs.n_examples} examples, UMAP needs 5: reduce=pca takes any number")

    def _probabilities(self, outputs: ModelOutputs) -> np.ndarray:
        """Of the class that was asked for: shape (n,)."""
        if outputs.logits is None:
            raise Unsupported("PlaneSpot needs logits for the model's confidence; these outputs have none")
        classes = outputs.predictions if self.probability == "prediction" else outputs.labels
        if classes is None:
            raise Unsupported(
                "probability=label needs labels, these outputs have none; probability=prediction does not"
            )
        probabilities = outputs.logits.double().softmax(dim=1)  # (n, c)
        chosen: np.ndarray = probabilities.gather(1, classes[:, None]).flatten().cpu().numpy()
        return chosen

    def _fitted_reducer(self, x: np.ndarray) -> Any:
        if self.reduce == "pca":
            with np.errstate(invalid="ignore"):  # shares of no variance, which are not used
                return PCA(min(2, *x.shape), random_state=self.seed).fit(x)
        umap = _umap()(n_neighbors=min(self.n_neighbors, len(x) - 1), random_state=self.seed, n_jobs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that far clusters share no neighbours, which is no harm
            return umap.fit(x)

    def _points(self, plane: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """What the mixture sees: shape (n, 3), float64."""
        scaled = (plane.astype(np.float64) - self.low_) / self.span_
        return np.column_stack([scaled, self.weight * probabilities])

    def _best_mixture(self, points: np.ndarray) -> GaussianMixture:
        sizes = range(self.min_components, self.max_components + 1)
        self.bics_: dict[int, float] = {}
        best = None
        for n_components in progress(sizes, "mixtures", total=len(sizes)):
            mixture = self._fitted_mixture(points, n_components)
            self.bics_[n_components] = float(mixture.bic(points))
            if best is None or self.bics_[n_components] < self.bics_[best.n_components]:
                best = mixture
        return best

    def _fitted_mixture(self, points: np.ndarray, n_components: int) -> GaussianMixture:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of EM, or of k-means on fewer distinct points
            try:
                return GaussianMixture(n_components, random_state=self.seed).fit(points)
            except ValueError as error:
                raise InvalidInput(
                    f"a mixture of {n_components} components cannot be fitted ({error}): lower max_components"
                ) from None

    def _choose(self, clusters: torch.Tensor, outputs: ModelOutputs) -> None:
        """Rank the components by how the model did on their examples."""
        n_components = self.mixture_.n_components
        statistics = ClusterStatistics.of(clusters, outputs, n_components)
        scores = statistics.sizes * (1 - statistics.accuracies) ** 2
        badness = scores if self.order == "score" else statistics.mean_losses
        ranked = [int(c) for c in np.argsort(-badness, kind="stable") if statistics.sizes[c] >= self.min_size]
        self.components_ = ranked[: self.n_slices]
        self.diagnostics_ = tuple(
            {"score": float(scores[c]), **statistics.of_cluster(c), "n_components": n_components}
            for c in self.components_
        )


def _umap() -> Any:
    """UMAP's class, imported when it is asked for: the import takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # about a part that needs TensorFlow
        try:
            from umap import UMAP
        except ImportError:
            raise Unsupported("reduce=umap needs the package umap-learn; reduce=pca does not") from None
    return UMAP
