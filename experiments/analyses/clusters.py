"""Size against mean loss of every slice: do spotlights lie above the clusters of a Gaussian mixture?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.analyses._axes import percent_axis
from experiments.analyses._measured import ALL, SPOTLIGHT
from experiments.analysing import Output
from experiments.describing.grouping import grouped, without
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun

MIXTURE = "gmm"
Panel = tuple[str, ...]


def analyse(runs: Sequence[FinishedRun], out: Output) -> pd.DataFrame:
    """Sizes and mean losses of all slices, and how many clusters of the mixture lie above the first spotlight.

    Figure B1 of d'Eon et al. (2022). The mixture should have kept all its clusters: `n_slices` as large as
    `n_components`, and a `min_size` of 1.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Of each data set, the first run of `spotlight` is compared with all of `gmm`.
    out : Output

    Returns
    -------
    DataFrame
        Measures size and mean_loss (nats; none where a slice is empty) a slice, mean_loss (group `all`) a run; for
        each run of the mixture clusters_above_first_spotlight, those of higher mean loss, and clusters_above_smaller,
        those of them with fewer members than the spotlight: `n` clusters have any members.
    """
    panels = grouped(runs, _panel)
    points = {run.folder: _points(run) for run in runs}
    names = _panel_names(list(panels))
    frames = [_of_run(run, points[run.folder]) for run in runs]
    frames += [_compare(name, of_one, points, out) for name, of_one in zip(names, panels.values(), strict=True)]
    _draw(dict(zip(names, panels.values(), strict=True)), points, out)
    return pd.concat(frames, ignore_index=True)


def _panel(run: FinishedRun) -> Panel:
    """What runs have in common that are drawn together; sizes and numbers of clusters are the methods' business."""
    dataset = without(run.identity["dataset"], "slice_size", "n_components")
    return (dataset, *(run.identity[name] for name in ("model", "embedding", "corruption", "split")))


def _points(run: FinishedRun) -> pd.DataFrame:
    """A row for each slice: size, share in %, mean_loss (not a number where it is empty)."""
    members, losses = run.members(), run.examples["loss"].to_numpy(float)  # (n, s), (n,)
    sizes = members.sum(axis=0)  # (s,)
    mean_losses = np.where(sizes, losses @ members / np.maximum(sizes, 1), np.nan)
    table = {"slice": np.arange(1, len(sizes) + 1), "size": sizes, "share": 100 * sizes / len(members)}
    return pd.DataFrame({**table, "mean_loss": mean_losses})


def _of_run(run: FinishedRun, points: pd.DataFrame) -> pd.DataFrame:
    losses = run.examples["loss"].to_numpy(float)
    whole = {"group": ALL, "measure": "mean_loss", "value": losses.mean(), "n": len(losses)}
    rows = [
        {"slice": point["slice"], "measure": measure, "value": point[measure], "n": point["size"]}
        for point in points.to_dict("records")
        for measure in ("size", "mean_loss")
    ]
    return pd.DataFrame([whole, *rows]).dropna(subset="value").assign(**run.identity)


def _compare(name: str, runs: Sequence[FinishedRun], points: Mapping[Path, pd.DataFrame], out: Output) -> pd.DataFrame:
    """Each mixture of a panel against its first spotlight."""
    spotlight = next((points[run.folder] for run in runs if run.method == SPOTLIGHT), pd.DataFrame())
    mixtures = [run for run in runs if run.method == MIXTURE]
    if not mixtures or spotlight.empty:
        return pd.DataFrame()
    first, rows = spotlight.iloc[0], []
    if not first["size"]:
        out.say(f"{name}: the first spotlight has no members, so no cluster is compared with it.")
        return pd.DataFrame()
    for run in mixtures:
        clusters = points[run.folder].dropna(subset="mean_loss")
        if clusters.empty:
            out.say(f"{name}: the mixture has no cluster with members, so none is compared with the first spotlight.")
            continue
        above = clusters[clusters["mean_loss"] > first["mean_loss"]]
        n_smaller = int((above["size"] < first["size"]).sum())
        counted = {"clusters_above_first_spotlight": len(above), "clusters_above_smaller": n_smaller}
        rows += [
            {**run.identity, "group": ALL, "measure": measure, "value": count, "n": len(clusters)}
            for measure, count in counted.items()
        ]
        out.say(_sentence(f"{name} {run.identity['variant']}".strip(), first, clusters, len(above), n_smaller))
    return pd.DataFrame(rows)


def _sentence(name: str, first: pd.Series, clusters: pd.DataFrame, n_above: int, n_smaller: int) -> str:
    spotlight = f"the first spotlight (mean loss {first['mean_loss']:.3g}, {int(first['size']):,} examples)"
    worst = clusters.nlargest(1, "mean_loss").iloc[0]
    highest = f"the highest has {worst['mean_loss']:.3g}, {int(worst['size']):,} examples"
    if not n_above:
        return f"{name}: {spotlight} lies above every one of the {len(clusters)} clusters of the mixture; {highest}."
    return (
        f"{name}: {n_above} of {len(clusters)} clusters of the mixture lie above {spotlight}, {n_smaller} of them are "
        f"smaller than it; {highest}."
    )


def _panel_names(panels: Sequence[Panel]) -> list[str]:
    """The data set's name, and the rest where one data set has several panels."""
    datasets = [panel[0] for panel in panels]
    return [" ".join(panel) if datasets.count(panel[0]) > 1 else panel[0] for panel in panels]


def _draw(panels: Mapping[str, Sequence[FinishedRun]], points: Mapping[Path, pd.DataFrame], out: Output) -> None:
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    methods = dict.fromkeys(run.method for runs in panels.values() for run in runs)
    with drawing(max(4.2, 3.2 * columns), 0.8 + 2.6 * rows, rows, columns) as (figure, all_axes):
        for (name, runs), axes in zip(panels.items(), all_axes, strict=False):
            _draw_panel(axes, runs, points)
            axes.set_title(fill(name, 32))
            axes.set_xlabel("size in % of the split")
        for axes in all_axes[len(panels) :]:
            axes.set_visible(False)
        for axes in all_axes[::columns]:
            axes.set_ylabel("mean loss in nats")
        figure.legend(handles=_legend(list(methods)), loc="outside lower center", ncols=2 * columns)
        caption = "Size against mean loss of every slice; the star is the first spotlight, dotted the whole split."
        out.picture(figure, "sizes", caption)


def _draw_panel(axes: Axes, runs: Sequence[FinishedRun], points: Mapping[Path, pd.DataFrame]) -> None:
    shown = {run.folder: points[run.folder].dropna(subset="mean_loss") for run in runs}
    percent_axis(axes, [share for one in shown.values() for share in one["share"]])
    axes.margins(y=0.1)  # for the star
    for run in runs:
        one, above_others = shown[run.folder], 3 if run.method == SPOTLIGHT else 2
        axes.scatter(one["share"], one["mean_loss"], s=20, alpha=0.8, color=colour(run.method), zorder=above_others)
        axes.axhline(run.examples["loss"].mean(), color="black", lw=1, ls=":", zorder=1)
        if run.method == SPOTLIGHT:
            first = one[one["slice"] == 1]
            star: dict[str, Any] = {
                "s": 170,
                "color": colour(run.method),
                "edgecolor": "black",
                "linewidth": 0.7,
                "zorder": 4,
            }
            axes.scatter(first["share"], first["mean_loss"], marker="*", **star)


def _legend(methods: Sequence[str]) -> list[Line2D]:
    dots = [Line2D([], [], marker="o", ls="", ms=5, color=colour(method), label=method) for method in methods]
    star: dict[str, Any] = {
        "marker": "*",
        "ms": 12,
        "color": colour(SPOTLIGHT),
        "markeredgecolor": "black",
        "label": "first spotlight",
    }
    stars = [Line2D([], [], ls="", **star)] if SPOTLIGHT in methods else []
    return [*dots, *stars, Line2D([], [], color="black", lw=1, ls=":", label="whole split")]
