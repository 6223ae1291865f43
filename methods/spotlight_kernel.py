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
STRETCH = 16  # blocks at most that are looked through for that many rows which may be within reach
CROWDED = 0.5  # share of such rows from which on a block is multiplied as a whole, four spotlights at a time
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
    bounds : ndarray, shape (b, n)
        How far a spotlight's path must go on from its start, its radius added, to reach an example: no less.
    here, before : ndarray, shape (b, d + 1)
        Centres and log precisions, and those of the last step.
    gradient, mean, square : ndarray, shape (b, d + 1)
        The last one, and Adam's moments.
    query : ndarray, shape (b, d)
        2 tau mu.
    numbers : ndarray, shape (b, 10), float64
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
    rounding : float
        Relative error of a dot product, at most.
    longest : float
        The largest of `norms`.
    """

    x: np.ndarray
    shift: np.ndarray
    factor: np.ndarray
    norms: np.ndarray
    losses: np.ndarray
    bounds: np.ndarray
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
    rounding: float
    longest: float


# columns of `numbers`: tau and 1 - tau |mu|^2 among them, and of the bounds the length of the path, the error that a
# weight may have, and what a bound must exceed
RATE, BAR, PROGRESSED, OFFSET, TOTAL, PRECISION, CONSTANT, PATH, ERROR, LIMIT = range(10)


class _Stretch(NamedTuple):
    """Some blocks of rows, and those of them that may be within a spotlight's reach."""

    near: np.ndarray  # (b, 2 BLOCK), which rows, counted from the first of the stretch
    n_near: np.ndarray  # (b,)
    weights: np.ndarray  # (b, 2 BLOCK), of the rows that are near
    reached: np.ndarray  # (2 BLOCK,), of one block and one spotlight
    missed: np.ndarray  # (2 BLOCK,), the same
    mapped: np.ndarray  # (STRETCH BLOCK, d), rows shifted and scaled


@_compiled
def climb(state: State, first: int, last: int, patience: int, thread: int, n_threads: int) -> None:
    """Steps `first` to `last` (not included); each of the threads calls it, and they meet twice a step.

    A section of rows is summed up by one thread, and sections are added in their order: the number of threads changes
    no bit of the result.
    """
    n, d = state.x.shape
    n_sections, b = state.counts.shape[:2]
    stretch = _Stretch(
        near=np.empty((b, 2 * BLOCK), np.int64),
        n_near=np.empty(b, np.int64),
        weights=np.empty((b, 2 * BLOCK), state.x.dtype),
        reached=np.empty(2 * BLOCK, np.int64),
        missed=np.empty(2 * BLOCK, np.int64),
        mapped=np.empty((STRETCH * BLOCK, d), state.x.dtype),
    )
    for step in range(first, last):
        for section in range(thread, n_sections, n_threads):
            state.sums[section] = 0
            state.counts[section] = 0
            start, end = section * state.span, min((section + 1) * state.span, n)
            while start < end:
                stop = _look(state, start, end, stretch)
                _visit(state, section, start, stop, stretch)
                start = stop
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
def _look(state: State, start: int, end: int, stretch: _Stretch) -> int:
    """List the rows that may be within reach of each spotlight, until one has enough of them: where that was.

    By the triangle inequality an example stays out of reach until the centre's path, since its distance was taken, and
    the radius together exceed that distance.
    """
    stretch.n_near[:] = 0
    most, stop = 0, start
    while most < BLOCK and stop < min(end, start + STRETCH * BLOCK):
        first, stop = stop, min(stop + BLOCK, end)
        for lane in range(len(state.bounds)):
            bounds, near, k = state.bounds[lane], stretch.near[lane], stretch.n_near[lane]
            limit = state.x.dtype.type(state.numbers[lane, LIMIT])
            for row in range(first, stop):  # without a branch, which a processor would often guess wrong
                near[k] = row - start
                k += bounds[row] <= limit
            stretch.n_near[lane] = k
            most = max(most, k)
    return stop


@_part
def _visit(state: State, section: int, start: int, stop: int, stretch: _Stretch) -> None:
    """Add what a stretch of rows gives to each spotlight's sums."""
    d, rows = state.x.shape[1], state.x[start:stop]
    _share(stretch.near, stretch.n_near, stop - start)
    if state.factor[0] != 0:
        _map(rows, state.shift, state.factor[0], stretch)
        rows = stretch.mapped[: stop - start]
    _products(rows, stretch.near, stretch.n_near, state.query, stretch.weights)
    for lane in range(len(state.query)):
        numbers, losses, norms = state.numbers[lane], state.losses[lane, start:stop], state.norms[start:stop]
        near, n_near, weights = stretch.near[lane], stretch.n_near[lane], stretch.weights[lane]
        constant, precision, offset = numbers[CONSTANT], numbers[PRECISION], numbers[OFFSET]
        for k in range(n_near):
            weights[k] = constant + weights[k] - precision * norms[near[k]]
        counts, total, weighted = (
            state.counts[section, lane],
            state.sums[section, lane, :d],
            state.sums[section, lane, d:],
        )
        k = 0
        for block in range(0, stop - start, BLOCK):  # whatever is near: the order of sums does not depend on it
            k, n_reached = _sort(state, lane, start, block + BLOCK, k, stretch)
            size = mass = sum_of_losses = 0.0
            for i in range(n_reached):
                weight, row = weights[stretch.reached[i]], near[stretch.reached[i]]
                stretch.reached[i] = row
                size += weight
                mass += weight * losses[row]
                sum_of_losses += losses[row] - offset
            _gather(rows, losses, offset, stretch.reached, n_reached, total, weighted)
            counts[0] += size
            counts[1] += mass
            counts[2] += n_reached
            counts[3] += sum_of_losses


@_part
def _sort(state: State, lane: int, start: int, stop: int, k: int, stretch: _Stretch) -> tuple[int, int]:
    """Which of the near rows before `stop` are reached, and how far the others are: the next, and how many."""
    numbers, bounds = state.numbers[lane], state.bounds[lane]
    near, n_near, weights = stretch.near[lane], stretch.n_near[lane], stretch.weights[lane]
    n_reached = n_missed = 0
    while k < n_near and near[k] < stop:
        stretch.reached[n_reached] = stretch.missed[n_missed] = k
        is_reached = weights[k] > 0
        n_reached += is_reached
        n_missed += not is_reached
        k += 1
    for i in range(n_missed):
        missed = stretch.missed[i]
        distance = math.sqrt(max(1 - weights[missed] - numbers[ERROR], 0.0) / numbers[PRECISION])
        bounds[start + near[missed]] = (distance + numbers[PATH]) * (1 - state.rounding)
    return k, n_reached


@_part
def _share(near: np.ndarray, n_near: np.ndarray, n_rows: int) -> None:
    """Give four spotlights that have most of a block near all of it: then they are multiplied together."""
    for lane in range(0, len(n_near) - 3, 4):
        if n_rows <= BLOCK and n_near[lane : lane + 4].sum() > CROWDED * 4 * n_rows:
            for k in range(n_rows):
                near[lane : lane + 4, k] = k
            n_near[lane : lane + 4] = n_rows


@_part
def _map(rows: np.ndarray, shift: np.ndarray, factor: float, stretch: _Stretch) -> None:
    """Shift and scale the rows that are near, each once."""
    is_mapped = np.zeros(len(rows), np.bool_)
    for lane in range(len(stretch.near)):
        for k in range(stretch.n_near[lane]):
            row = stretch.near[lane, k]
            if not is_mapped[row]:
                is_mapped[row] = True
                for j in range(len(shift)):
                    stretch.mapped[row, j] = (rows[row, j] - shift[j]) * factor


@_part
def _products(rows: np.ndarray, near: np.ndarray, n_near: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
    """Dot products of rows that are near and queries; sixteen at once, in whichever shape: each is summed up alike."""
    lane, n_rows = 0, len(rows)
    while lane < len(query):
        if lane + 3 < len(query) and n_near[lane : lane + 4].min() == n_rows:
            for row in range(0, n_rows, 4):
                _four_by_four(rows, row, n_rows - 1, query, lane, out)
            lane += 4
        else:
            for k in range(0, n_near[lane], 16):
                _sixteen(rows, near[lane], k, n_near[lane] - 1, query[lane], out[lane])
            lane += 1


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
def _sixteen(rows: np.ndarray, near: np.ndarray, k: int, last: int, q: np.ndarray, out: np.ndarray) -> None:
    x0, x1 = rows[near[k]], rows[near[min(k + 1, last)]]
    x2, x3 = rows[near[min(k + 2, last)]], rows[near[min(k + 3, last)]]
    x4, x5 = rows[near[min(k + 4, last)]], rows[near[min(k + 5, last)]]
    x6, x7 = rows[near[min(k + 6, last)]], rows[near[min(k + 7, last)]]
    x8, x9 = rows[near[min(k + 8, last)]], rows[near[min(k + 9, last)]]
    xa, xb = rows[near[min(k + 10, last)]], rows[near[min(k + 11, last)]]
    xc, xd = rows[near[min(k + 12, last)]], rows[near[min(k + 13, last)]]
    xe, xf = rows[near[min(k + 14, last)]], rows[near[min(k + 15, last)]]
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
    for i in range(min(16, last + 1 - k)):
        out[k + i] = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf)[i]


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
        numbers[PATH] += _length(state, lane)
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
    numbers[PATH] += _length(state, lane)
    _aim(state, lane)


@_part
def _length(state: State, lane: int) -> float:
    """Of the centre's last step: no less."""
    squared = 0.0
    for j in range(state.x.shape[1]):
        change = state.here[lane, j] - state.before[lane, j]
        squared += change * change
    return math.sqrt(squared) * (1 + state.rounding)


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
    """What a pass needs of the position: 2 tau mu, tau, 1 - tau |mu|^2, and which bounds are too far."""
    here, numbers, d = state.here[lane], state.numbers[lane], state.x.shape[1]
    precision = math.exp(here[d])
    norm = 0.0
    for j in range(d):
        norm += here[j] * here[j]
        state.query[lane, j] = 2 * precision * here[j]
    numbers[PRECISION], numbers[CONSTANT] = precision, 1 - precision * norm
    numbers[ERROR] = state.rounding * (1 + 2 * precision * (state.longest + norm))
    numbers[LIMIT] = math.sqrt((1 + numbers[ERROR]) / precision) + numbers[PATH]


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
