"""Size, mean loss, accuracy and gap of every slice, beside those of the whole split."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.analyses._measured import ALL
from experiments.analysing import Output
from experiments.describing.grouping import grouped
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun, titles

MEASURED = ("slice", "group", "measure", "value", "n")
PANEL = ("dataset", "model", "corruption", "split")  # what runs share that stand in one panel


def analyse(runs: Sequence[FinishedRun], out: Output, most: int = 10) -> pd.DataFrame:
    """Numbers of each slice and of the whole split; a picture of the mean losses.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each.
    out : Output
    most : int
        Slices of a run that are drawn; all of them are counted.

    Returns
    -------
    DataFrame
        Measures size, share, mean_loss, accuracy, objective (of spotlights, in nats; the paper's equation 5) a slice;
        mean_loss, accuracy and n_slices (group `all`) a run.
    """
    numbers = pd.DataFrame([row for run in runs for row in _of_run(run)], columns=[*runs[0].identity, *MEASURED])
    _draw(runs, numbers, out, most)
    return numbers


def _of_run(run: FinishedRun) -> list[dict[str, Any]]:
    slices, examples = run.slices(), run.examples
    members, losses = slices.members.numpy(), examples["loss"].to_numpy(float)  # (n, s), (n,)
    correct = examples["correct"].to_numpy(bool)
    whole = {"mean_loss": losses.mean(), "accuracy": correct.mean(), "n_slices": members.shape[1]}
    rows = [{**run.identity, "group": ALL, "measure": m, "value": v, "n": len(losses)} for m, v in whole.items()]
    for index, (member, diagnostics) in enumerate(zip(members.T, slices.diagnostics, strict=True), start=1):
        measured = {"size": member.sum(), "share": member.mean()}
        if member.any():
            measured |= {"mean_loss": losses[member].mean(), "accuracy": correct[member].mean()}
        measured |= {name: diagnostics[name] for name in ("objective", "size_ratio") if name in diagnostics}
        rows += [
            {**run.identity, "slice": index, "measure": m, "value": v, "n": int(member.sum())}
            for m, v in measured.items()
        ]
    return rows


def _draw(runs: Sequence[FinishedRun], numbers: pd.DataFrame, out: Output, most: int) -> None:
    """A panel for each data set, a bar for each slice."""
    losses = numbers[numbers["measure"] == "mean_loss"]
    panels = grouped(runs, lambda run: tuple(run.identity[name] for name in PANEL))
    heights = [sum(min(most, run.slices().n_slices) + 0.7 for run in of_panel) for of_panel in panels.values()]
    options: dict[str, Any] = {"gridspec_kw": {"height_ratios": heights}}
    with drawing(6.4, 0.4 + 0.6 * len(panels) + 0.24 * sum(heights), rows=len(panels), **options) as (figure, all_axes):
        for axes, (setting, of_panel) in zip(all_axes, panels.items(), strict=True):
            _draw_panel(axes, of_panel, losses, most)
            axes.set_title(fill(f"{setting[0]}, {setting[-1]} split", 42))
        all_axes[-1].set_xlabel("mean loss in nats; dotted: of the whole split")
        out.picture(figure, "losses", "Mean loss of each slice; the dotted line is that of the whole split.")


def _draw_panel(axes: Axes, runs: Sequence[FinishedRun], losses: pd.DataFrame, most: int) -> None:
    position, ticks = 0.0, []
    for run, name in zip(runs, titles(list(runs)), strict=True):
        own = losses[(losses[list(run.identity)] == list(run.identity.values())).all(axis=1)]
        of_slices = own.dropna(subset="slice").head(most)
        at = np.arange(len(of_slices)) + position
        axes.barh(at, of_slices["value"], height=0.75, color=colour(run.method))
        ticks += [
            (a, f"{name}, slice {int(s)} (n={n})")
            for a, s, n in zip(at, of_slices["slice"], of_slices["n"], strict=True)
        ]
        position += len(at) + 0.7
    axes.axvline(losses.loc[_is_whole(losses, runs[0]), "value"].iloc[0], color="black", lw=1, ls=":")
    axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    axes.set_ylim(max(position - 0.9, 0.6), -0.6)
    axes.grid(visible=False, axis="y")


def _is_whole(losses: pd.DataFrame, run: FinishedRun) -> pd.Series:
    return (losses["group"] == ALL) & (losses[list(run.identity)] == list(run.identity.values())).all(axis=1)
