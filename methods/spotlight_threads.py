"""Spotlights that move together on a CPU, by the compiled kernel in a few threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from methods import spotlight_kernel as kernel
from methods.progress import progress
from methods.spotlight_barrier import Barrier
from methods.spotlight_rows import Rows

SECTIONS = 16  # of the rows, where there are enough: more threads than that find nothing to do
SHORTEST = 24  # blocks of a section, for a few rows of each are soon multiplied
SETTLING = 2  # steps without moving at the end: the last one that moved may have emptied a spotlight
WORTH_A_TEAM = 8_000_000  # numbers in the embeddings: with fewer, threads wait longer for each other than they work


class ThreadedChunk:
    """b spotlights on their way.

    Where there are enough of them, each thread has its own; else all threads work on the same, each on its part of the
    examples. Every spotlight is computed by itself and summed up in an order of its own: it ends bitwise where it would
    have ended alone, whatever the number of threads.

    Parameters
    ----------
    rows : Rows
    losses : Tensor, shape (b, n), in nats
    barrier : Barrier
    centers, log_precisions : Tensor, shapes (b, d) and (b,)
        The start.
    learning_rate : float
    patience : int
    """

    def __init__(
        self,
        rows: Rows,
        losses: Tensor,
        barrier: Barrier,
        centers: Tensor,
        log_precisions: Tensor,
        learning_rate: float,
        patience: int,
    ) -> None:
        self.patience, self.steps, b = patience, len(barrier.reach), len(losses)
        n_threads = torch.get_num_threads()
        n_teams = n_threads if b >= n_threads else 1
        position = torch.cat([centers, log_precisions[:, None]], dim=1)
        self.states = [
            _state(rows, losses[team], barrier.of(team), position[team], learning_rate)
            for team in torch.arange(b).chunk(n_teams)
        ]
        is_worth_a_team = n_teams == 1 and rows.values.numel() >= WORTH_A_TEAM
        self.team_size = min(n_threads, len(self.states[0].n_changes)) if is_worth_a_team else 1
        if not kernel.climb.signatures:  # 15 seconds on the first call after installation, else one to read it
            for _ in progress(range(1), "compiling Spotlight's steps", 1):
                kernel.climb(self.states[0], 0, 0, patience, 0, 1)
        for state in self.states:
            kernel.prepare(state)

    def climb(self, first: int, last: int) -> None:
        """Steps `first` to `last`, not included."""
        places = [(state, thread) for state in self.states for thread in range(self.team_size)]
        if len(places) == 1:
            self._share(first, last, *places[0])
            return
        with ThreadPoolExecutor(len(places)) as pool:  # a thread for each: those of a team wait for each other
            for each in [pool.submit(self._share, first, last, *place) for place in places]:
                each.result()

    def _share(self, first: int, last: int, state: kernel.State, thread: int) -> None:
        kernel.climb(state, first, last, self.patience, thread, self.team_size)

    def end(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Centres (b, d), log precisions (b,), total weights (b,), objectives (b,), history (steps, b)."""
        for state in self.states:
            state.numbers[:, kernel.RATE] = 0
        self.climb(self.steps, self.steps + SETTLING)
        here = torch.from_numpy(np.concatenate([state.here for state in self.states]))
        totals = np.concatenate([state.numbers[:, kernel.TOTAL] for state in self.states])
        history = torch.from_numpy(np.concatenate([state.history for state in self.states], axis=1)).to(here.dtype)
        return here[:, :-1], here[:, -1], torch.from_numpy(totals).to(here), history[-1], history[: self.steps]


def _state(rows: Rows, losses: Tensor, barrier: Barrier, position: Tensor, learning_rate: float) -> kernel.State:
    x = rows.values.numpy()
    (n, d), b, dtype = x.shape, len(losses), x.dtype
    n_blocks = -(-n // kernel.BLOCK)
    span = max(SHORTEST, -(-n_blocks // SECTIONS))
    n_sections = -(-n_blocks // span)
    here = np.ascontiguousarray(position, dtype=dtype)
    numbers = np.zeros((b, 10))
    numbers[:, kernel.RATE], numbers[:, kernel.BAR] = learning_rate, -np.inf
    return kernel.State(
        x=np.ascontiguousarray(x),
        shift=np.zeros(d, dtype) if rows.shift is None else rows.shift.numpy(),
        factor=np.zeros(1, dtype) if rows.factor is None else rows.factor.reshape(1).numpy(),
        norms=rows.norms.numpy(),
        losses=np.ascontiguousarray(losses),
        here=here,
        before=here.copy(),
        mean=np.zeros_like(here),
        square=np.zeros_like(here),
        gradient=np.zeros_like(here),
        query=np.zeros((b, d), dtype),
        numbers=numbers,
        is_within=np.zeros((b, n), np.bool_),
        until=np.full((b, n), -np.inf),
        soonest=np.full((b, n_blocks), -np.inf),
        sums=np.zeros((b, 2, d)),
        counts=np.zeros((b, 4)),
        sum_changes=np.zeros((n_sections, b, 2, d)),
        count_changes=np.zeros((n_sections, b, 4)),
        n_changes=np.zeros((n_sections, b), np.int64),
        reach=_settled(barrier.reach),
        stiffness=_settled(barrier.stiffness),
        history=np.zeros((len(barrier.reach) + SETTLING, b)),
        meeting=np.zeros(2, np.int64),
        span=span,
        rounding=float((d + 8) * np.finfo(dtype).eps),
        longest=float(rows.norms.max()),
    )


def _settled(by_step: Tensor) -> np.ndarray:
    """The same, its last step repeated."""
    return np.concatenate([by_step.numpy(), *[by_step[-1:].numpy()] * SETTLING])
