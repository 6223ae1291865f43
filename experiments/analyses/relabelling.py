"""Who finds the relabelled subclass: F1, size, precision and recall of a slice, and of the first slices together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from evaluation.comparison import indistinguishable_from_best
from experiments.analyses._measured import ALL
from experiments.analyses._scores import mean_over_groups
from experiments.analysing import Output
from experiments.describing.grouping import grouped, without
from experiments.describing.names import short_titles
from experiments.drawing import OTHER, colour, drawing
from experiments.finished import FinishedRun
from methods.errors import InvalidInput

METRICS = ("f1", "precision", "recall", "average_precision", "precision_at_k")
PANELS = {"f1": "F1", "size": "size in examples", "precision": "precision", "recall": "recall"}
COLUMNS = 4  # panels in a row of the picture of unions

Block = dict[str, tuple[FinishedRun, pd.DataFrame]]  # of one data set and corruption: by its title, a run's problems


def analyse(runs: Sequence[FinishedRun], out: Output, protocol: str = "worst_slice", most: int = 5) -> pd.DataFrame:
    """How well each method finds relabelled subclasses, with pictures for each data set and corruption.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With corruption=relabel_subclass: a problem for each subclass and draw.
    out : Output
    protocol : str
        Which slice is held against the subclass.
    most : int
        That many of the first slices are put together, one after the other.

    Returns
    -------
    DataFrame
        A run's means over problems, with 95% intervals over subclasses: f1, precision, recall, average_precision and
        size (of the slice, in examples) in group `all`, precision_at_k in groups `k=10` ...; without intervals
        median_f1 and n_refused. Of runs with several slices, in groups `1 slices`, `2 slices` ...: union_precision
        and union_recall of all examples in any of them, and union_precision_sd and union_recall_sd over problems.

    Raises
    ------
    InvalidInput
        Where a run has no relabelled subclass, or no scores by this protocol.

    Notes
    -----
    Figures 5 (F1, size), C1 (precision, recall) and C2 (unions) of the Spotlight paper (d'Eon et al. 2022, section
    4.6). A problem with fewer slices than are asked for counts with all that it has.
    """
    problems = {run.folder: _problems(run, protocol, most) for run in runs}
    for (dataset, corruption), name, members in _blocks(runs):
        block = {title: (run, problems[run.folder]) for title, run in zip(short_titles(members), members, strict=True)}
        block = dict(sorted(block.items(), key=lambda item: -item[1][1]["f1"].median()))
        _draw_slices(block, out, f"{dataset}, {corruption}", f"boxes{name}", protocol)
        _draw_unions(block, out, f"{dataset}, {corruption}", f"unions{name}")
        _say(block, out, f"{dataset}, {corruption}", protocol)
    return pd.DataFrame([row for run in runs for row in _rows(run, problems[run.folder])])


def _blocks(runs: Sequence[FinishedRun]) -> Iterator[tuple[tuple[str, str], str, list[FinishedRun]]]:
    """The runs of each data set and corruption, however many draws, and what tells their files from the others."""
    blocks = grouped(runs, lambda run: (run.identity["dataset"], without(run.identity["corruption"], "n_seeds")))
    words = {key: " ".join(key).split() for key in blocks}
    shared = set.intersection(*map(set, words.values())) if words else set()
    for key, members in blocks.items():
        own = [word for word in words[key] if word not in shared]
        yield key, "".join(f"-{re.sub(r'[^A-Za-z0-9_]+', '_', word)}" for word in own)[:100], members


def _problems(run: FinishedRun, protocol: str, most: int) -> pd.DataFrame:
    """A row a problem: group, slice (that was chosen), its metrics and size, and of unions (precision, j) ..."""
    scores, true_slices = run.scores, _true_slices(run)
    own = scores[(scores["protocol"] == protocol) & scores["metric"].isin(METRICS)]
    if own.empty:
        have = ", ".join(scores["protocol"].dropna().unique()) or "none"
        raise InvalidInput(f"{run.folder}: there are no scores by the protocol {protocol!r}, expected one of {have}")
    at = own["k"].map(lambda k: "" if pd.isna(k) else f" k={int(k)}")
    wide = own.assign(measure=own["metric"] + at).pivot(index="problem", columns="measure", values="value")
    table = own.groupby("problem", sort=False).agg(group=("group", "first"), slice=("slice", "first")).join(wide)
    rows: dict[str, dict[Any, float]] = {}
    for problem, members in _members(run):
        if problem in table.index:
            true_slice = true_slices[str(table.at[problem, "group"])]
            sizes = {"size": _size(members, table.at[problem, "slice"]), "true_size": true_slice.sum()}
            rows[problem] = {**sizes, "n_slices": members.shape[1], **_unions(members, true_slice, most)}
    return table.join(pd.DataFrame.from_dict(rows, orient="index"))


def _true_slices(run: FinishedRun) -> dict[str, np.ndarray]:
    """The examples of each subclass, (n,) bool: what `experiments.corruption.RelabelSubclass` relabels."""
    name = run.definition.get("corruption", {}).get("attribute")
    if name is None:
        raise InvalidInput(f"{run.folder}: no subclass was relabelled, expected runs with corruption=relabel_subclass")
    subclass = run.attribute(name).astype(str)
    return {value: (subclass == value).to_numpy(bool) for value in subclass.unique()}


def _members(run: FinishedRun) -> Iterator[tuple[str, np.ndarray]]:
    """Each problem with its hard slices, (n, s) bool; of hundreds of problems nothing else is read, and that once."""
    for path in sorted((run.folder / "parts").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name.endswith("/members"):
                    yield name.removesuffix("/members"), arrays[name]


def _size(members: np.ndarray, code: Any) -> float:
    """How many examples the chosen slice holds; a code below 0 means all that is outside of slice -1 - code."""
    if pd.isna(code):
        return 0.0  # there was no slice to choose
    index = int(code)
    return float(members[:, index].sum() if index >= 0 else (~members[:, -1 - index]).sum())


def _unions(members: np.ndarray, true_slice: np.ndarray, most: int) -> dict[tuple[str, int], float]:
    """Precision and recall of the first slice, the first two, ...; without members 0, as for a single slice."""
    if members.shape[1] == 0:
        members = np.zeros((len(members), 1), dtype=bool)
    unions = np.logical_or.accumulate(members[:, :most], axis=1)  # (n, at most `most`)
    sizes, hits = unions.sum(axis=0), unions[true_slice].sum(axis=0)
    last = len(sizes) - 1
    counted = [(j, hits[min(j - 1, last)], sizes[min(j - 1, last)]) for j in range(1, most + 1)]
    precision = {("precision", j): float(hit / max(size, 1)) for j, hit, size in counted}
    return precision | {("recall", j): float(hit / true_slice.sum()) for j, hit, _ in counted}


def _rows(run: FinishedRun, problems: pd.DataFrame) -> list[dict[str, Any]]:
    """The numbers of one run."""
    n = len(problems)

    def mean(measure: str, group: str, column: Any) -> dict[str, Any]:
        found = mean_over_groups(problems[column], problems["group"])
        return {**run.identity, "measure": measure, "group": group, **found}

    rows = [mean(name, ALL, name) for name in ("f1", "precision", "recall", "average_precision", "size")]
    rows += [mean("precision_at_k", str(c).split(" ")[1], c) for c in problems if str(c).startswith("precision_at_k")]
    plain: list[tuple[str, str, float]] = [("median_f1", ALL, problems["f1"].median())]
    for name, j in _drawn(problems):
        rows.append(mean(f"union_{name}", f"{j} slices", (name, j)))
        plain.append((f"union_{name}_sd", f"{j} slices", problems[(name, j)].std(ddof=0)))
    rows += [{**run.identity, "measure": m, "group": g, "value": v, "n": n} for m, g, v in plain]
    refused = {"measure": "n_refused", "group": ALL, "value": len(run.problems) - n, "n": len(run.problems)}
    return [*rows, {**run.identity, **refused}]


def _drawn(problems: pd.DataFrame) -> list[tuple[str, int]]:
    """The columns of unions that say something: as many slices as any problem has, and more than one."""
    found = int(problems["n_slices"].max())
    return [c for c in problems if isinstance(c, tuple) and c[1] <= found] if found > 1 else []


def _draw_slices(block: Block, out: Output, title: str, name: str, protocol: str) -> None:
    true_size = pd.concat([problems["true_size"] for _, problems in block.values()]).median()
    with drawing(11, 1.3 + 0.3 * len(block), columns=len(PANELS), sharey=True) as (figure, panels):
        for axes, (measure, label) in zip(panels, PANELS.items(), strict=True):
            _boxes(axes, block, measure)
            axes.set_title(label)
        panels[1].axvline(true_size, color="black", lw=1, ls=":")
        panels[1].set_xscale("symlog", linthresh=1)  # an empty slice has a place too
        panels[1].xaxis.set_major_formatter("{x:.0f}")
        panels[1].set_xlim(-0.2, 10 ** np.ceil(np.log10(1 + max(p["size"].max() for _, p in block.values()))))
        panels[0].set_yticks(range(len(block)), [fill(label, 40) for label in _with_counts(block)])
        panels[0].invert_yaxis()
        figure.suptitle(f"{title}: {_counts(block)}", x=0.01, ha="left", fontsize=10)
        figure.supxlabel(
            f"box: half of the problems, its line: the median; dotted: size of the subclass, {true_size:.0f}",
            fontsize=9,
        )
        caption = (
            f"{title}: F1, size, precision and recall of the slice chosen by {protocol}, over {_counts(block)}; the "
            "highest median F1 is at the top, the dotted line is the median size of the relabelled subclasses."
        )
        out.picture(figure, name, caption)


def _with_counts(block: Block) -> list[str]:
    """The titles of the runs, with the number of their problems where it is smaller than others'."""
    most = max(len(problems) for _, problems in block.values())
    return [f"{label} ({len(p)})" if len(p) < most else label for label, (_, p) in block.items()]


def _boxes(axes: Any, block: Block, measure: str) -> None:
    drawn = axes.boxplot(
        [problems[measure] for _, problems in block.values()],
        positions=range(len(block)),
        orientation="horizontal",
        widths=0.65,
        patch_artist=True,
        whiskerprops={"zorder": 1},
        medianprops={"color": "black", "linewidth": 1.2},
        flierprops={"marker": ".", "markersize": 4, "markeredgewidth": 0, "markerfacecolor": OTHER, "alpha": 0.6},
    )
    for box, (run, _) in zip(drawn["boxes"], block.values(), strict=True):
        box.set(facecolor=colour(run.method), edgecolor=colour(run.method), linewidth=3)  # seen where it has no width
    axes.grid(visible=False, axis="y")
    if measure != "size":
        axes.set_xlim(-0.03, 1.03)


def _draw_unions(block: Block, out: Output, title: str, name: str) -> None:
    several = {label: (run, problems) for label, (run, problems) in block.items() if _drawn(problems)}
    if not several:
        return
    rows = -(-len(several) // COLUMNS)
    with drawing(9, 0.9 + 1.45 * rows, rows, COLUMNS, sharex=True, sharey=True) as (figure, panels):
        for axes, (label, (run, problems)) in zip(panels, several.items(), strict=False):
            _union(axes, problems, colour(run.method))
            axes.set_title(fill(label, 28), fontsize=9)
        for axes in panels[len(several) :]:
            axes.set_visible(False)
        for axes in panels[max(len(several) - COLUMNS, 0) : len(several)]:
            axes.tick_params(labelbottom=True)
        panels[0].set_ylim(-0.03, 1.03)
        figure.suptitle(f"{title}: {_counts(block)}", x=0.01, ha="left", fontsize=10)
        figure.supxlabel(
            "number of slices taken together; solid: precision, dashed: recall; band: one standard deviation",
            fontsize=9,
        )
        caption = (
            f"{title}: precision (solid) and recall (dashed) of the first slices taken together, mean over "
            f"{_counts(block)} with a band of one standard deviation."
        )
        out.picture(figure, name, caption)


def _union(axes: Any, problems: pd.DataFrame, shade: str) -> None:
    for name, style in (("precision", "-"), ("recall", "--")):
        at = [j for other, j in _drawn(problems) if other == name]
        values = np.stack([problems[(name, j)] for j in at])  # (j, p)
        mean, deviation = values.mean(axis=1), values.std(axis=1)
        axes.plot(at, mean, style, marker="o", markersize=3, color=shade)
        axes.fill_between(at, mean - deviation, mean + deviation, color=shade, alpha=0.2, lw=0)
    axes.set_xticks(at)


def _counts(block: Block) -> str:
    met = pd.concat([problems["group"] for _, problems in block.values()])
    return f"{met.index.nunique()} problems of {met.nunique()} subclasses"


def _say(block: Block, out: Output, title: str, protocol: str) -> None:
    """What the pictures of a data set and corruption show."""
    of_groups = pd.DataFrame({label: p.groupby("group")["f1"].mean() for label, (_, p) in block.items()})
    best = indistinguishable_from_best({label: of_groups[label].to_numpy() for label in block})
    problems = block[best.name][1]
    of_best = mean_over_groups(problems["f1"], problems["group"])
    alike = f"not told apart from it: {', '.join(best.indistinguishable) or 'none'}"
    medians = ", ".join(f"{label} {p['f1'].median():.2f}" for label, (_, p) in block.items())
    out.say(
        f"{title} ({_counts(block)}, {protocol}): the highest mean F1 is that of {best.name}, {of_best['value']:.2f} "
        f"(95% interval {of_best['low']:.2f} to {of_best['high']:.2f}); {alike}. Median F1: {medians}."
    )
    changes = [f"{label} {_change(p)}" for label, (_, p) in block.items() if _drawn(p)]
    if changes:
        out.say(f"{title}, the first slice alone, then several together: {'; '.join(changes)}.")
    for label, (run, p) in block.items():
        if len(run.problems) > len(p):
            out.say(f"{title}: {label} refused {len(run.problems) - len(p)} of {len(run.problems)} problems.")


def _change(problems: pd.DataFrame) -> str:
    """How precision and recall change from one slice to the most that were taken together."""
    last = max(j for _, j in _drawn(problems))
    means = {c: problems[c].mean() for c in ((name, j) for name in ("precision", "recall") for j in (1, last))}
    told = [f"{name} {means[name, 1]:.2f} to {means[name, last]:.2f}" for name in ("precision", "recall")]
    return f"{' and '.join(told)} with {last} slices"
