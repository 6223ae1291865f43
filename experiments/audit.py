"""What one model under audit gave: the material that problems are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.contract import Dataset
from experiments.embedding import Embedded
from experiments.explanations import Explanations
from experiments.inference import Predictions


@dataclass(frozen=True, eq=False)
class Audit:
    """One model under audit on one data set.

    Parameters
    ----------
    dataset : Dataset
    predictions, embedded : mapping from split to Predictions and Embedded
    explanations : Explanations, optional
        Where slices are to be explained: their opponents, or their coherence.
    """

    dataset: Dataset
    predictions: Mapping[str, Predictions]
    embedded: Mapping[str, Embedded]
    explanations: Explanations | None = None
