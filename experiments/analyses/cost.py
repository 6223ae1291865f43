"""Seconds that finding a slice took."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter

from experiments.analyses._measured import ALL
from experiments.analysing import Output
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun, titles
from experiments.published import published

MEASURES = ("seconds", "seconds_total", "n_slices", "steps")


def analyse(runs: Sequence[FinishedRun], out: Output, most: int = 30) -> pd.DataFrame:
    """Seconds a slice of each run, beside what the paper reports.

    Section 4 of d'Eon et al. (2022). Only the search for slices counts, fitting and predicting: training the model and
    making embeddings come before it, and are not in these seconds.

    Parameters
    ----------
    runs : sequence of FinishedRun
    out : Output
    most : int
        Runs that are drawn, the slowest; all of them are counted.

    Returns
    -------
    DataFrame
        Measures (group `all`) seconds, of the search divided by the slices found, none where there are none;
        seconds_total, of the search; n_slices, over all problems; steps, where the method has that setting. `n`
        examples were searched. A run that did not note its seconds has no rows.
    """
    costs = [_cost(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    noted = pd.DataFrame(costs).dropna(subset="seconds_total")
    for _, of_one in noted.dropna(subset="seconds").groupby(["method", "machine"], sort=False):
        out.say(_sentence(of_one))
    for _, cost in noted[noted["n_sessions"] > 1].iterrows():
        out.say(f"{cost['name']}: taken up again, its seconds are those of {cost['n_sessions']} sessions together.")
    if noted["seconds"].gt(0).any():
        _draw(noted[noted["seconds"] > 0], out, most)
    rows = noted.melt(["identity", "n"], MEASURES, var_name="measure")
    return pd.DataFrame([{**row.pop("identity"), "group": ALL, **row} for row in rows.dropna().to_dict("records")])


def _cost(run: FinishedRun, name: str) -> dict[str, Any]:
    scores = run.scores
    n_slices = int(scores.loc[scores["metric"] == "n_slices", "value"].sum())  # a refused problem has no such row
    total = run.content["seconds"].get("discover", np.nan)
    return {
        "identity": run.identity,
        "name": name,
        "dataset": run.identity["dataset"],
        "method": run.method,
        "machine": _machine(run),
        "n_sessions": len(run.content.get("sessions", ())),
        "n": len(run.examples),
        "seconds": total / n_slices if n_slices else np.nan,
        "seconds_total": total,
        "n_slices": n_slices,
        "steps": run.definition.get("method", {}).get("steps", np.nan),
    }


def _machine(run: FinishedRun) -> str:
    device, threads = (run.content.get(name, "unknown") for name in ("device", "threads"))
    return f"device {device}, threads {threads}"


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """Data set and method, and whatever else it takes to tell the runs apart."""
    short = [f"{run.identity['dataset']}, {run.method}" for run in runs]
    return short if len(set(short)) == len(short) else titles(list(runs))


def _sentence(costs: pd.DataFrame) -> str:
    steps = ", ".join(f"{int(steps):,}" for steps in sorted(costs["steps"].dropna().unique()))
    names = costs["dataset"] if costs["dataset"].is_unique else costs["name"]
    taken = ", ".join(f"{seconds:.3g} s on {name}" for seconds, name in zip(costs["seconds"], names, strict=True))
    how = ", ".join(filter(None, [costs["method"].iloc[0], steps and f"{steps} steps", costs["machine"].iloc[0]]))
    n_below = (costs["seconds"] < _published()).sum()
    return f"{how}: a slice took {taken}; {n_below} of {len(costs)} below {_published():g} s."


def _published() -> float:
    """Seconds a spotlight that the paper says it stayed below, on one V100."""
    return float(published()["spotlight/cost"]["seconds"]["value"])


def _draw(costs: pd.DataFrame, out: Output, most: int) -> None:
    shown = costs.loc[costs["seconds"].nlargest(most).index.sort_values()]
    seconds, limit = shown["seconds"].to_numpy(float), _published()
    names = [fill(name, 40) for name in shown["name"]]
    n_lines = sum(1 + name.count("\n") for name in names)
    with drawing(6.4, 0.9 + 0.15 * (len(names) + n_lines)) as (figure, (axes,)):
        axes.barh(names, seconds, height=0.7, color=[colour(method) for method in shown["method"]])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(10 ** np.floor(np.log10(seconds.min()) - 0.1), 3 * max(limit, seconds.max()))
        axes.axvline(limit, color="black", lw=1, ls="--")
        above: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{limit:g} s on one V100 (paper)", (limit, 1), (0, 5), **above)
        for position, value in enumerate(seconds):  # in a column of their own, where no line crosses them
            axes.text(1.02, position, f"{value:.3g} s", transform=axes.get_yaxis_transform(), va="center")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds a slice, embeddings not counted")
        out.picture(figure, "seconds", "Seconds a slice of each run; the dashed line is what the paper stayed below.")
