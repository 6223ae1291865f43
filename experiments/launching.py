"""Let Hydra start runs: one, a sweep, or several sweeps at once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn
from unittest.mock import patch

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from experiments.jobs import Result, plan_job, run_job
from experiments.sweeper import ASKED, Asked, Sweep, register
from methods.errors import InvalidInput

MULTIRUN = ("--multirun", "-m")
LAUNCHER = "hydra/launcher="
# what the config of a sweep as a whole needs; all else is of its runs, and may not fit the defaults
OF_THE_WHOLE = ("hydra", "paths.", "experiment=", "+experiment=")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise where an option is none of Hydra's, or a path is empty: that would be the working directory."""
    parser = get_args_parser()
    parser.error = _refuse  # instead of a page on all that Hydra can do
    parser.parse_args(list(arguments))
    empty = next((one for one in arguments if one.startswith("paths.") and one.endswith("=")), None)
    if empty is not None:
        raise InvalidInput(f"{empty} names no folder: is a variable empty?")


def _refuse(message: str) -> NoReturn:
    raise InvalidInput(f"the command line cannot be read: {message} (slicebench run --help)")


def launch(arguments: Sequence[str], dry_run: bool) -> list[Result]:
    """Start what these arguments of `slicebench run` ask for: each run's folder, or why it failed."""
    overrides = [argument for argument in arguments if is_override(argument)]
    again = [argument for argument in arguments if argument != "compute.retry_failed=true"]
    sweep = Sweep((tuple(one for one in overrides if not one.startswith("hydra")),), command_of(again))
    if not is_sweep(arguments):  # as far as one can see: a config may ask for one
        return launch_sweeps(arguments, [sweep], dry_run)[0]
    whole = [one for one in arguments if not is_override(one) or one.startswith(OF_THE_WHOLE)]
    return launch_sweeps(whole, [sweep], dry_run)[0]


def launch_sweeps(arguments: Sequence[str], sweeps: Sequence[Sweep], dry_run: bool) -> list[list[Result]]:
    """Start all runs of these sweeps at once: the results of each sweep.

    Parameters
    ----------
    arguments : sequence of str
        Options, and overrides that are not of single runs: the launcher, the folder of results.
    sweeps : sequence of Sweep
    dry_run : bool
        Print plans, in this process, and start nothing.
    """
    alone: list[Result] = []
    asked = Asked(sweeps, dry_run, [])

    def task(config: DictConfig) -> None:
        """Of a single run; a sweep has the sweeper's."""
        alone.append(plan_job(config) if dry_run else run_job(config))

    register()
    multirun = ["--multirun"] if is_sweep(arguments) and not set(MULTIRUN) & set(arguments) else []
    token = ASKED.set(asked)
    try:
        with patch.object(sys, "argv", ["slicebench", *multirun, *arguments]):
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(task)()
    finally:
        ASKED.reset(token)
    return asked.results or [alone]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether these arguments ask for a sweep; a launcher is for sweeps, and be it of one run."""
    return any(one in MULTIRUN or one.startswith(LAUNCHER) for one in arguments)


def is_override(argument: str) -> bool:
    """Whether it is one, and no option."""
    return ("=" in argument or argument.startswith("~")) and not argument.startswith("-")


def command_of(arguments: Sequence[str]) -> str:
    """What to type for the same again."""
    return shlex.join(["slicebench", "run", *arguments])
