"""Prepared experiments: the sweeps of a paper's table or figure, and what is made of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import conf
from experiments.launching import command_of, is_override
from experiments.listing import items
from experiments.scale import SCALES, best_scale, checked_scale, scale_file, stand_ins
from experiments.sweeper import Sweep
from methods.errors import InvalidInput, unknown_name

EXPERIMENTS = Path(conf.__path__[0]) / "experiment"
RESULTS = "outputs/experiments"


@dataclass(frozen=True)
class Analysis:
    """Something that is made of the runs of an experiment.

    Parameters
    ----------
    name : str
        Of a module in `experiments.analyses`.
    options : mapping
        For its function `analyse`; `runs`, such as {method: [spotlight, george]}, says which runs it is about.
    """

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """An experiment as its yaml describes it.

    Parameters
    ----------
    name : str
        spotlight/fairface ...
    arms : mapping from {"here", "full"} to tuple of tuple of str
        Sweeps, each as overrides of one data set; commas make all combinations within an arm.
    analyses : tuple of Analysis
    notes : tuple of str
        What a reader of its results must know.
    """

    name: str
    arms: Mapping[str, tuple[tuple[str, ...], ...]]
    analyses: tuple[Analysis, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """A prepared experiment as somebody asked for it.

    Parameters
    ----------
    experiment : Prepared
    scale : {"here", "full"}
    why : str
        Why this scale.
    folder : Path
        Of its runs.
    stand_ins : tuple of str
        In what the data and the models are not the paper's.
    options : tuple of str
        Of Hydra: what is not of single runs, such as the launcher.
    sweep : Sweep
        Its runs.
    """

    experiment: Prepared
    scale: str
    why: str
    folder: Path
    stand_ins: tuple[str, ...]
    options: tuple[str, ...]
    sweep: Sweep


def read_prepared(name: str) -> Prepared | None:
    """The prepared experiment of this name; None where there is none, or it is a plain config without arms."""
    described = _described(name)
    if not described.get("arms"):
        return None
    arms = {scale: _arms(described["arms"], scale) for scale in SCALES}
    analyses = tuple(map(_analysis, described.get("analyses", ())))
    return Prepared(name, arms, analyses, tuple(described.get("notes", ())))


def _described(name: str) -> dict[str, Any]:
    """What a yaml says of its experiment; nothing where there is none."""
    path = EXPERIMENTS / f"{name}.yaml"
    content = (yaml.safe_load(path.read_text()) if path.is_file() else None) or {}
    return content.get("experiment", {})


def orders(arguments: Sequence[str]) -> list[Order]:
    """The prepared experiments that a command line asks for; none where it asks for something else.

    Parameters
    ----------
    arguments : sequence of str
        Of `slicebench run`: options and overrides.

    Raises
    ------
    InvalidInput
        Where no experiment or scale has such a name, or plain and prepared experiments are mixed.
    """
    given = dict(map(_split, (a for a in arguments if is_override(a))))
    asked_for = [name for name in given.get("experiment", "").split(",") if name]
    if not any(argument.startswith(("--config-dir", "-cd")) for argument in arguments):  # which may hold others
        _check_names(asked_for)
    names = list(dict.fromkeys(part for name in asked_for for part in _parts(name)))
    prepared = [read_prepared(name) for name in names]
    if not any(prepared):
        return []
    plain = next((name for name, one in zip(names, prepared, strict=True) if one is None), None)
    if plain is not None:
        raise InvalidInput(f"experiment={plain} has no arms of its own: run it by itself")
    results = [given.get("paths.results")] * len(names)
    if len(names) > 1 and results[0]:  # else each would write over what is made of the other
        results = [f"{results[0]}/{name}" for name in names]
    asked = zip(prepared, results, strict=True)
    return [_ordered(one, arguments, given, folder) for one, folder in asked if one is not None]


def _parts(name: str) -> tuple[str, ...]:
    """The experiments that one stands for: of a paper all, else itself."""
    parts = _described(name).get("parts")
    return tuple(parts) if parts else (name,)


def _check_names(names: Sequence[str]) -> None:
    """Raise with the nearest experiments; Hydra would name those of one folder."""
    for name in names:
        if name != "null" and not (EXPERIMENTS / f"{name}.yaml").is_file():
            known = [item["name"] for item in items("experiments")]
            raise InvalidInput(unknown_name(f"no experiment is called {name!r}", name, known))


def _ordered(experiment: Prepared, arguments: Sequence[str], given: Mapping[str, str], results: str | None) -> Order:
    options = [a for a in arguments if not is_override(a)]
    scale, why = _scale_for(_chosen(experiment.arms["full"], given), given)
    arms = _chosen(experiment.arms[scale], given)
    _check_settings(arms, given)
    folder = Path(results or f"{RESULTS}/{experiment.name}-{scale}")
    own = {"experiment": experiment.name, "scale.name": scale, "paths.results": str(folder)}
    rest = [a for a in arguments if is_override(a) and _split(a)[0] not in {*own, "scale", *_keys(arms)}]
    of_runs = [one for one in rest if not one.startswith("hydra")]
    full = []
    for arm in arms:
        fitting = [f"scale={option}"] if (option := scale_file(scale, _of("dataset", arm))) else []
        full.append((*(f"{key}={value}" for key, value in own.items()), *fitting, *arm, *of_runs))
    options += [one for one in rest if one not in of_runs]
    own_words = [a for a in arguments if _split(a)[0] not in ("experiment", "scale")]
    again = command_of([f"experiment={experiment.name}", f"scale={scale}", *own_words])
    substituted = tuple(stand_ins(scale, list(dict.fromkeys(_of("dataset", arm) for arm in arms))))
    return Order(experiment, scale, why, folder, substituted, tuple(options), Sweep(tuple(full), again, folder))


def _scale_for(arms: Sequence[Sequence[str]], given: Mapping[str, str]) -> tuple[str, str]:
    """The scale that was asked for, else the one that this machine is up to; and why."""
    if "scale" in given:
        return checked_scale(given["scale"]), "asked for"
    return best_scale([(_of("dataset", arm), _data_settings(arm)) for arm in arms])


def _data_settings(arm: Sequence[str]) -> dict[str, Any]:
    """What an arm sets of its data set, of several values the first."""
    given = {key.removeprefix("dataset."): value for key, value in map(_split, arm) if key.startswith("dataset.")}
    return {key: yaml.safe_load(value.split(",")[0]) for key, value in given.items()}


def _arms(lines: Sequence[Any], scale: str) -> tuple[tuple[str, ...], ...]:
    """The arms of one scale; a line that differs between scales stands under their names."""
    own = [line.get(scale) if isinstance(line, Mapping) else line for line in lines]
    arms = [tuple(line.split()) for line in own if line]
    return tuple(_with(arm, "dataset", name) for arm in arms for name in _of("dataset", arm).split(","))


def _chosen(arms: Sequence[tuple[str, ...]], given: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The arms as the user narrowed or changed them.

    A value that some arm has chooses the arms that have it; any other takes the place of what the arms have, and of
    the settings below it, which would not fit.
    """
    for key in sorted(_keys(arms) & set(given)):
        wanted = given[key].split(",")
        having = [(arm, [v for v in _of(key, arm).split(",") if v in wanted]) for arm in arms]
        kept = [_with(arm, key, ",".join(values)) for arm, values in having if values]
        arms = kept or [_without_settings(_with(arm, key, given[key]), key) for arm in arms]
    return list(dict.fromkeys(arms))


def _check_settings(arms: Sequence[Sequence[str]], given: Mapping[str, str]) -> None:
    """Raise where a setting that no arm has is not said to be of which of several methods: not all have the same."""
    of_all = {*_keys(arms), "method.label"}  # what an arm has, or every method
    wanted = next((key for key in given if key.startswith("method.") and key not in of_all), None)
    methods = list(dict.fromkeys(name for arm in arms for name in _of("method", arm).split(",")))
    if wanted is not None and len(methods) > 1 and "method" not in given:
        raise InvalidInput(f"{wanted} is set, but not of which method: add method=NAME, one of {', '.join(methods)}")


def _keys(arms: Sequence[Sequence[str]]) -> set[str]:
    """What the arms set."""
    return {_split(override)[0] for arm in arms for override in arm}


def _of(key: str, arm: Sequence[str]) -> str:
    return dict(map(_split, arm)).get(key, "")


def _with(arm: Sequence[str], key: str, value: str) -> tuple[str, ...]:
    """The arm with this value, where it has one."""
    return tuple(f"{key}={value}" if _split(override)[0] == key else override for override in arm)


def _without_settings(arm: Sequence[str], key: str) -> tuple[str, ...]:
    return tuple(override for override in arm if not _split(override)[0].startswith(f"{key}."))


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _analysis(entry: Any) -> Analysis:
    name, options = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, {})
    return Analysis(str(name), options or {})
