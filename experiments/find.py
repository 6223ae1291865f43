"""Slices in a user's own predictions, in one command: `slicebench find FILE`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments.console import console, say
from experiments.contract import SPLITS, Dataset, Split
from experiments.describing.problems import FoundProblem
from experiments.errors import explanation
from experiments.find_results import RUNS, Found, print_found, refuse_others, show_json, write_found
from experiments.finished import FinishedRun
from experiments.listing import items
from experiments.loaders.predictions import Predictions
from experiments.loading import check_dataset
from experiments.reading.outputs_file import ENDINGS, GivenOutputs, read_outputs
from experiments.run import run_on
from experiments.schema import construct
from experiments.settings import Seeds, Settings, settings_of
from methods.errors import InvalidInput, Unsupported, unknown_name

LARGE = 10_000_000  # bytes of a file that take seconds to read
HELD_OUT = 0.5  # share of the examples, where nothing else is said
OF_IMAGES, OF_OTHERS = 0.02, 0.05  # size of a slice, as a share of the examples: d'Eon et al. (2022), section 4.1
LEAST, MOST = 20, 0.1  # of such a size: examples, and a share of them
EXAMPLES_A_COMPONENT, MOST_COMPONENTS = 20, 50
# settings of methods, and what of the data set they are
BY_NUMBER = {"size": "slice_size", "n_components": "n_components", "n_clusters": "n_components"}
CUSTOM = "custom"  # the config of a class of the user's
WHY = "a group that was chosen because its errors are many has fewer in new examples"
TAKE_ANY_FILE = ("ball", "gmm", "highest_loss", "kmeans", "random", "ridge", "spotlight")  # losses will do
OF_A_METHOD = {"domino": {"start": "confusion_or_kmeans"}}  # settings with which more files will do
MOST_OF_A_METHOD = {"domino": 25}  # components, as its config has it: of few examples that is too many
OF_INFLUENCE = ("infembed", "infembed_rule")  # by what training examples do to others
# methods that put an example into a slice by its label or its loss, too
SEE_ERRORS = ("confusion", "domino", "highest_loss", *OF_INFLUENCE)
KEY = r"[A-Za-z_]\w*(\.\w+)*"
# what a message says of settings, and what they are called here
WORDS = {
    r"^method\._target_": "--method",
    r"^method has ": "{method} has ",
    r"^method\.(?=\w)": "",
    r"^dataset\.held_out\b": "--held-out",
    r"^seeds\.\w+": "--seed",
    r"\bpaths\.cache=DIR and paths\.results=DIR": "--output DIR",
    r"^paths\.cache is ": "the cache is ",
    r"\bpaths\.cache=": "SLICEBENCH_CACHE=",
    r"^paths\.results is ": "--output is ",
    r"\bpaths\.results=": "--output ",
    r"\bclass_names=\[\.\.\.\]": "--classes NAME,NAME",
    r"\bclass_names=\[(.*)\]": r"--classes '\1'",
    r"\bclass_names\b": "--classes",
    r", or try a smaller compute\.batch_size": ", or a smaller file",
}


@dataclass(frozen=True)
class Order:
    """What somebody asks for.

    Parameters
    ----------
    file : Path
        With a model's outputs, as `experiments.reading.outputs_file.read_outputs` takes it.
    settings : sequence of str
        KEY=VALUE, of the method.
    method : str
        A name, or a class of the user's: my_package.MyMethod, path/to/file.py:MyMethod.
    output : Path, optional
        The folder of the results; by default called like the file, in the working directory.
    held_out : float, in [0, 1), optional
        The share of the examples in which slices are checked, and not sought.
    classes : str, optional
        Their names in the order of the columns of logits, with commas between them.
    seed : int
        Of the division into halves, and of whatever the method draws.
    """

    file: Path
    settings: Sequence[str] = ()
    method: str = "spotlight"
    output: Path | None = None
    held_out: float | None = None
    classes: str | None = None
    seed: int = 0

    @property
    def folder(self) -> Path:
        return self.output or Path(f"{self.file.stem}-slices")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return None if self.classes is None else tuple(name.strip() for name in self.classes.split(","))


@dataclass(frozen=True)
class Halves:
    """Where slices are sought and where they are checked: splits of the data set, maybe one and the same.

    Parameters
    ----------
    fit, score : {"train", "validation", "test"}
    drawn : bool
        Whether they were drawn at random, and not said by the file.
    """

    fit: str
    score: str
    drawn: bool


def show_slices(order: Order, as_json: bool, report: bool, import_path: Sequence[Path] = ()) -> None:
    """Find slices, write them down, and print what there is to say of them."""
    sys.path += [folder for folder in map(str, (f.resolve() for f in import_path)) if folder not in sys.path]
    with _in_words_of_find(order.method):
        found = find(order)
        files = write_found(found, report)
    (show_json if as_json else print_found)(found, files)


def find(order: Order) -> Found:
    """Let a method find slices in a file, unless the same was done before.

    Raises
    ------
    InvalidInput
        Whatever is wrong with the file, the settings or the folder of the results; `Unsupported` where the method
        cannot work with this file.
    """
    _check_file(order.file)
    loader = construct(Predictions, {"path": order.file, "held_out": _share(order)}, "dataset")
    construct(Seeds, {"split": order.seed}, "seeds")
    overrides, given = _overrides(order), _given(order)
    refuse_others(order.folder, order.file)
    with _no_empty_folders(order.folder):
        if order.file.stat().st_size > LARGE:
            settings_of(overrides, given)  # what is wrong in them is said before the file is read
        content = _read(order)
        loader = replace(loader, class_names=order.class_names, held_out=_share(order, content))
        dataset = loader.dataset(content, order.seed)
        dataset = replace(dataset, notes=tuple(_worded(note, order.method) for note in dataset.notes))
        halves = _halves(dataset, drawn=content.splits is None)
        overrides += [f"dataset.held_out={loader.held_out}", *_of_halves(halves, order.method, dataset)]
        settings = settings_of([*overrides, *_of_size(dataset.split(halves.fit), order.method)], given)
        _tell(settings, given, dataset, halves)
        folder = run_on(settings, check_dataset(settings, dataset))
    return Found(order.file, order.folder, settings, FoundProblem(FinishedRun.read(folder), "all"))


@contextmanager
def _in_words_of_find(method: str) -> Iterator[None]:
    """Explain what goes wrong to somebody who knows neither of runs nor of their settings."""
    try:
        yield
    except Exception as error:
        reason = explanation(error)
        if reason is None:
            raise
        reason = _worded(reason, method)
        if isinstance(error, Unsupported) and method not in TAKE_ANY_FILE:
            reason += f"; with any file work {', '.join(TAKE_ANY_FILE)} (--method NAME)"
        raise InvalidInput(reason) from error


def _worded(text: str, method: str) -> str:
    for pattern, words in WORDS.items():
        text = re.sub(pattern, words.replace("{method}", method.replace("\\", r"\\")), text)
    return text


def _check_file(file: Path) -> None:
    if file.is_file():
        return
    folder = file if file.is_dir() else file.parent
    names = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    expected = f"expected a file with a model's outputs ({', '.join(ENDINGS)})"
    if file.is_dir():
        raise InvalidInput(f"{file} is a folder, {expected}; it holds {', '.join(names[:5]) or 'none'}")
    missing = f"{file} is missing, {expected}"
    raise InvalidInput(unknown_name(missing, file.name, names) if names else missing)


def _overrides(order: Order) -> list[str]:
    """What is known before the file is read."""
    return [
        *("dataset=predictions", "tracking=none", f"method={_config(order.method)}"),
        *(f"dataset.held_out={_share(order)}", f"seeds.split={order.seed}", f"seeds.method={order.seed}"),
    ]


def _config(method: str) -> str:
    """The name of a method's config."""
    names = [item["name"] for item in items("methods")]
    if method in names or {".", ":", os.sep} & set(method):
        return method if method in names else CUSTOM
    problem = unknown_name(f"no method is called {method!r}", method, names)
    raise InvalidInput(f"{problem}; one of your own: my_package.MyMethod, or FILE.py:MyMethod")


def _given(order: Order) -> dict[str, Any]:
    """The user's own names and values, which the grammar of overrides is not asked about."""
    given = {"dataset.path": str(order.file), "paths.results": str(order.folder / RUNS)}
    own = {**OF_A_METHOD.get(order.method, {}), **_settings_of_the_method(order)}
    if _config(order.method) == CUSTOM:
        own["_target_"] = order.method
    return {**given, "dataset.class_names": order.class_names, **{f"method.{key}": v for key, v in own.items()}}


def _settings_of_the_method(order: Order) -> dict[str, Any]:
    """Settings by their names; values are read as YAML, so that lists, numbers and null may be written."""
    given: dict[str, Any] = {}
    for setting in order.settings:
        key, equals, value = setting.partition("=")
        key = key.strip().removeprefix("method.")
        if not equals or not re.fullmatch(KEY, key):
            raise InvalidInput(f"{setting!r} is no setting of a method, expected KEY=VALUE, as size=30")
        if key == "seed":
            raise InvalidInput("the seed is set by --seed")
        try:
            given[key] = _plain(yaml.safe_load(value))
        except yaml.YAMLError:
            given[key] = value
    return given


def _plain(value: Any) -> Any:
    """What json knows; a date is a text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def _no_empty_folders(folder: Path) -> Iterator[None]:
    """Leave no new folder behind where nothing could be done."""
    was_there = folder.exists()
    try:
        yield
    finally:
        for path in (folder / RUNS, *([] if was_there else [folder])):
            with suppress(OSError):  # there is something in it
                path.rmdir()


def _read(order: Order) -> GivenOutputs:
    with console.status(f"reading {order.file.name}"):
        return read_outputs(order.file, order.class_names)


def _share(order: Order, content: GivenOutputs | None = None) -> float:
    """The share of the examples that is held out; none where the file says itself which are."""
    if content is None or content.splits is None:
        return _drawn_share(order, None if content is None else len(content.ids))
    if order.held_out is not None:
        raise InvalidInput(
            f"{order.file} has a column `split`, which says where slices are sought and where they are checked: leave "
            "out --held-out, or the column"
        )
    return 0.0


def _drawn_share(order: Order, n: int | None) -> float:
    share = HELD_OUT if order.held_out is None else order.held_out
    if n is not None and share and not 0 < int((1 - share) * n) < n:
        held_out = "1 example" if n == 1 else f"{n:,} examples"
        raise InvalidInput(f"{order.file} has {held_out}, too few to hold out {share:g} of them: take --held-out 0")
    return share


def _halves(dataset: Dataset, drawn: bool) -> Halves:
    """Sought is in validation examples before those that the model was trained on."""
    fit = next(name for name in ("validation", "train", "test") if name in dataset.splits)
    score = next(name for name in ("test", "validation", fit) if name in dataset.splits)
    if fit == score and "train" in dataset.splits:  # there is no test split
        fit = "train"
    return Halves(fit, score, drawn)


def _of_halves(halves: Halves, method: str, dataset: Dataset) -> list[str]:
    """Overrides."""
    own = [f"evaluation.fit_split={halves.fit}", f"evaluation.score_split={halves.score}"]
    own += [f"evaluation.fit_slices={str(halves.fit != halves.score).lower()}"]
    if method not in OF_INFLUENCE:
        return own
    hessian = "train" if "train" in dataset.splits else halves.fit
    say(
        "influence embeddings are over the final linear layer, their Hessian from the "
        f"{dataset.split(hessian).n_examples:,} {_called(hessian, halves)}"
    )
    return [*own, f"embedding.hessian_split={hessian}"]


def _called(split: str, halves: Halves) -> str:
    return "examples in which slices are sought" if split == halves.fit else f"{split} examples"


def _of_size(split: Split, method: str) -> list[str]:
    """Overrides: how large slices are, and of how many clusters, for methods that ask for it."""
    size, components = numbers_for(split.n_examples, with_images=split.paths is not None)
    own = [f"dataset.slice_size={size}", f"dataset.n_components={components}"]
    most = MOST_OF_A_METHOD.get(method)
    return own if most is None else [*own, f"method.n_components={min(components, most)}"]


def numbers_for(n: int, with_images: bool) -> tuple[int, int]:
    """The size of slices among n examples, and a number of clusters.

    Examples
    --------
    >>> numbers_for(284, with_images=False), numbers_for(25_000, with_images=True), numbers_for(3, with_images=False)
    ((20, 14), (500, 50), (1, 2))
    """
    size = max(round((OF_IMAGES if with_images else OF_OTHERS) * n), LEAST)
    components = max(min(n // EXAMPLES_A_COMPONENT, MOST_COMPONENTS), 2)
    return max(min(size, int(MOST * n)), 1), min(components, n)


def _tell(settings: Settings, given: Mapping[str, Any], dataset: Dataset, halves: Halves) -> None:
    """What was chosen for the user, and what to make of it."""
    sizes = {name: split.n_examples for name, split in dataset.splits.items()}
    left = [name for name in SPLITS if name in sizes and name not in (halves.fit, halves.score)]
    unused = f"; the {left[0]} split is left out" if left else ""
    say(f"slices are {_places(sizes, halves)}{unused}: {WHY}")
    method = settings.method
    if method.name in SEE_ERRORS and halves.fit != halves.score:
        say(f"{method.name} goes by labels or losses, also of the examples held out: their errors prove less")
    names = [name for name in BY_NUMBER if name in method.values and f"method.{name}" not in given]
    chosen = [f"{name}={method.values[name]}" for name in names if _is_chosen(settings, name)]
    if chosen:
        takes = f"{chosen[0].partition('=')[0]}=N takes another"
        say(f"{method.name}: {', '.join(chosen)}, by the number of examples ({takes})")


def _places(sizes: Mapping[str, int], halves: Halves) -> str:
    n_fit, n_score = sizes[halves.fit], sizes[halves.score]
    if halves.fit == halves.score:
        return f"sought and shown in the same {n_fit:,} examples"
    if halves.drawn:
        n = n_fit + n_score
        return f"sought in {n_fit:,} of the {n:,} examples, drawn at random, and checked in the other {n_score:,}"
    return (
        f"sought in the {halves.fit} split ({n_fit:,} examples) and checked in the {halves.score} split ({n_score:,})"
    )


def _is_chosen(settings: Settings, name: str) -> bool:
    """Whether a method has this setting from its number of examples."""
    most = MOST_OF_A_METHOD.get(settings.method.name, sys.maxsize)
    return bool(settings.method.values[name] == min(settings.dataset.values[BY_NUMBER[name]], most))
