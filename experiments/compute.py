"""Threads and device of this process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from experiments.settings import Compute
from methods.contract import InvalidInput

# SLURM does not always keep a process from the other cores; joblib shares them out by OMP_NUM_THREADS
TOLD = ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGE = 2**31 - 1


def device_of(compute: Compute) -> torch.device:
    """The device to compute on; `InvalidInput` where a GPU is asked for and there is none."""
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("compute.device is 'cuda', but torch sees no GPU here: use compute.device=cpu")
    wanted = compute.device if compute.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def n_threads(compute: Compute) -> int:
    """Threads to compute with: as set, else one a core."""
    return compute.threads or n_cores()


def n_cores() -> int:
    """The cores that are this process's share, as a cluster or the user says; else all that it may use."""
    told = next((os.environ[name] for name in TOLD if os.environ.get(name, "").isdigit()), "0")
    return int(told) or len(os.sched_getaffinity(0))


def keep_freed_memory() -> bool:
    """Let the process keep large blocks that it has freed, to use them again; whether that can be set here.

    The C library gives them back to the system at once and gets new ones, filled with zeros page by page, for the next
    layer's activations. A network on a CPU then spends as much time on that as on its sums: with 256 pictures of
    224 x 224 in a batch MobileNetV2 takes 57 ms a picture, and 17 with freed memory kept (one thread, glibc 2.36).
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(option, ctypes.c_int(LARGE)) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


@contextmanager
def threads(compute: Compute) -> Iterator[None]:
    """Set the threads of torch and of every linear algebra library; results are bit-equal only at equal counts."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads(compute))
    try:
        with threadpool_limits(n_threads(compute)):
            yield
    finally:
        torch.set_num_threads(before)
