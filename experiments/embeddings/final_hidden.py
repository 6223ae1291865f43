"""The final hidden layer of the model under audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from experiments.contract import Dataset, ModelUnderAudit
from experiments.embedding import Embedded
from experiments.inference import Predictions, evaluated_splits
from experiments.layers import Layer
from experiments.settings import Settings


@dataclass(frozen=True)
class FinalHidden:
    """What the model's last linear map sees: where similar inputs are expected to be close (d'Eon et al. 2022)."""

    version: ClassVar[int] = 1

    def hidden_layers(self, model: ModelUnderAudit) -> tuple[Layer, ...]:
        return (model.final_hidden,)

    def splits(self) -> tuple[str, ...]:
        return ()

    def embed(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
    ) -> dict[str, Embedded]:
        return {name: Embedded(predictions[name].hidden[model.final_hidden]) for name in evaluated_splits(settings)}
