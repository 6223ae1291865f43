"""How far each run of a folder is: `slicebench status`. It reads run folders and manifests of sweeps, nothing else."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.console import printer, say
from experiments.runs import Results, Run, find_results

STATES = ("done", "running", "failed", "killed", "unreadable", "missing")
OVER = ("done", "failed", "unreadable")  # states in which nothing more will happen by itself
FEW = 40  # runs that are all listed; of more, those that are done are only counted
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
        printer().print(_table(lines))
        _print_commands(results)
    return all(line.status in ("done", "running") for line in lines)


def watch_status(folder: Path) -> bool:
    """The same, refreshed until nothing more happens by itself; off a terminal a line for each change."""
    console = printer()
    before = ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            lines = _lines(find_results(folder))
            if console.is_terminal:
                live.update(_table(lines), refresh=True)
            elif (text := _counted(lines)) != before:
                say(text)
                before = text
            if all(line.status in OVER for line in lines):
                break
            time.sleep(EVERY)
    return show_status(folder, as_json=False)


def _lines(results: Results) -> list[Line]:
    runs = [Line(run.name, run.state, _note(run)) for run in results.runs]
    for wanted in results.missing:
        overrides = " ".join(wanted.overrides)
        failed = Line(overrides, "failed", wanted.error or "")
        runs.append(failed if wanted.run is None else Line(wanted.run, "missing", overrides))
    return runs


def _table(lines: list[Line]) -> RenderableType:
    table = Table("run", "status", "", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True  # to be copied: never cut short
    for line in lines:
        if len(lines) <= FEW or line.status != "done":
            table.add_row(escape(line.run), line.status, escape(line.note))
    return Group(*([table] if table.row_count else []), Text(_counted(lines)))


def _counted(lines: list[Line]) -> str:
    counts = Counter(line.status for line in lines)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _print_commands(results: Results) -> None:
    """What finishes what is there."""
    console = printer()
    unfinished, failed = results.commands(("killed", "missing")), results.commands(("failed",))
    for command in unfinished:
        console.print(f"to finish: {command}", markup=False, soft_wrap=True)
    for command in failed:
        console.print(f"to try failed runs again: {command} compute.retry_failed=true", markup=False, soft_wrap=True)
    alone = any(run.state in ("failed", "killed") for run in results.runs) and not (unfinished or failed)
    if alone:
        console.print("The command that started them goes on where they stopped.")


def _note(run: Run) -> str:
    if run.state == "done":
        refused = len(run.content["refused"])
        return f"{sum(run.content['seconds'].values()):.1f} s" + (f", {refused} refused" if refused else "")
    if run.state in ("failed", "unreadable"):
        return str(run.content.get("error", ""))
    return run.progress()
