"""The final hidden layer of the model under audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from experiments.contract import ModelUnderAudit
from experiments.inference import Predictions


@dataclass(frozen=True)
class FinalHidden:
    """What the model's last linear map sees: where similar inputs are expected to be close (d'Eon et al. 2022)."""

    version: ClassVar[int] = 1

    def layers(self, model: ModelUnderAudit) -> tuple[str, ...]:
        return (model.embedding_layer,)

    def embed(self, model: ModelUnderAudit, predictions: Predictions) -> Tensor:
        """Tensor, shape (n, d), float32."""
        return predictions.hidden[model.embedding_layer]
