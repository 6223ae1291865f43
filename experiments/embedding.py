"""Give every example of the splits that the run needs its embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from experiments.clock import stage
from experiments.contract import Dataset, ModelUnderAudit
from experiments.inference import Predictions
from experiments.layers import Layer
from experiments.settings import Settings
from methods.contract import InvalidInput, ModelOutputs


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of one split, under its own labels and under any others.

    Parameters
    ----------
    values : Tensor, shape (n, d), float32
        Under the split's own labels.
    relabel : callable, labels of shape (n,) -> Tensor of shape (n, d), optional
        Left out where embeddings do not depend on labels.
    report : dict
        What is worth knowing of how they were made, as json values: for `run.json`.
    """

    values: Tensor
    relabel: Callable[[Tensor], Tensor] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    def relabelled(self, labels: Tensor) -> Tensor | None:
        """Embeddings under these labels, or None where they stay as they are."""
        return None if self.relabel is None else self.relabel(labels)


class Embedding(Protocol):
    """Where embeddings come from: a dataclass whose fields are the settings in `conf/embedding`.

    One that takes long may have more: `check(settings, dataset, model)`, which refuses what has no room before a model
    is trained, and `forecast(settings, dataset, model, splits)`, whose `text()` a dry run prints.
    """

    def hidden_layers(self, model: ModelUnderAudit) -> tuple[Layer, ...]:
        """The layers whose outputs inference must keep."""
        ...

    def splits(self) -> tuple[str, ...]:
        """The splits that inference must cover beside those that are evaluated."""
        ...

    def embed(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
    ) -> dict[str, Embedded]:
        """Embeddings of the splits that are evaluated."""
        ...


@stage("embed")
def embed(
    settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
) -> dict[str, Embedded]:
    """Embeddings of the splits that are evaluated."""
    return settings.embedding.instance.embed(settings, dataset, model, predictions)


def outputs_of(predictions: Predictions, embedded: Embedded) -> ModelOutputs:
    """Predictions and embeddings together: what a slice discovery method may see of a split.

    Raises
    ------
    InvalidInput
        Where the split has no labels, nor anything else that losses come from.
    """
    if predictions.losses is None or predictions.correct is None:
        raise InvalidInput("the split has no labels: without them there are no losses to find slices by")
    # spans of a text, or no logits at all, are nothing that a method could read as classes
    classes = predictions.split.labels is not None and predictions.logits.shape[1] > 1
    return ModelOutputs(
        example_ids=predictions.split.example_ids,
        embeddings=embedded.values,
        losses=predictions.losses,
        correct=predictions.correct,
        labels=predictions.split.labels,
        logits=predictions.logits if classes else None,
    )
