"""Problems whose models ran elsewhere, and whose outputs are stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from experiments.audit import Audit
from experiments.clock import stage
from experiments.compute import device_of
from experiments.contract import Dataset, Problem, ProblemSet, StoredProblem
from experiments.corruption import Problems, Unmade
from experiments.embedding import outputs_of
from experiments.inference import needed_splits
from experiments.settings import Settings
from methods.contract import InvalidInput, Unsupported

TRUTH = "test"  # the split whose true slices are stored


def stored_problems(settings: Settings, stored: ProblemSet, audit: Callable[[Settings, Dataset], Audit]) -> Problems:
    """All problems of a set, each read and embedded when it is asked for."""
    return Problems({problem.name: partial(_problem, settings, problem, audit) for problem in stored.problems})


def _problem(
    settings: Settings, stored: StoredProblem, audit: Callable[[Settings, Dataset], Audit]
) -> Problem | Unmade:
    dataset, true_slices = stage("read")(stored.read)(needed_splits(settings))
    try:
        audited, device = audit(settings, dataset), device_of(settings.compute)
    except Unsupported as error:  # others may have what this one lacks
        return Unmade(stored.name, stored.group, stored.kind, f"problem {stored.name}: {error}")
    except InvalidInput as error:
        raise InvalidInput(f"problem {stored.name}: {error}") from None
    fit, score = (
        outputs_of(audited.predictions[name], audited.embedded[name]).to(device)
        for name in (settings.evaluation.fit_split, settings.evaluation.score_split)
    )
    return Problem(stored.name, stored.group, stored.kind, fit, score, true_slices.to(device), audited)
