"""Strips of pictures beside and below each other, with label, prediction and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from experiments.analysing import Output
from experiments.describing.members import ranked
from experiments.describing.names import in_a_line
from experiments.drawing import LABEL, drawing
from experiments.finished import FinishedRun
from experiments.reading.images import in_mode
from methods.errors import InvalidInput

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


def slice_strips(run: FinishedRun, n: int, most: int) -> list[Strip]:
    """The strongest members of each of the worst slices; a slice without members has none."""
    word = "spotlight" if run.method.startswith("spotlight") else f"{run.method}, slice"
    strips = []
    for index, members in ranked(run, most):
        loss = f"mean loss {members['loss'].to_numpy(float).mean():.2f}, " if len(members) else ""
        strips.append(Strip(f"{word} {index}: {loss}n={len(members)}", index, members.head(n)))
    return strips


def cells(examples: pd.DataFrame, found: Mapping[str, Image.Image]) -> list[Cell]:
    """The pictures of these examples with label, prediction and loss below them."""
    columns = (examples[name] for name in ("id", "label", "prediction", "loss", "correct"))
    return [
        Cell(found[i], in_a_line(label), in_a_line(prediction), f", {loss:z.2f}", "black" if correct else LABEL)
        for i, label, prediction, loss, correct in zip(*columns, strict=True)
    ]


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
    shown = fitting(text, room, FontProperties(size=size, weight=weight), end)
    axes.text(x, y, shown, size=size, weight=weight, va="center", parse_math=False, **look)


def fitting(text: str, room: float, font: FontProperties, end: str = "") -> str:
    """The text and its end, with an ellipsis between them where it would be wider than so many inches."""
    if _width(text + end, font) <= room:
        return (text + end).removeprefix(", ")
    while text and _width(f"{text}…{end}", font) > room:
        text = text[:-1]
    return f"{text.rstrip()}…{end}"


def _width(text: str, font: FontProperties) -> float:
    """In inches."""
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72
