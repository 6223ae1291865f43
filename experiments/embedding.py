"""Give every example of the splits that the run needs its embedding."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.clock import stage
from experiments.contract import ModelUnderAudit
from experiments.inference import Predictions
from experiments.settings import Settings
from methods.contract import InvalidInput, ModelOutputs


@stage("embed")
def embed(
    settings: Settings, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
) -> dict[str, ModelOutputs]:
    """Predictions and embeddings together: for each split, what a slice discovery method may see."""
    return {name: _outputs(settings, model, p) for name, p in predictions.items()}


def _outputs(settings: Settings, model: ModelUnderAudit, predictions: Predictions) -> ModelOutputs:
    split = predictions.split
    if split.labels is None or predictions.losses is None or predictions.correct is None:
        raise InvalidInput("the split has no labels: without them there are no losses to find slices by")
    return ModelOutputs(
        example_ids=split.example_ids,
        embeddings=settings.embedding.instance.embed(model, predictions),
        losses=predictions.losses,
        correct=predictions.correct,
        labels=split.labels,
        logits=predictions.logits,
    )
