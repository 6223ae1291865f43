"""Domino's mixture over embeddings, labels and predictions, fitted in blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from methods.progress import progress

BLOCK_ROWS = 4_096  # held in double precision at once: with 512 coordinates their moments take 34 MB
EPS = torch.finfo(torch.float64).eps


class Block(NamedTuple):
    """Some consecutive examples, in double precision.

    Parameters
    ----------
    rows : slice
        Their place among all examples.
    moments : Tensor, shape (b, 1 + 2p), float64
        One, the coordinates and their squares: in these the log-density of a diagonal Gaussian is linear.
    labels : Tensor, shape (b,), int64, in [0, c)
    predictions : Tensor, shape (b, c), float64, rows sum to 1
    losses : Tensor, shape (b,), float64, in nats
    """

    rows: slice
    moments: Tensor
    labels: Tensor
    predictions: Tensor
    losses: Tensor


Responsibilities = Callable[[Block], tuple[Tensor, Tensor]]  # of each component (b, k), and log-likelihoods (b,)


@dataclass(frozen=True, eq=False)
class Examples:
    """What the mixture sees, in single precision and shared with the model's outputs; blocks are doubled on the way.

    Parameters
    ----------
    coordinates : Tensor, shape (n, p)
        Embeddings, perhaps projected; may be memory-mapped.
    shift : Tensor, shape (p,), float64
        Subtracted in each block: near the origin, variances lose little as differences of squares.
    labels : Tensor, shape (n,), int64, in [0, c)
    logits : Tensor, shape (n, c)
    losses : Tensor, shape (n,), in nats
    """

    coordinates: Tensor
    shift: Tensor
    labels: Tensor
    logits: Tensor
    losses: Tensor

    @property
    def n_examples(self) -> int:
        return len(self.coordinates)

    @property
    def n_classes(self) -> int:
        return self.logits.shape[1]

    def blocks(self) -> Iterator[Block]:
        for start in range(0, self.n_examples, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            x = self.coordinates[rows].double() - self.shift  # (b, p)
            moments = torch.cat([x.new_ones(len(x), 1), x, x.square()], dim=1)  # (b, 1 + 2p)
            predictions = self.logits[rows].double().softmax(dim=1)  # (b, c)
            yield Block(rows, moments, self.labels[rows], predictions, self.losses[rows].double())


class Statistics(NamedTuple):
    """Sums over examples, weighted by responsibility: all that the M-step needs.

    Parameters
    ----------
    moments : Tensor, shape (k, 1 + 2p), float64
        The first column holds the number of examples that a component answers for.
    labels : Tensor, shape (k, c), float64
    predictions : Tensor, shape (k, c), float64
    losses : Tensor, shape (k,), float64, in nats
    log_likelihood : Tensor, shape (), float64, in nats
        Of the parameters that gave the responsibilities.
    """

    moments: Tensor
    labels: Tensor
    predictions: Tensor
    losses: Tensor
    log_likelihood: Tensor

    @property
    def sizes(self) -> Tensor:
        return self.moments[:, 0]

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
        of_rows, log_likelihood = responsibilities(block)  # (b, k), (b,)
        weights = of_rows.T.contiguous()  # (k, b)
        labels = weights.new_zeros(len(weights), block.predictions.shape[1])  # (k, c)
        return cls(
            weights @ block.moments,
            labels.index_add_(1, block.labels, weights),
            weights @ block.predictions,
            weights @ block.losses,
            log_likelihood.sum(),
        )


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
        means, squares = (statistics.moments[:, 1:] / sizes).chunk(2, dim=1)  # (k, p) both
        variances = (squares - means.square()).clamp(min=0) + reg_covar
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
        log_joint = block.moments @ self._coefficients().T
        log_joint += self.label_weight * (self.labels + EPS).log().T[block.labels]
        log_joint += self.prediction_weight * (block.predictions @ self.predictions.T + EPS).log()
        return log_joint

    def _coefficients(self) -> Tensor:
        """Of the moments, in the Gaussians' log-densities and log-weights: Tensor, shape (k, 1 + 2p)."""
        precisions = 1 / self.variances
        logs = self.variances.log() + math.log(2 * math.pi) + self.means.square() * precisions  # (k, p)
        constants = self.weights.log() - 0.5 * logs.sum(dim=1)
        return torch.cat([constants[:, None], self.means * precisions, -0.5 * precisions], dim=1)

    def responsibilities(self, block: Block) -> tuple[Tensor, Tensor]:
        """The E-step: posteriors, shape (b, k), and log-likelihoods in nats, shape (b,)."""
        log_joint = self.log_joint(block)
        log_likelihood = log_joint.logsumexp(dim=1)
        return log_joint.sub_(log_likelihood[:, None]).exp_(), log_likelihood

    def posteriors(self, examples: Examples) -> Tensor:
        """Tensor, shape (n, k), float32, in [0, 1]."""
        blocks = [self.responsibilities(block)[0].float() for block in examples.blocks()]
        return torch.cat(blocks).clamp_(0, 1)

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
        mixture, statistics = _not_below(floor, examples, mixture, before)
        mean = float(statistics.log_likelihood) / examples.n_examples
        if mean < floor:
            return Fit(before, log_likelihoods, converged=True)
        log_likelihoods.append(mean)
        before, mixture = mixture, mixture.improved(statistics, reg_covar)
        if mean - floor < tol:
            return Fit(mixture, log_likelihoods, converged=True)
    return Fit(mixture, log_likelihoods, converged=False)


def _not_below(floor: float, examples: Examples, mixture: Mixture, before: Mixture) -> tuple[Mixture, Statistics]:
    """The mixture and its statistics; with the earlier distributions of predictions where it falls below `floor`."""
    statistics = Statistics.of(examples, mixture.responsibilities)
    if float(statistics.log_likelihood) / examples.n_examples >= floor:
        return mixture, statistics
    held = replace(mixture, predictions=before.predictions)
    return held, Statistics.of(examples, held.responsibilities)
