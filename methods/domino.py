"""Domino: slices from an error-aware mixture of embeddings, labels and predictions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from methods.contract import InvalidInput, ModelOutputs, Slices, Unsupported
from methods.domino_mixture import Examples, Mixture, Responsibilities, Statistics, fitted
from methods.domino_start import Projection, from_confusion, from_kmeans
from methods.ranges import check_ranges

SINGLE_FROM = 16_384  # examples, over which rounding errors average out; fewer take no time in double precision


@dataclass
class Domino:
    """The components of an error-aware mixture whose predictions differ most from their labels.

    A Gaussian mixture over embeddings in which each component also has a distribution of labels and one of
    predictions. An example's membership in a slice is the posterior of that component (so rows need not sum to 1),
    and it is a member where that is above 0.5; labels and predictions of new examples count in their posteriors.

    Parameters
    ----------
    n_slices : int
        At least 1; fewer come back where fewer components answer for at least one example.
    n_components : int
        Components of the mixture; at least 1, at most the number of examples.
    start : {"confusion", "kmeans", "confusion_or_kmeans"}
        "confusion" (the published method) gives each component a (label, prediction) cell and so needs at least c^2
        components for c classes; "kmeans" (its last release) clusters the embeddings; "confusion_or_kmeans" takes
        the second where there are too few components for the first.
    label_weight, prediction_weight : float
        The paper's gamma, exponents of a label's and a prediction's probability; non-negative. 10 in the paper's
        experiments, 1 in the class that they released; 0 for both leaves a Gaussian mixture of the embeddings.
    pca : int, optional
        Principal components of the embeddings that the mixture sees, at most min(n, d) of them; None: all of d as is.
    rank : {"error_gap", "loss"}
        What makes a component a slice: the largest excess of a class among predictions over its share of labels (the
        published order), or the mean loss.
    start_noise : float
        Scale of what tells apart components that start from one cell; non-negative.
    max_iter : int
        At least 1.
    tol : float
        The fit ends where a step gains less, in nats per example; non-negative.
    reg_covar : float
        Added to the variances; non-negative. It has the embeddings' squared unit.
    seed : int
        Of the start; non-negative.

    Attributes
    ----------
    projection_ : methods.domino_start.Projection
    start_ : str
        "confusion" or "kmeans", whichever was taken.
    mixture_ : methods.domino_mixture.Mixture
    log_likelihood_ : list of float, in nats
        Mean over examples at each iteration, never falling.
    converged_ : bool
    components_ : list of int
        The component of each slice, the worst first.
    diagnostics_ : tuple of dict
        Of each slice: component, error_gap, overpredicted (the class that makes the gap), component_weight (share of
        examples), mean_loss (nats), start, converged, n_iterations; all of the half that it was fitted on.

    Raises
    ------
    Unsupported
        Without labels and logits, or where `start="confusion"` has fewer components than cells.
    InvalidInput
        Where there are more components than examples, or other embeddings or classes than in the fit.

    Notes
    -----
    The slicing step of Eyuboglu et al. (2022) models P(z, y, y') = sum_s P(s) P(z | s) P(y | s)^gamma P(y' | s)^gamma'.
    A soft prediction q enters as q . P(y' | s), as in their release. That gives every new example to its likeliest
    slice, be the posterior 1e-150, which is not done here. How the likelihood is kept from falling stands at
    `methods.domino_mixture.fitted`. The paper embeds with CLIP (`embedding=encoder`).

    From 16,384 examples on, a fit takes products in single precision while that errs by less than `tol` nats an
    example (`methods.domino_mixture.Mixture.rounding`), else in double. Beside the embeddings, which may be
    memory-mapped, it holds the (n, p) projected ones, where there is a projection, and (n, n_slices) memberships.

    Examples
    --------
    >>> ids = [f"{i:03d}" for i in range(100)]
    >>> embeddings = torch.tensor([[0.0], [0.1], [9.0], [9.1]]).repeat(25, 1)
    >>> labels, logits = [0, 1, 0, 0] * 25, [[8.0, 0.0], [0.0, 8.0], [0.0, 8.0], [0.0, 8.0]] * 25
    >>> outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, logits=logits)
    >>> domino = Domino(n_slices=1, n_components=4).fit(outputs)
    >>> domino.predict(outputs).members[:4, 0].tolist()
    [False, False, True, True]
    >>> round(domino.diagnostics_[0]["error_gap"], 2), domino.diagnostics_[0]["overpredicted"]
    (1.0, 1)
    """

    version: ClassVar[int] = 2  # many examples in single precision

    n_slices: int = field(default=5, metadata={"min": 1})
    n_components: int = field(default=25, metadata={"min": 1})
    start: Literal["confusion", "kmeans", "confusion_or_kmeans"] = "confusion"
    label_weight: float = field(default=10.0, metadata={"min": 0})
    prediction_weight: float = field(default=10.0, metadata={"min": 0})
    pca: int | None = field(default=128, metadata={"min": 1})
    rank: Literal["error_gap", "loss"] = "error_gap"
    start_noise: float = field(default=1e-3, metadata={"min": 0})
    max_iter: int = field(default=100, metadata={"min": 1})
    tol: float = field(default=1e-3, metadata={"min": 0})
    reg_covar: float = field(default=1e-6, metadata={"min": 0})
    seed: int = field(default=0, metadata={"min": 0})

    def fit(self, outputs: ModelOutputs) -> Self:
        check_ranges(self)
        labels, logits = _labels_and_logits(outputs)
        self._check_components(outputs.n_examples)
        self.start_ = self._start_for(logits.shape[1])
        self.projection_ = Projection.learned(outputs.embeddings, self.pca)
        examples, first = self._started(_examples(outputs, labels, logits, self.projection_))
        fit = fitted(examples, first, max_iter=self.max_iter, tol=self.tol, reg_covar=self.reg_covar)
        self.mixture_, self.log_likelihood_, self.converged_ = fit
        self._choose(*self.mixture_.sizes_and_losses(examples))
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        labels, logits = _labels_and_logits(outputs)
        self._check_columns(outputs.embeddings.shape[1], logits.shape[1])
        examples = _examples(outputs, labels, logits, self.projection_)
        membership = self.mixture_.posteriors(examples, self.components_).cpu()  # (n, s)
        return Slices(outputs.example_ids, membership, membership > 0.5, self.diagnostics_)

    def _check_components(self, n_examples: int) -> None:
        if self.n_components > n_examples:
            raise InvalidInput(
                f"n_components is {self.n_components}, expected at most {n_examples}, the number of examples"
            )

    def _start_for(self, n_classes: int) -> Literal["confusion", "kmeans"]:
        enough = self.n_components >= n_classes**2
        if self.start == "confusion" and not enough:
            raise Unsupported(
                f"start=confusion needs a component for each (label, prediction) cell, {n_classes**2} for {n_classes} "
                f"classes; n_components is {self.n_components}: raise it, or choose start=kmeans or "
                "start=confusion_or_kmeans"
            )
        return "confusion" if self.start != "kmeans" and enough else "kmeans"

    def _started(self, examples: Examples) -> tuple[Examples, Mixture]:
        """The examples in the precision to begin with, and the first mixture."""
        if examples.n_examples >= SINGLE_FROM:
            single = replace(examples, dtype=torch.float32)
            first = self._first(single)
            if first.rounding() < self.tol:
                return single, first
        return examples, self._first(examples)

    def _first(self, examples: Examples) -> Mixture:
        """The mixture that the first responsibilities give."""
        responsibilities: Responsibilities
        if self.start_ == "confusion":
            responsibilities = from_confusion(self.n_components, examples.n_classes, self.start_noise, self.seed)
        else:
            responsibilities = from_kmeans(examples, self.n_components, self.seed)
        return Mixture.of(
            Statistics.of(examples, responsibilities),
            reg_covar=self.reg_covar,
            label_weight=self.label_weight,
            prediction_weight=self.prediction_weight,
        )

    def _choose(self, sizes: Tensor, losses: Tensor) -> None:
        """The components with the largest gaps, or losses, of those that answer for an example: shapes (k,) both."""
        gaps, mean_losses = self.mixture_.error_gaps(), losses / sizes.clamp(min=1)
        scores = (gaps if self.rank == "error_gap" else mean_losses).where(sizes >= 1, -torch.inf)
        n_slices = min(self.n_slices, int((sizes >= 1).sum()))
        self.components_ = scores.argsort(descending=True, stable=True)[:n_slices].tolist()
        self.diagnostics_ = tuple(self._diagnostics(c, float(mean_losses[c])) for c in self.components_)

    def _diagnostics(self, component: int, mean_loss: float) -> dict[str, Any]:
        gaps = self.mixture_.predictions[component] - self.mixture_.labels[component]  # (c,)
        return {
            "component": component,
            "error_gap": float(gaps.max()),
            "overpredicted": int(gaps.argmax()),
            "component_weight": float(self.mixture_.weights[component]),
            "mean_loss": mean_loss,
            "start": self.start_,
            "converged": self.converged_,
            "n_iterations": len(self.log_likelihood_),
        }

    def _check_columns(self, n_dimensions: int, n_classes: int) -> None:
        expected = {"embeddings": len(self.projection_.mean), "logits": self.mixture_.labels.shape[1]}
        for name, columns in {"embeddings": n_dimensions, "logits": n_classes}.items():
            if columns != expected[name]:
                raise InvalidInput(f"{name} has {columns} columns, expected {expected[name]} as in the fit")


def _labels_and_logits(outputs: ModelOutputs) -> tuple[Tensor, Tensor]:
    missing = [name for name in ("labels", "logits") if getattr(outputs, name) is None]
    if outputs.labels is None or outputs.logits is None:
        raise Unsupported(f"Domino needs labels and logits; these outputs have no {' and no '.join(missing)}")
    return outputs.labels, outputs.logits


def _examples(outputs: ModelOutputs, labels: Tensor, logits: Tensor, projection: Projection) -> Examples:
    device = outputs.losses.device  # embeddings may stay elsewhere: their blocks are sent there one by one
    coordinates = projection.coordinates(outputs.embeddings)
    return Examples(coordinates, projection.shift, labels.to(device), logits.to(device), outputs.losses.to(device))
