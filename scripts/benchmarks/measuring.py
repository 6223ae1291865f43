"""How everything here is measured: time, memory, and the least that this machine could take."""

from __future__ import annotations

import os
import platform
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """What some work took.

    Parameters
    ----------
    seconds : float
        The median of the runs that count.
    runs : int
    peak_bytes : int
        The most memory of its own that the process held, above what it held before; pages of mapped files are not
        counted, for the system takes them back whenever it likes.
    """

    seconds: float
    runs: int = 1
    peak_bytes: int = 0

    def scaled(self, factor: float) -> Measured:
        """The same for another amount of work, such as one step of many."""
        return Measured(self.seconds * factor, self.runs, self.peak_bytes)


@dataclass(frozen=True)
class Row:
    """One line of a table; what is left out was not measured, and the table says so.

    Parameters
    ----------
    work : str
    ours : Measured, optional
    peer : str
        Who else did the same work in the same run.
    peers : Measured, optional
    floor : float, optional
        Seconds that moving the bytes and doing the operations takes at the rates measured in the same run.
    target : str
        What is to be reached, in words.
    reached : bool, optional
        None where there is nothing to reach.
    note : str
        What a reader must know: the reason of a miss, what was cut short.
    """

    work: str
    ours: Measured | None = None
    peer: str = ""
    peers: Measured | None = None
    floor: float | None = None
    target: str = ""
    reached: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One table, and what stands above and below it."""

    head: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def measured(act: Callable[[], object], runs: int = 5, warm_up: bool = True) -> Measured:
    """The median of several calls, after one that does not count."""
    if warm_up:
        act()
    seconds, peaks = [], []
    for _ in range(runs):
        with peak_memory() as peak:
            start = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - start)
        peaks.append(peak[0])
    return Measured(statistics.median(seconds), runs, max(peaks))


@contextmanager
def peak_memory(every: float = 0.01) -> Iterator[list[int]]:
    """A list whose one entry is, afterwards, by how many bytes the process's own memory grew at most."""
    before, peak, done = own_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(every):
            peak[0] = max(peak[0], own_bytes() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = max(peak[0], own_bytes() - before)


def own_bytes() -> int:
    """Memory of this process without pages of mapped files (Linux)."""
    status = Path("/proc/self/status").read_text()
    return sum(1024 * int(found) for found in re.findall(r"^(?:RssAnon|RssShmem):\s+(\d+)", status, re.M))


def machine() -> str:
    """The processor and its cores, for the head of a table."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = found[1] if found else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"
