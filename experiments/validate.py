"""Check a method of the user's against the contract: `slicebench validate`."""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from experiments.check import parsed
from experiments.console import console, printer
from experiments.own_code import class_name, located_class, short
from experiments.schema import construct
from experiments.settings import VERBS
from methods.checks import Finding, Trial, findings, planted, precision_at_10
from methods.errors import InvalidInput

COLOURS = {"ok": "green", "failed": "red", "not reached": "yellow"}


@dataclass(frozen=True)
class Validation:
    """What came of all checks of a method.

    Parameters
    ----------
    target : str
        Without the folders of its file.
    findings : tuple of Finding
    precision : float, in [0, 1], optional
        At 10, on a planted slice that is easy to find; None where no slices came back. No check: not every method
        looks for such.
    seconds : float, optional
        Of fit and predict.
    """

    target: str
    findings: tuple[Finding, ...]
    precision: float | None
    seconds: float | None

    @property
    def ok(self) -> bool:
        return all(finding.state == "ok" for finding in self.findings)


def show_validation(
    target: str, settings: Sequence[str], import_path: Sequence[Path], as_json: bool, debug: bool
) -> bool:
    """Check a method and print what was found; whether it keeps the contract."""
    sys.path += [folder for folder in map(str, (f.resolve() for f in import_path)) if folder not in sys.path]
    with console.status("checking"), redirect_stdout(sys.stderr):  # what is printed here is not ours
        validation = validated(target, dict(map(_setting, settings)))
    for finding in validation.findings if debug else ():
        if finding.error is not None:
            traceback.print_exception(finding.error)
    if as_json:
        print(json.dumps(_as_json(validation), indent=2))
    else:
        _print(validation)
    return validation.ok


def validated(target: str, settings: Mapping[str, Any]) -> Validation:
    """All checks of the class that this target names.

    Raises
    ------
    InvalidInput
        Where it cannot be loaded, or not be made with these settings.
    """
    located = located_class(target, "TARGET", VERBS["method"])
    seed = {"seed": 0} if "seed" in inspect.signature(located).parameters else {}
    trial = Trial(partial(_made, located, class_name(target)), **{**seed, **settings})
    _ = trial.method  # a mistake in the settings is none of the method
    found = tuple(findings(trial))
    works = all(finding.state != "not reached" for finding in found)
    precision = precision_at_10(trial) if works else None
    return Validation(short(target), found, precision, trial.seconds if works else None)


def _made(located: type, name: str, **settings: Any) -> Any:
    try:
        return construct(located, settings, name)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"{name} cannot be made: {type(error).__name__}: {error}".splitlines()[0]) from error


def _setting(given: str) -> tuple[str, Any]:
    """Key and value, written as for `slicebench validate` or as for `slicebench run`."""
    if "=" not in given:
        raise InvalidInput(f"{given!r} is no setting, expected KEY=VALUE")
    key, value = parsed(given)
    return key.removeprefix("method."), value


def _as_json(validation: Validation) -> dict[str, Any]:
    names = ("check", "state", "seen", "expected", "remedy")
    return {
        "target": validation.target,
        "ok": validation.ok,
        "checks": [{name: getattr(finding, name) for name in names} for finding in validation.findings],
        "precision_at_10": validation.precision,
        "seconds": validation.seconds,
    }


def _print(validation: Validation) -> None:
    table = Table("check", "result", "", title=escape(validation.target), box=SIMPLE_HEAD, pad_edge=False)
    for finding in validation.findings:
        colour = COLOURS[finding.state]
        table.add_row(escape(finding.check), f"[{colour}]{finding.state}[/{colour}]", escape(_told(finding)))
    out = printer()
    out.print(table)
    if validation.precision is not None:
        n = planted()[0].n_examples
        out.print(
            f"An easy slice among {n} examples is found with a precision-at-10 of {validation.precision:.2f}, in "
            f"{validation.seconds:.2g} s."
        )
    states = [finding.state for finding in validation.findings]
    left = f", {states.count('not reached')} were not reached" if "not reached" in states else ""
    out.print(f"{states.count('ok')} of {len(states)} checks are passed{left}.")


def _told(finding: Finding) -> str:
    if finding.state != "failed":
        return ""
    return f"{finding.seen}\nexpected: {finding.expected}\nto mend it: {finding.remedy}"
