"""Load the data set of a run."""

from __future__ import annotations

from experiments.clock import stage
from experiments.contract import Dataset
from experiments.settings import Settings


@stage("load")
def load_dataset(settings: Settings) -> Dataset:
    """Names, labels and attributes; examples are read when they are needed."""
    return settings.dataset.instance.load(settings.paths.data, settings.seeds.split)
