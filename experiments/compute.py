"""Threads and device of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from experiments.settings import Compute
from methods.contract import InvalidInput


def device_of(compute: Compute) -> torch.device:
    """The device to compute on; `InvalidInput` where a GPU is asked for and there is none."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("compute.device is 'cuda', but torch sees no GPU here: use compute.device=cpu")
    wanted = compute.device if compute.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def n_threads(compute: Compute) -> int:
    """Threads to compute with: as set, else all cores that this process may use."""
    return compute.threads or len(os.sched_getaffinity(0))


@contextmanager
def threads(compute: Compute) -> Iterator[None]:
    """Set the threads of torch and of every linear algebra library; results are bit-equal only at equal counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads(compute))
    try:
        with threadpool_limits(n_threads(compute)):
            yield
    finally:
        torch.set_num_threads(before)
