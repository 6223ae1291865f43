"""Make all problems of suites, one by one: what is there is kept, what was broken off goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from errno import EACCES, EDQUOT, ENOSPC, EPERM, EROFS
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from experiments.cache import lock_if_free, waiting_lock
from experiments.compute import n_threads, threads
from experiments.console import printer, progress_bars, say
from experiments.contract import Dataset
from experiments.files import write_json
from experiments.keys import key_of
from experiments.loaders.dcbench import DCBench
from experiments.loaders.suite import COUNTS, Suite
from experiments.reading.dcbench import INDEX
from experiments.reading.sources import data_root
from experiments.settings import Compute, Settings, settings_of
from experiments.suites.making import Workshop, by_manipulation, entry_of, make_problem, read_report
from experiments.suites.recipes import Block, Recipe, read_suite
from experiments.suites.storing import write_index
from experiments.training import recipe_of
from methods.contract import InvalidInput
from methods.progress import progress

LOCKS = ".locks"
EFFECTIVE = ("dataset", "model", "seeds.split", "compute.", "paths.cache")  # beginnings of overrides
PLACE = {ENOSPC, EDQUOT, EROFS, EACCES, EPERM}  # errors that another place helps against


@dataclass(frozen=True)
class Order:
    """A block of a suite to be worked on: what a process needs to know.

    Parameters
    ----------
    suite : str
        As it was asked for.
    block : str
    overrides : tuple of str
        The user's own.
    root : Path
        Of the suite.
    threads : int
        Of each process, unless overrides say another number.
    """

    suite: str
    block: str
    overrides: tuple[str, ...]
    root: Path
    threads: int = 1


Job = tuple[Order, Recipe]


def make_suites(
    names: Sequence[str], overrides: Sequence[str], jobs: int, folder: Path | None, as_json: bool = False
) -> None:
    """Make the problems of some suites that are not there yet, and the index of those that are fit.

    Parameters
    ----------
    names : sequence of str
        In `conf/suite`, or yaml files.
    overrides : sequence of str
        As on the command line of `slicebench run`, for all blocks.
    jobs : int
        Processes that work at once.
    folder : Path, optional
        Where the suites are put, each in a folder of its name; `suites` below the data root where it is left out.
    as_json : bool
        Print all problems at the end, instead of a table of each suite.
    """
    if jobs < 1:
        raise InvalidInput(f"--jobs is {jobs}, expected at least 1")
    if not names:
        raise InvalidInput("no suite is named, expected one of slicebench list suites, or a yaml file")
    ignored = next((override for override in overrides if not override.lstrip("+~").startswith(EFFECTIVE)), None)
    if ignored is not None:
        raise InvalidInput(
            f"{ignored} has no effect here, expected settings that begin with {', '.join(EFFECTIVE)}; seeds of "
            "problems stand in the suite's file, and where data and suites are say SLICEBENCH_DATA and --folder"
        )
    suites = [(name, *read_suite(name)) for name in names]  # all are read before the first is made
    place, threads = (
        (folder or data_root() / Suite.folder).expanduser().absolute(),
        max(1, n_threads(Compute()) // jobs),
    )
    problems: list[dict[str, Any]] = []
    for asked, name, blocks in suites:
        orders = [Order(asked, block, tuple(overrides), place / name, threads) for block in blocks]
        with _advising(place / name):
            reports = _make_suite(name, orders, jobs, place / name)
        if as_json:
            problems += [_plain(name, report) for report in reports]
        else:
            _summarise(name, reports, place / name)
    if as_json:
        print(json.dumps(problems, indent=2))


@contextmanager
def _advising(root: Path) -> Iterator[None]:
    """What to do where the suite cannot be written; elsewhere the advice is about the folders of runs."""
    try:
        yield
    except OSError as error:
        if error.errno not in PLACE:
            raise
        where = f"{error.filename or root}: {os.strerror(error.errno)}"
        raise InvalidInput(
            f"{where}: choose another place with --folder DIR (the cache's with paths.cache=DIR)"
        ) from None


def _make_suite(name: str, orders: Sequence[Order], jobs: int, root: Path) -> list[Mapping[str, Any]]:
    """The reports of all its problems, those that were there already too."""
    all_jobs, reports = _jobs(name, orders)
    wanted = [job for job in all_jobs if reports[job[1].name] is None]
    say(f"{name}: {len(all_jobs):,} problems, {len(all_jobs) - len(wanted):,} of them there already, in {root}")
    try:
        with progress_bars(lambda *_: None):
            for report in progress(_reports(wanted, jobs), "problems", total=len(wanted)):
                reports[report["name"]] = report
                say(_line(report))
    finally:
        made = [report for report in reports.values() if report is not None]
        fit = [entry_of(report) for report in made if report["fit"]]
        if fit:
            write_index(root / INDEX, fit)
        elif (root / INDEX).is_file():  # of problems that are fit no longer
            (root / INDEX).unlink()
        if made:
            write_json(root / COUNTS, {"tried": len(all_jobs), "made": len(made), "fit": len(fit)})
    return made


def _reports(wanted: Sequence[Job], jobs: int) -> Iterator[dict[str, Any]]:
    """Reports in the order in which the problems are made; those that others work on come last."""
    others = []
    for job, report in _done(_make_if_free, wanted, jobs):
        if report is None:
            others.append(job)
        else:
            yield report
    for _, report in _done(_make, others, jobs):
        assert report is not None
        yield report


def _done(
    work: Callable[[Job], dict[str, Any] | None], wanted: Sequence[Job], jobs: int
) -> Iterator[tuple[Job, dict[str, Any] | None]]:
    """Each job with its result, here or in several processes."""
    if jobs == 1 or len(wanted) < 2:
        yield from ((job, work(job)) for job in wanted)
        return
    with ProcessPoolExecutor(min(jobs, len(wanted)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, job): job for job in wanted}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InvalidInput(
                "a process was killed, maybe for want of memory: what was made is kept, and the same command goes on; "
                "try fewer --jobs"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make_if_free(job: Job) -> dict[str, Any] | None:
    """Make a problem, unless another process does so now."""
    with lock_if_free(_lock_of(job)) as free:
        return _unless_known(job) if free else None


def _make(job: Job) -> dict[str, Any] | None:
    """Make a problem, unless another process has done so by the time that its lock is free."""
    with waiting_lock(_lock_of(job), f"the problem {job[1].name}"):
        return _unless_known(job)


def _lock_of(job: Job) -> Path:
    order, recipe = job
    (order.root / LOCKS).mkdir(parents=True, exist_ok=True)
    return order.root / LOCKS / recipe.name


def _unless_known(job: Job) -> dict[str, Any]:
    order, recipe = job
    return _known(order, recipe) or make_problem(_workshop(order), recipe, order.root)


def _known(order: Order, recipe: Recipe) -> dict[str, Any] | None:
    """The report of a problem that was made with the same data, settings and code."""
    report = read_report(order.root, recipe.name)
    if report is None or report["key"] != key_of(_workshop(order).definition(recipe)):
        return None
    return report


@lru_cache(maxsize=1)
def _workshop(order: Order) -> Workshop:
    """Settings and data of a block: read once for all its problems."""
    block = read_suite(order.suite)[1][order.block]
    common = ("tracking=none", "evaluation=stored", f"compute.threads={order.threads}")
    settings = settings_of((*common, *block.overrides, *order.overrides))
    if isinstance(settings.dataset.instance, DCBench | Suite):
        raise InvalidInput(
            f"{order.block}: {settings.dataset.name} has problems already: choose a data set of examples"
        )
    if recipe_of(settings) is None:
        raise InvalidInput(f"{order.block}: model={settings.model.name} is not trained here: choose one that is")
    try:
        dataset = settings.dataset.instance.load(settings.paths.data, settings.seeds.split)
        for name in ("train", "validation", "test"):
            dataset.split(name)
    except InvalidInput as error:
        raise type(error)(f"{order.block}: {error}") from None
    return Workshop(block, settings, _prepared(block, settings, dataset))


def _prepared(block: Block, settings: Settings, dataset: Dataset) -> Dataset:
    if block.planted is not None:
        dataset = block.planted.plant(dataset, settings.seeds.split)
    if block.frozen is not None:
        # one process does it for all, so that it may have all cores
        with threads(replace(settings.compute, threads=None)), progress_bars(lambda *_: None):
            dataset = block.frozen.features(dataset, settings.paths.cache, settings.compute)
    return dataset


def _jobs(name: str, orders: Sequence[Order]) -> tuple[list[Job], dict[str, dict[str, Any] | None]]:
    """All problems of a suite, and the reports of those that are there, by name."""
    jobs: list[Job] = []
    reports: dict[str, dict[str, Any] | None] = {}
    for order in orders:  # block by block: the data of one at a time
        workshop = _workshop(order)
        for recipe in workshop.block.recipes(order.block, workshop.dataset):
            if recipe.name in reports:
                raise InvalidInput(
                    f"the suite {name} has the problem {recipe.name} twice: remove a slice, a strength or a seed"
                )
            jobs.append((order, recipe))
            reports[recipe.name] = _known(order, recipe)
    return jobs, reports


def _line(report: Mapping[str, Any]) -> str:
    verdict = "fit" if report["fit"] else f"unfit: {report['reason']}"
    if "test_inside" not in report:
        return f"{report['name']}: {verdict}"
    inside = ", ".join(f"{a:.1%} (n={n})" for a, n in zip(report["test_inside"], report["test_sizes"], strict=True))
    before = ", ".join(f"{a:.1%}" for a in report["control_inside"])
    return (
        f"{report['name']}: accuracy {inside} in the slice, {report['test_outside']:.1%} outside "
        f"(unmanipulated {before}, {report['control_outside']:.1%}): {verdict}"
    )


def _plain(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """A problem as json values; accuracies are missing where nothing was trained."""
    recipe = report["definition"]["recipe"]
    return {
        "set": name,
        "problem": report["name"],
        "kind": recipe["kind"],
        "dataset": report["dataset"],
        "strength": recipe["strength"],
        "fit": report["fit"],
        "reason": report.get("reason"),
        "slices": list(report["slice_names"]),
        "members": report.get("test_sizes"),
        "accuracy_in": report.get("test_inside"),
        "accuracy_out": report.get("test_outside"),
    }


def _summarise(name: str, reports: Sequence[Mapping[str, Any]], root: Path) -> None:
    table = Table("kind", "fit", "slices", "by manipulation", "unfit", box=SIMPLE_HEAD, pad_edge=False)
    for kind in dict.fromkeys(report["definition"]["recipe"]["kind"] for report in reports):
        of_kind = [report for report in reports if report["definition"]["recipe"]["kind"] == kind]
        fit = [report for report in of_kind if report["fit"]]
        n_slices = len({entry_of(report).group for report in fit})
        counts = (len(fit), n_slices, sum(map(by_manipulation, fit)), len(of_kind) - len(fit))
        table.add_row(kind, *map(str, counts))
    printer().print(f"\n{escape(name)}: {root}", soft_wrap=True)
    printer().print(table)
    say("slices: different ones; by manipulation: at least 10 points worse there than the model without it")
    if not any(report["fit"] for report in reports):
        say(f"{name}: no problem is fit, so there is nothing to find slices in:")
        for report in reports:
            say(_line(report))
