"""Let a method find slices in a block of problems, and score what it found."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.scores import score as score_slices
from experiments.clock import stage
from experiments.contract import Problem
from experiments.keys import derive
from experiments.settings import Settings
from methods.contract import InvalidInput, SliceDiscoveryMethod, Slices
from methods.progress import progress


@dataclass(frozen=True)
class Refusal:
    """Why a method has no slices for a problem."""

    reason: str


@stage("discover")
def discover(settings: Settings, problems: Sequence[Problem]) -> dict[str, Slices | Refusal]:
    """For each problem by name: the slices found on its score half, or the method's reason for refusing it."""
    method, seed = settings.method.instance, settings.seeds.method
    try:
        fitted = fit_all(method, problems, seed)
    except InvalidInput:
        # one of them is to blame: without the others, each says for itself what is wrong with it
        return {problem.name: _alone(method, problem, seed) for problem in problems}
    return {problem.name: _predicted(one, problem) for one, problem in zip(fitted, problems, strict=True)}


def fit_all(method: Any, problems: Sequence[Problem], seed: int) -> list[SliceDiscoveryMethod]:
    """A fitted copy of the method for each problem, at once where it knows how (`fit_many`)."""
    seeds = [derive(seed, problem.name) for problem in problems]
    if hasattr(method, "fit_many"):
        return list(method.fit_many([problem.fit for problem in problems], seeds))
    steps = progress(range(len(problems)), "problems", total=len(problems))
    return [with_seed(method, seeds[i]).fit(problems[i].fit) for i in steps]


def with_seed(method: Any, seed: int) -> Any:
    """A copy of an unfitted method that draws from this seed, if it draws at all."""
    seeded = copy.copy(method)
    if hasattr(seeded, "seed"):
        seeded.seed = seed
    return seeded


@stage("score")
def score(settings: Settings, problems: Sequence[Problem], found: dict[str, Slices | Refusal]) -> list[dict[str, Any]]:
    """Tidy rows for a block of problems; a refused problem has the one row `refused`."""
    return [
        {"problem": problem.name, "group": problem.group, "kind": problem.kind, **row}
        for problem in problems
        for row in _scores(settings, problem, found[problem.name])
    ]


def _scores(settings: Settings, problem: Problem, found: Slices | Refusal) -> list[dict[str, Any]]:
    if isinstance(found, Refusal):
        nothing = dict.fromkeys(("protocol", "true_slice", "slice", "k"))
        return [{**nothing, "metric": "refused", "value": 1.0}]
    return score_slices(
        found,
        problem.score,
        problem.true_slices,
        protocols=settings.evaluation.protocols,
        k=settings.evaluation.k,
        confidence=settings.evaluation.confidence,
        resamples=settings.evaluation.resamples,
        # not the method's seed: ties are broken alike for all methods
        seed=derive(0, "ties", problem.name),
    )


def _alone(method: Any, problem: Problem, seed: int) -> Slices | Refusal:
    try:
        return _predicted(fit_all(method, [problem], seed)[0], problem)
    except InvalidInput as error:
        return Refusal(str(error))


def _predicted(fitted: SliceDiscoveryMethod, problem: Problem) -> Slices | Refusal:
    try:
        return fitted.predict(problem.score)
    except InvalidInput as error:
        return Refusal(str(error))
