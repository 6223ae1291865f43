"""The settings of one run, checked at the door: a typo must not cost a training run."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from experiments.files import sha256_of
from experiments.own_code import class_name, located_class, short
from experiments.schema import construct, parameters_of
from methods.contract import InvalidInput
from methods.errors import unknown_name

SplitName = Literal["train", "validation", "test"]
Protocol = Literal["worst_slice", "best_average_precision", "best_auroc", "first"]
OURS = ("methods", "evaluation", "experiments")
EXPERIMENT = "experiment"  # its arms are Hydra's business before a run, its analyses ours after all of them
COMPONENTS = ("dataset", "model", "embedding", "method", "corruption", "tracking")


@dataclass(frozen=True)
class Numbers:
    """What a data set's config says to methods, which interpolate it; no argument of its loader."""

    slice_size: int = field(default=50, metadata={"min": 1})
    n_components: int = field(default=50, metadata={"min": 1})


@dataclass(frozen=True)
class Label:
    """How tables call a method; none of its arguments.

    Parameters
    ----------
    label : str, optional
        For the column `variant`, instead of the settings that differ from the yaml's.
    only_with, otherwise : str, optional
        The embedding that makes this the method of that name, and what it is called with any other.
    """

    label: str | None = None
    only_with: str | None = None
    otherwise: str | None = None


# keys of a config group that are not arguments of its target
BESIDE_THE_TARGET: dict[str, type] = {"dataset": Numbers, "method": Label}


SEED = {"min": 0, "max": 2**32 - 1}  # what numpy and scikit-learn take


@dataclass(frozen=True)
class Seeds:
    """Four seeds, so that sweeping one never repeats the work of another by accident."""

    split: int = field(default=0, metadata=SEED)
    training: int = field(default=0, metadata=SEED)
    corruption: int = field(default=0, metadata=SEED)
    method: int = field(default=0, metadata=SEED)


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and on which splits."""

    fit_split: SplitName = "test"
    score_split: SplitName = "test"
    k: tuple[int, ...] = field(default=(10, 25), metadata={"min": 1, "min_items": 1})
    protocols: tuple[Protocol, ...] = field(
        default=("worst_slice", "best_average_precision", "best_auroc", "first"), metadata={"min_items": 1}
    )
    confidence: float = field(default=0.95, metadata={"above": 0, "below": 1})
    resamples: int = field(default=2000, metadata={"min": 1})
    discovery_precision: float = field(default=0.8, metadata={"above": 0, "below": 1})
    discovery_recall: float = field(default=0.8, metadata={"above": 0, "below": 1})
    opponents: int = field(default=0, metadata={"min": 0})
    opponents_from: SplitName = "train"
    coherence: bool = False
    fit_slices: bool = False


@dataclass(frozen=True)
class Compute:
    """How it is computed; results may depend on it in their last bits only, so no key does."""

    threads: int | None = field(default=None, metadata={"min": 1})
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = field(default=256, metadata={"min": 1})
    workers: int | None = field(default=None, metadata={"min": 0})
    problems_per_part: int = field(default=25, metadata={"min": 1})
    retry_failed: bool = False


@dataclass(frozen=True)
class Inference:
    """In how many shards the model runs over each split; results are the same, so no key depends on it."""

    shards: int = field(default=1, metadata={"min": 1})


@dataclass(frozen=True)
class Paths:
    """Where things lie."""

    data: Path
    cache: Path
    results: Path


@dataclass(frozen=True)
class Scale:
    """At which scale a paper's experiment runs; what follows from it is in other settings, and defines the result."""

    name: str | None = None
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """One replaceable part of a run, as its config describes it.

    Parameters
    ----------
    name : str
        Of its yaml file, followed by the settings that differ from it: what tables show.
    target : str
        Dotted path of its class, or FILE.py:Class without the folders of the file.
    values : mapping
        All its settings, as plain values.
    instance : object
        The class, constructed with those settings.
    """

    name: str
    target: str
    values: Mapping[str, Any]
    instance: Any

    @property
    def is_ours(self) -> bool:
        """Whether the class is a part of this benchmark, and no code of the user's."""
        return ":" not in self.target and self.target.split(".")[0] in OURS

    @property
    def version(self) -> int | str:
        """Raised by whoever changes the results of this component; for code of the user's, with a hash of its file."""
        version = getattr(type(self.instance), "version", 1)
        if self.is_ours:
            return version
        source = inspect.getsourcefile(type(self.instance))
        content = Path(source).read_bytes() if source else b""
        return f"{version} {hashlib.sha256(content).hexdigest()[:12]}"

    @property
    def own_paths(self) -> dict[str, str]:
        """The settings that are paths, as absolute ones: where things lie here, which defines no result."""
        values = {**self.values, **(asdict(self.instance) if is_dataclass(self.instance) else {})}
        defining = self.defining()  # where what lies at a path counts, and not the path
        paths = {
            name: Path(value).expanduser().absolute()
            for name, value in values.items()
            if isinstance(value, Path) or (isinstance(value, str) and value != defining.get(name))
        }
        return {name: str(path) for name, path in paths.items() if isinstance(values[name], Path) or path.exists()}

    def defining(self) -> dict[str, Any]:
        """What defines this part, as json values; a component that reads files says by `identity` what is in them.

        In code of the user's, a setting that names a file counts by what is in the file.
        """
        identity = self.instance.identity() if hasattr(self.instance, "identity") else {}
        files = {} if self.is_ours else _contents(self.values)
        return {"_target_": self.target, **self.values, **files, **identity}


@dataclass(frozen=True)
class Settings:
    """Everything that one run needs to know."""

    dataset: Component
    model: Component
    embedding: Component
    method: Component
    corruption: Component
    tracking: Component
    evaluation: Evaluation
    compute: Compute
    paths: Paths
    seeds: Seeds
    scale: Scale
    variant: str
    inference: Inference = Inference()

    @cached_property
    def explainer(self) -> Any:
        """The influence embedding that explains slices: the methods' own, else the default; None where nobody asks."""
        if not (self.evaluation.opponents or self.evaluation.coherence):
            return None
        from experiments.embeddings.influence import Influence

        return self.embedding.instance if isinstance(self.embedding.instance, Influence) else Influence()

    def defining(self) -> dict[str, Any]:
        """What defines the result, beside data and code: an allow-list, as json values."""
        groups = ("dataset", "model", "embedding", "method", "corruption")
        components = {g: getattr(self, g).defining() for g in groups}
        evaluation = _plain(asdict(self.evaluation))
        for name in ("coherence", "fit_slices"):  # runs that were done before there were such settings keep their keys
            if not evaluation[name]:
                del evaluation[name]
        return {**components, "evaluation": evaluation, "seeds": asdict(self.seeds)}


def check_settings(config: DictConfig) -> Settings:
    """All settings of a composed config; nothing is computed before they are known to fit.

    Raises
    ------
    InvalidInput
        Naming the setting, its value and what is allowed.
    """
    choices = {group: str(HydraConfig.get().runtime.choices[group]) for group in COMPONENTS}
    plain = _resolved(config)
    groups = set(Settings.__dataclass_fields__) - {"variant"}
    unknown = next((name for name in plain if name not in {*groups, EXPERIMENT}), None)
    if unknown is not None:
        raise InvalidInput(unknown_name(f"there is no setting {unknown!r}", unknown, groups))
    changed = _changed(config, plain, choices)
    components = {group: _component(group, choices[group], plain[group], changed[group]) for group in COMPONENTS}
    return Settings(
        **components | {"method": _renamed(components["method"], plain["method"], choices["embedding"])},
        evaluation=construct(Evaluation, plain["evaluation"], "evaluation"),
        compute=construct(Compute, plain["compute"], "compute"),
        paths=_writable(construct(Paths, plain["paths"], "paths")),
        seeds=construct(Seeds, plain["seeds"], "seeds"),
        scale=construct(Scale, plain["scale"], "scale"),
        variant=plain["method"].get("label") or _in_words(changed["method"]),
        inference=construct(Inference, plain.get("inference", {}), "inference"),
    )


def settings_of(overrides: Sequence[str], given: Mapping[str, Any] | None = None) -> Settings:
    """The checked settings of a run with these overrides, for programs that Hydra does not start.

    Parameters
    ----------
    overrides : sequence of str
        In Hydra's syntax.
    given : mapping, optional
        More settings, by their dotted names: plain values that no grammar is asked about, as paths of the user's.

    Raises
    ------
    InvalidInput
        As `check_settings`; what Hydra itself finds wrong comes as its own errors.
    """
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            config.pop("hydra")
        for name, value in (given or {}).items():
            OmegaConf.update(config, name, _literal(value), force_add=True)
        return check_settings(config)


def _literal(value: Any) -> Any:
    """A value in which nothing is an interpolation: a file may be called like one."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, list | tuple):
        return [_literal(entry) for entry in value]
    return {name: _literal(entry) for name, entry in value.items()} if isinstance(value, Mapping) else value


def _resolved(config: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or "the config"
        if isinstance(error, MissingMandatoryValue):
            raise InvalidInput(f"{where} is missing: set it on the command line, {where}=...") from None
        raise InvalidInput(f"{where} cannot be read: {str(error).splitlines()[0]}") from None


def _component(group: str, choice: str, values: dict[str, Any], changed: dict[str, Any]) -> Component:
    if not isinstance(values, Mapping) or "_target_" not in values:
        raise InvalidInput(f"{group}._target_ is missing, expected a class: my_package.MyClass, or FILE.py:MyClass")
    target = str(values["_target_"])
    arguments, beside = _divided(group, values)
    if group in BESIDE_THE_TARGET:
        construct(BESIDE_THE_TARGET[group], beside, group)
    shown = " ".join([class_name(target) if choice == "custom" else choice, _in_words(changed)]).strip()
    if "seed" in arguments:
        raise InvalidInput(
            f"{group}.seed is set by seeds.{SEED_OF.get(group, group)}, which all problems share: set that"
        )
    located = located_class(target, f"{group}._target_", VERBS[group])
    if "seed" in parameters_of(located):
        arguments["seed"] = 0  # a method's is set anew for each problem
    instance = construct(located, arguments, group)
    kept = {n: v for n, v in values.items() if n != "_target_" and n not in Label.__dataclass_fields__}
    name = shown if group != "method" else shown.split(" ")[0]
    return Component(name, short(target), _plain(kept | _given(instance, arguments)), instance)


SEED_OF = {"dataset": "split", "model": "training"}  # where the seed of a group has another name


def _renamed(method: Component, values: Mapping[str, Any], embedding: str) -> Component:
    """The method under the name that it has with this embedding."""
    if values.get("only_with") in (None, embedding):
        return method
    return replace(method, name=values["otherwise"])


# what the pipeline calls of each component
VERBS = {
    "dataset": ("load",),
    "model": ("build",),
    "embedding": ("embed",),
    "method": ("fit", "predict"),
    "corruption": ("problems",),
    "tracking": ("start",),
}


def _given(instance: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a dataclass, also those that the yaml leaves out: a changed default must change the key."""
    values = asdict(instance) if is_dataclass(instance) else arguments
    return {name: value for name, value in values.items() if name != "seed"}


def _divided(group: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = BESIDE_THE_TARGET[group].__dataclass_fields__ if group in BESIDE_THE_TARGET else {}
    beside = {name: value for name, value in values.items() if name in names}
    arguments = {name: value for name, value in values.items() if name not in beside and name != "_target_"}
    return arguments, beside


def _changed(config: DictConfig, plain: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The settings of each component that are not what its yaml says, interpolations resolved alike."""
    ignored = ("_target_", "defaults", *Label.__dataclass_fields__)
    changed, others = {}, config.copy()  # one for all: a copy of each took most of the time of a check
    with open_dict(others):
        for group, choice in choices.items():
            given, written = _flat(plain[group]), _flat(_written(others, group, choice))
            others[group] = config[group]
            changed[group] = {
                n: v for n, v in given.items() if n not in ignored and (n not in written or written[n] != v)
            }
    return changed


def _written(config: DictConfig, group: str, choice: str) -> dict[str, Any]:
    """What the yaml of a component says, which takes its place in the config."""
    # the file alone: composed, its overrides of other groups would find nothing to override
    loaded = GlobalHydra.instance().config_loader().repository.load_config(f"{group}/{choice}")
    config[group] = {} if loaded is None else loaded.config
    try:
        return OmegaConf.to_container(config[group], resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException:
        return {}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def _in_words(values: Mapping[str, Any]) -> str:
    """Of a path only the last name: tables must not be as wide as somebody's disk is deep."""
    short = {n: Path(v).name if isinstance(v, str) and os.sep in v else v for n, v in values.items()}
    return " ".join(f"{name}={value}" for name, value in sorted(short.items()))


def _contents(values: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of every file that a setting names."""
    named = {name: Path(value) for name, value in values.items() if isinstance(value, str)}
    return {name: sha256_of(path) for name, path in named.items() if path.is_file()}


def _plain(value: Any) -> Any:
    """Json values: tuples become lists, paths strings."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _writable(paths: Paths) -> Paths:
    """Folders that are there and can be written to, as absolute paths."""
    for name in ("cache", "results"):
        folder = getattr(paths, name).expanduser().absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InvalidInput(
                f"paths.{name} is {folder}, which cannot be written to ({os.strerror(error.errno or 0)}): "
                f"choose another folder with paths.{name}=DIR"
            ) from None
    return Paths(*(getattr(paths, name).expanduser().absolute() for name in ("data", "cache", "results")))
