"""Precision at 10 of each method in each cell: a suite of slice problems and a kind of slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from evaluation.comparison import BestMethod, indistinguishable_from_best
from experiments.analyses._scores import (
    IDENTITY,
    Paired,
    check_methods,
    in_words,
    mean_over_groups,
    n_refused,
    of_measure,
    paired,
    problem_values,
    together,
)
from experiments.analysing import Output
from experiments.describing.names import short_titles
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun
from methods.errors import InvalidInput

METRIC = "precision_at_k"
SUITES = {"natural_images": "natural", "medical_images": "medical", "time_series": "series"}  # as measures call them
KINDS = ("rare", "correlation", "noisy_label")  # as the paper orders them
ALPHA = 0.05
FEWEST_GROUPS = 6  # with fewer no p-value of `evaluation.comparison` is at most ALPHA

Cell = tuple[str, str]  # suite, kind
Compared = tuple[dict[str, str], dict[str, str], Paired | None]  # what two methods are called, and how they compare


def analyse(
    runs: Sequence[FinishedRun],
    out: Output,
    protocol: str = "best_average_precision",
    k: int = 10,
    first: str = "infembed",
    second: str = "domino",
) -> pd.DataFrame:
    """Precision at k of all methods, and the paired difference of two of them, cell by cell.

    Parameters
    ----------
    runs : sequence of FinishedRun
        Over suites, with problems of several kinds.
    out : Output
    protocol : str
        Which slice is held against a true one. The differences are by this protocol.
    k : int
    first, second : str
        Names of methods.

    Returns
    -------
    DataFrame
        In groups such as `natural_images rare`: precision_at_10 with 95% intervals over groups of problems, n_groups,
        n_refused of each method; difference (with interval) and p_value of the method `FIRST - SECOND`. For both
        methods also precision_at_10_natural_rare ..., a measure for each cell. In groups such as `natural_images
        rare, worst_slice`, by every other protocol: precision_at_10_by_protocol.

    Raises
    ------
    InvalidInput
        Where no run has scores by this protocol, or at this k, or a method has no run.

    Notes
    -----
    Table 1 of the InfEmbed paper (Wang et al. 2023). A problem counts with the mean over its true slices.
    """
    check_methods(runs, first, second)
    values = problem_values(runs, METRIC)
    values = values.assign(suite=values["run"].map({run.folder.name: _suite(run) for run in runs}))
    of_protocol = _by_protocol(values, k)
    if protocol not in of_protocol:
        have = ", ".join(of_protocol) or "none"
        raise InvalidInput(f"there is no precision at {k} by the protocol {protocol!r}, expected one of {have}")
    cells = dict(_cells(_labelled(of_protocol.pop(protocol), runs)))
    compared = {cell: _compared(table, first, second) for cell, table in cells.items()}
    rows = [row for cell, table in cells.items() for row in _of_cell(cell, table, k, (second, first))]
    rows += [row for cell, pairs in compared.items() for row in _differences(cell, pairs)]
    rows += _refusals(runs)
    rows += [row for other, table in of_protocol.items() for row in _elsewhere(other, table, k)]
    best = {cell: _best(table) for cell, table in cells.items()}
    _say_how_many(compared, out, first, second)
    for cell, table in cells.items():
        _say_pairs(compared[cell], out, f"{_title(cell, table)}, precision at {k}")
        _say_best(best[cell], table, out, _title(cell, table))
        _say_who_is_missing(table, runs, out, _title(cell, table))
    _draw(cells, best, runs, out, f"precision at {k}, slices chosen by {protocol}")
    return pd.DataFrame(rows)


def _suite(run: FinishedRun) -> str:
    """What its data set is called: the name of a suite, or that of the data set itself."""
    words = run.identity["dataset"].split(" ")
    return next((word.removeprefix("name=") for word in words if word.startswith("name=")), words[0])


def _by_protocol(values: pd.DataFrame, k: int) -> dict[str, pd.DataFrame]:
    """For each protocol the values at this k; `InvalidInput` where there are none."""
    have = sorted(values["k"].dropna().unique().tolist())
    if k not in have:
        raise InvalidInput(f"k is {k}, expected one that was scored: {', '.join(map(str, have)) or 'none'}")
    return {name: of_measure(values, name, METRIC, k) for name in values["protocol"].unique()}


def _cells(values: pd.DataFrame) -> Iterator[tuple[Cell, pd.DataFrame]]:
    """The cells that there are, suites and kinds in the paper's order, others behind."""
    found = {(str(suite), str(kind)): table for (suite, kind), table in values.groupby(["suite", "kind"])}
    for cell in product(_ordered({s for s, _ in found}, SUITES), _ordered({kind for _, kind in found}, KINDS)):
        if cell in found:
            yield cell, found[cell]


def _ordered(names: set[str], known: Mapping[str, str] | Sequence[str]) -> list[str]:
    return [name for name in known if name in names] + sorted(names - set(known))


def _methods(table: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """What each method, with its variant and embedding, is called, and its rows; seeds are not told apart."""
    for _, rows in table.groupby(list(IDENTITY), sort=True):
        yield {name: str(rows[name].iloc[0]) for name in IDENTITY}, rows


def _of_cell(cell: Cell, table: pd.DataFrame, k: int, published: Sequence[str]) -> list[dict[str, Any]]:
    suite, kind = cell
    rows: list[dict[str, Any]] = []
    for identity, own in _methods(table):
        common, measured = {**identity, "group": " ".join(cell)}, mean_over_groups(own["value"], own["group"])
        rows.append({**common, "measure": f"precision_at_{k}", **measured})
        rows.append({**common, "measure": "n_groups", "value": own["group"].nunique(), "n": len(own)})
        if identity["method"] in published:
            name = f"precision_at_{k}_{SUITES.get(suite, suite)}_{kind}"
            rows.append({**common, "measure": name, **measured})
    return sorted(rows, key=lambda row: published.index(row["method"]) if row["method"] in published else -1)


def _compared(table: pd.DataFrame, first: str, second: str) -> list[Compared]:
    """Two methods, each of their variants against each, on the problems that both have."""
    methods = list(_methods(table))
    sides = [[(identity, rows) for identity, rows in methods if identity["method"] == m] for m in (first, second)]
    return [(one, other, paired(a, b)) for (one, a), (other, b) in product(*sides)]


def _differences(cell: Cell, pairs: Sequence[Compared]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one, other, pair in pairs:
        if pair is not None:
            common = {**together(one, other), "group": " ".join(cell), "n": pair.n_problems}
            interval = {"value": pair.difference, "low": pair.low, "high": pair.high}
            rows.append({**common, "measure": "difference", **interval})
            rows.append({**common, "measure": "p_value", "value": pair.p_value})
    return rows


def _refusals(runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
    """Of each run and cell, how many problems the method refused."""
    return [
        {**run.identity, "group": f"{_suite(run)} {kind}", "measure": "n_refused", "value": refused, "n": total}
        for run in runs
        for kind, (refused, total) in n_refused(run).items()
    ]


def _elsewhere(protocol: str, values: pd.DataFrame, k: int) -> list[dict[str, Any]]:
    return [
        {
            **identity,
            "group": f"{' '.join(cell)}, {protocol}",
            "measure": f"precision_at_{k}_by_protocol",
            **mean_over_groups(own["value"], own["group"]),
        }
        for cell, table in _cells(values)
        for identity, own in _methods(table)
    ]


def _labelled(values: pd.DataFrame, runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """With the column label: a short name of each method, which no other in its suite has."""
    by_name = {run.folder.name: run for run in runs}
    tables = []
    for _, table in values.groupby("suite"):
        methods = [rows for _, rows in _methods(table)]
        labels = short_titles([by_name[rows["run"].iloc[0]] for rows in methods])
        tables += [rows.assign(label=label) for rows, label in zip(methods, labels, strict=True)]
    return pd.concat(tables)


def _partial(table: pd.DataFrame) -> dict[str, int]:
    """The methods that lack problems of a cell, with the number that they have: their means are of something else."""
    counts = table.groupby("label")["problem"].nunique()
    return {str(label): int(n) for label, n in counts.items() if n < counts.max()}


def _best(table: pd.DataFrame) -> BestMethod:
    """The best method of a cell, of those with all its problems, and those that cannot be told apart from it."""
    table = table[~table["label"].isin(_partial(table))]
    means = table.pivot_table(index="group", columns="label", values="value")
    order = table.groupby("label")["value"].mean().sort_values(ascending=False).index
    return indistinguishable_from_best({str(label): means[label].to_numpy(float) for label in order}, alpha=ALPHA)


def _title(cell: Cell, table: pd.DataFrame) -> str:
    problems, groups = table["problem"].nunique(), table["group"].nunique()
    return f"{', '.join(cell).replace('_', ' ')} ({problems} problems, {groups} groups)"


def _say_how_many(compared: Mapping[Cell, Sequence[Compared]], out: Output, first: str, second: str) -> None:
    met = [pair for pairs in compared.values() for _, _, pair in pairs if pair is not None]
    better, worse = (sum(sign * pair.difference > 0 and pair.p_value <= ALPHA for pair in met) for sign in (1, -1))
    out.say(
        f"In {len(met)} comparisons of {first} with {second}, {first} is better in {better} and worse in {worse} (p at "
        f"most {ALPHA} each, not corrected for their number); {len(met) - better - worse} cannot be told apart."
    )


def _say_pairs(pairs: Sequence[Compared], out: Output, what: str) -> None:
    for one, other, pair in pairs:
        names = " against ".join(" ".join(filter(None, (side["method"], side["variant"]))) for side in (one, other))
        if pair is None:
            out.say(f"{what}, {names}: no problem in common.")
            continue
        apart = "they differ" if pair.p_value <= ALPHA else "they cannot be told apart"
        few = f" ({pair.n_groups} groups are too few for that)" if pair.n_groups < FEWEST_GROUPS else ""
        out.say(f"{what}, {names}: {in_words(pair)}, p = {pair.p_value:.2g}: {apart}{few}.")


def _say_best(best: BestMethod, table: pd.DataFrame, out: Output, title: str) -> None:
    alike = ", ".join(best.indistinguishable) or "none"
    mean = table.loc[table["label"] == best.name, "value"].mean()
    out.say(f"{title}: the best is {best.name}, on average {mean:.2f}; not told apart from it: {alike}.")
    for label, n in _partial(table).items():
        mean = table.loc[table["label"] == label, "value"].mean()
        out.say(f"{title}: {label} has scores of {n} problems only, on average {mean:.2f}, and is not compared.")


def _say_who_is_missing(table: pd.DataFrame, runs: Sequence[FinishedRun], out: Output, title: str) -> None:
    missing = sorted({run.method for run in runs} - set(table["method"]))
    if missing:
        out.say(f"{title}: no scores of {', '.join(missing)} (refused, or not run).")


def _draw(
    cells: Mapping[Cell, pd.DataFrame],
    best: Mapping[Cell, BestMethod],
    runs: Sequence[FinishedRun],
    out: Output,
    what: str,
) -> None:
    suites, kinds = (list(dict.fromkeys(cell[index] for cell in cells)) for index in (0, 1))
    orders = {suite: _order(pd.concat([cells[cell] for cell in cells if cell[0] == suite])) for suite in suites}
    heights = [0.6 + 0.16 * len(order) for order in orders.values()]
    size = (1.6 + 2.4 * len(kinds), 0.5 + sum(heights))
    options: dict[str, Any] = {"sharex": True, "sharey": "row", "height_ratios": heights}
    with drawing(*size, len(suites), len(kinds), **options) as (figure, panels):
        for axes, cell in zip(panels, product(suites, kinds), strict=True):
            if cell in cells:
                _points(axes, cells[cell], orders[cell[0]], best[cell])
                axes.set_title(_title(cell, cells[cell]).replace(" (", "\n("), fontsize=8)
            axes.set_visible(cell in cells or cell[1] == kinds[0])
        for suite, axes in zip(suites, panels[:: len(kinds)], strict=True):
            axes.set_yticks(range(len(orders[suite])), _ticks(suite, orders[suite], cells, runs))
            axes.set_ylim(len(orders[suite]) - 0.5, -0.5)
        figure.supxlabel(
            f"{what};\nbars: 95% intervals over groups; hollow: worse than the best; cross: some problems refused",
            fontsize=8,
        )
        out.picture(
            figure,
            "precision",
            f"{what[0].upper()}{what[1:]}: the mean of each method in each cell, with 95% intervals over groups of "
            "problems; methods that can be told apart from the best of a cell are hollow, those that refused some of "
            "its problems are crosses, the best of a suite on top.",
        )


def _order(table: pd.DataFrame) -> list[str]:
    """The methods of a suite by the mean over its kinds, the best first."""
    means = table.groupby(["label", "kind"])["value"].mean().groupby("label").mean()
    return [str(label) for label in means.sort_values(ascending=False).index]


def _points(axes: Any, table: pd.DataFrame, order: Sequence[str], best: BestMethod) -> None:
    partial = _partial(table)
    for label, rows in table.groupby("label"):
        measured, shade, at = (
            mean_over_groups(rows["value"], rows["group"]),
            colour(str(label)),
            order.index(str(label)),
        )
        is_alike = label == best.name or label in best.indistinguishable
        axes.plot([measured["low"], measured["high"]], [at, at], color=shade, lw=1.4)
        marker = "x" if label in partial else "o"
        axes.plot(measured["value"], at, marker, color=shade, markersize=4.5, mfc=shade if is_alike else "white")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks(np.arange(0, 1.01, 0.25), ["0", "", "0.5", "", "1"])
    axes.tick_params(labelsize=8, length=2, labelbottom=True)
    axes.grid(visible=False, axis="y")


def _ticks(
    suite: str, order: Sequence[str], cells: Mapping[Cell, pd.DataFrame], runs: Sequence[FinishedRun]
) -> list[str]:
    """Each method of a suite, with the number of problems that it refused."""
    named = pd.concat([table[["label", "run"]] for cell, table in cells.items() if cell[0] == suite]).drop_duplicates()
    refused = {run.folder.name: sum(n for n, _ in n_refused(run).values()) for run in runs}
    counts = named["run"].map(refused).groupby(named["label"]).sum()
    return [fill(f"{label} ({counts[label]} refused)" if counts[label] else label, 34) for label in order]
