"""Load the data set of a run."""

from __future__ import annotations

from experiments.clock import stage
from experiments.contract import Dataset, ProblemSet
from experiments.corruption import NoCorruption
from experiments.embeddings.encoder import Encoder
from experiments.inference import needed_splits
from experiments.models.precomputed import Precomputed
from experiments.settings import Settings
from experiments.stored import TRUTH
from experiments.training import recipe_of
from methods.errors import InvalidSetting, Unsupported

HESSIAN = "embedding.hessian_split"
OPPONENTS, COHERENCE = "evaluation.opponents", "evaluation.coherence"
EXPLAINED_BY_VALIDATION = f"embedding=influence {HESSIAN}=validation {OPPONENTS}_from=validation"
REMEDIES = {
    HESSIAN: f"; take {HESSIAN}=validation, and say so beside the results",
    OPPONENTS: f"; take {OPPONENTS}=0, or {EXPLAINED_BY_VALIDATION}",
    COHERENCE: f"; take {COHERENCE}=false, or {EXPLAINED_BY_VALIDATION}",
}


@stage("load")
def load_dataset(settings: Settings) -> Dataset | ProblemSet:
    """Names, labels and attributes; examples are read when they are needed.

    Raises
    ------
    InvalidInput
        Whatever the loader finds wrong; or where the data have not all splits that the run needs.
    """
    return check_dataset(settings, read_dataset(settings))


def read_dataset(settings: Settings) -> Dataset | ProblemSet:
    """The same without asking whether the run finds what it needs: equal for all runs on this data."""
    return settings.dataset.instance.load(settings.paths.data, settings.seeds.split)


def check_dataset(settings: Settings, dataset: Dataset | ProblemSet) -> Dataset | ProblemSet:
    """Return the data set, or raise `InvalidInput` where it lacks a split that the run needs."""
    if isinstance(dataset, ProblemSet):
        _check_stored(settings, dataset)
        return dataset
    trained = ["train"] if recipe_of(settings) is not None else []
    for name in [*trained, *needed_splits(settings)]:
        dataset.split(name)  # said now, and not after hours of training
    return dataset


def _check_stored(settings: Settings, stored: ProblemSet) -> None:
    """Raise where a run asks for more than stored outputs can give."""
    if not isinstance(settings.model.instance, Precomputed):
        raise Unsupported(
            f"{stored.name} has outputs of models that ran elsewhere, and no examples for {settings.model.name}: "
            "take model=precomputed (weights in a model.pt are pickled, and not read)"
        )
    if not isinstance(settings.corruption.instance, NoCorruption):
        raise Unsupported(f"the problems of {stored.name} have true slices already: take corruption=none")
    if isinstance(settings.embedding.instance, Encoder):
        raise Unsupported(f"{stored.name} has no examples that an encoder could take: choose another embedding")
    if settings.evaluation.score_split != TRUTH:
        raise InvalidSetting(
            f"evaluation.score_split is {settings.evaluation.score_split}, but the true slices of {stored.name} are "
            f"those of its {TRUTH} split: take evaluation.score_split={TRUTH}"
        )
    for setting, name in _asked_splits(settings):
        if name not in stored.splits:
            remedy = REMEDIES.get(setting, "")
            raise InvalidSetting(
                f"{setting} needs the {name} split, which not all problems of {stored.name} have: they have "
                f"{' and '.join(stored.splits)}{remedy}"
            )


def _asked_splits(settings: Settings) -> list[tuple[str, str]]:
    """The splits that a run needs, each behind the setting that asks for it."""
    evaluation = settings.evaluation
    asked = [("evaluation.fit_split", evaluation.fit_split), ("evaluation.score_split", evaluation.score_split)]
    asked += [(HESSIAN, name) for name in settings.embedding.instance.splits()]
    if settings.explainer is not None:
        explained = OPPONENTS if evaluation.opponents else COHERENCE
        asked += [(explained, name) for name in (evaluation.opponents_from, *settings.explainer.splits())]
    return asked
