"""What flows through the pipeline: data sets, models under audit, problems."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.keys import key_of
from experiments.layers import Layer, Pool
from methods.contract import InvalidInput, ModelOutputs, Unsupported, check_example_ids, check_labels, check_tensor

if TYPE_CHECKING:
    from PIL import Image

    from experiments.audit import Audit
    from experiments.training import Training

Modality = Literal["image", "text", "text_pair", "table", "series"]
WORDS = {"image": "images", "text": "texts", "text_pair": "pairs of texts", "table": "tables", "series": "series"}
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set; examples are read when they are asked for.

    Parameters
    ----------
    example_ids : tuple of str, length n
        At least one, strictly increasing.
    examples : sequence, length n
        `PIL.Image`, `str`, `(str, str)` or tensor, after the data set's modality; may be lazy. Quantities are float32;
        int64 are rows of something (users, films), which no network may take for quantities.
    labels : Tensor, shape (n,), int64, optional
    attributes : pandas.DataFrame, n rows
        Indexed by example id: subclass, age, genre ... What a data set knows beside the label.
    paths : tuple of str, length n, optional
        Of each example's file, relative to the data root.
    spans : Tensor, shape (n, 2), int64, optional
        Of questions: the answer's first character in the context, and the one after its last. They have no labels.
    pictures : sequence of PIL.Image, length n, optional
        What people are shown of examples that are no pictures themselves, as stored outputs; may be lazy.
    texts : tuple of str, length n, optional
        What people are shown of examples that are no texts themselves.

    Raises
    ------
    InvalidInput
        Naming the field, the first bad row where there is one, and what was expected.
    """

    example_ids: tuple[str, ...]
    examples: Sequence[Any]
    labels: Tensor | None
    attributes: pd.DataFrame
    paths: tuple[str, ...] | None = None
    spans: Tensor | None = None
    pictures: Sequence[Image.Image] | None = None
    texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_example_ids(self.example_ids)
        n = len(self.example_ids)
        for name in ("examples", "paths", "pictures", "texts"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise InvalidInput(f"{name} has {len(values)} rows, example_ids has {n}")
        if self.labels is not None:
            check_tensor("labels", self.labels, self.example_ids, torch.int64, n_dims=1)
        if self.spans is not None:
            check_tensor("spans", self.spans, self.example_ids, torch.int64, n_dims=2, min_columns=2)
        if tuple(self.attributes.index) != self.example_ids:
            raise InvalidInput("attributes has another index than example_ids: expected one row an example, in order")

    @property
    def n_examples(self) -> int:
        return len(self.example_ids)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, divided into splits.

    Parameters
    ----------
    name : str
    modality : {"image", "text", "text_pair", "table", "series"}
    class_names : tuple of str, length c
        At least two, distinct; label i is class_names[i]. None where no split has labels.
    splits : mapping from {"train", "validation", "test"} to Split
        The splits that exist; no example is in two of them.
    fingerprint : str
        Of the content: it changes when any example, label or attribute does.
    train_fingerprint : str, optional
        The same of the train split alone, so that what changes other splits trains no model again; the whole
        fingerprint where it is left out.
    imagenet_classes : tuple of tuple of int, length c, optional
        For each class, the indices of the ImageNet classes that it is made of: how a model of ImageNet's 1,000 classes
        is read as one of these.
    notes : tuple of str
        What a reader of the results must know: rows that were left out, and why.

    Raises
    ------
    InvalidInput
        Naming the field, the first bad row where there is one, and what was expected.
    """

    name: str
    modality: Modality
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    fingerprint: str
    train_fingerprint: str | None = None
    imagenet_classes: tuple[tuple[int, ...], ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labelled = any(split.labels is not None for split in self.splits.values())
        if len(set(self.class_names)) < len(self.class_names) or (labelled and len(self.class_names) < 2):
            raise InvalidInput(f"class_names is {self.class_names}, expected at least two distinct names")
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise InvalidInput(f"splits are {', '.join(self.splits) or 'none'}, expected some of {', '.join(SPLITS)}")
        home: dict[str, str] = {}
        for name, split in self.splits.items():
            if split.labels is not None:
                check_labels(split.labels, split.example_ids, len(self.class_names))
            twice = next((i for i in split.example_ids if i in home), None)
            if twice is not None:
                raise InvalidInput(f"example {twice!r} is in the splits {home[twice]} and {name}, expected one")
            home.update(dict.fromkeys(split.example_ids, name))

    def split(self, name: str) -> Split:
        """Raise `InvalidInput` with the names of the splits that exist where this one does not."""
        if name not in self.splits:
            raise InvalidInput(f"{self.name} has no {name} split, expected one of {', '.join(self.splits)}")
        return self.splits[name]

    def derived(self, how: Mapping[str, Any], **changes: Any) -> Dataset:
        """A data set made from this one; `how`, as json values, goes into its fingerprints."""
        before = {"fingerprint": self.fingerprint, "train_fingerprint": self.train_fingerprint or self.fingerprint}
        return replace(self, **{name: key_of({"from": value, **how}) for name, value in before.items()}, **changes)

    def require(self, model: str, *modalities: Modality, classes: bool = True) -> None:
        """Raise `Unsupported` unless the examples are what a model takes, and (unless it needs none) have classes."""
        if self.modality not in modalities:
            takes = " and ".join(WORDS[modality] for modality in modalities)
            raise Unsupported(
                f"{model} takes {takes}; {self.name} has modality {self.modality}: choose another model (slicebench "
                "list models)"
            )
        if classes and not self.class_names:
            raise Unsupported(f"{model} tells classes apart; {self.name} has none: choose another model")


@dataclass(frozen=True, eq=False)
class StoredProblem:
    """A problem whose model ran elsewhere: its outputs are stored with its true slices, and read when they are needed.

    Parameters
    ----------
    name : str
        Distinct among the problems of a set.
    group : str
        Problems that are not independent (of one slice of the same examples) share a group.
    kind : {"rare", "correlation", "noisy_label"}
    read : callable, (names of splits) -> (Dataset, Tensor of shape (n_test, g), bool)
        A data set whose examples are `Stored`, with validation, test and those splits, and the true slices of test.
    """

    name: str
    group: str
    kind: str
    read: Callable[[Collection[str]], tuple[Dataset, Tensor]]


@dataclass(frozen=True, eq=False)
class ProblemSet:
    """Stored problems, each with a model of its own: what a run over dcbench or over a suite loads.

    Parameters
    ----------
    name : str
    problems : tuple of StoredProblem
        At least one.
    splits : tuple of str
        That every problem has.
    fingerprint : str
        Of the content of all problems.
    notes : tuple of str
        What a reader of the results must know: problems that were left out, and why.
    """

    name: str
    problems: tuple[StoredProblem, ...]
    splits: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


class Loader(Protocol):
    """A data set's loader: a dataclass whose fields are the settings in `conf/dataset`."""

    def load(self, root: Path, seed: int) -> Dataset | ProblemSet:
        """Read names, labels and attributes below the data root; `seed` (seeds.split) makes splits where none exist."""
        ...


def _logits(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch)


def _labels(split: Split) -> Tensor | None:
    return split.labels


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits, targets, reduction="none")


def _largest_logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.argmax(dim=1) == targets


@dataclass(frozen=True, eq=False)
class ModelUnderAudit:
    """The trained model whose failures are sought.

    Parameters
    ----------
    module : torch.nn.Module
        Set to evaluation mode.
    preprocess : callable
        Turns one example into a tensor that can be stacked into a batch.
    embedding_layer : str
        The name of a submodule of `module`: its output is the embedding `final_hidden`. `NAME.input` is what goes into
        it instead, where no module's output is what the last linear map sees.
    key : str
        Of the weights: two models with one key give the same outputs. The pipeline fills it in.
    to_logits : callable, (module, batch) -> Tensor of shape (b, c) or (b, 1)
        The module's output by default.
    grouped : callable, Tensor of shape (b, outputs) -> Tensor of shape (b, c), optional
        How outputs of the last linear map become logits, where these are no linear map of its input; `embedding_layer`
        is then the input of that map.
    to_targets : callable, split -> Tensor with n rows, or None
        What outputs are compared with: the labels by default. None where a split has nothing of the kind.
    to_losses : callable, (logits, targets) -> Tensor of shape (b,), in nats
        Cross-entropy by default.
    to_correct : callable, (logits, targets) -> Tensor of shape (b,), bool
        Whether the largest logit is the label's by default.
    embedding_pool : {"flatten", "mean", "first"}
        What becomes of the positions of an embedding layer that has some.

    Raises
    ------
    InvalidInput
        Where there is no submodule called `embedding_layer`; the nearest names are given.
    """

    module: nn.Module
    preprocess: Callable[[Any], Tensor]
    embedding_layer: str
    key: str = ""
    to_logits: Callable[[nn.Module, Tensor], Tensor] = field(default=_logits)
    grouped: Callable[[Tensor], Tensor] | None = None
    to_targets: Callable[[Split], Tensor | None] = field(default=_labels)
    to_losses: Callable[[Tensor, Tensor], Tensor] = field(default=_cross_entropy)
    to_correct: Callable[[Tensor, Tensor], Tensor] = field(default=_largest_logit)
    embedding_pool: Pool = "flatten"

    def __post_init__(self) -> None:
        self.layer(self.embedding_layer)
        self.module.eval()

    @property
    def final_hidden(self) -> Layer:
        """What the last linear map sees."""
        return Layer(self.embedding_layer, self.embedding_pool)

    def layers(self) -> tuple[str, ...]:
        """The names of all submodules."""
        return tuple(name for name, _ in self.module.named_modules() if name)

    def layer(self, name: str) -> nn.Module:
        """The submodule of this name (or of NAME.input); `InvalidInput` with the nearest names where there is none."""
        name, modules = Layer(name).module, dict(self.module.named_modules())
        if name not in modules:
            near = difflib.get_close_matches(name, self.layers(), n=3, cutoff=0) or self.layers()[:3]
            raise InvalidInput(f"the model has no layer {name!r}; the nearest are {', '.join(near)}")
        return modules[name]

    def logits(self, batch: Tensor) -> Tensor:
        """Tensor, shape (b, c), float32; a single logit z becomes the columns (0, z)."""
        logits = self.to_logits(self.module, batch)
        if logits.ndim == 2 and logits.shape[1] == 1:
            return torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits

    def targets(self, split: Split) -> Tensor | None:
        """Tensor with n rows, or None where the split has nothing to compare outputs with."""
        return self.to_targets(split)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Tensor, shape (b,), float32, in nats."""
        return self.to_losses(logits, targets)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Tensor, shape (b,), bool."""
        return self.to_correct(logits, targets)


class ModelLoader(Protocol):
    """A model's recipe: a dataclass whose fields are the settings in `conf/model`.

    A recipe with a field `training` is trained here, on the train split; without one, `build` loads the weights. One
    that reads files says by `identity()`, a mapping from names of settings to strings, what is in them: a run's key
    then depends on the content and not on the path.
    """

    training: Training | None

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        """The model for this data set, untrained where it is trained here; its key is filled in by the pipeline."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """Something to find slices in: outputs to fit a method on, outputs to score it on, and the truth where it is known.

    Parameters
    ----------
    name : str
        Distinct among the problems of a run.
    group : str
        Problems that are not independent (draws of one subclass, problems of one model) share a group.
    kind : str
        relabel_subclass, rare, correlation, noisy_label, or none.
    fit, score : ModelOutputs
        May be the same object.
    true_slices : Tensor, shape (n_score, g), bool, optional
        Over the rows of `score`; each true slice has members, and does not hold everything.
    audit : Audit, optional
        The outputs that it was made from; many problems may share them.

    Raises
    ------
    InvalidInput
        Naming the field and what was expected.
    """

    name: str
    group: str
    kind: str
    fit: ModelOutputs
    score: ModelOutputs
    true_slices: Tensor | None = None
    audit: Audit | None = None

    def __post_init__(self) -> None:
        if self.true_slices is None:
            return
        name = f"true_slices of {self.name}"
        check_tensor(name, self.true_slices, self.score.example_ids, torch.bool, n_dims=2)
        if not self.true_slices.any(dim=0).all():
            empty = int((~self.true_slices.any(dim=0)).nonzero()[0])
            raise InvalidInput(f"{name}: true slice {empty} has no members, expected at least one")
        if self.true_slices.all(dim=0).any():
            whole = int(self.true_slices.all(dim=0).nonzero()[0])
            raise InvalidInput(f"{name}: true slice {whole} holds all examples, expected some outside of it")
