"""Ranges of rows that are computed apart, each an entry of the cache, and put together again in bounded memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from experiments.cache import Arrays, Entry

STAGE = "forward_shards"
BLOCK = 1 << 24  # bytes that are copied at once


def bounds(n_examples: int, batch_size: int, n_shards: int) -> list[range]:
    """The rows of each shard: whole batches, so that no batch differs from those of one pass over all rows.

    Examples
    --------
    >>> bounds(n_examples=10, batch_size=3, n_shards=2)
    [range(0, 6), range(6, 10)]
    >>> len(bounds(n_examples=10, batch_size=5, n_shards=16))  # no more than there are batches
    2
    """
    n_batches = -(-n_examples // batch_size)
    n_shards = min(n_shards, n_batches)
    cuts = [min(n_batches * at // n_shards * batch_size, n_examples) for at in range(n_shards + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def shard_of(whole: Entry, rows: range) -> Entry:
    """Where these rows of an entry are kept until all are there."""
    return Entry(whole.root, STAGE, {**whole.depends, "rows": [rows.start, rows.stop]})


def merge(whole: Entry, shards: Sequence[Entry], n_examples: int) -> Arrays:
    """Store the rows of all shards as one entry."""

    def fill(folder: Path) -> None:
        with growing(folder / "values.npy", n_examples) as append:
            for shard in shards:
                arrays = shard.load()
                assert arrays is not None, f"{shard.folder} vanished while its lock was held"
                for block in _blocks(arrays["values"]):
                    append(block)

    return whole.store(fill)


def remove(shards: Sequence[Entry]) -> None:
    """Remove shards that nobody needs any more."""
    for shard in shards:
        with shard.locked():
            shutil.rmtree(shard.folder, ignore_errors=True)


@contextmanager
def growing(path: Path, n_rows: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Write an array of so many rows block by block: none of it stays in memory, and a full disk raises."""
    with path.open("wb") as file:

        def append(block: np.ndarray) -> None:
            if file.tell() == 0:
                described = {"descr": block.dtype.str, "fortran_order": False, "shape": (n_rows, *block.shape[1:])}
                np.lib.format.write_array_header_1_0(file, described)
            file.write(np.ascontiguousarray(block).data)

        yield append


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    n_rows = max(1, BLOCK // max(1, values[:1].nbytes))
    return (values[at : at + n_rows] for at in range(0, len(values), n_rows))
