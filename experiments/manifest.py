"""What a sweep is made of, written down before it starts: what tells missing runs from those that nobody asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.files import write_json
from experiments.keys import KEY_LENGTH, key_of
from methods.errors import InvalidInput

FOLDER = "sweeps"  # below the folder of the results
NAME = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}\.json")
ASIDE = ("compute.", "paths.", "tracking")  # overrides that do not make it another sweep


@dataclass(frozen=True)
class Wanted:
    """One run of a sweep.

    Parameters
    ----------
    overrides : tuple of str
        What Hydra is given.
    run : str, optional
        Its folder below the results, such as digits/spotlight-KEY; None where its settings cannot be used.
    error : str, optional
        Why they cannot be used.
    """

    overrides: tuple[str, ...]
    run: str | None
    error: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A sweep.

    Parameters
    ----------
    command : str
        What finishes it.
    runs : tuple of Wanted
        Each run once.
    """

    command: str
    runs: tuple[Wanted, ...]


def write_manifest(results: Path, manifest: Manifest) -> None:
    """Keep it in the folder of the results, in the place of the same sweep started earlier."""
    jobs = sorted([one for one in wanted.overrides if not one.startswith(ASIDE)] for wanted in manifest.runs)
    write_json(results / FOLDER / f"{key_of({'jobs': jobs})}.json", asdict(manifest))


def read_manifest(path: Path) -> Manifest:
    """A manifest; `InvalidInput` where the file holds anything else, `FileNotFoundError` where there is none."""
    try:
        content = json.loads(path.read_text())
        return Manifest(_text(content["command"]), tuple(map(_wanted, content["runs"])))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InvalidInput(f"{path} cannot be read ({reason}): delete it, and start the sweep again") from None


def _wanted(content: Mapping[str, Any]) -> Wanted:
    run, error = (None if content[name] is None else _text(content[name]) for name in ("run", "error"))
    return Wanted(tuple(map(_text, content["overrides"])), run, error)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
