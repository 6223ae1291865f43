"""Load the data set of a run."""

from __future__ import annotations

from experiments.clock import stage
from experiments.contract import Dataset
from experiments.inference import needed_splits
from experiments.settings import Settings
from experiments.training import recipe_of


@stage("load")
def load_dataset(settings: Settings) -> Dataset:
    """Names, labels and attributes; examples are read when they are needed.

    Raises
    ------
    InvalidInput
        Whatever the loader finds wrong; or where the data have not all splits that the run needs.
    """
    dataset = settings.dataset.instance.load(settings.paths.data, settings.seeds.split)
    trained = ["train"] if recipe_of(settings) is not None else []
    for name in [*trained, *needed_splits(settings)]:
        dataset.split(name)  # said now, and not after hours of training
    return dataset
