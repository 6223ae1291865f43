"""Spotlights: one of them, and thousands over the same embeddings, beside the paper's equations under autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from benchmarks.measuring import Row, Section, measured
from torch import Tensor

from methods.spotlight_ascent import ascend
from methods.spotlight_barrier import Barrier
from methods.spotlight_kernel import LIMIT
from methods.spotlight_products import ProductChunk
from methods.spotlight_rows import Rows
from methods.spotlight_start import EmbeddingMap, covering
from methods.spotlight_threads import ThreadedChunk

THREADS = 2
DIMENSIONS, STEPS, N_CLASSES = 512, 5_000, 10
PLAIN_STEPS = 100  # of the peer, where 5,000 would take more than five minutes
N_RELABELLINGS, N_SHOWN, SIZES = 600, 16, tuple(range(10, 101, 10))


def section() -> Section:
    """The rows on the CPU, and on a GPU where there is one."""
    torch.set_num_threads(THREADS)
    rows = [_one(10_000), _one(50_000), _alike(10_000), _many()]
    rows += [_on_gpu(n, limit) for n, limit in ((10_000, 0.5), (50_000, 1.0))]
    return Section(
        f"Embeddings of {DIMENSIONS} dimensions in {N_CLASSES} groups, drawn at random; {STEPS:,} steps in float32 "
        "from the mean; the peer is the paper's equations (1, 4 one-sided, 5) with torch's Adam and autograd.",
        rows,
        [
            "The floor of one spotlight is reading all embeddings once a step, at the rate at which this machine sums "
            "them up; that of many is two matrix products a step at torch's rate for these shapes. The kernel stays "
            "below both, for it keeps the sums over the examples within reach and looks, by the triangle inequality, "
            "only at those that may have come or gone: the same steps as those of two products, but for rounding. How "
            "many these are depends on the data and on how far a step goes.",
        ],
    )


def _one(n: int) -> Row:
    rows, losses = _problem(n, 1)
    size = n // 50
    found: list[float] = []
    ours = measured(lambda: found.append(_climb(rows, losses, [size], STEPS)[0]), runs=3)
    short = n > 10_000
    steps = PLAIN_STEPS if short else STEPS
    values: list[float] = []
    peers = measured(lambda: values.append(_plain(rows.values, losses[0], size, STEPS, steps)), runs=1, warm_up=short)
    if not short:
        assert abs(found[0] - values[0]) < 0.01 * values[0], (found[0], values[0])
    floor = _reading(rows.values) * STEPS
    note = f"objective {found[0]:.4f}" + ("" if short else f", the peer's {values[0]:.4f}")
    if short:
        note += f"; the peer ran {steps} of the {STEPS:,} steps: both are shown as seconds for {steps}"
        ours, floor = ours.scaled(steps / STEPS), floor * steps / STEPS
    work = f"one spotlight, N = {n:,}" + (f", {steps} steps" if short else "")
    looked = _looked(rows, losses, size)
    note += f"; {ours.seconds / steps * 1e3:.3f} ms a step, which looks at {looked:.1%} of the examples"
    return Row(work, ours, "autograd", peers, floor, "1.5 times the floor", ours.seconds <= 1.5 * floor, note)


def _alike(n: int) -> Row:
    """What the triangle inequality has least to say of: no groups, and each example about as far as any other."""
    generator = torch.Generator().manual_seed(0)
    x, losses = torch.randn(n, DIMENSIONS, generator=generator), torch.rand(1, n, generator=generator)
    rows = EmbeddingMap.learned(x, normalise=True, n_components=None).rows(x)
    ours = measured(lambda: _climb(rows, losses, [n // 50], STEPS), runs=3)
    note = f"looks at {_looked(rows, losses, n // 50):.1%} of the examples in a step"
    return Row(f"one spotlight, N = {n:,}, of noise", ours, floor=_reading(rows.values) * STEPS, note=note)


def _many() -> Row:
    """Some of the spotlights of 600 relabellings x 10 sizes, all steps."""
    n, n_lanes = 3_000, len(SIZES) * N_SHOWN
    rows, losses = _problem(n, N_SHOWN)
    losses, sizes = losses.repeat_interleave(len(SIZES), dim=0), list(SIZES) * N_SHOWN
    _check_alone(rows, losses, sizes)
    ours = measured(lambda: _climb(rows, losses, sizes, STEPS), runs=1)
    floor = _products(rows, losses[:16]) * STEPS * n_lanes / 16
    plain = measured(lambda: _plain(rows.values, losses[0], SIZES[0], STEPS, PLAIN_STEPS), runs=3)
    whole = ours.seconds * N_RELABELLINGS / N_SHOWN
    return Row(
        f"{N_SHOWN} of {N_RELABELLINGS} relabellings x {len(SIZES)} sizes, N = {n:,}",
        ours,
        "autograd, one by one",
        plain.scaled(n_lanes * STEPS / PLAIN_STEPS),
        floor,
        "1.5 times the floor",
        ours.seconds <= 1.5 * floor,
        f"all {N_RELABELLINGS} would take {whole / 60:.1f} minutes (extrapolated); the peer's time is that of "
        f"{PLAIN_STEPS} steps of one spotlight, multiplied; "
        "fitted one by one the results are the same, bit for bit",
    )


def _check_alone(rows: Rows, losses: Tensor, sizes: list[int]) -> None:
    """That spotlights end where they would have ended alone."""
    together = _climb(rows, losses[:20], sizes[:20], 200)
    for lane in (0, 7, 19):
        assert _climb(rows, losses[lane : lane + 1], sizes[lane : lane + 1], 200)[0] == together[lane]


def _on_gpu(n: int, limit: float) -> Row:
    work, target = f"one spotlight, N = {n:,}, on a GPU", f"{limit:g} s on an H200"
    if not torch.cuda.is_available():
        return Row(work, target=target)
    rows, losses = _problem(n, 1, device="cuda")
    ours = measured(lambda: _climb(rows, losses, [n // 50], STEPS), runs=3)
    return Row(work, ours, target=target, reached=ours.seconds <= limit)


def _problem(n: int, n_problems: int, device: str = "cpu") -> tuple[Rows, Tensor]:
    """Rows of unit size, and losses (n_problems, n) that are high for most of one group."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(N_CLASSES, (n,), generator=generator)
    centers = torch.randn(N_CLASSES, DIMENSIONS, generator=generator)
    x = centers[groups] + torch.randn(n, DIMENSIONS, generator=generator)
    is_bad = (groups == torch.arange(n_problems)[:, None] % N_CLASSES) & (
        torch.rand(n_problems, n, generator=generator) < 0.7
    )
    losses = 0.5 * torch.rand(n_problems, n, generator=generator) + 3 * is_bad
    x = x.to(device)
    return EmbeddingMap.learned(x, normalise=True, n_components=None).rows(x), losses.to(device)


def _climb(rows: Rows, losses: Tensor, sizes: list[int], steps: int) -> list[float]:
    """The objectives that are reached."""
    center, log_precision = covering(rows)
    b, kind = len(losses), {"device": losses.device}
    penalties = losses.amax(dim=1) - losses.amin(dim=1)
    start = center.expand(b, -1), log_precision.expand(b)
    return ascend(rows, losses, torch.tensor(sizes, **kind), penalties, *start, steps=steps).objectives.tolist()


def _looked(rows: Rows, losses: Tensor, size: int) -> float:
    """The share of examples that may have come within reach or left it, at every tenth step."""
    (center, log_precision), shares = covering(rows), []
    ones, widths = torch.ones(1), torch.tensor([len(rows) - size])
    barrier = Barrier.shrinking(size * ones, losses.amax(dim=1) - losses.amin(dim=1), widths, STEPS)
    chunk = ThreadedChunk(rows, losses, barrier, center[None], log_precision[None], 1e-2, 10)
    (state,) = chunk.states
    for step in range(0, STEPS, 10):
        shares.append((state.until <= state.numbers[:, LIMIT]).mean())
        chunk.climb(step, step + 10)
    return float(np.mean(shares))


def _plain(x: Tensor, losses: Tensor, size: int, steps: int, stop: int) -> float:
    """The paper's procedure as it reads, until step `stop`: the objective there."""
    center = torch.zeros(x.shape[1], requires_grad=True)
    log_precision = (-x.square().sum(1).max().log()).clone().requires_grad_()
    adam = torch.optim.Adam([center, log_precision], lr=1e-2, maximize=True)
    penalty, first, last = losses.max() - losses.min(), len(x) - size, 0.05 * size
    best, stale = -math.inf, 0
    for step in range(stop):
        value = _objective(
            x, losses, center, log_precision, size, penalty, first * (last / first) ** (step / (steps - 1))
        )
        adam.zero_grad()
        value.backward()
        adam.step()
        best, stale = (value.item(), 0) if value.item() > best * (1 + 1e-4) else (best, stale + 1)
        if stale > 10:
            adam.param_groups[0]["lr"] /= 2
            best, stale = -math.inf, 0
    with torch.no_grad():
        return float(_objective(x, losses, center, log_precision, size, penalty, last))


def _objective(
    x: Tensor, losses: Tensor, center: Tensor, log_precision: Tensor, size: int, penalty: Tensor, width: float
) -> Tensor:
    k = torch.relu(1 - log_precision.exp() * (x - center).square().sum(dim=1))
    total = k.sum()
    return (k * losses).sum() / total - penalty * torch.relu(size + width - total) ** 2 / width**2


def _reading(x: Tensor) -> float:
    """Seconds of reading it once."""
    return _often(x.sum)


def _products(rows: Rows, losses: Tensor) -> float:
    """Seconds of the two matrix products of a step of 16 spotlights."""
    b = len(losses)
    barrier = Barrier.shrinking(torch.ones(b), torch.ones(b), torch.ones(b), steps=1)
    chunk = ProductChunk(rows, losses, barrier, torch.zeros(b, DIMENSIONS), torch.zeros(b), 0.0, 10)
    return _often(
        lambda: (
            torch.mm(chunk.query.all, chunk.columns, out=chunk.weights),
            torch.mm(chunk.pull, chunk.rows, out=chunk.sums.all),
        )
    )


def _often(act: Callable[[], object]) -> float:
    """Seconds of one of a hundred calls in a row."""
    return measured(lambda: [act() for _ in range(100)]).seconds / 100
