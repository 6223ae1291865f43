"""Any layer of the model under audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from experiments.contract import Dataset, ModelUnderAudit
from experiments.embedding import Embedded
from experiments.inference import Predictions, evaluated_splits
from experiments.layers import Layer, Pool
from experiments.settings import Settings


@dataclass(frozen=True)
class NamedLayer:
    """The output of a submodule of the model, by its name.

    Parameters
    ----------
    layer : str
        Such as `layer4` or `features.2`; `fc.input` is what goes into `fc`. A wrong name is answered with the nearest
        ones.
    pool : {"mean", "first", "flatten"}
        What becomes of an output of shape (channels, height, width) or (tokens, width): the mean over positions, the
        first position (a [CLS] token), or all of it.
    """

    version: ClassVar[int] = 1

    layer: str
    pool: Pool = "mean"

    def hidden_layers(self, model: ModelUnderAudit) -> tuple[Layer, ...]:
        model.layer(self.layer)  # refuses a name that is not there
        return (Layer(self.layer, self.pool),)

    def splits(self) -> tuple[str, ...]:
        return ()

    def embed(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
    ) -> dict[str, Embedded]:
        return {
            name: Embedded(predictions[name].hidden[Layer(self.layer, self.pool)])
            for name in evaluated_splits(settings)
        }
