"""The steps of many spotlights on a CPU: one pass over the embeddings for each, compiled by numba.

Everything that is compiled stands in this file: numba's cache on disk knows a file that has changed, but not what it
imports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 64  # rows whose distances and sums are made while they lie in a core's cache
SPINS = 2_000  # looks at the others before a waiting thread lets another one have its core
EMPTY = 1e-6  # a total weight below this is rounding noise: the spotlight holds no example
BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults in torch
THRESHOLD = 1e-4  # relative gain that counts as progress, torch's ReduceLROnPlateau

_sched_yield = types.ExternalFunction("sched_yield", types.int32())
_fast = {"nsz", "arcp", "contract", "afn", "reassoc"}  # all but: there is no NaN and no infinity
_options: Any = {"nogil": True, "fastmath": _fast, "boundscheck": False, "error_model": "numpy"}
# inlined before it is compiled: functions of their own were optimised in another way when they came from the cache
_part = njit(inline="always", **_options)


def _compiled(function: Callable[..., None]) -> Any:
    """Compiled once for all processes; where neither this folder nor the user's cache can be written, in each."""
    try:
        return njit(cache=True, **_options)(function)
    except RuntimeError:
        return njit(**_options)(function)


class State(NamedTuple):
    """b spotlights on their way over n examples of d dimensions, in arrays that `climb` works on in place.

    Parameters
    ----------
    x : ndarray, shape (n, d), float32 or float64
        What follows is of its dtype where nothing else is said.
    shift : ndarray, shape (d,)
    factor : ndarray, shape (1,)
        An example is (x - shift) * factor; a factor of 0 says that x is that already.
    norms : ndarray, shape (n,)
        Squared lengths of the examples.
    losses : ndarray, shape (b, n), in nats
    here, before : ndarray, shape (b, d + 1)
        Centres and log precisions, and those of the last step.
    gradient, mean, square : ndarray, shape (b, d + 1)
        The last one, and Adam's moments.
    query : ndarray, shape (b, d)
        2 tau mu.
    numbers : ndarray, shape (b, 7), float64
        See the constants below.
    sums : ndarray, shape (n_sections, b, 2 d)
        Of the examples that a spotlight reaches in a section of rows, and of these times their losses.
    counts : ndarray, shape (n_sections, b, 4), float64
        Total weight, weighted loss, number reached, and sum of the losses of those reached.
    reach, stiffness : ndarray, shape (steps, b), float64
        The barrier: S + w, and 2 C / w^2.
    history : ndarray, shape (steps, b), float64, in nats
    meeting : ndarray, shape (2,), int64
        Where threads wait for each other: how many have come, and how often all have.
    span : int
        Rows of a section, the last one's apart: a multiple of `BLOCK`.
    """

    x: np.ndarray
    shift: np.ndarray
    factor: np.ndarray
    norms: np.ndarray
    losses: np.ndarray
    here: np.ndarray
    before: np.ndarray
    gradient: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    query: np.ndarray
    numbers: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    reach: np.ndarray
    stiffness: np.ndarray
    history: np.ndarray
    meeting: np.ndarray
    span: int


RATE, BAR, PROGRESSED, OFFSET, TOTAL, PRECISION, CONSTANT = range(7)  # of `numbers`, tau and 1 - tau |mu|^2 among them


@_compiled
def climb(state: State, first: int, last: int, patience: int, thread: int, n_threads: int) -> None:
    """Steps `first` to `last` (not included); each of the threads calls it, and they meet twice a step.

    A section of rows is summed up by one thread, and sections are added in their order: the number of threads changes
    no bit of the result.
    """
    n, d = state.x.shape
    n_sections, b = state.counts.shape[:2]
    buffer = np.empty((BLOCK, d), state.x.dtype)
    weights, reached = np.empty((b, BLOCK), state.x.dtype), np.empty(BLOCK, np.int64)
    for step in range(first, last):
        for section in range(thread * n_sections // n_threads, (thread + 1) * n_sections // n_threads):
            state.sums[section] = 0
            state.counts[section] = 0
            for start in range(section * state.span, min((section + 1) * state.span, n), BLOCK):
                _visit(state, section, start, min(start + BLOCK, n), buffer, weights, reached)
        _meet(state.meeting, n_threads)
        for lane in range(thread * b // n_threads, (thread + 1) * b // n_threads):
            _move(state, lane, step, patience)
        _meet(state.meeting, n_threads)


@_compiled
def prepare(state: State) -> None:
    """What the first step needs of the position."""
    for lane in range(len(state.here)):
        _aim(state, lane)


@_part
def _visit(
    state: State, section: int, start: int, stop: int, buffer: np.ndarray, weights: np.ndarray, reached: np.ndarray
) -> None:
    """Add what a block of rows gives to each spotlight's sums."""
    x, d = state.x, state.x.shape[1]
    rows = x[start:stop]
    if state.factor[0] != 0:
        for row in range(stop - start):
            for j in range(d):
                buffer[row, j] = (rows[row, j] - state.shift[j]) * state.factor[0]
        rows = buffer[: stop - start]
    _products(rows, state.query, weights)
    for lane in range(len(weights)):
        numbers, losses = state.numbers[lane], state.losses[lane, start:stop]
        constant, precision = numbers[CONSTANT], numbers[PRECISION]
        for row in range(stop - start):
            weights[lane, row] = constant + weights[lane, row] - precision * state.norms[start + row]
        n_reached = 0
        for row in range(stop - start):  # without a branch, which a processor would often guess wrong
            reached[n_reached] = row
            n_reached += weights[lane, row] > 0
        total = mass = sum_of_losses = 0.0
        offset = numbers[OFFSET]
        for k in range(n_reached):
            weight, loss = weights[lane, reached[k]], losses[reached[k]]
            total += weight
            mass += weight * loss
            sum_of_losses += loss - offset
        _gather(rows, losses, offset, reached, n_reached, state.sums[section, lane, :d], state.sums[section, lane, d:])
        counts = state.counts[section, lane]
        counts[0] += total
        counts[1] += mass
        counts[2] += n_reached
        counts[3] += sum_of_losses


@_part
def _products(rows: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
    """Dot products of rows and queries; sixteen at once, in whichever shape, so that each is summed up alike."""
    n_rows, n_lanes = len(rows), len(query)
    last, grouped = n_rows - 1, n_lanes - n_lanes % 4
    for lane in range(0, grouped, 4):
        for row in range(0, n_rows, 4):
            _four_by_four(rows, row, last, query, lane, out)
    for lane in range(grouped, n_lanes):
        for row in range(0, n_rows, 16):
            _sixteen(rows, row, last, query[lane], out[lane])


@_part
def _four_by_four(rows: np.ndarray, row: int, last: int, query: np.ndarray, lane: int, out: np.ndarray) -> None:
    x0, x1, x2, x3 = rows[row], rows[min(row + 1, last)], rows[min(row + 2, last)], rows[min(row + 3, last)]
    q0, q1, q2, q3 = query[lane], query[lane + 1], query[lane + 2], query[lane + 3]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = rows.dtype.type(0)
    for j in range(rows.shape[1]):
        a0 += x0[j] * q0[j]
        b0 += x0[j] * q1[j]
        c0 += x0[j] * q2[j]
        d0 += x0[j] * q3[j]
        a1 += x1[j] * q0[j]
        b1 += x1[j] * q1[j]
        c1 += x1[j] * q2[j]
        d1 += x1[j] * q3[j]
        a2 += x2[j] * q0[j]
        b2 += x2[j] * q1[j]
        c2 += x2[j] * q2[j]
        d2 += x2[j] * q3[j]
        a3 += x3[j] * q0[j]
        b3 += x3[j] * q1[j]
        c3 += x3[j] * q2[j]
        d3 += x3[j] * q3[j]
    for k in range(min(4, last + 1 - row)):
        out[lane, row + k] = (a0, a1, a2, a3)[k]
        out[lane + 1, row + k] = (b0, b1, b2, b3)[k]
        out[lane + 2, row + k] = (c0, c1, c2, c3)[k]
        out[lane + 3, row + k] = (d0, d1, d2, d3)[k]


@_part
def _sixteen(rows: np.ndarray, row: int, last: int, q: np.ndarray, out: np.ndarray) -> None:
    x0, x1, x2, x3 = rows[row], rows[min(row + 1, last)], rows[min(row + 2, last)], rows[min(row + 3, last)]
    x4, x5, x6, x7 = (
        rows[min(row + 4, last)],
        rows[min(row + 5, last)],
        rows[min(row + 6, last)],
        rows[min(row + 7, last)],
    )
    x8, x9, xa, xb = (
        rows[min(row + 8, last)],
        rows[min(row + 9, last)],
        rows[min(row + 10, last)],
        rows[min(row + 11, last)],
    )
    xc, xd, xe, xf = (
        rows[min(row + 12, last)],
        rows[min(row + 13, last)],
        rows[min(row + 14, last)],
        rows[min(row + 15, last)],
    )
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = sa = sb = sc = sd = se = sf = rows.dtype.type(0)
    for j in range(len(q)):
        s0 += x0[j] * q[j]
        s1 += x1[j] * q[j]
        s2 += x2[j] * q[j]
        s3 += x3[j] * q[j]
        s4 += x4[j] * q[j]
        s5 += x5[j] * q[j]
        s6 += x6[j] * q[j]
        s7 += x7[j] * q[j]
        s8 += x8[j] * q[j]
        s9 += x9[j] * q[j]
        sa += xa[j] * q[j]
        sb += xb[j] * q[j]
        sc += xc[j] * q[j]
        sd += xd[j] * q[j]
        se += xe[j] * q[j]
        sf += xf[j] * q[j]
    for k in range(min(16, last + 1 - row)):
        out[row + k] = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf)[k]


@_part
def _gather(
    rows: np.ndarray,
    losses: np.ndarray,
    offset: float,
    reached: np.ndarray,
    n_reached: int,
    total: np.ndarray,
    weighted: np.ndarray,
) -> None:
    """Add the rows that are reached, and the same times their losses, four at a time.

    In two loops, and so below: of many arrays in one the compiler cannot tell whether they overlap, and then it takes
    one number at a time.
    """
    whole, shift = n_reached - n_reached % 4, rows.dtype.type(offset)
    for k in range(0, whole, 4):
        r0, r1, r2, r3 = reached[k], reached[k + 1], reached[k + 2], reached[k + 3]
        x0, x1, x2, x3 = rows[r0], rows[r1], rows[r2], rows[r3]
        l0, l1, l2, l3 = losses[r0] - shift, losses[r1] - shift, losses[r2] - shift, losses[r3] - shift
        for j in range(len(total)):
            total[j] += (x0[j] + x1[j]) + (x2[j] + x3[j])
        for j in range(len(total)):
            weighted[j] += (l0 * x0[j] + l1 * x1[j]) + (l2 * x2[j] + l3 * x3[j])
    for k in range(whole, n_reached):
        x0, l0 = rows[reached[k]], losses[reached[k]] - shift
        for j in range(len(total)):
            total[j] += x0[j]
            weighted[j] += l0 * x0[j]


@_part
def _move(state: State, lane: int, step: int, patience: int) -> None:
    """One step of Adam, uphill; a spotlight without weight goes back and stays."""
    numbers, d = state.numbers[lane], state.x.shape[1]
    sums, counts = state.sums[0, lane], state.counts[0, lane]
    for section in range(1, len(state.counts)):
        for j in range(2 * d):
            sums[j] += state.sums[section, lane, j]
        for j in range(4):
            counts[j] += state.counts[section, lane, j]
    total, mass, n_reached, sum_of_losses = counts
    is_alive = total > EMPTY  # false also for NaN
    if not is_alive:
        total, mass = EMPTY, 0.0
    mean_loss = mass / total  # A / K
    short = max(state.reach[step, lane] - total, 0.0)
    push = short * state.stiffness[step, lane]  # c
    objective = mean_loss - 0.5 * short * push
    numbers[TOTAL], state.history[step, lane] = total, objective
    if not is_alive:
        state.here[lane] = state.before[lane]
        numbers[RATE] = 0
        _aim(state, lane)
        return
    _halve_rate(numbers, step, objective, patience)
    level = mean_loss - push * total  # A / K - c K: an example pulls by how far its loss lies above
    drift, numbers[OFFSET] = level - numbers[OFFSET], level
    pull = sum_of_losses - drift * n_reached  # sum K g
    real = state.x.dtype.type
    factor, drift_, pull_ = real(2 * numbers[PRECISION] / total), real(drift), real(pull)
    correction = math.sqrt(1 - BETA_SQUARE ** (step + 1))
    length = real(numbers[RATE] * correction / (1 - BETA_MEAN ** (step + 1)))
    here, gradient = state.here[lane], state.gradient[lane]
    for j in range(d):
        gradient[j] = factor * (sums[d + j] - drift_ * sums[j] - here[j] * pull_)
    gradient[d] = push * total - pull / total
    _adam(here, state.before[lane], gradient, state.mean[lane], state.square[lane], length, real(EPSILON * correction))
    _aim(state, lane)


@_part
def _adam(
    here: np.ndarray,
    before: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    length: float,
    epsilon: float,
) -> None:
    real = here.dtype.type
    for j in range(len(here)):
        mean[j] += real(1 - BETA_MEAN) * (gradient[j] - mean[j])
    for j in range(len(here)):
        square[j] = real(BETA_SQUARE) * square[j] + real(1 - BETA_SQUARE) * gradient[j] * gradient[j]
    for j in range(len(here)):
        before[j] = here[j]
    for j in range(len(here)):
        here[j] += length * mean[j] / (np.sqrt(square[j]) + epsilon)


@_part
def _halve_rate(numbers: np.ndarray, step: int, objective: float, patience: int) -> None:
    """Halve the learning rate of a spotlight that has made no progress for too long."""
    if objective > numbers[BAR]:
        numbers[BAR], numbers[PROGRESSED] = objective * (1 + THRESHOLD), step
    if step > patience and numbers[PROGRESSED] < step - patience:
        numbers[BAR] = -np.inf  # whatever comes next is progress
        numbers[RATE] *= 0.5


@_part
def _aim(state: State, lane: int) -> None:
    """What a pass needs of the position: 2 tau mu, tau and 1 - tau |mu|^2."""
    here, d = state.here[lane], state.x.shape[1]
    precision = math.exp(here[d])
    norm = 0.0
    for j in range(d):
        norm += here[j] * here[j]
        state.query[lane, j] = 2 * precision * here[j]
    state.numbers[lane, PRECISION], state.numbers[lane, CONSTANT] = precision, 1 - precision * norm


def _atomic_add(_context: Any, array: Any, index: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, (array, index, value) = signature.args[0], arguments
        made = context.make_array(kind)(context, builder, array)
        entry = cgutils.get_item_pointer(context, builder, kind, made, [index], wraparound=False)
        return builder.atomic_rmw("add", entry, value, "seq_cst")

    return types.int64(array, types.int64, types.int64), code


_added: Any = intrinsic(_atomic_add)  # (array, index, value): add as one step that no other thread can divide


@_part
def _meet(meeting: np.ndarray, n_threads: int) -> None:
    """Wait until all threads are here; on a busy machine a waiting one steps aside."""
    if n_threads == 1:
        return
    round_ = _added(meeting, 1, 0)
    if _added(meeting, 0, 1) == n_threads - 1:
        _added(meeting, 0, -n_threads)
        _added(meeting, 1, 1)
        return
    looks = 0
    while _added(meeting, 1, 0) == round_:
        looks += 1
        if looks > SPINS:
            _sched_yield()
