"""Read run folders, without computing anything: what status, collect and reports stand on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.cache import is_locked
from experiments.keys import first_difference, key_of
from experiments.manifest import FOLDER as MANIFESTS
from experiments.manifest import Manifest, Wanted, read_manifest
from methods.errors import InvalidInput

# the columns of a tidy table of scores
COLUMNS = (
    *("dataset", "model", "embedding", "corruption", "kind", "method", "variant", "run", "problem", "group", "seed"),
    *("protocol", "true_slice", "slice", "metric", "k", "value"),
)
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where it was built
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
        """What the run last said about how far it is, and when; empty where it said nothing."""
        try:
            last = json.loads((self.folder / "progress.json").read_text())
            ago = time.time() - float(last["time"])
            return f"{last['what']} {last['done']} of {last['total']}" + (
                f", {ago / 60:.0f} min ago" if ago > 90 else ""
            )
        except (OSError, ValueError, KeyError, TypeError):  # what is lost here is news, nothing that is needed
            return ""


@dataclass(frozen=True)
class Results:
    """What lies in a folder of results: runs, and the sweeps that were to make them.

    Parameters
    ----------
    runs : tuple of Run
        By name; those that cannot be read among them.
    sweeps : tuple of (Path, Manifest)
        Each with the folder that its runs are in.
    """

    runs: tuple[Run, ...]
    sweeps: tuple[tuple[Path, Manifest], ...]

    @property
    def missing(self) -> list[Wanted]:
        """What sweeps want and is not there, or cannot be."""
        there = {run.folder.absolute() for run in self.runs}
        wanted = [(root.absolute(), one) for root, manifest in self.sweeps for one in manifest.runs]
        return list(dict.fromkeys(one for root, one in wanted if one.run is None or root / one.run not in there))

    def commands(self, states: Collection[str]) -> list[str]:
        """What finishes the sweeps that have runs in one of these states; "missing" is one."""
        state_of = {run.folder.absolute(): run.state for run in self.runs}
        having = [
            manifest.command
            for root, manifest in self.sweeps
            if any(one.run and state_of.get(root.absolute() / one.run, "missing") in states for one in manifest.runs)
        ]
        return list(dict.fromkeys(having))


def find_results(folder: Path) -> Results:
    """All runs and sweeps at or below `folder`.

    Raises
    ------
    InvalidInput
        Where the folder does not exist or holds neither.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder, expected one with runs, such as outputs or outputs/demo")
    runs, manifests = [], []
    for root, folders, files in os.walk(folder):
        if "run.json" in files:
            runs.append(Path(root))
            folders.clear()  # what lies below a run is the run's
        elif Path(root).name == MANIFESTS:
            manifests += [Path(root, name) for name in sorted(files) if name.endswith(".json")]
    if not runs and not manifests:
        raise InvalidInput(f"{folder} holds no runs, expected a folder that `slicebench run` wrote to")
    sweeps = [(path.parent.parent, read_manifest(path)) for path in sorted(manifests)]
    return Results(tuple(map(_read_or_reason, sorted(runs))), tuple(sweeps))


def find_runs(folder: Path) -> list[Run]:
    """All runs at or below `folder`; raises as `find_results`."""
    return list(find_results(folder).runs)


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
        definition = yaml.load(path.read_text(), Loader=YAML)
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


def commit_of(content: Mapping[str, Any]) -> str:
    """The commit of the code that made a run, in words, from its `run.json`."""
    git = content.get("git") or {}
    if not git.get("commit"):
        return "unknown"
    return f"{str(git['commit'])[:12]}{' and changes' if git.get('dirty') else ''}"


def check_unchanged(run: Run) -> None:
    """Raise `InvalidInput` where the stored definition is not the one that gave the folder its key."""
    check_definition(run.folder, run.content["definition"])
    key = key_of(run.content["definition"])
    if not run.folder.name.endswith(key):
        raise InvalidInput(f"{run.folder}: its definition has the key {key}: the folder was changed by hand")
