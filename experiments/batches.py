"""Batches that threads prepare while the model computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.compute import n_cores
from experiments.contract import ModelUnderAudit, Split
from experiments.settings import Compute
from methods.contract import InvalidInput

MOST_WORKERS = 16  # beyond that, Python's lock leaves them nothing to do
AHEAD = 2  # batches that are prepared while the model computes: each may have a gigabyte

Batch = tuple[Tensor, Tensor | None]  # preprocessed examples, and targets where there are some


def as_is(example: Tensor) -> Tensor:
    """The `preprocess` of a model that takes examples as they are; many of them are then taken at once."""
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
    with_targets : bool
        False where nobody asks for targets, which may take time to make.

    Raises
    ------
    InvalidInput
        Where preprocessing gives tensors of different shapes, naming two examples; and whatever reading one raises.

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
        with_targets: bool = True,
    ) -> None:
        self.split, self.model, self.shuffle = split, model, shuffle
        self.targets = model.targets(split) if with_targets else None
        self.rows = range(split.n_examples) if rows is None else rows
        self.batch_size = batch_size or compute.batch_size
        self.n_workers = min(n_cores(), MOST_WORKERS) if compute.workers is None else compute.workers
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[Batch]:
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

    def _prepared(self) -> Iterator[Batch]:
        if self.n_workers == 0:
            for rows in self._order():
                yield self._joined(rows, self._examples(rows))
            return
        pool = ThreadPoolExecutor(self.n_workers, thread_name_prefix="batches")
        try:
            yield from _ahead(self._submitted(pool, rows) for rows in self._order())
        finally:
            pool.shutdown(cancel_futures=True)

    def _submitted(self, pool: ThreadPoolExecutor, rows: Sequence[int]) -> Future[Batch]:
        """All threads work on one batch: however many there are, no more batches lie in memory."""
        size = -(-len(rows) // self.n_workers)
        shares = [pool.submit(self._examples, rows[at : at + size]) for at in range(0, len(rows), size)]
        # what a pool was given first it begins first: by the time that the batch is joined, its shares are under way
        return pool.submit(lambda: self._joined(rows, list(chain.from_iterable(share.result() for share in shares))))

    def _examples(self, rows: Sequence[int]) -> Sequence[Tensor]:
        """One after the other; where nothing has to be prepared, all at once."""
        examples = self.split.examples
        if self.model.preprocess is as_is and isinstance(examples, Tensor):
            return examples[torch.as_tensor(rows)]
        return [self.model.preprocess(examples[row]) for row in rows]

    def _joined(self, rows: Sequence[int], examples: Sequence[Tensor]) -> Batch:
        targets = None if self.targets is None else self.targets[torch.as_tensor(rows)]
        if isinstance(examples, Tensor):
            return examples, targets
        other = next((at for at, example in enumerate(examples) if example.shape != examples[0].shape), None)
        if other is not None:
            ids = [self.split.example_ids[rows[at]] for at in (0, other)]
            shapes = [tuple(examples[at].shape) for at in (0, other)]
            raise InvalidInput(
                f"the examples {ids[0]!r} and {ids[1]!r} have the shapes {shapes[0]} and {shapes[1]} when they are "
                "prepared for the model, expected the same for all: choose a model that resizes (model=resnet, or "
                "Pixels with resize and crop)"
            )
        return torch.stack(list(examples)), targets


def _ahead(futures: Iterable[Future[Batch]]) -> Iterator[Batch]:
    """Results in order, while the next ones are under way."""
    waiting: deque[Future[Batch]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
