"""How far a sweep is while its runs are in other processes, read from their folders."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.console import console, say
from experiments.runs import read_run
from methods.errors import InvalidInput

LOOK, SAY = 2, 60  # seconds between two looks on a terminal, and between two lines elsewhere


@contextmanager
def watched(folders: Sequence[Path], shown: bool = True) -> Iterator[None]:
    """Show how many of these runs are over: a bar on a terminal, else a line each minute in which it changed."""
    if not shown:
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folders, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(folders: Sequence[Path], over: threading.Event) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("runs", total=len(folders))
        before = ""
        while not over.wait(LOOK if console.is_terminal else SAY):
            states = Counter(map(_state, folders))
            text = ", ".join(f"{states[state]} {state}" for state in ("done", "failed", "running") if states[state])
            progress.update(bar, completed=states["done"] + states["failed"], description=text or "runs")
            if not console.is_terminal and text != before:
                say(f"of {len(folders)} runs: {text}")
            before = text


def _state(folder: Path) -> str:
    try:
        return read_run(folder).state
    except (InvalidInput, OSError):  # not begun
        return ""
