"""Regions of the embedding space where a model's loss is high."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from methods.contract import InvalidInput, ModelOutputs, Slices
from methods.ranges import check_ranges
from methods.spotlight_ascent import Ascent, ascend, weigh
from methods.spotlight_rows import Rows
from methods.spotlight_sample import refine, spread
from methods.spotlight_size import Members, best_cut, f1_of_errors, hard_members, loss_gap
from methods.spotlight_start import EmbeddingMap, covering, precisions_of_size, worst_balls

PAPER_PRECISION = 1e-4  # tau at the start of the paper's experiments
FIRST_WIDTH = 0.5  # w / S at the start from a ball: 1 takes longer to shrink, 0.25 and less gets stuck more often
MISSED = 0.95  # sum(k) / S below this: the barrier did not hold
UNCONVERGED = 1.2  # sum(k) / S above this: still shrinking; one that has arrived ends near 1.05


@dataclass
class Spotlight:
    """Balls in the embedding space, of a least total weight, whose weighted mean loss is as large as can be.

    Each is found by gradient ascent. The next one looks at losses from which those before have taken their part, so the
    order of discovery is the order of the slices. Nothing is random.

    Parameters
    ----------
    n_slices : int, >= 1
        Spotlights, one after the other; all come back, those that failed as empty slices marked `missed`.
    size : int, in [1, n]
        S, the least total weight sum(k). The paper takes 2% of the examples in vision and 5% elsewhere.
    sizes : tuple of int, each in [1, n], optional
        Candidates, among which `tuning` chooses anew for each slice; `size` is then not used.
    tuning : {"loss_gap", "loss_gap_cut", "misclassification_f1"}
        The rule. `misclassification_f1` is the paper's (section 4.6); where a model has many other errors it tends to
        the largest candidate. `loss_gap` prefers a large difference between the mean losses inside and outside, times
        the root of the size. `loss_gap_cut` fits the middle candidate only, and cuts its ranked list between the
        smallest and the largest candidate by the same rule: one fit instead of many.
    C : "range" or float, > 0, in nats
        Height of the barrier that keeps a spotlight from shrinking below its size: the range of the losses, or a number
        (the paper: 1 for two classes, 10 for thousands). One that is small against the losses lets spotlights shrink to
        nothing, which are then `missed`.
    start : {"mean", "paper", "ball"}
        `mean`: embeddings centred and divided by their root mean square distance to the mean; from there, covering all
        examples. `paper`: embeddings as they are, from the origin with tau = 1e-4; slower, and where their scale does
        not suit that tau it hardly moves, or begins empty. `ball`: scaled like `mean`, from the worst ball of S
        neighbours and with a narrow barrier; for few steps: 200 do what 1,000 do from the mean; costs O(n^2 d) once.
        Where embeddings are a few tight groups (a fine-tuned classifier's), spotlights from the mean can stay spread
        over all of them, with a warning that they have not converged, and those from a ball climb higher.
    steps : int, >= 1
        1,000 are enough from the mean on real embeddings; the paper takes 5,000.
    learning_rate : float, > 0
        Of Adam.
    patience : int, >= 0
        Steps without progress before the learning rate is halved.
    pca : int, in [1, min(n, d)], optional
        Project on this many principal directions, without whitening: 128 cost nothing in accuracy on real embeddings of
        1,280 dimensions and save most of the time. Do not normalise rows after centring: that halves the accuracy.
    members : {"round", "support"}
        How weights become a set: the round(sum k) examples of largest weight, or all that have any. The paper does not
        say, and it decides: the second set is several times larger. Not used by `loss_gap_cut`.
    sample : int, >= 2, optional
        For millions of examples: spotlights climb over a sample of this many, and then over those nearest to them,
        which takes a few passes over all instead of thousands (`methods.spotlight_sample`). A sample should hold
        hundreds of the examples that a spotlight is to hold, or it finds what only the sample has.
    passes : int, >= 1
        With a sample: how often, at most, a spotlight gets new neighbours.

    Attributes
    ----------
    embedding_map_ : EmbeddingMap
        From embeddings to the space in which centres and precisions are.
    centers_ : Tensor, shape (s, d)
    precisions_ : Tensor, shape (s,), > 0
    cuts_ : Tensor, shape (s,), in [0, 1], or None
        The least weight of a member, under `loss_gap_cut`.
    diagnostics_ : tuple of dict, length s
        size: S, or the number kept under `loss_gap_cut`; size_ratio: sum(k) / S; objective (nats): equation 5 at the
        end; penalty: C; steps; largest_size: whether the largest candidate was chosen, None without candidates;
        missed: the ratio is below 0.95, the slice comes back empty; warnings: sentences.

    Notes
    -----
    The weight of example i is k_i = max(1 - tau ||x_i - mu||^2, 0) (equation 1). The ascent is on the mean loss under
    these weights minus a barrier at sum(k) = S + w (equations 4 and 5), whose width w shrinks geometrically to 0.05 S;
    `methods.spotlight_ascent` has the details. The next spotlight sees l_i (1 - k_i / max k) (equation 6). Examples of
    another split have the weights of the same kernel.

    Everything is computed where the embeddings lie, on the CPU or a CUDA device.

    References
    ----------
    d'Eon, d'Eon, Wright, Leyton-Brown: The Spotlight. FAccT 2022, section 3; size tuning in section 4.6.

    Examples
    --------
    >>> outputs = ModelOutputs.from_arrays(
    ...     "abcdef",
    ...     embeddings=[[-1.0], [-0.8], [-0.6], [0.0], [0.9], [1.0]],
    ...     losses=[0.1, 0.2, 0.1, 0.2, 4.0, 3.0],
    ...     correct=[True, True, True, True, False, False],
    ... )
    >>> slices = Spotlight(n_slices=1, size=2).fit(outputs).predict(outputs)
    >>> slices.members.flatten().tolist()
    [False, False, False, False, True, True]
    """

    version: ClassVar[int] = 3

    n_slices: int = field(default=5, metadata={"min": 1})
    size: int = field(default=50, metadata={"min": 1})
    sizes: tuple[int, ...] | None = field(default=None, metadata={"min": 1, "min_items": 1})
    tuning: Literal["loss_gap", "loss_gap_cut", "misclassification_f1"] = "loss_gap"
    C: Literal["range"] | float = field(default="range", metadata={"above": 0})
    start: Literal["mean", "paper", "ball"] = "mean"
    steps: int = field(default=1000, metadata={"min": 1})
    learning_rate: float = field(default=1e-2, metadata={"above": 0})
    patience: int = field(default=10, metadata={"min": 0})
    pca: int | None = field(default=None, metadata={"min": 1})
    members: Members = "round"
    sample: int | None = field(default=None, metadata={"min": 2})
    passes: int = field(default=2, metadata={"min": 1})

    def fit(self, outputs: ModelOutputs) -> Self:
        (fitted,) = self.fit_many([outputs], seeds=[0])
        vars(self).update(vars(fitted))
        return self

    def fit_many(self, outputs: Sequence[ModelOutputs], seeds: Sequence[int]) -> list[Self]:
        """A fitted copy for each: bitwise what `fit` learns, but problems that share embeddings climb together.

        Parameters
        ----------
        outputs : sequence of ModelOutputs
            Relabellings of one split share its embeddings, without a copy.
        seeds : sequence of int
            Not used: nothing is random.
        """
        fitted = [copy.copy(self) for _ in outputs]
        for rows in _sharing_embeddings(outputs):
            self._fit_together([outputs[row] for row in rows], [fitted[row] for row in rows])
        return fitted

    def predict(self, outputs: ModelOutputs) -> Slices:
        n_columns, expected = outputs.embeddings.shape[1], len(self.embedding_map_.mean)
        if n_columns != expected:
            raise InvalidInput(f"embeddings has {n_columns} columns, the spotlights were fitted on {expected}")
        weights = weigh(self.embedding_map_.rows(outputs.embeddings), self.centers_, self.precisions_)  # (s, n)
        weights[[entry["missed"] for entry in self.diagnostics_]] = 0
        members = self._members(weights, self.cuts_)
        return Slices(outputs.example_ids, weights.T.contiguous(), members.T.contiguous(), self.diagnostics_)

    def _fit_together(self, outputs: list[ModelOutputs], fitted: list[Self]) -> None:
        """Fit p problems that share their embeddings."""
        embeddings = outputs[0].embeddings
        self._check(*embeddings.shape)
        n = len(embeddings)
        shown = embeddings if self.sample is None or self.sample >= n else embeddings[spread(n, self.sample)]
        embedding_map = EmbeddingMap.learned(shown, normalise=self.start != "paper", n_components=self.pca)
        x = embedding_map.rows(embeddings)
        losses = torch.stack([each.losses for each in outputs])  # (p, n)
        errors = torch.stack([~each.correct for each in outputs])  # (p, n)
        found: list[list[_Found]] = [[] for _ in outputs]
        for _ in range(self.n_slices):
            for problem, each in enumerate(self._discover(x, embedding_map, losses, errors)):
                found[problem].append(each)
                losses[problem] = _dimmed(losses[problem], each.weights)
                errors[problem] &= ~self._members(each.weights[None], each.cut)[0]
                each.weights = losses.new_empty(0)  # for hundreds of problems they would be gigabytes
        for method, spotlights in zip(fitted, found, strict=True):
            method._keep(embedding_map, spotlights)

    def _keep(self, embedding_map: EmbeddingMap, found: list[_Found]) -> None:
        self.embedding_map_ = embedding_map
        self.centers_ = torch.stack([each.center for each in found])
        self.precisions_ = torch.stack([each.precision for each in found])
        cuts = [each.cut for each in found if each.cut is not None]
        self.cuts_ = torch.cat(cuts) if cuts else None
        self.diagnostics_ = tuple(each.diagnostics for each in found)

    def _check(self, n: int, d: int) -> None:
        """Refuse what is out of range, and what this split makes impossible."""
        check_ranges(self)
        if self.sizes is not None and len(self.sizes) == 0:
            raise InvalidInput("sizes is empty, expected at least one candidate, or none at all (null) to use size")
        for size in self._candidates():
            if not 1 <= size <= n:
                name = "size" if self.sizes is None else "sizes"
                raise InvalidInput(f"{name} has {size}, expected 1 to {n}, the number of examples in this split")
        if self.pca is not None and not 1 <= self.pca <= min(n, d):
            raise InvalidInput(f"pca is {self.pca}, expected 1 to {min(n, d)} for {n} examples of {d} dimensions")

    def _candidates(self) -> list[int]:
        return [self.size] if self.sizes is None else sorted(self.sizes)

    def _sizes_to_fit(self) -> list[int]:
        candidates = self._candidates()
        return [candidates[len(candidates) // 2]] if self.tuning == "loss_gap_cut" else candidates

    def _discover(self, x: Rows, embedding_map: EmbeddingMap, losses: Tensor, errors: Tensor) -> Iterator[_Found]:
        """The next spotlight of each of p problems, from losses and errors of shape (p, n)."""
        sizes_to_fit = self._sizes_to_fit()
        n_sizes = len(sizes_to_fit)
        sizes = torch.tensor(
            sizes_to_fit * len(losses), device=losses.device
        )  # (p * s,): all the sizes of a problem, next
        penalties = self._penalties(losses).repeat_interleave(n_sizes)
        end = self._climb(x, embedding_map, losses.repeat_interleave(n_sizes, dim=0), sizes, penalties)
        for problem in range(len(losses)):
            lanes = slice(problem * n_sizes, (problem + 1) * n_sizes)
            candidates = _Candidates.of(x, end, lanes, sizes_to_fit, penalties[lanes])
            yield self._choose(candidates, losses[problem], errors[problem])

    def _penalties(self, losses: Tensor) -> Tensor:
        """C of each problem, shape (p,): where all losses are equal any barrier will do."""
        if self.C != "range":
            return losses.new_full((len(losses),), self.C)
        ranges = losses.amax(dim=1) - losses.amin(dim=1)
        return torch.where(ranges > 0, ranges, 1.0)

    def _climb(self, x: Rows, embedding_map: EmbeddingMap, losses: Tensor, sizes: Tensor, penalties: Tensor) -> Ascent:
        if self.sample is None or self.sample >= len(x):
            return self._ascend(x, embedding_map, losses, sizes, penalties)
        some = spread(len(x), self.sample).to(losses.device)
        scaled = sizes * (self.sample / len(x))  # S among all is its share among some
        found = self._ascend(Rows(x[some]), embedding_map, losses[:, some], scaled, penalties)
        options: dict[str, Any] = {"learning_rate": self.learning_rate, "patience": self.patience, "steps": self.steps}
        return refine(x, losses, sizes, penalties, found, n_held=self.sample, passes=self.passes, **options)

    def _ascend(self, x: Rows, embedding_map: EmbeddingMap, losses: Tensor, sizes: Tensor, penalties: Tensor) -> Ascent:
        widths = None
        if self.start == "ball":
            # from the barrier: the paper's n - S would first blow the ball up to all examples, or kill it
            widths = torch.minimum(sizes, (len(x) - sizes).clamp_min(1)) * FIRST_WIDTH
            whole = x.whole()
            centers = whole[worst_balls(whole, losses, sizes.round().long().clamp_min(1))]
            distances = torch.cdist(centers, whole, compute_mode="donot_use_mm_for_euclid_dist").square_()  # (b, n)
            log_precisions = precisions_of_size(distances, sizes + widths)
        else:
            center, log_precision = covering(x) if self.start == "mean" else _paper_start(embedding_map)
            centers, log_precisions = center.expand(len(losses), -1), log_precision.expand(len(losses))
        options: dict[str, Any] = {"learning_rate": self.learning_rate, "patience": self.patience, "widths": widths}
        return ascend(x, losses, sizes, penalties, centers, log_precisions, steps=self.steps, **options)

    def _choose(self, candidates: _Candidates, losses: Tensor, errors: Tensor) -> _Found:
        """The one to keep, from losses and errors of shape (n,)."""
        if self.sizes is None:
            return candidates.found(0, largest=None)
        if self.tuning == "loss_gap_cut":
            return self._cut(candidates, losses)
        members = self._members(candidates.weights, None)
        scores = f1_of_errors(members, errors) if self.tuning == "misclassification_f1" else loss_gap(members, losses)
        best = int(torch.where(candidates.ratios() < MISSED, -torch.inf, scores).argmax())
        return candidates.found(best, largest=max(self.sizes))

    def _cut(self, candidates: _Candidates, losses: Tensor) -> _Found:
        (weights,), bounds = candidates.weights, self._candidates()
        count = best_cut(weights, losses, bounds[0], bounds[-1])
        found = candidates.found(0, largest=None)
        found.cut = weights.sort(descending=True).values[count - 1 : count]
        found.note_size(count, largest=bounds[-1])
        return found

    def _members(self, weights: Tensor, cuts: Tensor | None) -> Tensor:
        """Weights of shape (s, n) as sets."""
        if cuts is None:
            return hard_members(weights, self.members)
        return (weights >= cuts[:, None]) & (weights > 0)


@dataclass
class _Found:
    """One spotlight that was kept."""

    center: Tensor  # (d,)
    precision: Tensor  # ()
    weights: Tensor  # (n,)
    diagnostics: dict[str, Any]
    cut: Tensor | None = None  # (1,)

    def note_size(self, size: int, largest: int | None) -> None:
        is_largest = None if largest is None else size == largest
        self.diagnostics |= {"size": size, "largest_size": is_largest}
        if is_largest:
            self.diagnostics["warnings"].append("the largest candidate was chosen: a larger size may be better")


@dataclass(frozen=True)
class _Candidates:
    """Spotlights of several sizes on the same losses."""

    sizes: list[int]
    centers: Tensor  # (s, d)
    precisions: Tensor  # (s,)
    weights: Tensor  # (s, n)
    objectives: Tensor  # (s,)
    penalties: Tensor  # (s,)
    steps: int

    @classmethod
    def of(cls, x: Rows, end: Ascent, lanes: slice, sizes: list[int], penalties: Tensor) -> _Candidates:
        centers, precisions = end.centers[lanes], end.log_precisions[lanes].exp()
        weights = weigh(x, centers, precisions)
        return cls(sizes, centers, precisions, weights, end.objectives[lanes], penalties, len(end.history))

    def ratios(self) -> Tensor:
        """sum(k) / S, shape (s,)."""
        return self.weights.sum(dim=1) / torch.tensor(self.sizes, device=self.weights.device)

    def found(self, index: int, largest: int | None) -> _Found:
        ratio = float(self.ratios()[index])
        diagnostics: dict[str, Any] = {
            "size_ratio": ratio,
            "objective": float(self.objectives[index]),
            "penalty": float(self.penalties[index]),
            "steps": self.steps,
            "missed": ratio < MISSED,
            "warnings": _warnings(ratio),
        }
        found = _Found(self.centers[index], self.precisions[index], self.weights[index], diagnostics)
        found.note_size(self.sizes[index], largest)
        return found


def _warnings(ratio: float) -> list[str]:
    if ratio < MISSED:
        return [f"missed: the total weight is {ratio:.2f} of the size; a larger C or start='mean' may hold it"]
    if ratio > UNCONVERGED:
        return [f"not converged: the total weight is still {ratio:.2f} times the size; take more steps"]
    return []


def _dimmed(losses: Tensor, weights: Tensor) -> Tensor:
    """Losses for the next spotlight, equation 6 of d'Eon et al. (2022): shape (n,)."""
    # losses below zero, which the paper does not have, would rise: measure them from the lowest
    floor = losses.min().clamp_max(0)
    return floor + (losses - floor) * (1 - weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny))


def _paper_start(embedding_map: EmbeddingMap) -> tuple[Tensor, Tensor]:
    """The embeddings' own origin, where they have been shifted to their mean for the sake of rounding."""
    origin = embedding_map(torch.zeros_like(embedding_map.mean)[None])[0]
    return origin, origin.new_tensor(PAPER_PRECISION).log()


def _sharing_embeddings(outputs: Sequence[ModelOutputs]) -> list[list[int]]:
    """Positions of the problems with the same embeddings, by where these lie in memory."""
    groups: dict[Any, list[int]] = {}
    for position, each in enumerate(outputs):
        x = each.embeddings
        groups.setdefault((x.device, x.data_ptr(), x.shape, x.stride()), []).append(position)
    return list(groups.values())
