"""Plant an artefact into some examples, whatever their label: an attribute that a model may come to rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.contract import WORDS, Dataset, Split
from experiments.keys import derive
from experiments.reading.signals import Signal, WithSignal, signal_of
from methods.contract import InvalidInput, Unsupported

ATTRIBUTE = "planted"
MAINS = 50 / 128  # cycles a sample: 50 Hz in 128 samples a second
IN_IMAGES = ("tag", "stripe", "blur")


@dataclass(frozen=True)
class Planted:
    """An artefact in a share of the examples of every split, drawn by seed and independent of the label.

    Other artefacts, and other channels, are planted into other examples.

    Parameters
    ----------
    artefact : {"tag", "stripe", "blur", "line_noise", "drift"}
        The first three in images; in series a wave of 50 Hz on one channel, at a random phase, or a straight line
        through one channel, up or down.
    share : float
        Of the examples.
    strength : float
        Of a wave its amplitude, of a line its height at the ends, in the series' own units (deviations of the channel);
        of a signal in images how far it covers what is below, at most 1.
    channel : int
        Of series.
    """

    version: ClassVar[int] = 2

    artefact: Literal["tag", "stripe", "blur", "line_noise", "drift"]
    share: float = field(default=0.5, metadata={"above": 0, "below": 1})
    strength: float = field(default=1.0, metadata={"above": 0})
    channel: int = field(default=0, metadata={"min": 0})

    def __post_init__(self) -> None:
        if self.artefact in IN_IMAGES and self.strength > 1:
            raise InvalidInput(f"strength is {self.strength:g}, expected at most 1 for a {self.artefact}")

    @property
    def name(self) -> str:
        """Such as "tag", or "drift on channel 3"."""
        return self.artefact if self.artefact in IN_IMAGES else f"{self.artefact} on channel {self.channel}"

    def plant(self, dataset: Dataset, seed: int) -> Dataset:
        """The data set with the attribute `planted`: `name`, or "none".

        Raises
        ------
        Unsupported
            Where the examples are of a kind that this artefact is not made for.
        """
        modality = "image" if self.artefact in IN_IMAGES else "series"
        if dataset.modality != modality:
            raise Unsupported(
                f"the artefact {self.artefact} is planted into {WORDS[modality]}; {dataset.name} has modality "
                f"{dataset.modality}: choose another artefact"
            )
        if any(ATTRIBUTE in split.attributes for split in dataset.splits.values()):
            raise Unsupported(f"{dataset.name} has the attribute {ATTRIBUTE!r} already: plant one artefact only")
        identity = {"version": self.version, **asdict(self), "seed": seed}
        if modality == "image":
            identity["signal"] = self._signal().identity()
        splits = {
            name: self._planted(split, derive(seed, "planted", self.name, name))
            for name, split in dataset.splits.items()
        }
        return dataset.derived({"planted": identity}, splits=splits)

    def _signal(self) -> Signal:
        return signal_of(self.artefact, None, None, self.strength)

    def _planted(self, split: Split, seed: int) -> Split:
        generator = np.random.default_rng(seed)
        marked = generator.random(split.n_examples) < self.share  # (n,)
        examples = (
            WithSignal(split.examples, marked.tolist(), self._signal())
            if self.artefact in IN_IMAGES
            else self._in_series(split.examples, marked, generator)
        )
        planted = pd.Series(np.where(marked, self.name, "none"), index=split.attributes.index)
        return replace(split, examples=examples, attributes=split.attributes.assign(**{ATTRIBUTE: planted}))

    def _in_series(self, examples: Sequence[Tensor], marked: np.ndarray, generator: np.random.Generator) -> Tensor:
        series = examples.clone() if isinstance(examples, Tensor) else torch.stack(list(examples))  # (n, channels, t)
        n, channels, length = series.shape
        if self.channel >= channels:
            raise Unsupported(f"channel is {self.channel}, expected below {channels}, the channels of these series")
        if self.artefact == "line_noise":
            phase = generator.uniform(0, 2 * np.pi, size=(n, 1))
            wave = np.sin(2 * np.pi * MAINS * np.arange(length) + phase)  # (n, t)
        else:
            wave = generator.choice([-1, 1], size=(n, 1)) * np.linspace(-1, 1, length)
        series[marked, self.channel] += torch.from_numpy(self.strength * wave[marked]).to(series.dtype)
        return series
