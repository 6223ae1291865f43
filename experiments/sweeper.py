"""A sweep that can be started again: what is done, or there twice, is dropped before anything is launched."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import hydra_plugins
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins import sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from rich.progress import track

from experiments.cache import is_locked
from experiments.console import console, say
from experiments.contract import Dataset, ProblemSet
from experiments.inference import uncached
from experiments.jobs import Failure, Result, infer_job, plan_job, run_job, tried
from experiments.keys import key_of
from experiments.loading import check_dataset, read_dataset
from experiments.manifest import Manifest, Wanted, write_manifest
from experiments.record import Record, is_done
from experiments.runs import read_content
from experiments.settings import Settings, check_settings
from experiments.training import build_model
from experiments.watching import watched
from methods.errors import InvalidInput

IN_PROCESS, SLURM = "BasicLauncher", "SlurmLauncher"
KEPT = 4  # data sets in memory
EVERY = 1.0  # seconds between two looks at runs that another process works on


@dataclass(frozen=True)
class Sweep:
    """Runs that belong together.

    Parameters
    ----------
    arms : tuple of tuple of str
        Overrides; all combinations within each arm.
    command : str
        What to type for the same again.
    results : Path, optional
        The folder of its runs; where it is left out, the one in Hydra's config.
    """

    arms: tuple[tuple[str, ...], ...]
    command: str
    results: Path | None = None


@dataclass
class Asked:
    """What Hydra's sweeper is to do, and what came of it: the result of each run of each sweep."""

    sweeps: Sequence[Sweep]
    dry_run: bool
    results: list[list[Result]]


ASKED: ContextVar[Asked] = ContextVar("asked")  # Hydra makes the sweeper itself


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Parameters
    ----------
    overrides : tuple of str
    folder : Path, optional
        Where it goes; None where its settings cannot be used.
    retry : bool
        Whether it is tried again if it failed before.
    unusable : Failure, optional
        Why its settings cannot be used.
    shards : int
        In how many shards jobs of their own infer for it first; 1 where there are none.
    inference : frozenset of str
        What these would write: runs that share it share the jobs.
    """

    overrides: tuple[str, ...]
    folder: Path | None
    retry: bool = False
    unusable: Failure | None = None
    shards: int = 1
    inference: frozenset[str] = frozenset()

    def result(self) -> Result:
        """What came of it so far, in this sweep or in another one; None where it is still to be done."""
        if self.folder is None:
            return self.unusable
        if is_done(self.folder):
            return self.folder
        before = read_content(self.folder) or {}
        if before.get("status") != "failed" or self.retry:
            return None
        refused = bool(before.get("refusal"))
        again = "" if refused else " (it failed before; compute.retry_failed=true tries it again)"
        reason = f"{before.get('error', 'no reason was kept')}{again}"
        return Failure(" ".join(self.overrides), reason, refused, ours=False, trace="")

    def is_running(self) -> bool:
        """Whether a process works on it."""
        return self.folder is not None and is_locked(self.folder / "lock")


class Sweeper(sweeper.Sweeper):
    """All combinations, as Hydra's own sweeper has them, with a memory.

    Parameters
    ----------
    max_batch_size : int, optional
        The most runs that are launched at once.
    params : mapping, optional
        Overrides that a config asks for (`hydra.sweeper.params`).
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        # not the task of `hydra.main`: jobs may run in other processes, which import a function by its name
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, run_job, config)
        self._launcher_is = type(self.launcher).__name__  # Hydra loads its plugins anew: no class to compare with
        self._data: dict[str, Dataset | ProblemSet] = {}
        if self._launcher_is == SLURM:
            from experiments.slurm import use_sweep_jobs

            use_sweep_jobs()

    def sweep(self, arguments: list[str]) -> None:
        """Everything that was asked for; `arguments` is a part of it."""
        asked = ASKED.get()
        if self._launcher_is == SLURM and not asked.dry_run and shutil.which("sbatch") is None:
            raise InvalidInput("there is no SLURM here (no sbatch): take hydra/launcher=joblib, or none")
        combinations = [[c for arm in sweep.arms for c in self._combinations(arm)] for sweep in asked.sweeps]
        if asked.dry_run:
            asked.results += [[self._dry(overrides) for overrides in one] for one in combinations]
            return
        planned = [self._planned(one) for one in combinations]
        for sweep, jobs in zip(asked.sweeps, planned, strict=True):
            if any(job.folder for job in jobs):  # else a mistake in the command, which will be given again without it
                self._write_manifest(sweep, jobs)
        results = {job: job.result() for jobs in planned for job in jobs}
        _say_what_is_left(results, sum(map(len, combinations)))
        self._infer([job for job, result in results.items() if result is None])
        results |= self._done([job for job, result in results.items() if result is None])
        asked.results += [[results[job] for job in jobs] for jobs in planned]

    def _combinations(self, arm: Sequence[str]) -> list[tuple[str, ...]]:
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*(f"{k}={v}" for k, v in self.params.items()), *arm])
        return [tuple(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]

    def _dry(self, overrides: tuple[str, ...]) -> Result:
        composed = tried(overrides, lambda: self._config(overrides))
        return composed if isinstance(composed, Failure) else plan_job(composed)

    def _config(self, overrides: Sequence[str]) -> DictConfig:
        """The config of one run, as Hydra gives it to the run."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return config

    def _planned(self, combinations: Sequence[tuple[str, ...]]) -> list[Job]:
        """A job for each run, those that are there twice once."""
        shown = track(combinations, "looking at runs", console=console, transient=True, disable=not console.is_terminal)
        jobs = [self._job(overrides) for overrides in shown]
        return list({job.folder or job.overrides: job for job in reversed(jobs)}.values())[::-1]

    def _job(self, overrides: tuple[str, ...]) -> Job:
        def checked() -> Job:
            settings = check_settings(self._config(overrides))
            record = Record.planned(settings, self._dataset(settings))
            record.before()  # it can be read
            inference = frozenset() if record.done else self._uncached(settings)
            shards = settings.inference.shards if inference else 1
            return Job(overrides, record.folder, settings.compute.retry_failed, None, shards, inference)

        job = tried(overrides, checked)
        return Job(overrides, None, unusable=job) if isinstance(job, Failure) else job

    def _uncached(self, settings: Settings) -> frozenset[str]:
        """What jobs of their own are to infer for this run."""
        dataset = self._dataset(settings)
        if self._launcher_is == IN_PROCESS or settings.inference.shards == 1 or isinstance(dataset, ProblemSet):
            return frozenset()
        return frozenset(entry.key for entry in uncached(settings, dataset, build_model(settings, dataset)))

    def _dataset(self, settings: Settings) -> Dataset | ProblemSet:
        """The data of a run: read once for all runs, near each other, that share it."""
        which = {
            "dataset": settings.dataset.defining(),
            "split": settings.seeds.split,
            "root": str(settings.paths.data),
        }
        key = key_of(which)
        if key not in self._data:
            self._data |= {key: read_dataset(settings)}
            self._data = dict(list(self._data.items())[-KEPT:])
        return check_dataset(settings, self._data[key])

    def _write_manifest(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        results = (sweep.results or Path(self.config.paths.results)).expanduser().absolute()
        wanted = [
            Wanted(job.overrides, None, job.unusable.reason)
            if job.unusable
            else Wanted(job.overrides, os.path.relpath(job.folder or "", results))
            for job in jobs
        ]
        write_manifest(results, Manifest(sweep.command, tuple(wanted)))

    def _infer(self, jobs: Sequence[Job]) -> None:
        """Let as many jobs as there are shards infer what runs share; what they leave, the runs do themselves."""
        inferred: set[str] = set()
        for job in sorted(jobs, key=lambda job: -len(job.inference)):  # who needs more layers has them all in one pass
            if job.inference <= inferred:
                continue
            inferred |= job.inference
            say(f"inference first: {job.shards} jobs, a shard each")
            launcher = Plugins.instance().instantiate_launcher(self.hydra_context, infer_job, self.config)
            try:
                returned = launcher.launch([job.overrides] * job.shards, initial_job_idx=0)
            except BrokenProcessPool:
                say("a process that inferred was killed: the runs infer what is missing")
                continue
            failures = [one.return_value for one in returned if isinstance(one.return_value, Failure)]
            if failures:
                say(f"{len(failures)} of {job.shards} shards failed ({failures[0].reason}): the runs infer them")

    def _done(self, jobs: Sequence[Job]) -> dict[Job, Result]:
        """Let the launcher do what no other process works on; the rest when it is free."""
        done: dict[Job, Result] = {}
        while waiting := [job for job in jobs if job not in done]:
            free = [job for job in waiting if not job.is_running()][: self.max_batch_size]
            if not free:
                say(f"waiting for other processes, which work on {len(waiting)} of the runs")
                while all(job.is_running() for job in waiting):
                    time.sleep(EVERY)
            done |= {job: job.result() for job in free}  # another process may have been faster
            done |= self._launched([job for job in free if done[job] is None])
        return done

    def _launched(self, jobs: Sequence[Job]) -> dict[Job, Result]:
        if not jobs:
            return {}
        folders = [job.folder for job in jobs if job.folder is not None]
        try:
            with watched(folders, shown=self._launcher_is != IN_PROCESS):
                returned = self.launcher.launch([job.overrides for job in jobs], initial_job_idx=0)
        except BrokenProcessPool:  # joblib's: one process was killed, and it ends the others
            return self._one_by_one(jobs)
        except KeyboardInterrupt:
            if self._launcher_is == SLURM:
                say("jobs that were submitted go on: squeue --me shows them, scancel ends them")
            raise
        # a job that ended without a word, such as one that was cancelled, may have finished its run all the same
        pairs = zip(jobs, returned, strict=True)
        return {job: job.folder if _is_done(job) else one.return_value for job, one in pairs}

    def _one_by_one(self, jobs: Sequence[Job]) -> dict[Job, Result]:
        """Each in a launch of its own: one that is killed again takes no other with it."""
        if len(jobs) == 1:
            reason = "its process was killed; was there not enough memory?"
            return {jobs[0]: Failure(" ".join(jobs[0].overrides), reason, refused=False, ours=True, trace="")}
        say("a process was killed: what is left of the sweep goes on one run after the other")
        done: dict[Job, Result] = {}
        for job in jobs:
            done |= {job: job.folder} if _is_done(job) else self._launched([job])
        return done


def _is_done(job: Job) -> bool:
    return job.folder is not None and is_done(job.folder)


def _say_what_is_left(results: Mapping[Job, Result], n_combinations: int) -> None:
    counts = {
        "there twice": n_combinations - len(results),
        "with settings that cannot be used": sum(job.folder is None for job in results),
        "done before, skipped": sum(isinstance(result, Path) for result in results.values()),
        "failed before": sum(isinstance(one, Failure) and job.folder is not None for job, one in results.items()),
        "to do": sum(result is None for result in results.values()),
    }
    if n_combinations > 1 or not counts["to do"]:
        say(f"{n_combinations} runs: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}")


def register() -> None:
    """Make the sweeper known to Hydra, which takes plugins from modules below `hydra_plugins` only."""
    hydra_plugins.slicebench = sys.modules[__name__]
    # not by `register`, which goes by the class's own module: that one is what worker processes import
    Plugins.instance().class_name_to_class["hydra_plugins.slicebench.Sweeper"] = Sweeper
