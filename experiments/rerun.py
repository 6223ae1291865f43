"""Run a prepared experiment: its sweeps one after the other, then its analyses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.analysing import RECORD, analyse
from experiments.console import say
from experiments.files import write_json
from experiments.jobs import Failure, launch
from experiments.prepared import Order


def rerun(order: Order, dry_run: bool) -> tuple[list[Failure], int]:
    """All runs of an experiment, then what is made of them: (what failed, number of runs).

    Finished runs are skipped, so that the same command finishes what was broken off. What a method refuses is part of
    the result.
    """
    say(f"{order.experiment.name}: scale={order.scale} ({order.why}), {len(order.commands)} sweeps in {order.folder}")
    results = [result for command in order.commands for result in launch(command, dry_run)]
    failures = [result for result in results if isinstance(result, Failure)]
    if dry_run:
        return failures, len(results)
    failed = [failure for failure in failures if not failure.refused]
    _write(order, [folder for folder in results if isinstance(folder, Path)], failures)
    if failed:
        say(f"{order.experiment.name}: {len(failed)} of {len(results)} runs failed; analyses wait for them")
        return failed, len(results)
    out = analyse(order.folder)
    print(f"results: {out / 'report.md'}")
    return [], len(results)


def _write(order: Order, folders: Sequence[Path], failures: Sequence[Failure]) -> None:
    """Keep which runs belong to the experiment: its folder may hold others, of earlier settings."""
    refused = [{"overrides": one.overrides, "reason": one.reason} for one in failures if one.refused]
    root = order.folder.absolute()
    content = {
        "experiment": order.experiment.name,
        "scale": order.scale,
        "why": order.why,
        "command": order.command,
        "stand_ins": list(order.stand_ins),
        "notes": list(order.experiment.notes),
        "analyses": [asdict(analysis) for analysis in order.experiment.analyses],
        "runs": list(dict.fromkeys(Path(os.path.relpath(folder, root)).as_posix() for folder in folders)),
        "refused": refused,
        "missing": [one.overrides for one in failures if not one.refused],
    }
    write_json(order.folder / RECORD, content)
