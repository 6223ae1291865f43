"""What Hydra starts, here or in other processes: one run, or the plan of one.

A job that fails returns its failure instead of raising it: of a sweep, Hydra would name the first one only.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import conf  # noqa: F401 (before folders of the user's are on the path, one of which may have such a name)
import evaluation  # noqa: F401
from experiments.errors import explanation, line_of
from experiments.plan import plan
from experiments.run import infer_shard, run
from methods.errors import Unsupported

IMPORT_PATH = "SLICEBENCH_IMPORT_PATH"  # the user's folders, for worker processes too
T = TypeVar("T")


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
        The traceback; empty where there is none to show.
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


Result = Path | Failure | None  # the folder of a run; None of a dry run


def run_job(config: DictConfig) -> Result:
    """One run."""
    return tried(HydraConfig.get().overrides.task, lambda: run(config))


def infer_job(config: DictConfig) -> Result:
    """One shard of the inference that runs share, by the number of the job."""
    hydra = HydraConfig.get()
    return tried(hydra.overrides.task, lambda: infer_shard(config, int(hydra.job.num)))


def plan_job(config: DictConfig) -> Result:
    """The plan of one run."""
    return tried(HydraConfig.get().overrides.task, lambda: plan(config))


def tried(overrides: Sequence[str], act: Callable[[], T]) -> T | Failure:
    """What `act` gives for the job with these overrides, or why it failed."""
    _extend_path()
    try:
        return act()
    except Exception as error:
        ours, refused = explanation(error) is None, isinstance(error, Unsupported)
        return Failure(" ".join(overrides), line_of(error), refused, ours, traceback.format_exc(), error)


def _extend_path() -> None:
    """Behind everything else, so that a folder `methods` of the user's does not hide ours."""
    for folder in filter(None, os.environ.get(IMPORT_PATH, "").split(os.pathsep)):
        if folder not in sys.path:
            sys.path.append(folder)
