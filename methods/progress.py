"""How a method tells that it is getting on, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]  # (what, done, total)

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send all progress within this context to `listener(what, done, total)`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def progress(items: Iterable[int], what: str, total: int, start: int = 0) -> Iterator[int]:
    """Yield the items, telling the listener (if there is one) before the first and after about every hundredth part.

    Work that goes on where it was cut off says by `start` how much lies behind it.

    Examples
    --------
    >>> with listening(lambda what, done, total: print(what, done, "of", total)):
    ...     for _ in progress(range(2), "spotlights", total=2):
    ...         pass
    spotlights 0 of 2
    spotlights 1 of 2
    spotlights 2 of 2
    """
    listener, every = _listener.get(), max(1, total // 100)
    if listener is not None:
        listener(what, start, total)
    for done, item in enumerate(items, start=start + 1):
        yield item
        if listener is not None and (done % every == 0 or done == total):
            listener(what, done, total)
