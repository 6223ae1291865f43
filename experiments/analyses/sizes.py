"""How the loss of a spotlight depends on its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.analyses._axes import percent_axis
from experiments.analyses._measured import ALL, SPOTLIGHT
from experiments.analysing import Output
from experiments.describing.grouping import grouped, without
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun
from methods.errors import InvalidInput

LOSSES = ("average_loss", "mean_loss", "highest_possible_loss")

Curve = tuple[str, ...]


def analyse(runs: Sequence[FinishedRun], out: Output, slice: int = 1) -> pd.DataFrame:
    """Losses of a spotlight by its size, and how much of it was in the next smaller one.

    Figure D1 of d'Eon et al. (2022).

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each; those of `spotlight` count, which differ in `dataset.slice_size`.
    out : Output
    slice : int, >= 1
        Which spotlight of each run.

    Returns
    -------
    DataFrame
        With the group `size 0.1%` (S as a share of the split): average_loss, the mean under the spotlight's weights;
        mean_loss, that of its members; highest_possible_loss, the mean of the S highest losses, which no weights of
        at most 1 with a total of S can exceed (all in nats); overlap, the members shared with the next smaller size as
        a share of those in either. A spotlight that was missed has only the highest possible loss. And mean_loss of
        the whole split (group `all`).
    """
    curves = grouped([run for run in runs if run.method == SPOTLIGHT], _curve)
    if not curves:
        raise InvalidInput(f"none of the {len(runs)} runs is of the method {SPOTLIGHT}, which sizes are compared of")
    of_curves = {
        " ".join(filter(None, curve)) if len(curves) > 1 else curve[0]: _points(of_one, slice)
        for curve, of_one in curves.items()
    }
    for name, points in of_curves.items():
        _say(name, points, slice, out)
    _draw(of_curves, slice, out)
    return pd.DataFrame([row for points in of_curves.values() for row in _rows(points, slice)])


def _curve(run: FinishedRun) -> Curve:
    """What the runs of one curve have in common: their names without sizes, the data set first."""
    return tuple(without(name, "slice_size", "size") for name in run.identity.values())


def _points(runs: Sequence[FinishedRun], slice: int) -> pd.DataFrame:
    """A row for each size, ascending: what was measured, and of which run."""
    points = pd.DataFrame([_point(run, slice) for run in runs]).sort_values("size", ignore_index=True)
    before = [None, *points["members"]]
    overlaps = [_overlap(one, other) for one, other in zip(points["members"], before, strict=False)]
    return points.assign(overlap=overlaps, group=_groups(points["share"]))


def _point(run: FinishedRun, slice: int) -> dict[str, Any]:
    found, examples = run.slices(), run.examples
    if not 1 <= slice <= found.n_slices:
        raise InvalidInput(f"slice is {slice}, expected 1 to {found.n_slices}, the spotlights of {run.folder}")
    losses, size = examples["loss"].to_numpy(float), _size(run, found.diagnostics[slice - 1])
    weights, member = found.membership[:, slice - 1].double().numpy(), found.members[:, slice - 1].numpy()  # (n,)
    return {
        "identity": run.identity,
        "whole": losses.mean(),
        "n": len(losses),
        "size": size,
        "share": 100 * size / len(losses),
        "members": frozenset(examples["id"][member]),
        "average_loss": weights @ losses / weights.sum() if weights.any() else np.nan,
        "mean_loss": losses[member].mean() if member.any() else np.nan,
        "highest_possible_loss": np.sort(losses)[-size:].mean(),
        "missed": bool(found.diagnostics[slice - 1].get("missed", False)),
    }


def _size(run: FinishedRun, diagnostics: Mapping[str, Any]) -> int:
    """S: what was chosen among candidates, where the settings gave several."""
    return int(diagnostics["size"] if "size" in diagnostics else run.definition["method"]["size"])


def _overlap(members: frozenset[str], others: frozenset[str] | None) -> float:
    return len(members & others) / len(members | others) if members and others else np.nan


def _groups(shares: pd.Series) -> list[str]:
    """`size 0.1%`, with as many digits as tell the sizes apart."""
    texts = ([f"size {share:.{digits}g}%" for share in shares] for digits in range(2, 9))
    return next((names for names in texts if len(set(names)) == len(set(shares))), [f"size {s}%" for s in shares])


def _rows(points: pd.DataFrame, slice: int) -> list[dict[str, Any]]:
    first = points.iloc[0]
    rows = [{**first["identity"], "group": ALL, "measure": "mean_loss", "value": first["whole"], "n": first["n"]}]
    for _, point in points.iterrows():
        of_size = {**point["identity"], "group": point["group"]}
        highest = {"measure": "highest_possible_loss", "value": point["highest_possible_loss"], "n": point["size"]}
        measured = point[["average_loss", "mean_loss", "overlap"]].dropna()
        rows += [
            {**of_size, "slice": slice, "measure": measure, "value": value, "n": len(point["members"])}
            for measure, value in measured.items()
        ]
        rows.append({**of_size, **highest})
    return rows


def _say(name: str, points: pd.DataFrame, slice: int, out: Output) -> None:
    shown = points.dropna(subset="average_loss")
    if len(shown):
        losses = ", ".join(
            f"{loss:.3g} at {group.removeprefix('size ')}"
            for loss, group in zip(shown["average_loss"], shown["group"], strict=True)
        )
        out.say(
            f"{name}: the average loss of spotlight {slice}, under its weights, is {losses} of the split; that of the "
            f"whole split is {points['whole'].iloc[0]:.3g}."
        )
    missed = [group.removeprefix("size ") for group in points.loc[points["missed"], "group"]]
    if missed:
        out.say(
            f"{name}: spotlight {slice} was missed at {', '.join(missed)}: its total weight fell below its size, and "
            "it comes back empty."
        )


def _draw(curves: Mapping[str, pd.DataFrame], slice: int, out: Output) -> None:
    with drawing(5.2, 0.9 + 2.7 * len(curves), len(curves)) as (figure, all_axes):
        for (name, points), axes in zip(curves.items(), all_axes, strict=True):
            _draw_curve(axes, points)
            axes.set_title(name)
        all_axes[-1].set_xlabel("size in % of the split")
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        caption = f"Loss of spotlight {slice} by its size; where it was missed, there is no point."
        out.picture(figure, "losses", caption)


def _draw_curve(axes: Axes, points: pd.DataFrame) -> None:
    percent_axis(axes, list(points["share"]))
    own = colour(SPOTLIGHT)
    styles: tuple[dict[str, Any], ...] = (
        {"color": own, "marker": "o", "ms": 5, "label": "spotlight (mean under its weights)"},
        {"color": own, "marker": "s", "ms": 4, "ls": "--", "lw": 1, "alpha": 0.6, "label": "its members"},
        {"color": "#9e9e9e", "lw": 0.8, "label": "as many highest losses"},
    )
    for measure, style in zip(LOSSES, styles, strict=True):
        axes.plot(points["share"], points[measure], **style)
    axes.axhline(points["whole"].iloc[0], color="black", lw=1, ls=":", label="whole split")
    axes.set_ylim(bottom=min(0, points["whole"].min()))
    axes.set_ylabel("mean loss in nats")
