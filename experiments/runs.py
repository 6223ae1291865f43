"""Read run folders, without computing anything: what status, collect and reports stand on."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from experiments.cache import is_locked
from experiments.keys import first_difference, key_of
from experiments.manifest import FOLDER as MANIFESTS
from experiments.manifest import NAME, Manifest, Wanted, read_manifest
from methods.errors import InvalidInput

# the columns of a tidy table of scores
COLUMNS = (
    *("dataset", "model", "embedding", "corruption", "kind", "method", "variant", "run", "problem", "group", "seed"),
    *("protocol", "true_slice", "slice", "metric", "k", "value"),
)
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where it was built
GROUP = re.compile(r"^\w+:(?: .*)?\n(?:[ -].*\n)*", re.MULTILINE)  # of settings, in a YAML file
WRITTEN_STATES = ("running", "done", "failed")  # what a run says of itself


@dataclass(frozen=True)
class Run:
    """A run folder as it lies on disk.

    Parameters
    ----------
    folder : Path
    state : {"done", "running", "failed", "killed", "unreadable"}
        A run that nobody works on, neither done nor failed, was killed. One that lost a file is no longer done.
    content : dict
        Of `run.json`; of an unreadable run, and of one that lost a file, the reason under `error`.
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
class FoundSweep:
    """A sweep, and what is there of it.

    Parameters
    ----------
    path : Path
        Of the manifest.
    manifest : Manifest
    runs : tuple of Run, optional
        Of each run in the manifest what is there; None where it is missing or cannot be.
    """

    path: Path
    manifest: Manifest
    runs: tuple[Run | None, ...]

    def words(self, one: Wanted) -> str:
        """What tells a run from the others of the sweep: the overrides that not all of them have."""
        own = [override for override in one.overrides if override not in self._shared]
        return " ".join(own or one.overrides)

    @cached_property
    def _shared(self) -> set[str]:
        return set.intersection(*(set(one.overrides) for one in self.manifest.runs))


@dataclass(frozen=True)
class Results:
    """What lies in a folder of results: runs, and the sweeps that were to make them.

    Parameters
    ----------
    runs : tuple of Run
        By name; those that cannot be read among them.
    sweeps : tuple of FoundSweep
    unreadable : mapping of Path to str
        Manifests that cannot be read, and why.
    """

    runs: tuple[Run, ...]
    sweeps: tuple[FoundSweep, ...]
    unreadable: Mapping[Path, str]

    @property
    def missing(self) -> list[tuple[FoundSweep, Wanted]]:
        """What sweeps want and is not there, each run once, or cannot be."""
        wanted = {
            (sweep.path.parent, one.run or one.overrides): (sweep, one)
            for sweep in self.sweeps
            for one, run in zip(sweep.manifest.runs, sweep.runs, strict=True)
            if run is None
        }
        return list(wanted.values())


def find_results(folder: Path) -> Results:
    """All runs and sweeps at or below `folder`; what vanishes meanwhile is none of them.

    Raises
    ------
    InvalidInput
        Where the folder does not exist or holds neither.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder, expected one with runs, such as outputs or outputs/demo")
    folders, manifests = _found(folder)
    runs = [run for run in map(_read_or_reason, folders) if run is not None]
    sweeps, unreadable = _sweeps(manifests, runs)
    if not (runs or sweeps or unreadable):
        raise InvalidInput(f"{folder} holds no runs, expected a folder that `slicebench run` wrote to")
    return Results(tuple(runs), tuple(sweeps), unreadable)


def _found(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders of runs and the manifests of sweeps at or below a folder, by name."""
    runs, manifests = [], []
    for root, folders, files in os.walk(folder):
        if "run.json" in files:
            runs.append(root)
            folders.clear()  # what lies below a run is the run's
        elif os.path.basename(root) == MANIFESTS and root != str(folder):  # without the runs it says nothing
            manifests += [os.path.join(root, name) for name in files if NAME.fullmatch(name)]
    return sorted(map(Path, runs)), sorted(map(Path, manifests))


def _sweeps(manifests: Sequence[Path], runs: Sequence[Run]) -> tuple[list[FoundSweep], dict[Path, str]]:
    there = {os.path.abspath(run.folder): run for run in runs}
    sweeps, unreadable = [], {}
    for path in manifests:
        try:
            manifest = read_manifest(path)
        except FileNotFoundError:
            continue
        except InvalidInput as error:
            unreadable[path] = str(error)
            continue
        root = os.path.abspath(path.parent.parent)
        found = (there.get(os.path.normpath(f"{root}/{one.run}")) if one.run else None for one in manifest.runs)
        sweeps.append(FoundSweep(path, manifest, tuple(found)))
    return sweeps, unreadable


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
    elif state == "done" and (lost := lost_file(folder, content)):
        state, content = "killed", content | {"error": f"it was done, but {lost} is no longer what it wrote"}
    return Run(folder, state, content)


def lost_file(folder: Path, content: Mapping[str, Any]) -> str | None:
    """The first file of a finished run that is not there, or not as it was written, by its `run.json`."""
    for name, size in content.get("files", {}).items():
        try:
            if os.stat(folder / name).st_size != size:
                return str(name)
        except FileNotFoundError:
            return str(name)
    return None


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


def _read_or_reason(folder: Path) -> Run | None:
    """One broken folder must not keep the others from being shown; None where it is gone."""
    try:
        return read_run(folder)
    except InvalidInput as error:
        reason = str(error)
    except OSError as error:  # the lock is not ours to try
        reason = f"{error.filename or folder}: {error.strerror}"
    return Run(folder, "unreadable", {"error": reason}) if os.path.lexists(folder / "run.json") else None


def stored_definition(folder: Path) -> dict[str, Any]:
    """What defines the run in this folder, from its `config.yaml`."""
    path = folder / "config.yaml"
    try:
        definition = _parsed(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise InvalidInput(f"{path} {reason}: delete the folder and run again") from None
    if not isinstance(definition, dict):
        raise InvalidInput(f"{path} holds no settings: delete the folder and run again")
    return definition


def _parsed(text: str) -> Any:
    """What a YAML file says; the runs of a sweep differ in few of their groups of settings, and parsing takes long."""
    groups = GROUP.findall(text)
    if text and "".join(groups) == text:
        with suppress(yaml.YAMLError):  # as where one group refers to another
            return {name: value for group in groups for name, value in _parsed_group(group).items()}
    return yaml.load(text, Loader=YAML)


@lru_cache(maxsize=1_000)
def _parsed_group(text: str) -> dict[str, Any]:
    return yaml.load(text, Loader=YAML)


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
    return f"{str(git['commit'])[:12]}{' with uncommitted changes' if git.get('dirty') else ''}"


def check_unchanged(run: Run) -> None:
    """Raise `InvalidInput` where the stored definition is not the one that gave the folder its key."""
    check_definition(run.folder, run.content["definition"])
    key = key_of(run.content["definition"])
    if not run.folder.name.endswith(key):
        raise InvalidInput(f"{run.folder}: its definition has the key {key}: the folder was changed by hand")
