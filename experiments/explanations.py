"""Discovered slices and the training examples, whatever method found them: who harms or helps them, and how alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from torch import Tensor

from experiments.clock import stage
from experiments.contract import Dataset, ModelUnderAudit, Problem
from experiments.discovery import Refusal
from experiments.embedding import Embedded
from experiments.inference import Predictions
from experiments.settings import Settings
from methods.coherence import Coherence, coherence, gram_matrix
from methods.contract import Slices
from methods.opponents import opponents


@dataclass(frozen=True, eq=False)
class Explanations:
    """Influence embeddings of the examples that explain, and of those that are explained.

    Parameters
    ----------
    example_ids : tuple of str, length n'
        Of those that explain.
    embeddings : Tensor, shape (n', D)
        Under their own labels.
    scored : Embedded
        Of the score split: its examples have the labels of their problem.
    """

    example_ids: tuple[str, ...]
    embeddings: Tensor
    scored: Embedded

    @cached_property
    def gram(self) -> Tensor:
        """Tensor, shape (D, D): see `methods.coherence.gram_matrix`."""
        return gram_matrix(self.embeddings)

    def of(self, problem: Problem) -> Tensor:
        """Tensor, shape (n, D): the score split's embeddings under the problem's labels."""
        assert problem.score.labels is not None  # influence embeddings exist under labels only
        relabelled = self.scored.relabelled(problem.score.labels.cpu())
        return self.scored.values if relabelled is None else relabelled


@stage("explain")
def explain(
    settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
) -> Explanations | None:
    """What slices are explained with, or None where nobody asks."""
    if settings.explainer is None:
        return None
    names = (settings.evaluation.opponents_from, settings.evaluation.score_split)
    embedded = settings.explainer.embed_splits(settings, dataset, model, predictions, set(names))
    source, scored = (embedded[name] for name in names)
    return Explanations(dataset.split(names[0]).example_ids, source.values, scored)


@stage("opponents")
def find_opponents(
    settings: Settings, problems: Sequence[Problem], found: Mapping[str, Slices | Refusal]
) -> pd.DataFrame:
    """Rows with problem, slice, rank, sign, example_id and influence; slices without members have none."""
    k = settings.evaluation.opponents
    return pd.DataFrame(
        {"problem": problem.name, "slice": index, **one._asdict()}
        for explanations, problem, slices in (_explained(problems, found) if k else ())
        for index, members in _members(explanations.of(problem), slices)
        for one in opponents(explanations.embeddings, explanations.example_ids, members, k)
    )


@stage("coherence")
def measure_coherence(
    settings: Settings, problems: Sequence[Problem], found: Mapping[str, Slices | Refusal]
) -> pd.DataFrame:
    """Rows with problem, group, slice, n, distance, bound and tight_bound (nats^2); what has no members has none.

    Of each slice (group `slice`) and, to compare with, of the examples that are in any slice taken as one (`members`)
    and of the whole split (`split`).
    """
    rows = [
        {"problem": problem.name, "group": group, "slice": index, **coherence(explanations.gram, members)._asdict()}
        for explanations, problem, slices in (_explained(problems, found) if settings.evaluation.coherence else ())
        for group, index, members in _groups(explanations.of(problem), slices)
    ]
    columns = ("problem", "group", "slice", *Coherence._fields)
    return pd.DataFrame(rows, columns=list(columns)).astype({"slice": "Int64"})


def _explained(
    problems: Sequence[Problem], found: Mapping[str, Slices | Refusal]
) -> Iterator[tuple[Explanations, Problem, Slices]]:
    """The problems that have slices, with what explains them."""
    for problem in problems:
        slices = found[problem.name]
        if isinstance(slices, Slices) and problem.audit is not None and problem.audit.explanations is not None:
            yield problem.audit.explanations, problem, slices


def _members(embeddings: Tensor, slices: Slices) -> Iterator[tuple[int, Tensor]]:
    """The embeddings of each slice's members, behind its number; not of a slice without any."""
    for index, members in enumerate(slices.members.cpu().T):
        if members.any():
            yield index, embeddings[members]


def _groups(embeddings: Tensor, slices: Slices) -> Iterator[tuple[str, int | None, Tensor]]:
    """What `measure_coherence` measures."""
    yield "split", None, embeddings
    in_any = slices.members.cpu().any(dim=1)  # (n,)
    if in_any.any():
        yield "members", None, embeddings[in_any]
    yield from (("slice", index, members) for index, members in _members(embeddings, slices))
