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

OVER = ("done", "failed")
LOOK, SAY = 2, 60  # seconds between two looks on a terminal, and between two lines elsewhere


@contextmanager
def watched(folders: Sequence[Path], shown: bool = True) -> Iterator[None]:
    """Show which of these runs are over, below them a bar; off a terminal a line each minute in which it changed."""
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
        before, seen = "", {folder: _state(folder) for folder in folders}
        ended = False
        while not ended:
            ended = over.wait(LOOK if console.is_terminal else SAY)
            now = {folder: _state(folder) for folder in folders}
            for folder in folders:
                if console.is_terminal and now[folder] != seen[folder] and now[folder] in OVER:
                    say(f"{folder.parent.name}/{folder.name}: {now[folder]}")
            seen, states = now, Counter(now.values())
            text = ", ".join(f"{states[state]} {state}" for state in ("done", "failed", "running") if states[state])
            progress.update(bar, completed=sum(states[one] for one in OVER), description=text or "runs")
            if not console.is_terminal and text != before:
                say(f"of {len(folders)} runs: {text}")
            before = text


def _state(folder: Path) -> str:
    try:
        return read_run(folder).state
    except (InvalidInput, OSError):  # not begun
        return ""
