"""Run prepared experiments: all their runs at once, then the analyses of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.analysing import RECORD, analyse
from experiments.console import say
from experiments.files import write_json
from experiments.jobs import Failure, Result
from experiments.launching import MULTIRUN, launch_sweeps
from experiments.prepared import Order


def rerun(orders: Sequence[Order], dry_run: bool) -> tuple[list[Failure], int]:
    """All runs of these experiments, then what is made of them: (what failed, number of runs).

    Finished runs are skipped, so that the same command finishes what was broken off. What a method refuses is part of
    the result.
    """
    for order in orders:
        say(f"{order.experiment.name}: scale={order.scale} ({order.why}), results in {order.folder}")
    # options are those of the command line, hence the same for all
    whole = ["--multirun", f"paths.results={os.path.commonpath([order.folder for order in orders])}"]
    whole += [option for option in orders[0].options if option not in MULTIRUN]
    results = launch_sweeps(whole, [order.sweep for order in orders], dry_run)
    if dry_run:
        return [one for of_order in results for one in of_order if isinstance(one, Failure)], sum(map(len, results))
    failed = [_finish(order, of_order) for order, of_order in zip(orders, results, strict=True)]
    return [failure for of_order in failed for failure in of_order], sum(map(len, results))


def _finish(order: Order, results: Sequence[Result]) -> list[Failure]:
    """Analyse the experiment if all its runs are there, and return what failed."""
    failures = [result for result in results if isinstance(result, Failure)]
    failed = [failure for failure in failures if not failure.refused]
    _write(order, [folder for folder in results if isinstance(folder, Path)], failures)
    if failed:
        say(f"{order.experiment.name}: {len(failed)} of {len(results)} runs failed; analyses wait for them")
        return failed
    out = analyse(order.folder)
    print(f"results: {out / 'report.md'}")
    return []


def _write(order: Order, folders: Sequence[Path], failures: Sequence[Failure]) -> None:
    """Keep which runs belong to the experiment: its folder may hold others, of earlier settings."""
    refused = [{"overrides": one.overrides, "reason": one.reason} for one in failures if one.refused]
    root = order.folder.absolute()
    content = {
        "experiment": order.experiment.name,
        "scale": order.scale,
        "why": order.why,
        "command": order.sweep.command,
        "stand_ins": list(order.stand_ins),
        "notes": list(order.experiment.notes),
        "analyses": [asdict(analysis) for analysis in order.experiment.analyses],
        "runs": [Path(os.path.relpath(folder, root)).as_posix() for folder in folders],
        "refused": refused,
        "missing": [one.overrides for one in failures if not one.refused],
    }
    write_json(order.folder / RECORD, content)
