"""What slices are made of: the share of each value of an attribute, beside the whole split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from experiments.analyses._measured import ALL
from experiments.analysing import Output
from experiments.describing.attributes import NO_VALUE, as_text, attribute_of, attributes_of, natural, values_of
from experiments.describing.names import file_name, in_a_line, plain, shortened
from experiments.drawing import colour, drawing
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

WHOLE = 0  # the whole split's column, before those of slices 1, 2 ...
FEW = 12  # values whose colours can be told apart; of more numbers than that, only the mean says anything
TALLEST = 26  # bars in one picture
NUMBERED = 6  # percent of a bar, in which a number has room
ENOUGH = 5  # examples with a value, before anything is said of it
STANDS_OUT = 3  # standard deviations above what a slice drawn at random has: of many values some are 2 above
LONGEST = 30  # letters of a value in pictures and sentences
HALF_WIDTH = 1.96  # of a 95% interval of the normal distribution, in standard errors
OTHERS = "other values"
MEAN = "mean_of_attribute"
LIGHT_GREY, GREY = "#d9d9d9", "#b0b0b0"

Row = dict[str, Any]
Bars = dict[tuple[str, str], pd.Series]  # from (a bar's text, the text's colour) to the share of each value


def analyse(
    runs: Sequence[FinishedRun],
    out: Output,
    attributes: Sequence[str],
    shares: Mapping[str, Mapping[str, Any]] | None = None,
    most: int = 8,
) -> pd.DataFrame:
    """Shares of each value in the slices and in the whole split, and the losses of each value.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each; runs that lack an attribute are left out of what is counted of it.
    out : Output
    attributes : sequence of str
        Of the examples, or `label` or `prediction`.
    shares : mapping from str to {"attribute": str, "values": list}, optional
        Further measures: the share of examples that have any of these values. Where the split has none of them, there
        is no number, and a sentence says so.
    most : int
        Slices of a run that are drawn and described; all of them are counted.

    Returns
    -------
    DataFrame
        share_of_slice (group `age=0-2`; without a slice: of the whole split) and enrichment (the ratio of a slice's
        share to the whole split's); of more than 12 numbers mean_of_attribute (group `age`) instead;
        mean_loss_by_value (nats) and accuracy_by_value with a 95% interval of the mean in the normal approximation;
        one measure for each of `shares` (group `all` without a slice). Of text with more than 12 values, those that do
        not occur in a slice have no row there.

    Raises
    ------
    InvalidInput
        Where no run has an attribute of this name, or `shares` are not as above.

    Notes
    -----
    The Spotlight paper, figure 2 and appendix D: make-up of spotlights by age and race, average loss by age and race.
    """
    shares = _checked(shares or {})
    _refuse_unknown(runs, [*attributes, *(one["attribute"] for one in shares.values())])
    counted = [_counted(run, attributes) for run in runs]
    numbers = [row for run, counts in zip(runs, counted, strict=True) for row in _of_run(run, attributes, counts)]
    numbers += [row for run in runs for name, wanted in shares.items() for row in _own(run, name, wanted, out)]
    table = pd.DataFrame(numbers)
    for name, run, counts in zip(titles(list(runs)), runs, counted, strict=True):
        _describe(name, counts, _means_of(run, table), out, most)
    for attribute in attributes:
        _draw_shares(runs, counted, attribute, out, most)
    _draw_losses(runs, counted, out)
    return table


def _checked(shares: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    for name, wanted in shares.items():
        if not isinstance(wanted, Mapping) or set(wanted) != {"attribute", "values"}:
            raise InvalidInput(f"shares.{name} is {wanted}, expected the names attribute and values")
        if not isinstance(wanted["attribute"], str):
            raise InvalidInput(f"shares.{name}.attribute is {wanted['attribute']!r}, expected one name")
        if isinstance(wanted["values"], str) or not isinstance(wanted["values"], Sequence):
            raise InvalidInput(f"shares.{name}.values is {wanted['values']!r}, expected a list")
    return shares


def _refuse_unknown(runs: Sequence[FinishedRun], attributes: Sequence[str]) -> None:
    there = dict.fromkeys(name for run in runs for name in attributes_of(run))
    for name in attributes:
        if name not in there:
            raise InvalidInput(f"there is no attribute {name!r}, expected one of {', '.join(there) or 'none'}")


def _is_measured(run: FinishedRun, attribute: str) -> bool:
    """Whether its values are numbers, too many of them to be counted one by one."""
    raw = attribute_of(run, attribute)
    return pd.api.types.is_numeric_dtype(raw) and not pd.api.types.is_bool_dtype(raw) and raw.nunique() > FEW


def _counted(run: FinishedRun, attributes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """For each attribute with values to count, the examples with each: (values, 1 + s), the whole split first."""
    columns = np.column_stack([np.ones(len(run.examples), dtype=bool), run.members()])  # (n, 1 + s)
    counts = {}
    for name in attributes:
        if name in attributes_of(run) and not _is_measured(run, name):
            of_values = pd.DataFrame(columns).groupby(values_of(run, name).to_numpy()).sum()
            counts[name] = of_values.loc[sorted(of_values.index, key=natural)]
    return counts


def _of_run(run: FinishedRun, attributes: Sequence[str], counts: Mapping[str, pd.DataFrame]) -> list[Row]:
    rows = [row for name, of_values in counts.items() for row in _shares(name, of_values)]
    rows += [row for name in counts for row in _losses(run, name)]
    measured = [name for name in attributes if name in attributes_of(run) and name not in counts]
    rows += [row for name in measured for row in _means(run, name)]
    return [{**run.identity, **row} for row in rows]


def _shares(attribute: str, counts: pd.DataFrame) -> Iterator[Row]:
    whole = (counts[WHOLE] / counts[WHOLE].sum()).to_dict()
    for column, n in counts.sum().items():
        for value, count in counts[column].items() if n else ():
            if count or len(counts) <= FEW:
                row = {"group": f"{attribute}={value}", "n": n, **_place(column)}
                yield {**row, "measure": "share_of_slice", "value": count / n}
                if column != WHOLE:
                    yield {**row, "measure": "enrichment", "value": count / n / whole[value]}


def _place(column: Any) -> Row:
    return {} if column == WHOLE else {"slice": column}


def _losses(run: FinishedRun, attribute: str) -> Iterator[Row]:
    for measure, table in (("mean_loss", _by_value(run, attribute, "loss")), ("accuracy", _accuracies(run, attribute))):
        for value, row in table.iterrows():
            yield {"group": f"{attribute}={value}", "measure": f"{measure}_by_value", **row}


def _by_value(run: FinishedRun, attribute: str, column: str) -> pd.DataFrame:
    """The mean over all examples with a value, its interval, and n; one example alone has no interval."""
    numbers = run.examples[column].astype(float).groupby(values_of(run, attribute))
    table = pd.DataFrame({"value": numbers.mean(), "n": numbers.size()})
    half = HALF_WIDTH * numbers.std() / np.sqrt(table["n"])
    table = table.assign(low=table["value"] - half, high=table["value"] + half)
    return table.loc[sorted(table.index, key=natural)]


def _accuracies(run: FinishedRun, attribute: str) -> pd.DataFrame:
    table = _by_value(run, attribute, "correct")
    return table.assign(low=table["low"].clip(lower=0), high=table["high"].clip(upper=1))


def _means(run: FinishedRun, attribute: str) -> Iterator[Row]:
    """Of those examples whose number is known."""
    raw = attribute_of(run, attribute).astype(float)
    for column, chosen in enumerate([np.ones(len(raw), dtype=bool), *run.members().T]):
        known = raw[chosen].dropna()
        if len(known):
            row = {"group": attribute, "measure": MEAN, "value": known.mean(), "n": len(known)}
            yield {**row, **_place(column)}


def _means_of(run: FinishedRun, numbers: pd.DataFrame) -> pd.DataFrame:
    """The rows of one run's means."""
    numbers = numbers.reindex(columns=dict.fromkeys([*numbers, *run.identity, "measure", "group", "slice", "value"]))
    of_run = (numbers[list(run.identity)] == list(run.identity.values())).all(axis=1)
    return numbers[of_run & (numbers["measure"] == MEAN)]


def _own(run: FinishedRun, measure: str, wanted: Mapping[str, Any], out: Output) -> Iterator[Row]:
    """The share of examples that have any of the wanted values."""
    attribute = wanted["attribute"]
    if attribute not in attributes_of(run):
        return
    values, names = values_of(run, attribute), [as_text(value) for value in wanted["values"]]
    _say_absent(measure, attribute, values, names, out)
    having = values.isin(names).to_numpy()
    if not having.any():  # what the data lacks is absent, not 0
        return
    yield {**run.identity, "group": ALL, "measure": measure, "value": having.mean(), "n": len(having)}
    for index, member in enumerate(run.members().T, start=1):
        if member.any():
            row = {"measure": measure, "value": having[member].mean(), "n": int(member.sum())}
            yield {**run.identity, "slice": index, **row}


def _say_absent(measure: str, attribute: str, values: pd.Series, names: Sequence[str], out: Output) -> None:
    there = sorted(values.unique(), key=natural)
    absent = [name for name in names if name not in there]
    some = ", ".join([*map(_short, there[:FEW]), *(["..."] if len(there) > FEW else [])])
    sentence = f"{measure}: no example has {attribute} {' or '.join(absent)}; there are {some}"
    if absent and sentence not in out.sentences:  # many runs have the same examples
        out.say(sentence)


def _describe(name: str, counts: Mapping[str, pd.DataFrame], means: pd.DataFrame, out: Output, most: int) -> None:
    """Say of each slice which value stands out most, and the means of numbers."""
    for index in range(1, 1 + min(most, _n_slices(counts))):
        excess, what = max(chain.from_iterable(_raised(index, a, of) for a, of in counts.items()), default=(0.0, ""))
        if excess > STANDS_OUT:
            out.say(f"{name} slice {index}: {what}")
    for attribute, of_one in means.groupby("group", sort=False):
        whole, slices = of_one["value"].iloc[WHOLE], of_one.iloc[1 : 1 + most]
        listed = ", ".join(f"{value:.3g} in slice {index:.0f}" for index, value in slices[["slice", "value"]].values)
        out.say(f"{name}: mean {attribute} {whole:.3g}; {listed or 'no slice with any'}")


def _n_slices(counts: Mapping[str, pd.DataFrame]) -> int:
    return max((of.shape[1] - 1 for of in counts.values()), default=0)


def _raised(index: int, attribute: str, counts: pd.DataFrame) -> Iterator[tuple[float, str]]:
    """Values that are commoner in this slice than in the split: by how many standard deviations of a random slice."""
    n, of_all, n_all = int(counts[index].sum()), counts[WHOLE].to_dict(), counts[WHOLE].sum()
    for value, count in counts[index].items():
        whole = of_all[value] / n_all
        if count >= ENOUGH and count / n > whole:
            excess = (count - n * whole) / np.sqrt(n * whole * (1 - whole) * (n_all - n) / (n_all - 1))
            share = f"{_percent(count / n)} against {_percent(whole)} of the split (n={n})"
            yield float(excess), f"{attribute} {_short(str(value))}, {share}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{100 * share:.1g}%"


def _draw_shares(
    runs: Sequence[FinishedRun], counted: Sequence[Mapping[str, pd.DataFrame]], attribute: str, out: Output, most: int
) -> None:
    names, words = titles(list(runs)), attribute.replace("_", " ")
    counts = {i: of_run[attribute] for i, of_run in enumerate(counted) if attribute in of_run}
    bars = {i: _bars(names[i], runs[i].method, of, most) for i, of in counts.items()}
    for number, chosen in enumerate(_pictures(_with_same_examples(runs), bars), start=1):
        split = runs[chosen[0]].identity
        caption = (
            f"Shares by {words} in the slices of {', '.join(names[i] for i in chosen)}, below those of the whole "
            f"{split['split']} split of {split['dataset']}."
        )
        drawn = _whole(counts[chosen[0]]) | {bar: shares for i in chosen for bar, shares in bars[i].items()}
        _draw_bars(drawn, words, out, _file(attribute, number), caption)


def _pictures(groups: Sequence[Sequence[int]], bars: Mapping[int, Bars]) -> Iterator[list[int]]:
    """The runs of each picture: with the same examples, and no more slices than fit, unless one run alone has more."""
    for group in groups:
        chosen: list[int] = []
        for i in filter(bars.get, group):
            if chosen and 1 + sum(len(bars[j]) for j in [*chosen, i]) > TALLEST:
                yield chosen
                chosen = []
            chosen.append(i)
        if chosen:
            yield chosen


def _with_same_examples(runs: Sequence[FinishedRun]) -> list[list[int]]:
    """Positions of runs that sought slices among the same examples of the same model."""
    keys = [(run.identity["dataset"], run.examples["loss"].to_numpy().tobytes()) for run in runs]
    return [[i for i, key in enumerate(keys) if key == one] for one in dict.fromkeys(keys)]


def _file(attribute: str, number: int) -> str:
    name = file_name(attribute)
    return name if number == 1 else f"{name}-{number}"


def _whole(counts: pd.DataFrame) -> Bars:
    n = counts[WHOLE].sum()
    return {(f"whole split (n={n:,})", "black"): counts[WHOLE] / n}


def _bars(name: str, method: str, counts: pd.DataFrame, most: int) -> Bars:
    slices = {i: counts[i] for i in range(1, min(most + 1, counts.shape[1])) if counts[i].any()}
    return {(f"{name}, slice {i} (n={of.sum():,})", colour(method)): of / of.sum() for i, of in slices.items()}


def _lumped(shares: pd.DataFrame) -> pd.DataFrame:
    """The same, with what is rare in every bar put together where there are too many values to tell apart."""
    if len(shares) <= FEW:
        return shares
    kept = shares[shares.index.isin(shares.max(axis=1).nlargest(FEW - 1).index)]
    return pd.concat([kept, pd.DataFrame([1 - kept.sum()], index=[OTHERS])])


def _draw_bars(bars: Bars, title: str, out: Output, name: str, caption: str) -> None:
    shares = 100 * _lumped(pd.DataFrame(dict(enumerate(bars.values()))))  # (values, bars), %
    values, colours = [str(value) for value in shares.index], _palette([str(value) for value in shares.index])
    with drawing(8, max(0.9 + 0.27 * len(bars), 0.7 + 0.2 * len(values))) as (figure, (axes,)):
        at = np.arange(len(bars)) + 0.4 * (np.arange(len(bars)) > 0)
        _stack(axes, at, shares.to_numpy(float), [colours[value] for value in values])
        axes.set_yticks(at, [plain(text) for text, _ in bars])
        for tick, (_, ink) in zip(axes.get_yticklabels(), bars, strict=True):
            tick.set_color(ink)
        axes.set(xlim=(0, 100), xlabel="share of the examples, %", title=plain(title))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        patches = [Patch(color=colours[value], label=plain(_short(value))) for value in values]
        figure.legend(handles=patches, loc="outside right upper", fontsize=8)
        out.picture(figure, name, caption)


def _stack(axes: Axes, at: np.ndarray, widths: np.ndarray, colours: Sequence[Any]) -> None:
    """Draw a row of `widths` (values, bars) after the other, with its number where it fits in."""
    left = np.zeros(len(at))
    for width, shade in zip(widths, colours, strict=True):
        axes.barh(at, width, 0.8, left, color=shade, edgecolor="white", lw=0.5)
        ink = "white" if _is_dark(shade) else "black"
        for y, start, wide in zip(at, left, width, strict=True):
            if wide >= NUMBERED:
                axes.text(start + wide / 2, y, f"{wide:.0f}", ha="center", va="center", fontsize=7, color=ink)
        left += width


def _palette(values: Sequence[str]) -> dict[str, Any]:
    """Light to dark where values have an order, else colours that differ; grey is for the rest."""
    rest = {NO_VALUE: LIGHT_GREY, "unknown": LIGHT_GREY, OTHERS: GREY}
    named = [value for value in values if value not in rest]
    if len(named) > 2 and not any(natural(value)[0] for value in named):
        colours = list(matplotlib.colormaps["YlGnBu"](np.linspace(0.15, 0.95, len(named))))
    else:
        twelve = [matplotlib.colors.to_hex(shade) for shade in matplotlib.colormaps["Set3"](range(12))]
        colours = [shade for shade in twelve if shade != LIGHT_GREY] + [LIGHT_GREY]
    return dict(zip(named, colours, strict=False)) | rest


def _is_dark(shade: Any) -> bool:
    return bool(matplotlib.colors.to_rgb(shade) @ np.array([0.299, 0.587, 0.114]) < 0.5)


def _draw_losses(runs: Sequence[FinishedRun], counted: Sequence[Mapping[str, pd.DataFrame]], out: Output) -> None:
    """One picture for each set of examples: the mean loss of each value, below the name of its attribute."""
    groups = [(runs[together[0]], counted[together[0]]) for together in _with_same_examples(runs)]
    for number, (run, counts) in enumerate([one for one in groups if one[1]], start=1):
        tables = dict(_drawn_losses(name, _by_value(run, name, "loss")) for name in counts)
        caption = (
            f"Mean loss by {', '.join(counts)} over the whole {run.identity['split']} split of "
            f"{run.identity['dataset']}, with 95% intervals (normal approximation); dotted: of all examples."
        )
        _draw_points(tables, float(run.examples["loss"].mean()), out, _file("mean-loss", number), caption)


def _drawn_losses(attribute: str, table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """All values where they are few, else those of highest mean loss; and what they are called."""
    words = attribute.replace("_", " ")
    if len(table) <= FEW:
        return words, table
    worst = table[table["n"] >= ENOUGH].nlargest(FEW, "value")
    return f"{words}: {len(worst)} of {len(table):,}, the worst", worst


def _draw_points(tables: Mapping[str, pd.DataFrame], whole: float, out: Output, name: str, caption: str) -> None:
    n_lines = sum(1 + len(table) for table in tables.values())
    with drawing(6.4, 0.8 + 0.21 * n_lines) as (figure, (axes,)):
        ticks: list[str] = []
        for attribute, table in tables.items():
            at = len(ticks) + 1 + np.arange(len(table))
            half = (table["high"] - table["value"]).fillna(0)
            axes.errorbar(table["value"], at, xerr=half, fmt="o", color="#333333", ms=4, lw=1.2, capsize=2)
            lines = (f"{_short(str(value))} (n={n:,})" for value, n in table["n"].items())
            ticks += [attribute, *lines]
        axes.axvline(whole, color="black", lw=1, ls=":")
        axes.set_yticks(range(len(ticks)), [plain(text) for text in ticks])
        for tick, text in zip(axes.get_yticklabels(), ticks, strict=True):
            tick.set_fontweight("bold" if text in tables else "normal")
        axes.set(
            xlim=(min(0, *axes.get_xlim()), None),
            ylim=(len(ticks) - 0.4, -0.6),
            xlabel="mean loss, nats; dotted: of all examples",
        )
        axes.grid(visible=False, axis="y")
        out.picture(figure, name, caption)


def _short(text: str) -> str:
    return shortened(in_a_line(text), LONGEST)
