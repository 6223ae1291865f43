"""What influence embeddings will take, measured on a little of the work before it starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from methods.influence_gradients import Inputs, LayerGradients, n_rows_of, rows_at_once, rows_of
from methods.influence_hessian import Product, basis_seconds, bytes_needed, seconds_of

FEW_BYTES = 2**28  # of directions, to be measured with: 7 of 9 million parameters
VECTORS = 6  # of the parameters, that a product has in memory beside activations: what it is given, gradients, the sum


class Estimate(NamedTuple):
    """What some work will take.

    Parameters
    ----------
    seconds : float
    peak_bytes : int
        At its end, above what the process holds at its start.
    """

    seconds: float
    peak_bytes: int


def estimate_factors(
    product: Product,
    n_parameters: int,
    scale: float,
    *,
    batches_scale: float = 1.0,
    probes: int = 0,
    krylov_dim: int = 500,
    rank: int = 100,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    storage: torch.dtype | None = None,
) -> Estimate:
    """What `factor_hessian` will take, from two products over a sample (the first warms up) and a small basis.

    Parameters
    ----------
    product : callable, (n_params,) -> (n_params,)
        As for `factor_hessian`, but over a sample of the examples.
    n_parameters : int
    scale : float
        By how many times all examples are more than the sample.
    batches_scale : float
        By how many times a batch, which is in memory at once, is more than the sample.
    probes, krylov_dim, rank, dtype, device, storage
        Of `factor_hessian`.

    Examples
    --------
    >>> from methods.influence_linear import softmax_hessian
    >>> sample = softmax_hessian(torch.randn(50, 9), torch.full((50, 10), 0.1))
    >>> estimate_factors(sample, 100, scale=20, krylov_dim=50, rank=20).peak_bytes >= 100 * (50 + 20) * 4
    True
    """
    device = torch.device(device)
    grown = peak_growth(device)
    vector = torch.full((n_parameters,), n_parameters**-0.5, dtype=dtype, device=device)
    of_product = seconds_of(lambda: product(vector).sum().item())
    n_steps, needed = min(krylov_dim, n_parameters), bytes_needed(n_parameters, krylov_dim, rank, dtype, storage)
    fixed = min(grown(), VECTORS * n_parameters * dtype.itemsize)
    peak = needed + int(fixed + (grown() - fixed) * batches_scale)
    of_basis = basis_seconds(n_parameters, n_steps, rank, probes, dtype, device, storage or dtype)
    return Estimate((n_steps + probes) * scale * of_product + of_basis, peak)


def estimate_table(gradients: LayerGradients, inputs: Inputs, n_classes: int, n_rows: int, rank: int = 100) -> Estimate:
    """What `ModuleInfluence.table` will take for all rows, from a few of them and a few directions.

    Parameters
    ----------
    gradients : LayerGradients
    inputs : Tensor or mapping of Tensors
        Some rows: as many of them as are done at once are measured.
    n_classes : int
        c
    n_rows : int
        All of them.
    rank : int
        D
    """
    n, size = gradients.n_parameters, gradients.dtype.itemsize
    grown, few = peak_growth(gradients.device), min(rank, max(2, FEW_BYTES // (n * size)))
    n_sampled = min(n_rows_of(inputs), rows_at_once(n_classes * n * size))
    directions = torch.full((few, n), n**-0.5, dtype=gradients.dtype, device=gradients.device)
    sample = rows_of(inputs, slice(n_sampled))

    def seconds(count: int) -> float:
        return seconds_of(lambda: gradients.project_logits(directions[:count], sample).sum().item())

    # the gradients take as long whatever becomes of them; products with directions as long as there are of these
    of_one, of_few = seconds(1), seconds(few)
    of_all = of_one + max(0.0, of_few - of_one) * (rank - 1) / max(1, few - 1)
    return Estimate(of_all * n_rows / n_sampled, grown() + (rank - few) * n * size)


def peak_growth(device: torch.device) -> Callable[[], int]:
    """A function that gives by how many bytes memory on a device has grown at most since now; 0 where none can tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return lambda: int(torch.cuda.max_memory_allocated(device) - before)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    except OSError:
        return lambda: 0
    before = _resident_peak()
    return lambda: _resident_peak() - before


def _resident_peak() -> int:
    found = re.search(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(found[1]) if found else 0
