"""EEG eye state: one recording of brain waves, eyes open and closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.sources import Download, Source
from experiments.reading.tables import codes, numbers, read_table, refuse_empty_classes
from methods.contract import InvalidInput

CHANNELS = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
STATE = "eyeDetection"
STATES = {"0": 0, "1": 1}
FILE = "EEG_Eye_State.arff"
HERTZ = 128
LARGEST = 1e9  # the recording has outliers to 715,897 around a level of some 4,000


@dataclass(frozen=True)
class EEG:
    """Windows of one recording of 117 seconds, 14 channels at 128 Hz; the label is whether the eyes are closed.

    The recording is cut into blocks of time, which go to the splits in turn. Windows overlap within a block, never
    across a cut, and samples at the end of each block are left out: no sample is in two splits. A window's label is
    the state of at least half of its samples. Each channel is clipped to what is usual in the training blocks, and has
    mean 0 and deviation 1 there.

    Parameters
    ----------
    folder : str
        Below the data root: `EEG_Eye_State.arff`.
    window, stride : int
        Samples of a window, and from the beginning of one window to that of the next.
    block, guard : int
        Samples of a block, and of the gap at its end.
    deal : tuple of {"train", "validation", "test"}
        The splits that blocks go to in turn, over and over; train among them.
    clip : float
        Share of a channel's training samples that are cut off at either end, in [0, 0.5).

    Notes
    -----
    Roesler (2013), UCI machine learning repository. A medical time series, as one of the three kinds of data in dcbench
    (Eyuboglu et al. 2022) is.
    """

    version: ClassVar[int] = 1

    folder: str = "eeg"
    window: int = field(default=128, metadata={"min": 2})
    stride: int = field(default=8, metadata={"min": 1})
    block: int = field(default=384, metadata={"min": 2})
    guard: int = field(default=64, metadata={"min": 0})
    deal: tuple[Literal["train", "validation", "test"], ...] = ("train", "test", "train", "validation")
    clip: float = field(default=0.001, metadata={"min": 0, "below": 0.5})

    @property
    def source(self) -> Source:
        return Source(
            folder=self.folder,
            instruction=(
                "Get the arff file from https://archive.ics.uci.edu/dataset/264/eeg+eye+state and call it "
                f"{FILE} (as it comes, its name has spaces)."
            ),
            licence="CC BY 4.0",
            downloads=(
                Download(
                    "https://archive.ics.uci.edu/ml/machine-learning-databases/00264/EEG%20Eye%20State.arff",
                    FILE,
                    "e6eccba033d8ce56d38d2f0cca2087356705425a5a2ddbb1012ef3b892bd5a4b",
                ),
            ),
        )

    def load(self, root: Path, seed: int) -> Dataset:
        """`seed` is not needed: time decides the splits."""
        path = self.source.path(root, FILE)
        series, closed = _read(path)
        starts = self._starts(len(series), path)
        series = self._scaled(series, starts["train"])
        return assembled(
            name="eeg",
            modality="series",
            class_names=("eyes open", "eyes closed"),
            splits={name: self._split(series, closed, s) for name, s in starts.items()},
            root=root,
            files=[f"{self.folder}/{FILE}"],
            notes=(self._note(len(series)),),
        )

    def _note(self, n: int) -> str:
        return (
            f"{n:,} samples at {HERTZ} Hz in blocks of {self.block / HERTZ:g} s, "
            f"the last {self.guard / HERTZ:g} s of each left out"
        )

    def _starts(self, n: int, path: Path) -> dict[str, np.ndarray]:
        """The first sample of each window of each split."""
        if "train" not in self.deal:
            raise InvalidInput("dataset.deal has no train: clipping and scaling are learned from its blocks")
        starts: dict[str, list[int]] = {name: [] for name in dict.fromkeys(self.deal)}
        for index, first in enumerate(range(0, n, self.block)):
            end = min(first + self.block - self.guard, n)
            starts[self.deal[index % len(self.deal)]] += range(first, end - self.window + 1, self.stride)
        empty = next((name for name, of_split in starts.items() if not of_split), None)
        if empty is not None:
            raise InvalidInput(
                f"{path} has {n:,} samples, which give no window to the {empty} split: expected more, a smaller "
                f"dataset.block, or dataset.window + dataset.guard of at most dataset.block ({self.block})"
            )
        return {name: np.array(of_split) for name, of_split in starts.items()}

    def _scaled(self, series: np.ndarray, starts: np.ndarray) -> np.ndarray:
        known = series[np.unique(starts[:, None] + np.arange(self.window))]  # (samples, channels)
        low, high = np.quantile(known, [self.clip, 1 - self.clip], axis=0)
        known = known.clip(low, high)
        deviation = known.std(axis=0)
        return (series.clip(low, high) - known.mean(axis=0)) / np.where(deviation > 0, deviation, 1)

    def _split(self, series: np.ndarray, closed: np.ndarray, starts: np.ndarray) -> Split:
        samples = starts[:, None] + np.arange(self.window)  # (n, window)
        width = max(5, len(str(len(series))))  # the order of ids is that of time
        ids = [f"{start:0{width}d}" for start in starts]
        share = closed[samples].mean(axis=1)
        attributes = {
            "second": starts / HERTZ,
            "block": starts // self.block,
            "open_share": 1 - share,
            "transition": np.where((share > 0) & (share < 1), "yes", "no"),
            "seconds_since_change": _samples_since_change(closed)[samples[:, -1]] / HERTZ,
        }
        return Split(
            example_ids=tuple(ids),
            examples=torch.from_numpy(series[samples].transpose(0, 2, 1).astype(np.float32)),  # (n, channels, window)
            labels=torch.from_numpy((share >= 0.5).astype(np.int64)),
            attributes=pd.DataFrame(attributes, index=pd.Index(ids, name="id")),
        )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The series, shape (n, channels), and whether the eyes are closed, shape (n,)."""
    names = (*CHANNELS, STATE)
    table = read_table(path, names, names=names, skiprows=_n_lines_of_header(path, names))
    closed = codes(table, STATE, path, STATES)
    refuse_empty_classes(closed, ("eyes open (0)", "eyes closed (1)"), path)
    return np.stack([numbers(table, name, path, 0, LARGEST) for name in CHANNELS], axis=1), closed.numpy()


def _n_lines_of_header(path: Path, names: tuple[str, ...]) -> int:
    """Lines up to @DATA, once the attributes above it are found to be the expected ones."""
    lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    last = next((n for n, words in enumerate(lines) if words and words[0].lower() == "@data"), None)
    if last is None:
        raise InvalidInput(f"{path} has no line @DATA, expected an arff file: get this file again")
    found = [words[1] for words in lines[:last] if len(words) > 1 and words[0].lower() == "@attribute"]
    if tuple(found) != names:
        raise InvalidInput(f"{path} has the attributes {', '.join(found)}, expected {', '.join(names)}")
    return last + 1


def _samples_since_change(states: np.ndarray) -> np.ndarray:
    """Of each sample the number of samples before it in the same run: shape (n,)."""
    index = np.arange(len(states))
    begins = np.concatenate([[True], states[1:] != states[:-1]])
    return index - np.maximum.accumulate(np.where(begins, index, 0))
