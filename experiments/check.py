"""What is on this machine: `slicebench check`."""

from __future__ import annotations

import json
import os
import re
import shutil
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape
from rich.table import Table

import conf
from experiments.cache_report import cache_root
from experiments.console import console, printer
from experiments.contract import Dataset, Loader, ProblemSet
from experiments.errors import explanation
from experiments.listing import items
from experiments.reading.sources import Absent, Partial, Source, data_root
from experiments.schema import construct, parameters_of
from experiments.settings import Numbers
from methods.errors import InvalidInput, InvalidSetting, unknown_name

BESIDE = ("_target_", "defaults", *Numbers.__dataclass_fields__)  # keys of a yaml that are no settings of its loader


class Finding(TypedDict):
    """One line of the report.

    Parameters
    ----------
    what : str
    state : {"found", "partial", "absent", "damaged"}
    note : str
        What there is, what is missing and how to get it.
    rows : dict of str to int
        Of a data set, the number of examples in each split, or of problems of each kind; empty where it cannot be
        loaded.
    """

    what: str
    state: str
    note: str
    rows: NotRequired[dict[str, int]]


@dataclass(frozen=True)
class Recipe:
    """A data set as its yaml and the command line describe it.

    Parameters
    ----------
    name : str
    target : type
        The class of its loader.
    values : mapping
        The loader's settings, as plain values.
    missing : tuple of str
        Settings that the yaml leaves to the user, and that are not given.
    given : bool
        Whether there are settings of the user's.
    """

    name: str
    target: type
    values: Mapping[str, Any]
    missing: tuple[str, ...]
    given: bool = False

    @property
    def title(self) -> str:
        """The data set's name, with its layout where it has several."""
        return f"{self.name} layout={self.loader().layout}" if self.layouts else self.name

    @property
    def layouts(self) -> tuple[str, ...]:
        """What `layout` may be, where the publisher's files come in several."""
        annotation = getattr(parameters_of(self.target).get("layout"), "annotation", None)
        return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()

    @property
    def source(self) -> Source | None:
        """The publisher; None where there is nothing to get."""
        return getattr(self.loader(), "source", None)

    def with_settings(self, **values: Any) -> Recipe:
        return replace(self, values={**self.values, **values})

    def loader(self) -> Any:
        """The loader, once its settings are found to fit; else `InvalidInput` with what is allowed."""
        if self.missing:
            key = f"dataset.{self.missing[0]}"
            raise InvalidInput(f"{key} is missing: set it on the command line, {key}=...")
        return construct(self.target, self.values, "dataset")


def read_recipe(name: str, given: Mapping[str, Any]) -> Recipe:
    """A data set of `conf/dataset`, with the settings that are given instead of the yaml's.

    What the yaml interpolates from the rest of a run's config is left to the loader's defaults.

    Raises
    ------
    InvalidInput
        Naming the nearest data sets, where there is none of this name.
    """
    known = [item["name"] for item in items("datasets")]
    if name not in known:
        raise InvalidInput(unknown_name(f"no dataset is called {name!r}", name, known))
    config = OmegaConf.load(Path(conf.__path__[0]) / "dataset" / f"{name}.yaml")
    for key, value in given.items():
        OmegaConf.update(config, key, value)
    missing = tuple(str(key) for key in config if OmegaConf.is_missing(config, key))
    values = {}
    for key in config:
        with suppress(OmegaConfBaseException):
            value = config[key]
            values[str(key)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    target = get_object(values["_target_"])
    plain = {key: value for key, value in values.items() if key not in BESIDE}
    return Recipe(name, target, plain, missing, given=bool(given))


def parsed(override: str) -> tuple[str, Any]:
    """Key and value of KEY=VALUE, in the syntax that `slicebench run` has."""
    result = OverridesParser.create().parse_override(override)
    if result.is_sweep_override() or result.is_delete():
        raise InvalidInput(f"{override!r} is not one setting, expected KEY=VALUE")
    return result.key_or_group, result.value()


def look(recipe: Recipe, root: Path) -> Finding:
    """Load the names and labels of a data set, and count.

    Parameters
    ----------
    recipe : Recipe
    root : Path
        The data root.

    Raises
    ------
    InvalidSetting
        Where a setting of the user's does not fit the data: then it says nothing of them.
    """
    what = f"dataset {recipe.title}"
    loader = recipe.loader()
    try:
        dataset = _loaded(loader, root, what)
    except Partial as error:
        return _partial(what, recipe, root, str(error))
    except Absent as error:
        state = "partial" if _something_is_there(recipe.source, root) else "absent"
        return Finding(what=what, state=state, note=_how_to_get(recipe, str(error)), rows={})
    except Exception as error:
        reason = explanation(error)
        if reason is None or (recipe.given and isinstance(error, InvalidSetting)):
            raise
        return Finding(what=what, state="damaged", note=reason, rows={})
    return Finding(what=what, state="found", note=_said("; ", _in_words(dataset), *dataset.notes), rows=_rows(dataset))


def show_check(overrides: Sequence[str], as_json: bool) -> bool:
    """Print what was found; whether every data set that was asked for by name is there, in any of its layouts."""
    asked, given = _asked(overrides)
    recipes = [read_recipe(name, given) for name in asked or [item["name"] for item in items("datasets")]]
    if not asked:
        recipes = [recipe for recipe in recipes if not recipe.missing]  # made for the user's own files
    datasets = {recipe.name: [look(one, data_root()) for one in _each_layout(recipe, given)] for recipe in recipes}
    findings = [finding for of_one in datasets.values() for finding in of_one] + ([] if asked else _machine())
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        _print(findings)
    return not asked or all(any(f["state"] == "found" for f in of_one) for of_one in datasets.values())


def _print(findings: Sequence[Finding]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)  # no frame: its lines are long
    for finding in findings:
        table.add_row(escape(finding["what"]), finding["state"], escape(finding["note"]))
    printer().print(table)


def _asked(overrides: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Names of data sets, and the settings for them."""
    names, given = [], {}
    for override in overrides:
        key, value = parsed(override) if "=" in override else (override, None)
        if key == "dataset" and value:
            names.append(str(value))
        elif key.startswith("dataset."):
            given[key.removeprefix("dataset.")] = value
        else:
            known = ", ".join(item["name"] for item in items("datasets"))
            raise InvalidInput(f"{override!r} cannot be checked, expected dataset=NAME with one of {known}")
    if given and not names:
        raise InvalidInput(f"dataset.{next(iter(given))} is a setting of no data set: say which one with dataset=NAME")
    return names, given


def _each_layout(recipe: Recipe, given: Mapping[str, Any]) -> list[Recipe]:
    if not recipe.layouts or "layout" in given:
        return [recipe]
    return [recipe.with_settings(layout=layout) for layout in recipe.layouts]


def _loaded(loader: Loader, root: Path, what: str) -> Dataset | ProblemSet:
    with console.status(escape(f"reading {what}")):
        return loader.load(root, seed=0)


def _partial(what: str, recipe: Recipe, root: Path, missing: str) -> Finding:
    """What there is where files are missing."""
    rows, words = {}, ""
    with suppress(InvalidInput):
        dataset = _loaded(recipe.with_settings(partial=True).loader(), root, what)
        rows, words = _rows(dataset), _in_words(dataset)
    remedy = "" if "dataset.partial=true" in missing else "use what is there with dataset.partial=true"
    return Finding(what=what, state="partial", note=_said("; ", words, missing, remedy), rows=rows)


def _something_is_there(source: Source | None, root: Path) -> bool:
    """Whether the folder, which others' files may lie in too, holds something that the instruction names."""
    folder = root / source.folder if source else root
    if source is None or not folder.is_dir():
        return False
    named = set(re.findall(r"[\w.-]*\w", source.instruction))
    return any(entry.name in named for entry in folder.iterdir())


def _how_to_get(recipe: Recipe, missing: str) -> str:
    source = recipe.source
    if source is None:
        return missing
    instruction = "" if source.instruction in missing else source.instruction
    layout = recipe.title.removeprefix(recipe.name)
    command = f"Or: slicebench fetch {recipe.name}{layout}" if source.downloads else ""
    return _said(" ", missing, instruction, command)


def _said(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)


def _rows(dataset: Dataset | ProblemSet) -> dict[str, int]:
    if isinstance(dataset, ProblemSet):
        return dict(sorted(Counter(f"{problem.kind} problems" for problem in dataset.problems).items()))
    return {name: split.n_examples for name, split in dataset.splits.items()}


def _in_words(dataset: Dataset | ProblemSet) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in _rows(dataset).items())


def _machine() -> list[Finding]:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    cuda = torch.cuda.is_available()
    sbatch = shutil.which("sbatch")
    data, hub, checkpoints = data_root(), Path(HF_HUB_CACHE), Path(torch.hub.get_dir()) / "checkpoints"
    models = [f.name.removeprefix("models--").replace("--", "/") for f in hub.glob("models--*") if _complete(f)]
    packages = ", ".join(f"{name} {version(name)}" for name in ("slicebench", "torch", "scikit-learn", "hydra-core"))
    return [
        Finding(what="data root", state="found" if data.is_dir() else "absent", note=f"{data} (SLICEBENCH_DATA)"),
        Finding(what="cache", state="found" if cache_root().is_dir() else "absent", note=f"{cache_root()}"),
        _weights("weights of Hugging Face", hub, models),
        _weights("weights of torch", checkpoints, [file.name for file in checkpoints.glob("*.pt*")]),
        Finding(what="GPU", state="found" if cuda else "absent", note=torch.cuda.get_device_name() if cuda else ""),
        Finding(what="SLURM", state="found" if sbatch else "absent", note=sbatch or ""),
        Finding(what="cores", state="found", note=str(len(os.sched_getaffinity(0)))),
        Finding(what="packages", state="found", note=packages),
    ]


def _complete(model: Path) -> bool:
    """Whether a folder of Hugging Face's cache holds more than a download that was broken off."""
    return any(file.exists() for file in model.glob("snapshots/*/*"))  # links, maybe to nothing


def _weights(what: str, folder: Path, names: Sequence[str]) -> Finding:
    return Finding(
        what=what, state="found" if names else "absent", note=_said(": ", str(folder), ", ".join(sorted(names)))
    )
