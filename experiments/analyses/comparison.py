"""Two methods on everything: paired differences where true slices are known, else their worst slices side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from experiments.analyses._scores import (
    IDENTITY,
    Paired,
    check_methods,
    in_words,
    n_refused,
    of_measure,
    paired,
    problem_values,
    together,
)
from experiments.analysing import Output
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun

PROTOCOLS = ("worst_slice", "best_average_precision")
METRICS = {
    ("precision_at_k", 10): "precision_at_10",
    ("f1", None): "f1",
    ("average_precision", None): "average_precision",
}
SETTING = ("dataset", "model", "embedding", "corruption", "split", "kind")
WORST = {
    "worst_mean_loss": "mean loss, nats",
    "worst_loss_gap": "above the rest, nats",
    "worst_accuracy": "accuracy",
    "worst_size": "size, examples",
}
# a dot, and a ring that shows also around it
MARKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "markersize": 5, "linestyle": ""},
    {"marker": "o", "markersize": 9, "linestyle": "", "fillstyle": "none", "markeredgewidth": 1.8},
)


def analyse(runs: Sequence[FinishedRun], out: Output, first: str = "spotlight", second: str = "domino") -> pd.DataFrame:
    """Compare two methods wherever both were run alike: same data, model, embedding, corruption and split.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With and without true slices; those of other methods are left out.
    out : Output
    first, second : str
        Names of methods.

    Returns
    -------
    DataFrame
        With true slices, in groups such as `rare, worst_slice` (kind and protocol): precision_at_10, f1 and
        average_precision of each method on the problems that both have, and precision_at_10_difference,
        f1_difference, average_precision_difference of the method `FIRST - SECOND` with 95% intervals over groups.
        Without, of the slice with the largest mean loss: worst_mean_loss, worst_accuracy, worst_size, and
        worst_loss_gap, by how much its mean loss is above that of the rest.

    Raises
    ------
    InvalidInput
        Where a method has no run at all.

    Notes
    -----
    The comparison that the Spotlight paper (d'Eon et al. 2022, section 5) leaves open.
    """
    check_methods(runs, first, second)
    chosen = [run for run in runs if run.method in (first, second)]
    with_truth = [run for run in chosen if run.scores["protocol"].notna().any()]
    without = [run for run in chosen if run not in with_truth]
    rows = _compare_scores(with_truth, out, first, second) if with_truth else []
    rows += _compare_worst(without, out, first, second) if without else []
    _say_what_was_refused(chosen, out)
    return pd.DataFrame(rows)


def _pairs(table: pd.DataFrame, first: str, second: str) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """A name, and the rows of both methods, for each setting and variant; a side that is missing has no rows."""
    distinct = table[list(SETTING)].drop_duplicates().sort_values(list(SETTING))
    settings = [dict(zip(SETTING, map(str, row), strict=True)) for row in distinct.itertuples(index=False)]
    for setting in settings:
        block = table[(table[list(SETTING)] == list(setting.values())).all(axis=1)]
        sides = [_variants(block[block["method"] == name]) for name in (first, second)]
        for one, other in product(*sides):
            variants = [str(v) for side in (one, other) for v in side["variant"].unique() if v]
            yield ", ".join([_name(setting, settings), *variants]), one, other


def _variants(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [block for _, block in rows.groupby("variant")] or [rows]


def _name(setting: Mapping[str, str], settings: Sequence[Mapping[str, str]]) -> str:
    """Data, corruption and kind, and what else tells this setting from others of the same data."""
    alike = [other for other in settings if other["dataset"] == setting["dataset"]]
    words = [setting["dataset"]]
    words += [setting[name] for name in ("corruption", "kind") if setting[name] not in ("none", "relabel_subclass")]
    varying = (name for name in ("model", "embedding", "split") if len({other[name] for other in alike}) > 1)
    return ", ".join([*words, *(setting[name] for name in varying)])


# With true slices


def _compare_scores(runs: Sequence[FinishedRun], out: Output, first: str, second: str) -> list[dict[str, Any]]:
    values = problem_values(runs, *(metric for metric, _ in METRICS))
    rows, drawn = [], []
    for name, one, other in _pairs(values, first, second):
        if one.empty or other.empty:
            missing, there = (first, second) if one.empty else (second, first)
            out.say(f"{name}: {missing} has no scores (it refused, or was not run), {there} has.")
            continue
        found = {
            (protocol, measure): pair
            for protocol, ((metric, k), measure) in product(PROTOCOLS, METRICS.items())
            if (pair := paired(of_measure(one, protocol, metric, k), of_measure(other, protocol, metric, k)))
        }
        rows += _rows(one.iloc[0], other.iloc[0], found)
        drawn.append((name, found))
    if drawn:
        _say_differences(drawn, out, first, second)
        _draw_differences(drawn, out, first, second)
    return rows


def _rows(one: pd.Series, other: pd.Series, found: Mapping[tuple[str, str], Paired]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for (protocol, measure), pair in found.items():
        common = {"group": f"{one['kind']}, {protocol}", "n": pair.n_problems}
        for side, value in ((one, pair.first), (other, pair.second)):
            rows.append({**side[list(IDENTITY)], **common, "measure": measure, "value": value})
        difference = {"value": pair.difference, "low": pair.low, "high": pair.high}
        rows.append({**together(one, other), **common, "measure": f"{measure}_difference", **difference})
    return rows


Drawn = Sequence[tuple[str, Mapping[tuple[str, str], Paired]]]  # of each setting, by protocol and measure


def _say_differences(drawn: Drawn, out: Output, first: str, second: str) -> None:
    pairs = [pair for _, found in drawn for pair in found.values()]
    above, below = sum(pair.low > 0 for pair in pairs), sum(pair.high < 0 for pair in pairs)
    out.say(
        f"Of {len(pairs)} paired differences (settings, protocols and metrics), {above} have their whole interval in "
        f"favour of {first}, {below} in favour of {second}; {len(pairs) - above - below} cannot be told from 0 (not "
        "corrected for their number)."
    )
    for name, found in drawn:
        for protocol in PROTOCOLS:
            told = [f"{measure} {in_words(pair)}" for (by, measure), pair in found.items() if by == protocol]
            counts = next((f"{p.n_problems} problems, {p.n_groups} groups" for (by, _), p in found.items()), "none")
            if told:
                out.say(f"{name} ({counts}), {protocol}, {first} against {second}: {'; '.join(told)}.")


def _draw_differences(drawn: Drawn, out: Output, first: str, second: str) -> None:
    with drawing(10, 1.2 + 0.42 * len(drawn), columns=len(METRICS), sharey=True, sharex=True) as (figure, panels):
        for axes, measure in zip(panels, METRICS.values(), strict=True):
            for place, protocol in zip((-0.14, 0.14), PROTOCOLS, strict=True):
                _points(
                    axes, [(at + place, found.get((protocol, measure))) for at, (_, found) in enumerate(drawn)], place
                )
            axes.axvline(0, color="black", lw=1)
            axes.set_title("F1" if measure == "f1" else measure.replace("_", " "))
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(range(len(drawn)), [fill(name, 38) for name, _ in drawn])
        panels[0].set_ylim(len(drawn) - 0.5, -0.5)
        figure.supxlabel(
            f"{first} - {second} (to the right {first} is better) with 95% intervals over groups; "
            f"filled: {PROTOCOLS[0]}, hollow: {PROTOCOLS[1]}",
            fontsize=9,
        )
        out.picture(figure, "differences", f"Paired differences {first} - {second} in each setting with true slices.")


def _points(axes: Any, pairs: Sequence[tuple[float, Paired | None]], place: float) -> None:
    for at, pair in pairs:
        if pair is None:
            continue
        axes.plot([pair.low, pair.high], [at, at], color="#333333", lw=1.2)
        shade = "#333333" if place < 0 else "white"
        axes.plot(pair.difference, at, "o", markersize=5, color="#333333", markerfacecolor=shade)


# Without true slices


def _compare_worst(runs: Sequence[FinishedRun], out: Output, first: str, second: str) -> list[dict[str, Any]]:
    rows = [row for run in runs for row in _worst(run)]
    for run in runs:
        if not any(row["run"] == run.folder.name for row in rows):
            out.say(f"{run.identity['dataset']}: {run.method} found no slice with members.")
    if not rows:
        return []
    table = pd.DataFrame(rows).assign(kind="none")
    drawn = [(name, _means(one), _means(other)) for name, one, other in _pairs(table, first, second)]
    _say_who_is_worse(drawn, out, first, second)
    for name, one, other in drawn:
        _say_worst(name, (one, other), out, first, second)
    _draw_worst(drawn, out, first, second)
    return [{name: value for name, value in row.items() if name != "run"} for row in rows]


def _worst(run: FinishedRun) -> list[dict[str, Any]]:
    """Numbers of the slice with the largest mean loss; none where no slice has members."""
    members, losses = run.members(), run.examples["loss"].to_numpy(float)  # (n, s), (n,)
    means = [losses[member].mean() if member.any() else -np.inf for member in members.T]
    if not means or max(means) == -np.inf:
        return []
    index = int(np.argmax(means))
    member, correct = members[:, index], run.examples["correct"].to_numpy(float)
    numbers = {"mean_loss": means[index], "accuracy": correct[member].mean(), "size": member.sum()}
    if not member.all():
        numbers["loss_gap"] = means[index] - losses[~member].mean()
    who = {**run.identity, "run": run.folder.name, "slice": index + 1, "n": int(member.sum())}
    return [{**who, "measure": f"worst_{name}", "value": float(value)} for name, value in numbers.items()]


Numbers = Mapping[str, float]  # by measure; empty where the method has none


def _means(rows: pd.DataFrame) -> Numbers:
    """Over the seeds of a method."""
    return {str(measure): value for measure, value in rows.groupby("measure")["value"].mean().items()}


def _say_worst(name: str, means: Sequence[Numbers], out: Output, first: str, second: str) -> None:
    told = []
    for method, numbers in zip((first, second), means, strict=True):
        if not numbers:
            out.say(f"{name}: {method} has no slices (it refused, or was not run).")
            continue
        gap = f", {numbers['worst_loss_gap']:+.2f} to the rest" if "worst_loss_gap" in numbers else ", all examples"
        told.append(
            f"of {method} mean loss {numbers['worst_mean_loss']:.2f}{gap}, accuracy {numbers['worst_accuracy']:.0%}, "
            f"{numbers['worst_size']:.0f} examples"
        )
    out.say(f"{name}, the worst slice: {'; '.join(told)}.")


def _say_who_is_worse(drawn: Sequence[tuple[str, Numbers, Numbers]], out: Output, first: str, second: str) -> None:
    gaps = [
        (one["worst_loss_gap"], other["worst_loss_gap"])
        for _, one, other in drawn
        if "worst_loss_gap" in one and "worst_loss_gap" in other
    ]
    if gaps:
        larger = sum(one > other for one, other in gaps)
        out.say(
            f"Without true slices, the worst slice of {first} is further above the rest in mean loss than that of "
            f"{second} in {larger} of {len(gaps)} settings (one run each, so without intervals; sizes differ)."
        )


def _draw_worst(drawn: Sequence[tuple[str, Numbers, Numbers]], out: Output, first: str, second: str) -> None:
    with drawing(11, 1.3 + 0.36 * len(drawn), columns=len(WORST), sharey=True) as (figure, panels):
        for axes, (measure, label) in zip(panels, WORST.items(), strict=True):
            for at, (_, *sides) in enumerate(drawn):
                values = [side.get(measure, np.nan) for side in sides]
                axes.plot(values, [at, at], color="#bbbbbb", lw=2.5, zorder=1)
                for value, method, mark in zip(values, (first, second), MARKS, strict=True):
                    axes.plot(value, at, color=colour(method), **mark)
            axes.set_title(label)
            axes.grid(visible=False, axis="y")
        _axes_of_worst(dict(zip(WORST, panels, strict=True)))
        panels[0].set_yticks(range(len(drawn)), [fill(name, 38) for name, *_ in drawn])
        panels[0].set_ylim(len(drawn) - 0.5, -0.5)
        for method, mark in zip((first, second), MARKS, strict=True):
            panels[0].plot([], [], color=colour(method), label=method, **mark)
        figure.legend(loc="outside lower center", ncols=2)
        out.picture(
            figure,
            "worst",
            f"The worst slice of {first} and of {second} in each setting without true slices: its mean loss, how much "
            "that is above the rest, its accuracy and its size.",
        )


def _axes_of_worst(panels: Mapping[str, Any]) -> None:
    for measure in ("worst_mean_loss", "worst_loss_gap"):
        panels[measure].set_xlim(left=min(0, panels[measure].get_xlim()[0]))
    panels["worst_accuracy"].set_xlim(-0.06, 1.06)
    panels["worst_size"].set_xscale("log")
    low, high = panels["worst_size"].get_xlim()
    panels["worst_size"].set_xlim(min(low, 0.7), max(high, 150))  # two powers of ten at least
    panels["worst_size"].xaxis.set_major_formatter("{x:.0f}")


def _say_what_was_refused(runs: Sequence[FinishedRun], out: Output) -> None:
    for run in runs:
        for kind, (refused, total) in n_refused(run).items():
            if refused:
                of = f"{refused} of {total} problems"
                out.say(f"{run.identity['dataset']}, {kind}: {run.method} refused {of}.")
