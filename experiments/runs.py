"""Read run folders, without computing anything: what status, collect and reports stand on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.cache import is_locked
from experiments.keys import first_difference, key_of
from methods.errors import InvalidInput

# the columns of a tidy table of scores
COLUMNS = (
    *("dataset", "model", "embedding", "corruption", "kind", "method", "variant", "run", "problem", "group", "seed"),
    *("protocol", "true_slice", "slice", "metric", "k", "value"),
)


@dataclass(frozen=True)
class Run:
    """A run folder as it lies on disk.

    Parameters
    ----------
    folder : Path
    state : {"done", "running", "failed", "killed"}
        A run that nobody works on, neither done nor failed, was killed.
    content : dict
        Of `run.json`.
    """

    folder: Path
    state: str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    def progress(self) -> str:
        """What the run last said about how far it is; empty where it said nothing."""
        path = self.folder / "progress.json"
        if not path.exists():
            return ""
        last = json.loads(path.read_text())
        return f"{last['what']} {last['done']} of {last['total']}"


def find_runs(folder: Path) -> list[Run]:
    """All run folders at or below `folder`, by name.

    Raises
    ------
    InvalidInput
        Where the folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder, expected one with runs, such as outputs or outputs/demo")
    runs = [read_run(path.parent) for path in sorted(folder.rglob("run.json"))]
    if not runs:
        raise InvalidInput(f"{folder} holds no runs, expected a folder that `slicebench run` wrote to")
    return runs


def read_run(folder: Path) -> Run:
    """The run in this folder; `InvalidInput` where its `run.json` cannot be read."""
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text())
        state = str(content["status"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}): delete the folder and run again") from None
    if state == "running" and not is_locked(folder / "lock"):
        state = "killed"
    return Run(folder, state, content)


def stored_definition(folder: Path) -> dict[str, Any]:
    """What defines the run in this folder, from its `config.yaml`."""
    path = folder / "config.yaml"
    try:
        definition = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise InvalidInput(f"{path} {reason}: delete the folder and run again") from None
    return definition if isinstance(definition, dict) else {}


def check_definition(folder: Path, expected: dict[str, Any]) -> None:
    """Raise `InvalidInput` naming the first field in which the stored definition differs from the expected one."""
    difference = first_difference(stored_definition(folder), expected)
    if difference:
        name, stored, wanted = difference
        raise InvalidInput(
            f"{folder / 'config.yaml'}: {name} is {stored!r}, but this run has {wanted!r}: the folder was changed by "
            "hand; put it back or delete the folder"
        )


def check_unchanged(run: Run) -> None:
    """Raise `InvalidInput` where the stored definition is not the one that gave the folder its key."""
    check_definition(run.folder, run.content["definition"])
    key = key_of(run.content["definition"])
    if not run.folder.name.endswith(key):
        raise InvalidInput(f"{run.folder}: its definition has the key {key}: the folder was changed by hand")


def unfinished(runs: list[Run]) -> Iterator[Run]:
    return (run for run in runs if run.state != "done")
