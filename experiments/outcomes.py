"""What became of runs, for programs: `slicebench run --json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.analysing import read_record
from experiments.jobs import Failure, Result
from experiments.prepared import Order


def show_outcomes(results: Sequence[Result]) -> None:
    """Print each run: its folder, status (done, failed, refused), and of one that is not done overrides and error."""
    print(json.dumps([_outcome(result) for result in results if result is not None], indent=2))


def show_experiments(orders: Sequence[Order], failures: Sequence[Failure]) -> None:
    """The same of prepared experiments, from what is written down of them."""
    found = [_of_record(order, read_record(order.folder)) for order in orders]
    outcomes = [one for runs in found for one in runs] + [_outcome(failure) for failure in failures]
    print(json.dumps(outcomes, indent=2))


def _outcome(result: Path | Failure) -> dict[str, Any]:
    if isinstance(result, Path):
        return _line(str(result), "done")
    return _line(None, "refused" if result.refused else "failed", result.overrides, result.reason)


def _of_record(order: Order, record: dict[str, Any]) -> list[dict[str, Any]]:
    done = [_line(str(order.folder.absolute() / run), "done") for run in record["runs"]]
    return done + [_line(None, "refused", one["overrides"], one["reason"]) for one in record["refused"]]


def _line(folder: str | None, status: str, overrides: str | None = None, error: str | None = None) -> dict[str, Any]:
    return {"folder": folder, "status": status, "overrides": overrides, "error": error}
