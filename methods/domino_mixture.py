"""Domino's mixture over embeddings, labels and predictions, fitted in blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from methods.products import products, sums
from methods.progress import progress

BLOCK_ROWS = 2_048  # at once, and half as many doubles: with 512 coordinates 8 MB, which stay in a processor's cache
EPS = torch.finfo(torch.float64).eps


class Block(NamedTuple):
    """Some consecutive examples, in the precision of the pass; the next block takes the place of this one.

    Parameters
    ----------
    rows : slice
        Their place among all examples.
    coordinates, squares : Tensor, shape (b, p)
        In these and 1 the log-density of a diagonal Gaussian is linear.
    labels : Tensor, shape (b,), int64, in [0, c)
    predictions : Tensor, shape (b, c), rows sum to 1
    losses : Tensor, shape (b,), float64, in nats
    """

    rows: slice
    coordinates: Tensor
    squares: Tensor
    labels: Tensor
    predictions: Tensor
    losses: Tensor


Responsibilities = Callable[[Block], tuple[Tensor, Tensor]]  # of each component (b, k), and log-likelihoods (b,)


@dataclass(frozen=True, eq=False)
class Examples:
    """What the mixture sees, in single precision and shared with the model's outputs.

    Parameters
    ----------
    coordinates : Tensor, shape (n, p)
        Embeddings, perhaps projected; may be memory-mapped.
    shift : Tensor, shape (p,)
        Subtracted in each block: near the origin, variances lose little as differences of squares.
    labels : Tensor, shape (n,), int64, in [0, c)
    logits : Tensor, shape (n, c)
    losses : Tensor, shape (n,), in nats
    dtype : torch.dtype
        The precision within a block; sums over blocks are doubles.
    """

    coordinates: Tensor
    shift: Tensor
    labels: Tensor
    logits: Tensor
    losses: Tensor
    dtype: torch.dtype = torch.float64

    @property
    def n_examples(self) -> int:
        return len(self.coordinates)

    @property
    def n_classes(self) -> int:
        return self.logits.shape[1]

    def blocks(self) -> Iterator[Block]:
        device, shift = self.labels.device, self.shift.to(self.labels.device, self.dtype)
        n_rows = 4 * BLOCK_ROWS // self.dtype.itemsize
        buffers = torch.empty(
            2, min(n_rows, self.n_examples), self.coordinates.shape[1], dtype=self.dtype, device=device
        )
        for start in range(0, self.n_examples, n_rows):
            rows = slice(start, start + n_rows)
            given = self.coordinates[rows].to(device)  # (b, p)
            x, squares = buffers[:, : len(given)]  # (b, p) both
            torch.square(torch.sub(given, shift, out=x), out=squares)
            # (b, c); along columns, for torch is slow over rows of a few numbers
            predictions = self.logits[rows].to(self.dtype).T.contiguous().softmax(dim=0).T
            yield Block(rows, x, squares, self.labels[rows], predictions, self.losses[rows].double())


class Statistics(NamedTuple):
    """Sums over examples, weighted by responsibility: all that the M-step needs.

    Parameters
    ----------
    sizes : Tensor, shape (k,), float64
        The number of examples that a component answers for.
    coordinates, squares : Tensor, shape (k, p), float64
    labels : Tensor, shape (k, c), float64
    predictions : Tensor, shape (k, c), float64
    log_likelihood : Tensor, shape (), float64, in nats
        Of the parameters that gave the responsibilities.
    """

    sizes: Tensor
    coordinates: Tensor
    squares: Tensor
    labels: Tensor
    predictions: Tensor
    log_likelihood: Tensor

    @classmethod
    def of(cls, examples: Examples, responsibilities: Responsibilities) -> Self:
        """Those of all examples, by one pass over them."""
        total: Self | None = None
        for block in examples.blocks():
            part = cls._of_block(block, responsibilities)
            total = part if total is None else cls(*(a + b for a, b in zip(total, part, strict=True)))
        assert total is not None  # outputs without examples do not exist
        return total

    @classmethod
    def _of_block(cls, block: Block, responsibilities: Responsibilities) -> Self:
        weights, log_likelihood = responsibilities(block)  # (b, k), (b,)
        labels = weights.new_zeros(block.predictions.shape[1], weights.shape[1])  # (c, k)
        parts = (
            weights.sum(dim=0),
            sums(weights, block.coordinates),
            sums(weights, block.squares),
            labels.index_add_(0, block.labels, weights).T,
            weights.T @ block.predictions,
            log_likelihood.double().sum(),
        )
        return cls(*(part.double() for part in parts))


@dataclass(frozen=True, eq=False)
class Mixture:
    """k components, each a diagonal Gaussian with a distribution of labels and one of predictions.

    Parameters
    ----------
    weights : Tensor, shape (k,), float64, sums to 1
    means : Tensor, shape (k, p), float64
    variances : Tensor, shape (k, p), float64, > 0
    labels : Tensor, shape (k, c), float64, rows sum to 1
    predictions : Tensor, shape (k, c), float64, rows sum to 1
    label_weight, prediction_weight : float, non-negative
        The exponents of a label's and of a prediction's probability.

    Notes
    -----
    An example (z, y, q) of coordinates, label and soft prediction has under component s the log-density
    log w_s + log N(z; m_s, diag v_s) + gamma log p_s[y] + gamma' log(q . p'_s)
    (the slicing step of Eyuboglu et al. 2022; their release documents what it does with soft predictions).

    Examples
    --------
    >>> labels, logits = torch.tensor([0, 1]), torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    >>> examples = Examples(torch.tensor([[0.0], [8.0]]), torch.zeros(1), labels, logits, torch.zeros(2))
    >>> start = Statistics.of(examples, lambda block: (torch.eye(2, dtype=torch.float64), block.losses))
    >>> mixture = Mixture.of(start, reg_covar=1.0, label_weight=1.0, prediction_weight=1.0)
    >>> mixture.means.round(decimals=2).tolist(), mixture.error_gaps().round(decimals=2).tolist()
    ([[0.0], [8.0]], [1.0, 0.0])
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    labels: Tensor
    predictions: Tensor
    label_weight: float
    prediction_weight: float

    @classmethod
    def of(cls, statistics: Statistics, *, reg_covar: float, label_weight: float, prediction_weight: float) -> Self:
        """The M-step; soft predictions are averaged like labels, as the release does."""
        sizes = statistics.sizes[:, None] + 10 * EPS  # (k, 1); scikit-learn's guard of an empty component
        means = statistics.coordinates / sizes  # (k, p)
        variances = (statistics.squares / sizes - means.square()).clamp(min=0) + reg_covar
        return cls(
            (sizes / sizes.sum()).flatten(),
            means,
            variances,
            statistics.labels / sizes,
            statistics.predictions / sizes,
            label_weight,
            prediction_weight,
        )

    def improved(self, statistics: Statistics, reg_covar: float) -> Self:
        return self.of(
            statistics,
            reg_covar=reg_covar,
            label_weight=self.label_weight,
            prediction_weight=self.prediction_weight,
        )

    def log_joint(self, block: Block) -> Tensor:
        """Log-density of each example under each component, its weight included: Tensor, shape (b, k)."""
        constants, linear, quadratic, of_labels = (c.to(block.squares.dtype) for c in self._coefficients)
        log_joint = products(block.coordinates, linear).add_(products(block.squares, quadratic)).add_(constants)
        log_joint += of_labels[block.labels]
        of_predictions = block.predictions @ self.predictions.T.to(log_joint.dtype)  # (b, k)
        return log_joint.add_(of_predictions.add_(EPS).log_(), alpha=self.prediction_weight)

    @cached_property
    def _coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of 1, coordinates, squares and labels in the log-joint: shapes (k,), (k, p), (k, p), (c, k)."""
        precisions = 1 / self.variances
        logs = self.variances.log() + math.log(2 * math.pi) + self.means.square() * precisions  # (k, p)
        of_labels = (self.label_weight * (self.labels + EPS).log()).T  # (c, k)
        return self.weights.log() - 0.5 * logs.sum(dim=1), self.means * precisions, -0.5 * precisions, of_labels

    def rounding(self) -> float:
        """By how much single precision may err in an example's log-density, in nats; NaN where it breaks down.

        What cancels in the sum over coordinates are, for the examples of a component, squared means over variances. It
        is the mean over examples, or a hundredth of the worst component's error where that is more.
        """
        errors = torch.finfo(torch.float32).eps * (self.means.square() / self.variances).sum(dim=1)  # (k,)
        return float(torch.maximum(self.weights @ errors, errors.max() / 100))

    def responsibilities(self, block: Block) -> tuple[Tensor, Tensor]:
        """The E-step: posteriors, shape (b, k), and log-likelihoods in nats, shape (b,)."""
        log_joint = self.log_joint(block)
        largest = log_joint.amax(dim=1, keepdim=True)  # (b, 1)
        floor = 0.9 * math.log(torch.finfo(log_joint.dtype).tiny)  # far below it numbers are subnormal, and slow
        weights = log_joint.sub_(largest).clamp_(min=floor).exp_()
        totals = weights.sum(dim=1, keepdim=True)  # (b, 1)
        return weights.div_(totals), largest.add_(totals.log_()).flatten()

    def posteriors(self, examples: Examples, components: list[int]) -> Tensor:
        """Of some components: Tensor, shape (n, s), float32, in [0, 1]."""
        posteriors = torch.empty(examples.n_examples, len(components), device=examples.labels.device)
        for block in examples.blocks():
            posteriors[block.rows] = self.responsibilities(block)[0][:, components].float()
        return posteriors.clamp_(0, 1)

    def sizes_and_losses(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """How many examples each component answers for, and the sum of their losses: shapes (k,), float64."""
        sizes = losses = torch.zeros(1, dtype=torch.float64, device=examples.labels.device)
        for block in examples.blocks():
            weights = self.responsibilities(block)[0].double()  # (b, k)
            sizes, losses = sizes + weights.sum(dim=0), losses + block.losses @ weights
        return sizes, losses

    def error_gaps(self) -> Tensor:
        """By how much the class that is most over-predicted exceeds its share of labels: shape (k,), in [0, 1]."""
        return (self.predictions - self.labels).max(dim=1).values


class Fit(NamedTuple):
    """A fitted mixture.

    Parameters
    ----------
    mixture : Mixture
    log_likelihoods : list of float, in nats
        Mean over examples before each M-step, never falling.
    converged : bool
        Whether the last gain was below the tolerance.
    """

    mixture: Mixture
    log_likelihoods: list[float]
    converged: bool


def fitted(examples: Examples, mixture: Mixture, *, max_iter: int, tol: float, reg_covar: float) -> Fit:
    """Expectation-maximisation from a given mixture, until a step gains less than `tol` nats per example.

    The average of soft predictions is not the maximiser of log(q . p'), so a step can lower the likelihood (with
    gamma = 10 some do). Such a step is taken again without it: the distributions of predictions stay, all else moves.
    What lowers the likelihood even so (`reg_covar` against tiny variances, rounding) ends the fit one step earlier.

    Examples in single precision are doubled once an example's log-density may be wrong by `tol` (`Mixture.rounding`);
    the mean over examples has a smaller error by far.

    Parameters
    ----------
    examples : Examples
    mixture : Mixture
        The start.
    max_iter : int, at least 1
    tol : float, non-negative, in nats
    reg_covar : float, non-negative
    """
    log_likelihoods: list[float] = []
    before = mixture
    for _ in progress(range(max_iter), "mixture", max_iter):
        floor = log_likelihoods[-1] if log_likelihoods else -math.inf
        examples, mixture, after, mean = _step(floor, examples, mixture, before, tol, reg_covar)
        if mean < floor:
            return Fit(before, log_likelihoods, converged=True)
        log_likelihoods.append(mean)
        before, mixture = mixture, after
        if mean - floor < tol:
            return Fit(mixture, log_likelihoods, converged=True)
    return Fit(mixture, log_likelihoods, converged=False)


def _step(
    floor: float, examples: Examples, mixture: Mixture, before: Mixture, tol: float, reg_covar: float
) -> tuple[Examples, Mixture, Mixture, float]:
    """The examples in the precision that it took; the mixture, the one after it, and its mean log-likelihood."""
    taken, statistics = _not_below(floor, examples, mixture, before)
    after = taken.improved(statistics, reg_covar)
    if examples.dtype == torch.float32 and not after.rounding() < tol:  # it may be NaN
        return _step(floor, replace(examples, dtype=torch.float64), mixture, before, tol, reg_covar)
    return examples, taken, after, float(statistics.log_likelihood) / examples.n_examples


def _not_below(floor: float, examples: Examples, mixture: Mixture, before: Mixture) -> tuple[Mixture, Statistics]:
    """The mixture and its statistics; with the earlier distributions of predictions where it falls below `floor`."""
    statistics = Statistics.of(examples, mixture.responsibilities)
    if float(statistics.log_likelihood) / examples.n_examples >= floor:
        return mixture, statistics
    held = replace(mixture, predictions=before.predictions)
    return held, Statistics.of(examples, held.responsibilities)
