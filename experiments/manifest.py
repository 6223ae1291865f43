"""What a sweep is made of, written down before it starts: what tells missing runs from those that nobody asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.files import write_json
from experiments.keys import key_of
from methods.errors import InvalidInput

FOLDER = "sweeps"  # below the folder of the results
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
    """A manifest; `InvalidInput` where the file holds anything else."""
    try:
        content = json.loads(path.read_text())
        runs = [Wanted(tuple(run["overrides"]), run["run"], run["error"]) for run in content["runs"]]
        return Manifest(str(content["command"]), tuple(runs))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}): delete it, and start the sweep again") from None
