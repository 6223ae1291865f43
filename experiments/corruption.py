"""Make problems from a model's outputs, with true slices where labels are corrupted on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, overload

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.audit import Audit
from experiments.compute import device_of
from experiments.contract import Problem
from experiments.embedding import Embedded, outputs_of
from experiments.inference import Predictions, evaluated_splits
from experiments.keys import derive
from experiments.settings import Settings
from methods.contract import InvalidInput, ModelOutputs


@dataclass(frozen=True)
class Half:
    """One split as a corruption sees it.

    Parameters
    ----------
    outputs : ModelOutputs
    attributes : pandas.DataFrame, n rows
    embedded : Embedded, optional
        For embeddings that follow the label; left out, they stay.
    """

    outputs: ModelOutputs
    attributes: pd.DataFrame
    embedded: Embedded | None = None

    def relabelled(self, labels: Tensor) -> ModelOutputs:
        """The outputs under other labels, the embeddings too where they depend on them."""
        device = self.outputs.embeddings.device
        embeddings = None if self.embedded is None else self.embedded.relabelled(labels)
        return self.outputs.relabelled(labels.to(device), None if embeddings is None else embeddings.to(device))


@dataclass(frozen=True)
class Unmade:
    """A problem that what is stored of it does not allow in this run.

    Parameters
    ----------
    name, group, kind : str
        As of a `Problem`.
    reason : str
    """

    name: str
    group: str
    kind: str
    reason: str


class Problems(Sequence[Problem | Unmade]):
    """Problems that are made when they are asked for: their names are known before.

    Parameters
    ----------
    makers : mapping from problem name to a function without arguments that makes it, or says why it cannot
    """

    def __init__(self, makers: Mapping[str, Callable[[], Problem | Unmade]]) -> None:
        self.names = tuple(makers)
        self._makers = tuple(makers.values())

    def made_from(self, audit: Audit) -> Problems:
        """The same problems, which know from what they were made."""

        def making(make: Callable[[], Problem | Unmade]) -> Callable[[], Problem | Unmade]:
            return lambda: replace(made, audit=audit) if isinstance(made := make(), Problem) else made

        return Problems({name: making(make) for name, make in zip(self.names, self._makers, strict=True)})

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Problem | Unmade: ...

    @overload
    def __getitem__(self, index: slice) -> Problems: ...

    def __getitem__(self, index: int | slice) -> Problem | Unmade | Problems:
        if isinstance(index, slice):
            return Problems(dict(zip(self.names[index], self._makers[index], strict=True)))
        return self._makers[index]()


class Corruption(Protocol):
    """How problems are made from the outputs of one model."""

    def problems(self, fit: Half, score: Half, seed: int) -> Problems:
        """`fit` and `score` may be the same object."""
        ...


def make_problems(settings: Settings, audit: Audit) -> Problems:
    """All problems that are made from the outputs of one model."""
    device = device_of(settings.compute)
    halves = {name: _half(audit.predictions[name], audit.embedded[name], device) for name in evaluated_splits(settings)}
    fit, score = halves[settings.evaluation.fit_split], halves[settings.evaluation.score_split]
    return settings.corruption.instance.problems(fit, score, settings.seeds.corruption).made_from(audit)


def _half(predictions: Predictions, embedded: Embedded, device: torch.device) -> Half:
    """Tensors on the device that methods are to compute on; relabelled problems share them."""
    return Half(outputs_of(predictions, embedded).to(device), predictions.split.attributes, embedded)


@dataclass(frozen=True)
class NoCorruption:
    """One problem: the model's outputs as they are, without true slices."""

    version: ClassVar[int] = 1

    def problems(self, fit: Half, score: Half, seed: int) -> Problems:
        return Problems({"all": lambda: Problem("all", "all", "none", fit.outputs, score.outputs)})


@dataclass(frozen=True)
class RelabelSubclass:
    """All examples of one subclass get labels drawn uniformly from all classes, after inference, without retraining.

    The subclass is then the true slice. There is a problem for each subclass and draw; the draws of a subclass are
    one group.

    Parameters
    ----------
    attribute : str
        The attribute that names the subclass.
    n_seeds : int
        Draws of each subclass; at least 1.
    noise : float
        That share of the other examples gets a random label too: isolated errors, which are nobody's slice. In [0, 1).

    Notes
    -----
    The synthetic evaluation of the Spotlight paper (d'Eon et al. 2022, section 4.6), which has no noise. The true
    label may be drawn again.
    """

    version: ClassVar[int] = 1

    attribute: str = "subclass"
    n_seeds: int = field(default=10, metadata={"min": 1})
    noise: float = field(default=0.0, metadata={"min": 0, "below": 1})

    def problems(self, fit: Half, score: Half, seed: int) -> Problems:
        if self.attribute not in score.attributes:
            have = ", ".join(score.attributes) or "none"
            raise InvalidInput(f"corruption.attribute is {self.attribute!r}, expected an attribute of the data: {have}")
        subclasses = sorted(score.attributes[self.attribute].astype(str).unique())
        draws = [(subclass, draw) for subclass in subclasses for draw in range(self.n_seeds)]
        return Problems({f"{s} draw {d}": self._maker(fit, score, s, derive(seed, s, str(d)), d) for s, d in draws})

    def _maker(self, fit: Half, score: Half, subclass: str, seed: int, draw: int) -> Callable[[], Problem]:
        def make() -> Problem:
            scored, true_slice = self._relabelled(score, subclass, seed)
            fitted = scored if fit is score else self._relabelled(fit, subclass, derive(seed, "fit"))[0]
            name = f"{subclass} draw {draw}"
            return Problem(name, subclass, "relabel_subclass", fitted, scored, true_slice.unsqueeze(1))

        return make

    def _relabelled(self, half: Half, subclass: str, seed: int) -> tuple[ModelOutputs, Tensor]:
        outputs = half.outputs
        if outputs.labels is None or outputs.logits is None:
            raise InvalidInput("relabel_subclass needs labels and logits")
        generator = np.random.default_rng(seed)
        in_slice = (half.attributes[self.attribute].astype(str) == subclass).to_numpy()  # (n,)
        noisy = ~in_slice & (generator.random(len(in_slice)) < self.noise)
        drawn = torch.from_numpy(generator.integers(0, outputs.logits.shape[1], len(in_slice)))  # (n,) int64
        true_slice = torch.from_numpy(in_slice.copy())
        labels = torch.where(true_slice | torch.from_numpy(noisy), drawn, outputs.labels.cpu())
        return half.relabelled(labels), true_slice
