"""A map of a split's embeddings with the slices on it."""

from __future__ import annotations

import io

import numpy as np

from experiments.describing.problems import FoundIn
from experiments.drawing import drawing

# told apart also by who sees few colours (after Okabe and Ito), and by their shapes
LOOKS = (
    ("#d55e00", "o"),
    ("#0072b2", "^"),
    ("#009e73", "s"),
    ("#cc79a7", "D"),
    ("#b8860b", "v"),
    ("#56b4e9", "P"),
)
DPI = 150


def map_picture(found: FoundIn) -> bytes | None:
    """A png: all examples in grey, wrong ones darker, members of slices in colour; None where all are at one place."""
    places = found.examples[["map_x", "map_y"]].to_numpy(float)  # (n, 2)
    if not np.isfinite(places).all() or np.ptp(places, axis=0).max() == 0:
        return None
    correct = found.examples["correct"].to_numpy(bool)
    size, slice_size = (float(np.clip(many / len(places), 3, most)) for many, most in ((4_000, 16), (50_000, 30)))
    with drawing(5.2, 4.4) as (figure, (axes,)):
        for chosen, shade, name in ((correct, "#bdbdbd", "right"), (~correct, "#4d4d4d", "wrong")):
            axes.scatter(*places[chosen].T, s=size, c=shade, lw=0, label=name)
        for index, (member, (shade, shape)) in enumerate(zip(found.members.T, LOOKS, strict=False), start=1):
            look = {
                "s": slice_size,
                "facecolors": "none",
                "edgecolors": shade,
                "marker": shape,
                "lw": 0.7,
                "alpha": 0.85,
            }
            axes.scatter(*places[member].T, label=f"slice {index}", **look)
        axes.set(xticks=[], yticks=[], xlabel="first principal component", ylabel="second")
        axes.grid(visible=False)
        figure.legend(loc="outside lower center", ncols=4, markerscale=1.6)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()
