"""Seconds per stage, without the stages knowing who asks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_seconds: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)


@contextmanager
def counting(seconds: dict[str, float]) -> Iterator[None]:
    """Add the seconds of every stage within this context to `seconds`."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function as a stage of the pipeline."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                add(name, time.perf_counter() - start)

        return timed

    return decorate


def add(name: str, more: float) -> None:
    """Count so many more seconds under this name, if anybody asks."""
    seconds = _seconds.get()
    if seconds is not None:
        seconds[name] = seconds.get(name, 0.0) + more
