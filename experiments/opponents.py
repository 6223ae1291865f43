"""Which training examples harm or help a discovered slice, whatever method found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from experiments.clock import stage
from experiments.contract import Dataset, ModelUnderAudit, Problem
from experiments.discovery import Refusal
from experiments.embedding import Embedded
from experiments.inference import Predictions
from experiments.settings import Settings
from methods.contract import Slices
from methods.opponents import opponents


@dataclass(frozen=True, eq=False)
class OpponentSearch:
    """Influence embeddings of the examples that opponents are sought among, and of those that are scored.

    Parameters
    ----------
    example_ids : tuple of str, length n'
    embeddings : Tensor, shape (n', D)
        Under their own labels.
    scored : Embedded
        Of the score split: a slice's members have the labels of their problem.
    k : int
        Opponents, and proponents, of each slice.
    """

    example_ids: tuple[str, ...]
    embeddings: Tensor
    scored: Embedded
    k: int


@stage("opponents")
def prepare_opponents(
    settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
) -> OpponentSearch | None:
    """What opponents are computed from, or None where none are asked for."""
    if settings.explainer is None:
        return None
    names = (settings.evaluation.opponents_from, settings.evaluation.score_split)
    embedded = settings.explainer.embed_splits(settings, dataset, model, predictions, set(names))
    source, scored = (embedded[name] for name in names)
    return OpponentSearch(dataset.split(names[0]).example_ids, source.values, scored, settings.evaluation.opponents)


@stage("opponents")
def find_opponents(problems: Sequence[Problem], found: Mapping[str, Slices | Refusal]) -> pd.DataFrame:
    """Rows with problem, slice, rank, sign, example_id and influence; slices without members have none."""
    rows: list[dict[str, Any]] = []
    for problem in problems:
        slices = found[problem.name]
        if isinstance(slices, Slices) and problem.audit is not None and problem.audit.search is not None:
            rows += _of_problem(problem.audit.search, problem, slices)
    return pd.DataFrame(rows)


def _of_problem(search: OpponentSearch, problem: Problem, slices: Slices) -> list[dict[str, Any]]:
    assert problem.score.labels is not None  # influence embeddings exist under labels only
    relabelled = search.scored.relabelled(problem.score.labels.cpu())
    embeddings = search.scored.values if relabelled is None else relabelled  # (n, D)
    return [
        {"problem": problem.name, "slice": index, **one._asdict()}
        for index, members in enumerate(slices.members.T)
        if members.any()
        for one in opponents(search.embeddings, search.example_ids, embeddings[members.cpu()], search.k)
    ]
