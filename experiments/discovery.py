"""Let a method find slices in a block of problems, and score what it found."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from evaluation.scores import score as score_slices
from experiments.clock import stage
from experiments.contract import Problem
from experiments.keys import derive
from experiments.settings import Settings
from methods.contract import InvalidInput, ModelOutputs, SliceDiscoveryMethod, Slices
from methods.progress import progress
from methods.randomness import seeded, with_seed


@dataclass(frozen=True)
class Refusal:
    """Why a method has no slices for a problem."""

    reason: str


class Discovered(NamedTuple):
    """What a method found in a block of problems, by their names.

    Parameters
    ----------
    found : mapping from str to Slices or Refusal
        On the half that is scored.
    fitted : mapping from str to Slices
        On the half that the method was fitted on; empty unless that is another half, and somebody asks.
    """

    found: dict[str, Slices | Refusal]
    fitted: dict[str, Slices]


class BrokenMethod(InvalidInput):
    """The method does something that no method may do: the run fails, whatever the other problems say."""


@stage("discover")
def discover(settings: Settings, problems: Sequence[Problem]) -> Discovered:
    """For each problem by name: the slices found on its score half, or the method's reason for refusing it."""
    method, seed = settings.method.instance, settings.seeds.method
    if not problems:
        return Discovered({}, {})
    with _untouched(problems):
        fitted = _fitted_or_refused(method, problems, seed)
        steps = progress(range(len(problems)), "predictions", total=len(problems))
        found = {problems[i].name: _predicted(fitted[i], problems[i].score, problems[i].name, seed) for i in steps}
        if not settings.evaluation.fit_slices:
            return Discovered(found, {})
        apart = [i for i, problem in enumerate(problems) if problem.fit is not problem.score]
        again = {problems[i].name: _predicted(fitted[i], problems[i].fit, problems[i].name, seed) for i in apart}
        return Discovered(found, {name: slices for name, slices in again.items() if isinstance(slices, Slices)})


def _fitted_or_refused(method: Any, problems: Sequence[Problem], seed: int) -> Sequence[SliceDiscoveryMethod | Refusal]:
    try:
        return fit_all(method, problems, seed)
    except BrokenMethod:
        raise
    except InvalidInput:
        # one of them is to blame: without the others, each says for itself what is wrong with it
        return [_alone(method, problem, seed) for problem in problems]


def fit_all(method: Any, problems: Sequence[Problem], seed: int) -> list[SliceDiscoveryMethod]:
    """A fitted copy of the method for each problem.

    All at once where it knows how (`fit_many`). Where it says what it learns from embeddings and logits alone
    (`fit_embeddings`, then `fit_losses`), that is learned once for all problems that share them: with one seed for all,
    so that no block of problems depends on another.
    """
    seeds = [derive(seed, problem.name) for problem in problems]
    steps = progress(range(len(problems)), "problems", total=len(problems))
    if hasattr(method, "fit_many"):
        with seeded(derive(seed, *(problem.name for problem in problems))):
            fitted = list(method.fit_many([problem.fit for problem in problems], seeds))
    elif hasattr(method, "fit_embeddings"):
        shared: dict[tuple[int, int], Any] = {}  # by the tensors themselves: relabelled outputs have the same
        fitted = [_fitted_to_shared(method, problems[i].fit, derive(seed, "embeddings"), shared) for i in steps]
    else:
        fitted = [_fitted(with_seed(method, seeds[i]), problems[i], seeds[i]) for i in steps]
    if len(fitted) != len(problems) or not all(hasattr(one, "predict") for one in fitted):
        raise BrokenMethod(f"{type(method).__name__}: fit must return the fitted method, fit_many one for each problem")
    return fitted


@stage("score")
def score(
    settings: Settings, problems: Sequence[Problem], found: Mapping[str, Slices | Refusal]
) -> list[dict[str, Any]]:
    """Tidy rows for a block of problems; a refused problem has the one row `refused`."""
    return [
        {"problem": problem.name, "group": problem.group, "kind": problem.kind, **row}
        for problem in problems
        for row in _scores(settings, problem, found[problem.name])
    ]


def _scores(settings: Settings, problem: Problem, found: Slices | Refusal) -> list[dict[str, Any]]:
    if isinstance(found, Refusal):
        return [refused_row()]
    return score_slices(
        found,
        problem.score,
        problem.true_slices,
        protocols=settings.evaluation.protocols,
        k=settings.evaluation.k,
        confidence=settings.evaluation.confidence,
        resamples=settings.evaluation.resamples,
        discovery_precision=settings.evaluation.discovery_precision,
        discovery_recall=settings.evaluation.discovery_recall,
        # not the method's seed: ties are broken alike for all methods
        seed=derive(0, "ties", problem.name),
    )


def refused_row() -> dict[str, Any]:
    """What stands in place of the scores of a problem that has none."""
    return {**dict.fromkeys(("protocol", "true_slice", "slice", "k")), "metric": "refused", "value": 1.0}


def _fitted(method: Any, problem: Problem, seed: int) -> Any:
    with seeded(seed):
        return method.fit(problem.fit)


def _fitted_to_shared(method: Any, outputs: ModelOutputs, seed: int, shared: dict[tuple[int, int], Any]) -> Any:
    at = id(outputs.embeddings), id(outputs.logits)
    with seeded(seed):
        if at not in shared:
            shared[at] = with_seed(method, seed).fit_embeddings(outputs)
        return copy.copy(shared[at]).fit_losses(outputs)


def _alone(method: Any, problem: Problem, seed: int) -> SliceDiscoveryMethod | Refusal:
    try:
        return fit_all(method, [problem], seed)[0]
    except BrokenMethod:
        raise
    except InvalidInput as error:
        return Refusal(str(error))


def _predicted(fitted: SliceDiscoveryMethod | Refusal, half: ModelOutputs, problem: str, seed: int) -> Slices | Refusal:
    if isinstance(fitted, Refusal):
        return fitted
    try:
        with seeded(derive(seed, problem, "predict")):
            found = fitted.predict(half)
    except InvalidInput as error:
        return Refusal(str(error))
    if not isinstance(found, Slices):
        raise BrokenMethod(f"{type(fitted).__name__}: predict returned {type(found).__name__}, expected methods.Slices")
    if found.example_ids != half.example_ids:
        raise BrokenMethod(f"{type(fitted).__name__}: predict returned other example ids than those it was given")
    return found


@contextmanager
def _untouched(problems: Sequence[Problem]) -> Iterator[None]:
    """Raise `BrokenMethod` where a method changes its input: problems share tensors, so it would change all results."""
    before = {(id(o), name): (o, t._version) for o, name, t in _tensors(problems)}
    yield
    for outputs, name, tensor in _tensors(problems):
        if before[id(outputs), name][1] != tensor._version:
            raise BrokenMethod(f"the method changed {name} in place: it must work on a copy (.clone())")


def _tensors(problems: Sequence[Problem]) -> Iterator[tuple[ModelOutputs, str, Tensor]]:
    for outputs in (half for problem in problems for half in (problem.fit, problem.score)):
        for name, value in vars(outputs).items():
            if isinstance(value, Tensor) and not value.is_inference():  # those have no version
                yield outputs, name, value
