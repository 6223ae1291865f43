"""What a suite is made of, as its config says it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import conf
from experiments.contract import Dataset, Split
from experiments.keys import key_of
from experiments.schema import construct
from experiments.suites.frozen import Frozen
from experiments.suites.manipulation import MANIPULATIONS
from experiments.suites.planting import Planted
from methods.contract import InvalidInput
from methods.errors import unknown_name

FOLDER = Path(conf.__path__[0]) / "suite"
LONGEST = 120  # characters of a problem's name
PLAIN = re.compile(r"[a-z0-9][a-z0-9._]*( [a-z0-9._]+|-[0-9]+)*")  # what a name keeps, spaces as hyphens
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
        if not self.kinds:
            raise InvalidInput(f"kinds is empty, expected some of {', '.join(MANIPULATIONS)} with their strengths")
        for kind, strengths in self.kinds.items():
            if kind not in MANIPULATIONS:
                raise InvalidInput(unknown_name(f"no kind of problem is called {kind!r}", kind, MANIPULATIONS))
            if not strengths or not all(math.isfinite(strength) for strength in strengths):
                raise InvalidInput(f"kinds.{kind} is {list(strengths)}, expected strengths: finite numbers")

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
        """Such as `faces-rare-female-age-0-2-0.01-seed-0`: a file name everywhere.

        Where that does not say everything (capitals, other signs, too long), some digits of the recipe's key follow.
        """
        named = (self.block, self.kind, self.class_name, self.attribute, self.value)
        text = "-".join((*named, f"{self.strength:g}", f"seed-{self.seed}"))
        plain = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.")
        if len(plain) <= LONGEST and all(PLAIN.fullmatch(part) for part in named):
            return plain
        return f"{plain[:LONGEST]}-{key_of(self.defining())[:6]}"

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
        content = yaml.load(path.read_text(), Loader=_Loader)  # a safe one
    except InvalidInput as error:
        raise InvalidInput(f"{path} {error}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping) or not content:
        raise InvalidInput(f"{path} has no blocks, expected names with overrides, slices and kinds")
    return path.stem, {str(block): _block(values, f"{path}: {block}") for block, values in content.items()}


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice, of which plain YAML drops the first without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidInput(f"has {twice!r} twice, below line {node.start_mark.line + 1}: remove one of them")
        return super().construct_mapping(node, deep)


def _block(values: Any, said: str) -> Block:
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{said} is {values!r}, expected overrides, slices and kinds")
    return construct(Block, values, said)


def attribute_values(split: Split, attribute: str) -> np.ndarray:
    """The values of an attribute as texts, shape (n,); None where there is none."""
    column = split.attributes[attribute]
    return np.array(
        [None if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)], dtype=object
    )


def _chosen(choice: SliceChoice, dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Pairs of class and value."""
    split = dataset.split("train")
    if split.labels is None:
        raise InvalidInput(f"{dataset.name} has no labels, which slice problems are about: choose another data set")
    if choice.attribute not in split.attributes:
        have = ", ".join(split.attributes) or "none"
        raise InvalidInput(f"{dataset.name} has no attribute {choice.attribute!r} beside labels: it has {have}")
    values_of = attribute_values(split, choice.attribute)
    everything = {value for value in values_of if value is not None}
    unknown = next((value for value in choice.values or () if value not in everything), None)
    if unknown is not None:
        message = f"no training example of {dataset.name} has {choice.attribute} {unknown!r}"
        raise InvalidInput(unknown_name(message, unknown, everything))
    for class_name in choice.classes or dataset.class_names:
        if class_name not in dataset.class_names:
            message = f"{dataset.name} has no class {class_name!r}"
            raise InvalidInput(unknown_name(message, class_name, dataset.class_names))
        inside = (split.labels == dataset.class_names.index(class_name)).numpy()
        there = sorted(set(values_of[inside]) - {None})
        yield from ((class_name, value) for value in choice.values or there)
