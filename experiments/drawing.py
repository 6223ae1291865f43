"""How pictures look: one style, one colour for each method, png and svg."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed, or asked for
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from experiments.files import write_atomically

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 130,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "slicebench",  # the same numbers give the same file
    "svg.fonttype": "none",
}
# one colour for each method in all pictures, told apart also by who sees few colours (after Okabe and Ito)
COLOURS = {
    "spotlight": "#d55e00",
    "infembed": "#0072b2",
    "infembed_rule": "#56b4e9",
    "domino": "#009e73",
    "george": "#cc79a7",
    "gmm": "#e69f00",
    "kmeans": "#7a6fb0",
    "planespot": "#8c564b",
    "ball": "#b8860b",
    "ridge": "#4d7c3a",
    "confusion": "#17a2b8",
    "highest_loss": "#333333",
    "random": "#9e9e9e",
}
OTHER = "#5f6b6d"
LABEL, PREDICTION = "#c0392b", "#2c6fbb"  # red labels, blue predictions, as in the InfEmbed paper


def colour(method: str) -> str:
    """The colour of a method, by the first word of its name."""
    return COLOURS.get(method.split(" ")[0], OTHER)


@contextmanager
def drawing(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: object
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of so many inches and its axes, row by row; closed afterwards."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options
        )
        try:
            yield figure, list(axes.flat)
        finally:
            plt.close(figure)


def save(figure: Figure, path: Path, few_colours: bool = False) -> None:
    """Write PATH.png, of 256 colours where these are enough, and PATH.svg; the same picture gives the same bytes."""
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], metadata=metadata)
        data = _smaller(content) if few_colours and suffix == ".png" else content.getvalue()
        write_atomically(path.with_name(path.name + suffix), lambda file, data=data: file.write(data))


def _smaller(png: io.BytesIO) -> bytes:
    """The picture with 256 colours: of photographs a third of the bytes."""
    content = io.BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()
