"""How far each run of a folder is: `slicebench status`. It reads run folders and manifests of sweeps, nothing else."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.console import printer, say
from experiments.runs import FoundSweep, Results, Run, find_results

STATES = ("done", "running", "failed", "killed", "unreadable", "missing")
OVER = ("done", "failed", "unreadable")  # states in which nothing more will happen by itself
FEW = 40  # runs that are all listed; of more, so many in each state, and none of those that are done
EVERY = 2.0  # seconds between two looks


@dataclass(frozen=True)
class Line:
    """One run as people see it."""

    run: str
    status: str
    note: str


def show_status(folder: Path, as_json: bool) -> bool:
    """Print the state of each run; whether all of them are done or under way."""
    results = find_results(folder)
    lines = _lines(results)
    if as_json:
        print(json.dumps([vars(line) for line in lines], indent=2))
    else:
        printer().print(_table(lines), Text(_counted(lines)))
        for line in _advice(results):
            printer().print(Text(line), soft_wrap=True)
    return all(line.status in ("done", "running") for line in lines)


def watch_status(folder: Path) -> bool:
    """The same, refreshed until nothing more happens by itself; off a terminal a line for each change."""
    console = printer()
    before = ""
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                lines = _lines(find_results(folder))
                if console.is_terminal:
                    live.update(Group(Text(_counted(lines)), _table(lines)), refresh=True)
                elif (text := _counted(lines)) != before:
                    say(text)
                    before = text
                if all(line.status in OVER for line in lines):
                    break
                time.sleep(EVERY)
    finally:  # also of what is interrupted the last table stays
        ok = show_status(folder, as_json=False)
    return ok


def _lines(results: Results) -> list[Line]:
    runs = [Line(run.name, run.state, _note(run)) for run in results.runs]
    for sweep, one in results.missing:
        words = sweep.words(one)
        cannot = Line("-", "failed", f"{words}: {one.error}")
        runs.append(cannot if one.run is None else Line(one.run, "missing", words))
    return runs + [
        Line(f"{path.parent.name}/{path.name}", "unreadable", why) for path, why in results.unreadable.items()
    ]


def _table(lines: Sequence[Line]) -> RenderableType:
    """Each run or, of many, the first in each state that there is something to say about."""
    table = Table("run", "status", "", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True  # to be copied: never cut short
    table.columns[2].overflow = "fold"
    for line in lines if len(lines) <= FEW else _first(lines):
        table.add_row(*map(Text, (line.run, line.status, line.note)))
    return table if table.row_count else Group()


def _first(lines: Sequence[Line]) -> Iterator[Line]:
    """Those of each state but "done", and how many others there are."""
    for state in STATES[1:]:
        alike = [line for line in lines if line.status == state]
        yield from alike[:FEW]
        if len(alike) > FEW:
            yield Line("", state, f"and {len(alike) - FEW} others")


def _counted(lines: Sequence[Line]) -> str:
    counts = Counter(line.status for line in lines)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _advice(results: Results) -> list[str]:
    """What finishes what is there, a line for each command."""
    lines = [line for sweep in results.sweeps for line in _advice_for(sweep)]
    of_sweeps = {run.folder for sweep in results.sweeps for run in sweep.runs if run is not None}
    if any(run.state == "killed" or _failed(run) for run in results.runs if run.folder not in of_sweeps):
        lines.append("The command that started a run goes on where it stopped.")
    return list(dict.fromkeys(lines))


def _advice_for(sweep: FoundSweep) -> list[str]:
    wanted = list(zip(sweep.manifest.runs, sweep.runs, strict=True))
    states = {"missing" if run is None else run.state for one, run in wanted if one.run is not None}
    command = sweep.manifest.command
    lines = []
    if states & {"killed", "missing"}:
        lines.append(f"to finish{', should it stop' if 'running' in states else ''}: {command}")
    if any(run is not None and _failed(run) for _, run in wanted):
        lines.append(f"to try failed runs again: {command} compute.retry_failed=true")
    if any(one.run is None for one, _ in wanted):
        lines.append(f"settings that cannot be used stay in this list until {sweep.path} is deleted")
    return lines


def _failed(run: Run) -> bool:
    """Whether another try may end otherwise: what a method refuses, it refuses again."""
    return run.state == "failed" and not run.content.get("refusal")


def _note(run: Run) -> str:
    if run.state == "done":
        refused = len(run.content["refused"])
        return f"{sum(run.content['seconds'].values()):.1f} s" + (f", {refused} refused" if refused else "")
    return str(run.content.get("error") or run.progress())
