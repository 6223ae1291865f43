"""What a suite is made of, as its config says it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

import conf
from experiments.contract import Dataset
from experiments.schema import construct
from experiments.suites.frozen import Frozen
from experiments.suites.manipulation import MANIPULATIONS
from experiments.suites.planting import Planted
from methods.contract import InvalidInput
from methods.errors import unknown_name

FOLDER = Path(conf.__path__[0]) / "suite"
SEED = {"min": 0, "max": 2**32 - 1}


@dataclass(frozen=True)
class SliceChoice:
    """Slices: values of an attribute, within classes.

    Parameters
    ----------
    attribute : str
    classes : tuple of str, optional
        All where they are left out.
    values : tuple of str, optional
        All that occur in the class where they are left out.
    """

    attribute: str
    classes: tuple[str, ...] | None = field(default=None, metadata={"min_items": 1})
    values: tuple[str, ...] | None = field(default=None, metadata={"min_items": 1})


@dataclass(frozen=True)
class Block:
    """Problems of one model on one data set: kinds x strengths x slices x seeds.

    Parameters
    ----------
    overrides : tuple of str
        As on the command line of `slicebench run`: dataset, model and their settings.
    slices : tuple of SliceChoice
    kinds : mapping from {"rare", "correlation", "noisy_label"} to tuple of float
        The strengths of each: the slice's share of its class, the coefficient of correlation, the probability of a
        wrong label.
    seeds : tuple of int
        Of the manipulation and of the training.
    planted : Planted, optional
        An artefact that is planted first: the attribute `planted`.
    frozen : Frozen, optional
        The network whose features the model is trained on, instead of the images.
    least : int
        Members that a true slice must have in the validation and in the test split.
    """

    overrides: tuple[str, ...]
    slices: tuple[SliceChoice, ...] = field(metadata={"min_items": 1})
    kinds: dict[str, tuple[float, ...]]
    seeds: tuple[int, ...] = field(default=(0,), metadata={**SEED, "min_items": 1})
    planted: Planted | None = None
    frozen: Frozen | None = None
    least: int = field(default=20, metadata={"min": 1})

    def __post_init__(self) -> None:
        unknown = next((kind for kind in self.kinds if kind not in MANIPULATIONS), None)
        if unknown is not None or not self.kinds:
            raise InvalidInput(unknown_name(f"no kind of problem is called {unknown!r}", str(unknown), MANIPULATIONS))

    def recipes(self, name: str, dataset: Dataset) -> Iterator[Recipe]:
        """Its problems, in order.

        Raises
        ------
        InvalidInput
            Where the data have no such class, attribute or value.
        """
        for kind, strengths in self.kinds.items():
            for choice in self.slices:
                for class_name, value in _chosen(choice, dataset):
                    for strength, seed in product(strengths, self.seeds):
                        yield Recipe(name, kind, class_name, choice.attribute, value, float(strength), seed)


@dataclass(frozen=True)
class Recipe:
    """One problem of a suite.

    Parameters
    ----------
    block : str
    kind : {"rare", "correlation", "noisy_label"}
    class_name, attribute, value : str
        The slice: examples of this class whose attribute has this value.
    strength : float
    seed : int
    """

    block: str
    kind: str
    class_name: str
    attribute: str
    value: str
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """Such as `faces-rare-female-age-0-2-0.01-seed-0`: a file name everywhere."""
        parts = (self.block, self.kind, self.class_name, self.attribute, self.value, f"{self.strength:g}")
        return re.sub(r"[^a-z0-9._]+", "-", "-".join((*parts, f"seed-{self.seed}")).lower()).strip("-.")

    def defining(self) -> dict[str, Any]:
        """As json values."""
        return asdict(self)


def read_suite(name: str) -> tuple[str, dict[str, Block]]:
    """The name of a suite, and its blocks by name.

    Parameters
    ----------
    name : str
        Of a file in `conf/suite`, or the path of a yaml file.

    Raises
    ------
    InvalidInput
        Where there is no such suite, or it holds something else; naming the setting, and what is allowed.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise InvalidInput(unknown_name(f"no suite is called {name!r}, and no yaml file is at {path}", name, known))
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping) or not content:
        raise InvalidInput(f"{path} has no blocks, expected names with overrides, slices and kinds")
    return path.stem, {str(block): _block(values, f"{path}: {block}") for block, values in content.items()}


def _block(values: Any, said: str) -> Block:
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{said} is {values!r}, expected overrides, slices and kinds")
    return construct(Block, values, said)


def _chosen(choice: SliceChoice, dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Pairs of class and value."""
    split = dataset.split("train")
    if choice.attribute not in split.attributes or split.labels is None:
        have = ", ".join(split.attributes) or "none"
        raise InvalidInput(f"{dataset.name} has no attribute {choice.attribute!r} beside labels: it has {have}")
    values_of = split.attributes[choice.attribute].astype(str)
    for class_name in choice.classes or dataset.class_names:
        if class_name not in dataset.class_names:
            message = f"{dataset.name} has no class {class_name!r}"
            raise InvalidInput(unknown_name(message, class_name, dataset.class_names))
        inside = (split.labels == dataset.class_names.index(class_name)).numpy()
        there = sorted(values_of[inside].unique())
        unknown = next((value for value in choice.values or () if value not in set(values_of)), None)
        if unknown is not None:
            message = f"no training example of {dataset.name} has {choice.attribute} {unknown!r}"
            raise InvalidInput(unknown_name(message, unknown, set(values_of)))
        yield from ((class_name, value) for value in choice.values or there)
