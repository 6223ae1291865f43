"""Batches that threads prepare while the model computes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.contract import ModelUnderAudit, Split
from experiments.settings import Compute

MOST_WORKERS = 16  # beyond that, Python's lock leaves them nothing to do


def as_is(example: Tensor) -> Tensor:
    """The `preprocess` of a model that takes examples as they are: `Batches` then takes a batch of them at once."""
    return example


class Batches:
    """Preprocessed examples of a split, batch by batch, in order or shuffled.

    Reading, decoding, resizing and tokenising happen in threads (`compute.workers`), a few batches ahead: they spend
    their time in libraries that release Python's lock, an error keeps its message, and nothing is copied between
    processes.

    Parameters
    ----------
    split : Split
    model : ModelUnderAudit
    compute : Compute
    batch_size : int, optional
        `compute.batch_size` where it is left out.
    shuffle : bool
        Drawn from torch's global generator. A last batch of one example is then left out, if there are others: batch
        normalisation cannot be trained with it.
    rows : sequence of int, optional
        Of the split; all of them where it is left out.

    Attributes
    ----------
    waited : float
        Seconds that whoever went over the batches has waited for them so far.
    """

    def __init__(
        self,
        split: Split,
        model: ModelUnderAudit,
        compute: Compute,
        batch_size: int | None = None,
        shuffle: bool = False,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.split, self.model, self.shuffle = split, model, shuffle
        self.targets = model.targets(split)
        self.rows = range(split.n_examples) if rows is None else rows
        self.batch_size = batch_size or compute.batch_size
        self.n_workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS) if compute.workers is None else compute.workers
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(examples, targets) of one batch after the other; no targets where the split has none."""
        prepared = self._prepared()
        while True:
            start = time.perf_counter()
            batch = next(prepared, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _order(self) -> DataLoader[list[int]]:
        """Rows only: what torch's own loader is good at."""
        alone = self.shuffle and len(self.rows) > self.batch_size and len(self.rows) % self.batch_size == 1
        return DataLoader(self.rows, batch_size=self.batch_size, shuffle=self.shuffle, collate_fn=list, drop_last=alone)

    def _prepared(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self.n_workers == 0:
            yield from map(self._load, self._order())
            return
        with ThreadPoolExecutor(self.n_workers, thread_name_prefix="batches") as pool:
            yield from _ahead((pool.submit(self._load, rows) for rows in self._order()), 2 * self.n_workers)

    def _load(self, rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        index = torch.as_tensor(rows)
        return self._examples(rows, index), None if self.targets is None else self.targets[index]

    def _examples(self, rows: Sequence[int], index: Tensor) -> Tensor:
        examples = self.split.examples
        if self.model.preprocess is as_is and isinstance(examples, Tensor):
            return examples[index]
        return torch.stack([self.model.preprocess(examples[row]) for row in rows])


def _ahead(futures: Iterable[Future[tuple[Tensor, Tensor | None]]], n: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Results in order, with at most `n` more under way; what is not wanted any more is cancelled."""
    waiting: deque[Future[tuple[Tensor, Tensor | None]]] = deque()
    try:
        for future in futures:
            waiting.append(future)
            if len(waiting) > n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
