"""At which scale an experiment runs: with the paper's data and weights, or with what a laptop has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import conf
from experiments.reading.sources import data_root
from methods.errors import InvalidInput, unknown_name

SCALES = ("here", "full")
FOLDER = Path(conf.__path__[0]) / "scale"


def checked_scale(name: str) -> str:
    """Return this name, or raise `InvalidInput` where no scale has it."""
    if name not in SCALES:
        raise InvalidInput(unknown_name(f"no scale is called {name!r}", name, SCALES))
    return name


def scale_file(scale: str, dataset: str) -> str | None:
    """The option of the group `scale` for this data set, None where the data set needs no other settings."""
    return f"{scale}/{dataset}" if (FOLDER / scale / f"{dataset}.yaml").is_file() else None


def stand_ins(scale: str, datasets: Sequence[str]) -> list[str]:
    """In what the data and the models of these data sets are not the paper's."""
    files = [FOLDER / f"{option}.yaml" for name in datasets if (option := scale_file(scale, name))]
    found = [one for file in files for one in yaml.safe_load(file.read_text()).get("scale", {}).get("stand_ins", ())]
    return list(dict.fromkeys(found))


def best_scale(data: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[str, str]:
    """The scale that this machine is up to, and why: `full` where there are a GPU and all of the paper's data.

    Parameters
    ----------
    data : sequence of (str, mapping)
        Data sets and their settings at scale=full. Those that are made here, such as suites, count as there.
    """
    import torch

    from experiments.check import look, read_recipe

    if not torch.cuda.is_available():
        return "here", "this machine has no GPU"
    looked_at: list[tuple[str, Mapping[str, Any]]] = []
    for name, given in data:
        if (name, given) in looked_at:  # many arms have the same data
            continue
        looked_at.append((name, given))
        recipe = read_recipe(name, {**_own_settings("full", name), **given})
        if not recipe.missing and recipe.source is not None:
            finding = look(recipe, data_root())
            if finding["state"] != "found":
                return "here", f"{name}: {finding['note']}"
    return "full", "a GPU and all data are there"


def _own_settings(scale: str, dataset: str) -> dict[str, Any]:
    """What a scale sets of a data set."""
    option = scale_file(scale, dataset)
    return {} if option is None else yaml.safe_load((FOLDER / f"{option}.yaml").read_text()).get("dataset", {})
