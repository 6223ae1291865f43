"""How far each run of a folder is: `slicebench status`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from experiments.console import printer
from experiments.runs import Run, find_runs

STATES = ("done", "running", "failed", "killed", "unreadable")


def show_status(folder: Path, as_json: bool) -> bool:
    """Print the state of each run; whether all of them are done or under way."""
    runs = find_runs(folder)
    if as_json:
        print(json.dumps([{"run": run.name, "status": run.state, "note": _note(run)} for run in runs], indent=2))
    else:
        _print(runs)
    return all(run.state in ("done", "running") for run in runs)


def _print(runs: list[Run]) -> None:
    table = Table("run", "status", "", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True  # to be copied: never cut short
    for run in runs:
        table.add_row(escape(run.name), run.state, escape(_note(run)))
    console = printer()
    console.print(table)
    counts = {state: sum(run.state == state for run in runs) for state in STATES}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    if counts["failed"] or counts["killed"]:
        console.print("The command that started them goes on where they stopped.")


def _note(run: Run) -> str:
    if run.state == "done":
        refused = len(run.content["refused"])
        return f"{sum(run.content['seconds'].values()):.1f} s" + (f", {refused} refused" if refused else "")
    if run.state in ("failed", "unreadable"):
        return str(run.content.get("error", ""))
    return run.progress()
