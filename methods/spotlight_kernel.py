"""The steps of many spotlights on a CPU, compiled by numba: only examples that may have come or gone are looked at.

The sums that the objective and its gradient need are those of the examples within reach (`spotlight_ascent.ascend`).
They are kept, and corrected where an example comes within reach or leaves it. Which ones can have done so the triangle
inequality tells: one that was at a distance m from a spotlight's edge is on the same side until the centre's path and
the radius' changes add up to m. They are added up on a clock, so that each example has a time until which it may be
passed over, and a block of examples the soonest of theirs.

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

BLOCK = 64  # rows with a common time until which all may be passed over
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
    shift : ndarray, shape (d,), of the dtype of x
    factor : ndarray, shape (1,), of the dtype of x
        An example is (x - shift) * factor; a factor of 0 says that x is that already.
    norms : ndarray, shape (n,), of the dtype of x
        Squared lengths of the examples.
    losses : ndarray, shape (b, n), of the dtype of x, in nats
    here, before : ndarray, shape (b, d + 1), of the dtype of x
        Centres and log precisions, and those of the last step.
    mean, square : ndarray, shape (b, d + 1), of the dtype of x
        Adam's moments.
    gradient : ndarray, shape (b, d + 1), of the dtype of x
    query : ndarray, shape (b, d), of the dtype of x
        2 tau mu.
    numbers : ndarray, shape (b, 10), float64
        See the constants below.
    is_within : ndarray, shape (b, n), bool
        Which examples are counted as within reach.
    until : ndarray, shape (b, n), float64
        The times until which they are known to be right.
    soonest : ndarray, shape (b, n / BLOCK), float64
        The least of these in each block of rows.
    sums : ndarray, shape (b, 2, d), float64
        Of the examples within reach, and of these times their losses.
    counts : ndarray, shape (b, 4), float64
        Of the examples within reach: their number, and the sums of their losses, of their squared lengths, and of the
        products of the two.
    sum_changes, count_changes : ndarray, shape (n_sections, b, 2, d) and (n_sections, b, 4), float64
        What a step changes in a section of the rows.
    n_changes : ndarray, shape (n_sections, b), int64
        How many examples have come or gone.
    reach, stiffness : ndarray, shape (steps, b), float64
        The barrier: S + w, and 2 C / w^2.
    history : ndarray, shape (steps, b), float64, in nats
    meeting : ndarray, shape (2,), int64
        Where threads wait for each other: how many have come, and how often all have.
    span : int
        Blocks of a section, the last one's apart.
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
    here: np.ndarray
    before: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    gradient: np.ndarray
    query: np.ndarray
    numbers: np.ndarray
    is_within: np.ndarray
    until: np.ndarray
    soonest: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    sum_changes: np.ndarray
    count_changes: np.ndarray
    n_changes: np.ndarray
    reach: np.ndarray
    stiffness: np.ndarray
    history: np.ndarray
    meeting: np.ndarray
    span: int
    rounding: float
    longest: float


# columns of `numbers`: tau, 1 - tau |mu|^2 and the radius 1 / sqrt(tau) among them; the largest error of a weight, the
# time, and that up to which an example must be known to be passed over
RATE, BAR, PROGRESSED, TOTAL, PRECISION, CONSTANT, RADIUS, ERROR, CLOCK, LIMIT = range(10)


class _Batch(NamedTuple):
    """Rows that are looked at together."""

    rows: np.ndarray  # (2 BLOCK,), which
    counting: np.ndarray  # (2 BLOCK,), 0, 1, 2, ...
    weights: np.ndarray  # (2 BLOCK,)
    mapped: np.ndarray  # (2 BLOCK, d), shifted and scaled
    blocks: np.ndarray  # (BLOCK,), in which they lie


@_compiled
def climb(state: State, first: int, last: int, patience: int, thread: int, n_threads: int) -> None:
    """Steps `first` to `last` (not included); each of the threads calls it, and they meet twice a step.

    A section of rows is summed up by one thread, and sections are added in their order: the number of threads changes
    no bit of the result.
    """
    d = state.x.shape[1]
    n_sections, b = state.n_changes.shape
    batch = _Batch(
        rows=np.empty(2 * BLOCK, np.int64),
        counting=np.arange(2 * BLOCK),
        weights=np.empty(2 * BLOCK, state.x.dtype),
        mapped=np.empty((2 * BLOCK, d), state.x.dtype),
        blocks=np.empty(BLOCK, np.int64),
    )
    n_blocks, soonest, numbers = state.soonest.shape[1], state.soonest, state.numbers
    for step in range(first, last):
        for section in range(thread, n_sections, n_threads):  # in turn, for rows are often sorted by class
            for lane in range(b):
                block, end = section * state.span, min((section + 1) * state.span, n_blocks)
                while block < end and soonest[lane, block] > numbers[lane, LIMIT]:
                    block += 1
                if block < end:  # else not even a call, which counts references to all arrays
                    _revise(state, section, lane, block, end, batch)
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
def _revise(state: State, section: int, lane: int, first: int, end: int, batch: _Batch) -> None:
    """Look at those rows of some blocks that may have come within reach or left it."""
    n, limit = state.x.shape[0], state.numbers[lane, LIMIT]
    soonest, until = state.soonest[lane], state.until[lane]
    k = n_blocks = 0
    for block in range(first, end):
        if not soonest[block] > limit:
            for row in range(block * BLOCK, min((block + 1) * BLOCK, n)):
                batch.rows[k] = row
                k += not until[row] > limit  # NaN is looked at; no branch, which would often be guessed wrong
            batch.blocks[n_blocks] = block
            n_blocks += 1
        if n_blocks > 0 and (k >= BLOCK or n_blocks == BLOCK or block == end - 1):
            _look(state, section, lane, batch, k)
            _wait(state, lane, batch, n_blocks)
            k = n_blocks = 0


@_part
def _look(state: State, section: int, lane: int, batch: _Batch, n_rows: int) -> None:
    """Weigh rows: which are within reach, and until when they surely are, or are not."""
    rows, places = state.x, batch.rows
    if state.factor[0] != 0:
        for k in range(n_rows):
            for j in range(len(state.shift)):
                batch.mapped[k, j] = (state.x[batch.rows[k], j] - state.shift[j]) * state.factor[0]
        rows, places = batch.mapped, batch.counting
    for k in range(0, n_rows, 16):
        _sixteen(rows, places, k, n_rows - 1, state.query[lane], batch.weights)
    numbers, until, is_within = state.numbers[lane], state.until[lane], state.is_within[lane]
    precision, error, radius, clock = numbers[PRECISION], numbers[ERROR], numbers[RADIUS], numbers[CLOCK]
    for k in range(n_rows):
        row = batch.rows[k]
        weight = numbers[CONSTANT] + batch.weights[k] - precision * state.norms[row]
        if weight > 0:
            margin = radius - math.sqrt((1 - weight + error) / precision)
        else:
            margin = math.sqrt(max(1 - weight - error, 0.0) / precision) - radius
        until[row] = clock + margin if margin > 0 else clock  # and so where it is NaN
        if (weight > 0) != is_within[row]:
            is_within[row] = weight > 0
            sign = 1.0 if weight > 0 else -1.0
            sums, counts = state.sum_changes[section, lane], state.count_changes[section, lane]
            _count(rows[places[k]], sign, float(state.losses[lane, row]), sums[0], sums[1], counts)
            state.n_changes[section, lane] += 1


@_part
def _wait(state: State, lane: int, batch: _Batch, n_blocks: int) -> None:
    """Note when the next row of each block has to be looked at."""
    until = state.until[lane]
    for i in range(n_blocks):
        start, soonest = batch.blocks[i] * BLOCK, np.inf
        for row in range(start, min(start + BLOCK, len(until))):
            soonest = min(soonest, until[row])
        state.soonest[lane, batch.blocks[i]] = soonest


@_part
def _count(
    x: np.ndarray, sign: float, loss: float, total: np.ndarray, weighted: np.ndarray, counts: np.ndarray
) -> None:
    """Add an example to the sums, or with a sign of -1 take it away.

    In three loops: of many arrays in one the compiler cannot tell whether they overlap, and then it takes one number
    at a time.
    """
    square = 0.0
    for j in range(len(x)):
        square += np.float64(x[j]) * np.float64(x[j])
    for j in range(len(x)):
        total[j] += sign * x[j]
    for j in range(len(x)):
        weighted[j] += sign * loss * x[j]
    counts[0] += sign
    counts[1] += sign * loss
    counts[2] += sign * square
    counts[3] += sign * loss * square


@_part
def _sixteen(rows: np.ndarray, places: np.ndarray, k: int, last: int, q: np.ndarray, out: np.ndarray) -> None:
    """Dot products of a query and sixteen rows, or as many as there are to the last."""
    x0, x1 = rows[places[k]], rows[places[min(k + 1, last)]]
    x2, x3 = rows[places[min(k + 2, last)]], rows[places[min(k + 3, last)]]
    x4, x5 = rows[places[min(k + 4, last)]], rows[places[min(k + 5, last)]]
    x6, x7 = rows[places[min(k + 6, last)]], rows[places[min(k + 7, last)]]
    x8, x9 = rows[places[min(k + 8, last)]], rows[places[min(k + 9, last)]]
    xa, xb = rows[places[min(k + 10, last)]], rows[places[min(k + 11, last)]]
    xc, xd = rows[places[min(k + 12, last)]], rows[places[min(k + 13, last)]]
    xe, xf = rows[places[min(k + 14, last)]], rows[places[min(k + 15, last)]]
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
def _move(state: State, lane: int, step: int, patience: int) -> None:
    """One step of Adam, uphill; a spotlight without weight goes back and stays."""
    numbers, here, d = state.numbers[lane], state.here[lane], state.x.shape[1]
    _change(state, lane)
    sums, weighted, (number, losses, squares, products) = state.sums[lane, 0], state.sums[lane, 1], state.counts[lane]
    along = along_weighted = 0.0  # sum of x mu, and of l x mu
    for j in range(d):
        along += here[j] * sums[j]
        along_weighted += here[j] * weighted[j]
    precision, constant = numbers[PRECISION], numbers[CONSTANT]
    total = number * constant + precision * (2 * along - squares)  # K
    mass = losses * constant + precision * (2 * along_weighted - products)  # A
    is_alive = number > 0 and total > EMPTY  # false also for NaN
    if not is_alive:
        total, mass = EMPTY, 0.0
    mean_loss = mass / total
    short = max(state.reach[step, lane] - total, 0.0)
    push = short * state.stiffness[step, lane]  # c
    objective = mean_loss - 0.5 * short * push
    numbers[TOTAL], state.history[step, lane] = total, objective
    if is_alive:
        _halve_rate(numbers, step, objective, patience)
        level = mean_loss - push * total  # A / K - c K: an example pulls by how far its loss lies above
        pull = losses - level * number  # sum K g
        gradient, factor = state.gradient[lane], 2 * precision / total
        for j in range(d):
            gradient[j] = factor * (weighted[j] - level * sums[j] - here[j] * pull)
        gradient[d] = push * total - pull / total
        correction = math.sqrt(1 - BETA_SQUARE ** (step + 1))
        length = here.dtype.type(numbers[RATE] * correction / (1 - BETA_MEAN ** (step + 1)))
        epsilon = here.dtype.type(EPSILON * correction)
        _adam(here, state.before[lane], gradient, state.mean[lane], state.square[lane], length, epsilon)
        numbers[CLOCK] += _length(state, lane)
    else:
        numbers[CLOCK] += _length(state, lane)
        here[:] = state.before[lane]
        numbers[RATE] = 0
    _aim(state, lane)


@_part
def _change(state: State, lane: int) -> None:
    """Bring the sums up to date."""
    for section in range(len(state.n_changes)):
        if state.n_changes[section, lane] > 0:
            state.n_changes[section, lane] = 0
            state.sums[lane] += state.sum_changes[section, lane]
            state.counts[lane] += state.count_changes[section, lane]
            state.sum_changes[section, lane] = 0
            state.count_changes[section, lane] = 0


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
    """What a pass needs of the position: see the columns of `numbers`."""
    here, numbers, d = state.here[lane], state.numbers[lane], state.x.shape[1]
    precision = math.exp(here[d])
    norm = 0.0
    for j in range(d):
        norm += here[j] * here[j]
        state.query[lane, j] = 2 * precision * here[j]
    radius = math.sqrt(1 / precision)
    error = state.rounding * (1 + 2 * precision * (state.longest + norm))
    numbers[PRECISION], numbers[CONSTANT] = precision, 1 - precision * norm
    numbers[CLOCK] += abs(radius - numbers[RADIUS])
    numbers[RADIUS], numbers[ERROR] = radius, error
    numbers[LIMIT] = numbers[CLOCK] + radius * error if error < 1 else np.inf  # inf: no distance can be relied on


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
