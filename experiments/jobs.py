"""What Hydra starts, here or in other processes: one run, or the plan of one.

A job that fails returns its failure instead of raising it: of a sweep, Hydra would name the first one only.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import TaskFunction
from omegaconf import DictConfig

import conf  # noqa: F401 (before folders of the user's are on the path, one of which may have such a name)
import evaluation  # noqa: F401
from experiments.errors import explanation
from experiments.plan import plan
from experiments.run import run
from methods.errors import Unsupported

IMPORT_PATH = "SLICEBENCH_IMPORT_PATH"  # the user's folders, for worker processes too


@dataclass(frozen=True)
class Failure:
    """What went wrong in one job.

    Parameters
    ----------
    overrides : str
        Which job it was.
    reason : str
        One line.
    refused : bool
        Whether the method cannot work on such a problem, which is a result too.
    ours : bool
        Whether nothing that the user gave explains it.
    trace : str
        The traceback.
    error : Exception, optional
        None where the job ran in another process.
    """

    overrides: str
    reason: str
    refused: bool
    ours: bool
    trace: str
    error: Exception | None = field(default=None, compare=False)

    def __reduce__(self) -> Any:
        plain = (self.overrides, self.reason, self.refused, self.ours, self.trace)
        return Failure, plain  # not every exception can be pickled


def launch(arguments: Sequence[str], dry_run: bool) -> list[Path | Failure | None]:
    """Let Hydra start the jobs that these arguments ask for: each one's run folder, or why it failed."""
    if any(argument.startswith("hydra/launcher=") for argument in arguments):
        from experiments.slurm import use_sweep_jobs  # submitit is wanted for nothing else

        use_sweep_jobs()
    with _returned() as jobs, patch.object(sys, "argv", ["slicebench", *arguments]):
        # the plain function: a decorated one is pickled by value, and its module never imported in a worker
        task = plan_job if dry_run else run_job
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(task)()
    return [job.return_value for job in jobs]


def run_job(config: DictConfig) -> Path | Failure | None:
    """One run."""
    return _tried(run, config)


def plan_job(config: DictConfig) -> Path | Failure | None:
    """The plan of one run."""
    return _tried(plan, config)


def _tried(task: Callable[[DictConfig], Path | None], config: DictConfig) -> Path | Failure | None:
    _extend_path()
    try:
        return task(config)
    except Exception as error:
        reason = explanation(error)
        overrides = " ".join(HydraConfig.get().overrides.task)
        line = next(iter((reason or f"{type(error).__name__}: {error}").splitlines()))
        refused = isinstance(error, Unsupported)
        return Failure(overrides, line, refused, reason is None, traceback.format_exc(), error)


def _extend_path() -> None:
    """Behind everything else, so that a folder `methods` of the user's does not hide ours."""
    for folder in filter(None, os.environ.get(IMPORT_PATH, "").split(os.pathsep)):
        if folder not in sys.path:
            sys.path.append(folder)


@contextmanager
def _returned() -> Iterator[list[JobReturn]]:
    """Everything that jobs returned: `hydra.main` has it, and drops it."""
    jobs: list[JobReturn] = []

    def keeping(start: Callable[..., Any]) -> TaskFunction:
        def kept(*arguments: Any, **options: Any) -> Any:
            returned = start(*arguments, **options)
            jobs.extend(_flat(returned))
            return returned

        return kept

    with patch.object(Hydra, "run", keeping(Hydra.run)), patch.object(Hydra, "multirun", keeping(Hydra.multirun)):
        yield jobs


def _flat(returned: Any) -> Iterator[JobReturn]:
    """One job returns itself, a sweep a list for each batch."""
    if isinstance(returned, JobReturn):
        yield returned
    elif isinstance(returned, list | tuple):
        for part in returned:
            yield from _flat(part)
