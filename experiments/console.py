"""What a person sees on the terminal: results on standard output, all that is said meanwhile on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import current_process

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from methods.progress import listening

console = Console(stderr=True, highlight=False)


def printer() -> Console:
    """A console on standard output; off a terminal its lines are long, so that nothing is cut."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=240)


def say(text: str) -> None:
    """One line for the person at the terminal."""
    if not is_behind_a_bar():
        console.print(text, markup=False, soft_wrap=True)


def is_behind_a_bar() -> bool:
    """Whether this is a process of joblib's, on a terminal where the one that started it shows how far all are."""
    return console.is_terminal and current_process().name.startswith("LokyProcess")


@contextmanager
def progress_bars(note: Callable[[str, int, int], None], every: float = 1.0) -> Iterator[None]:
    """Show a bar for whatever reports progress, and pass it on to `note` at most once in `every` seconds.

    Off a terminal there are no bars, but `note` is called all the same.
    """
    bars: dict[str, TaskID] = {}
    noted = 0.0
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal or is_behind_a_bar()
    ) as progress:

        def listen(what: str, done: int, total: int) -> None:
            nonlocal noted
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)
            if time.monotonic() - noted >= every:
                noted = time.monotonic()
                note(what, done, total)

        with listening(listen):
            yield
