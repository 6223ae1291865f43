"""Read run folders, without computing anything: what status, collect and reports stand on."""

from __future__ import annotations

import json
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
WRITTEN_STATES = ("running", "done", "failed")  # what a run says of itself


@dataclass(frozen=True)
class Run:
    """A run folder as it lies on disk.

    Parameters
    ----------
    folder : Path
    state : {"done", "running", "failed", "killed", "unreadable"}
        A run that nobody works on, neither done nor failed, was killed.
    content : dict
        Of `run.json`; of an unreadable run, the reason under `error`.
    """

    folder: Path
    state: str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    def progress(self) -> str:
        """What the run last said about how far it is; empty where it said nothing."""
        try:
            last = json.loads((self.folder / "progress.json").read_text())
            return f"{last['what']} {last['done']} of {last['total']}"
        except (OSError, ValueError, KeyError, TypeError):  # what is lost here is news, nothing that is needed
            return ""


def find_runs(folder: Path) -> list[Run]:
    """All run folders at or below `folder`, by name; those that cannot be read among them.

    Raises
    ------
    InvalidInput
        Where the folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder, expected one with runs, such as outputs or outputs/demo")
    runs = [_read_or_reason(path.parent) for path in sorted(folder.rglob("run.json"))]
    if not runs:
        raise InvalidInput(f"{folder} holds no runs, expected a folder that `slicebench run` wrote to")
    return runs


def read_run(folder: Path) -> Run:
    """The run in this folder; `InvalidInput` where its `run.json` is missing or cannot be read."""
    content = read_content(folder)
    if content is None:
        raise InvalidInput(f"{folder / 'run.json'} is missing: delete the folder and run again")
    state = str(content["status"])
    if state == "running" and not is_locked(folder / "lock"):
        state = "killed"
    return Run(folder, state, content)


def read_content(folder: Path) -> dict[str, Any] | None:
    """What the `run.json` in this folder says, None where there is none.

    Raises
    ------
    InvalidInput
        Where it cannot be read, or lacks what every run has.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text(), parse_constant=_no_number)
        wrong = _what_is_wrong(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        wrong = str(error)
    if wrong:
        raise InvalidInput(f"{path} cannot be read ({wrong}): delete the folder and run again")
    return content


def _what_is_wrong(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "expected names and values"
    for name, kind in (("status", str), ("definition", dict), ("seconds", dict), ("refused", dict)):
        if not isinstance(content.get(name), kind):
            return f"its {name} is {content.get(name)!r}" if name in content else f"it has no {name}"
    if content["status"] not in WRITTEN_STATES:
        return f"its status is {content['status']!r}"
    if not all(isinstance(seconds, int | float) for seconds in content["seconds"].values()):
        return "its seconds are no numbers"
    return None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _read_or_reason(folder: Path) -> Run:
    """One broken folder must not keep the others from being shown."""
    try:
        return read_run(folder)
    except InvalidInput as error:
        return Run(folder, "unreadable", {"error": str(error)})
    except OSError as error:  # the lock is not ours to try
        return Run(folder, "unreadable", {"error": f"{error.filename or folder}: {error.strerror}"})


def stored_definition(folder: Path) -> dict[str, Any]:
    """What defines the run in this folder, from its `config.yaml`."""
    path = folder / "config.yaml"
    try:
        definition = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise InvalidInput(f"{path} {reason}: delete the folder and run again") from None
    if not isinstance(definition, dict):
        raise InvalidInput(f"{path} holds no settings: delete the folder and run again")
    return definition


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
