"""Embeddings in a file that is mapped into memory, of up to millions of rows: what the benchmarks of scale share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from methods.contract import ModelOutputs

DIMENSIONS, N_GROUPS, BAD_GROUP = 512, 50, 7
BLOCK = 20_000


@contextmanager
def mapped_outputs(n: int) -> Iterator[ModelOutputs]:
    """Outputs of n examples in groups, most of one group with a high loss; their file is removed at the end."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(N_GROUPS, (n,), generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "embeddings.npy")
        _write(path, groups, generator)
        embeddings = torch.from_numpy(np.load(path, mmap_mode="c"))
        is_bad = (groups == BAD_GROUP) & (torch.rand(n, generator=generator) < 0.7)
        losses = 0.5 * torch.rand(n, generator=generator) + 3 * is_bad
        ids = tuple(f"{row:08d}" for row in range(n))
        yield ModelOutputs(ids, embeddings, losses, ~is_bad, labels=groups % 2, logits=_logits(groups % 2, is_bad))


def _write(path: Path, groups: Tensor, generator: torch.Generator) -> None:
    centers = torch.randn(N_GROUPS, DIMENSIONS, generator=generator)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(groups), DIMENSIONS))
    for start in range(0, len(groups), BLOCK):
        of_rows = groups[start : start + BLOCK]
        noise = torch.randn(len(of_rows), DIMENSIONS, generator=generator)
        file[start : start + BLOCK] = noise.add_(centers[of_rows]).numpy()
    file.flush()


def _logits(labels: Tensor, is_bad: Tensor) -> Tensor:
    """Two columns, of which the larger is the label's unless the example is bad."""
    predictions = labels ^ is_bad.long()
    return 3.0 * torch.nn.functional.one_hot(predictions, 2).float()
