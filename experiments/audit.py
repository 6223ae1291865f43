"""What one model under audit gave: the material that problems are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.contract import Dataset
from experiments.embedding import Embedded
from experiments.inference import Predictions
from experiments.opponents import OpponentSearch


@dataclass(frozen=True, eq=False)
class Audit:
    """One model under audit on one data set.

    Parameters
    ----------
    dataset : Dataset
    predictions, embedded : mapping from split to Predictions and Embedded
    search : OpponentSearch, optional
        Where opponents are asked for.
    """

    dataset: Dataset
    predictions: Mapping[str, Predictions]
    embedded: Mapping[str, Embedded]
    search: OpponentSearch | None = None
