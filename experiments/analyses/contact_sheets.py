"""Pictures of the strongest members of each slice, beside random ones, with label, prediction and loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from experiments.analyses._data import pictures
from experiments.analysing import COLUMNS, Output
from experiments.drawing import LABEL, drawing
from experiments.finished import FinishedRun, titles
from experiments.reading.images import in_mode
from methods.errors import InvalidInput

SEED = 0  # of the random examples: the same beside all runs of a data set
PIXELS, COLOURS = 91, 24  # of a picture: as many as a png shows, and few enough for small files
# inches: a picture, from one to the next, a line of text below it, a title, the space between strips
SIDE, STEP, LINE, TITLE, SPACE = 0.7, 0.78, 0.12, 0.2, 0.3
SMALL, LARGE = 6.5, 8.0  # points: of what stands below a picture, of titles


class Strip(NamedTuple):
    """Examples of one kind: those of a slice, or random ones.

    Parameters
    ----------
    title : str
    slice : int, optional
        From 1.
    examples : DataFrame
        Rows of `examples.parquet`.
    """

    title: str
    slice: int | None
    examples: pd.DataFrame


class Cell(NamedTuple):
    """A picture and the two lines below it; what the second one ends with is never shortened."""

    picture: Image.Image
    first: str
    second: str
    end: str = ""
    colour: str = "black"


def analyse(
    runs: Sequence[FinishedRun], out: Output, n: int = 8, most: int = 5, random_sample: bool = True
) -> pd.DataFrame:
    """One picture a run, and a table of the examples in all of them.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Where examples are no pictures, or the data are not here, a sentence says so.
    out : Output
    n : int
        Examples of a slice: the strongest members, among equal ones those of the highest loss.
    most : int
        Slices that are drawn, the worst first.
    random_sample : bool
        Whether n examples drawn from the whole split come first.

    Returns
    -------
    DataFrame
        Without rows: a picture has no numbers.

    Notes
    -----
    After the Spotlight paper, figures 2 and 3.
    """
    if n < 1 or most < 0:
        raise InvalidInput(f"n is {n} and most is {most}, expected at least 1 picture and no negative number of slices")
    tables, names = [], titles(list(runs))
    for run, name, file in zip(runs, names, file_names(names), strict=True):
        strips = [random_strip(run, n)] * random_sample + slice_strips(run, n, most)
        if not strips:
            out.say(f"{name}: there is no slice to draw.")
            continue
        try:
            found = pictures(run, run.identity["split"], pd.concat([strip.examples["id"] for strip in strips]))
        except InvalidInput as error:
            say_why(run, error, out)
            continue
        caption = f"{name}: label, prediction (red where it is wrong) and loss in nats of the strongest members."
        draw([[(strip.title, cells(strip.examples, found))] for strip in strips], n, out, file, caption, run.dataset)
        tables += [_table(name, strip) for strip in strips]
    if tables:
        out.table(pd.concat(tables), "examples", "What the pictures show.")
    return pd.DataFrame(columns=list(COLUMNS))


def random_strip(run: FinishedRun, n: int) -> Strip:
    """Examples drawn from the whole split, in order of their ids."""
    examples = run.examples
    rows = np.random.default_rng(SEED).choice(len(examples), min(n, len(examples)), replace=False)
    title = f"random examples of the split: mean loss {examples['loss'].mean():.2f}, n={len(examples)}"
    return Strip(title, None, examples.iloc[np.sort(rows)])


def slice_strips(run: FinishedRun, n: int, most: int) -> list[Strip]:
    """The strongest members of each of the worst slices; a slice without members has none."""
    slices, examples = run.slices(), run.examples
    losses = examples["loss"].to_numpy(float)
    word = "spotlight" if run.method.startswith("spotlight") else f"{run.method}, slice"
    strips = []
    for index, (member, strength) in enumerate(zip(slices.members.T[:most], slices.membership.T, strict=False), 1):
        rows = np.flatnonzero(member.numpy())
        order = np.lexsort((-losses[rows], -strength.numpy()[rows]))
        loss = f"mean loss {losses[rows].mean():.2f}, " if len(rows) else ""
        strips.append(Strip(f"{word} {index}: {loss}n={len(rows)}", index, examples.iloc[rows[order[:n]]]))
    return strips


def cells(examples: pd.DataFrame, found: Mapping[str, Image.Image]) -> list[Cell]:
    """The pictures of these examples with label, prediction and loss below them."""
    columns = (examples[name] for name in ("id", "label", "prediction", "loss", "correct"))
    return [
        Cell(found[i], words(label), words(prediction), f", {loss:z.2f}", "black" if correct else LABEL)
        for i, label, prediction, loss, correct in zip(*columns, strict=True)
    ]


def words(value: Any) -> str:
    """A class name in one line; nothing where there is none."""
    return "" if value is None or pd.isna(value) else " ".join(str(value).split())


def file_names(names: Sequence[str]) -> list[str]:
    """What files of runs with these titles are called, each differently."""
    plain = [re.sub(r"[^\w.=]+", "-", name).strip("-")[:60] for name in names]
    return [f"{name}-{plain[:at].count(name) + 1}" if name in plain[:at] else name for at, name in enumerate(plain)]


def say_why(run: FinishedRun, error: InvalidInput, out: Output) -> None:
    """Why there are no pictures of a run: once for all runs of a data set."""
    sentence = f"Pictures of {run.dataset} are not drawn: {str(error).rstrip('.')}."
    if sentence not in out.sentences:
        out.say(sentence)


def draw(
    rows: Sequence[Sequence[tuple[str, Sequence[Cell]]]], n: int, out: Output, name: str, caption: str, shows: str
) -> None:
    """Strips of at most n pictures, each with its title above it, in rows of as many strips."""
    beside = max(map(len, rows))
    width, height = max(beside * (n * STEP + SPACE), 4), len(rows) * (TITLE + SIDE + 2 * LINE + SPACE / 2)
    with drawing(width, height) as (figure, (axes,)):
        axes.set_position((0, 0, 1, 1))  # what follows is in inches from the upper left corner
        for at, row in enumerate(rows):
            for column, (title, of_strip) in enumerate(row):
                left, top = column * (n * STEP + SPACE) + SPACE / 2, height * at / len(rows)
                _write(axes, left, top + TITLE / 2, title, width / beside - SPACE, LARGE, weight="bold")
                for index, cell in enumerate(of_strip):
                    _draw_cell(axes, cell, left + index * STEP, top + TITLE)
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        out.picture(figure, name, caption, shows)


def _draw_cell(axes: Axes, cell: Cell, left: float, top: float) -> None:
    picture = in_mode(cell.picture, "RGB").copy()
    picture.thumbnail((PIXELS, PIXELS))
    picture = picture.quantize(COLOURS, dither=Image.Dither.NONE).convert("RGB")
    wide, tall = (SIDE * side / max(picture.size) for side in picture.size)
    x, y = left + (SIDE - wide) / 2, top + (SIDE - tall) / 2
    axes.imshow(np.asarray(picture), extent=(x, x + wide, y + tall, y), interpolation="none")
    _write(axes, left, top + SIDE + LINE * 0.6, cell.first, SIDE, SMALL)
    _write(axes, left, top + SIDE + LINE * 1.6, cell.second, SIDE, SMALL, cell.end, color=cell.colour)


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    room: float,
    size: float,
    end: str = "",
    weight: str = "normal",
    **look: Any,
) -> None:
    fitting = shortened(text, room, FontProperties(size=size, weight=weight), end)
    axes.text(x, y, fitting, size=size, weight=weight, va="center", parse_math=False, **look)


def shortened(text: str, room: float, font: FontProperties, end: str = "") -> str:
    """The text and its end, with an ellipsis between them where it would be wider than so many inches."""
    if _width(text + end, font) <= room:
        return (text + end).removeprefix(", ")
    while text and _width(f"{text}…{end}", font) > room:
        text = text[:-1]
    return f"{text.rstrip()}…{end}"


def _width(text: str, font: FontProperties) -> float:
    """In inches."""
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _table(name: str, strip: Strip) -> pd.DataFrame:
    shown = strip.examples[["id", "label", "prediction", "loss"]]
    return shown.assign(run=name, slice=strip.slice or "random")[["run", "slice", *shown]]
