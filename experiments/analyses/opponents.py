"""The training examples that harm each slice most: what they have in common, and what they look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from PIL import Image

from experiments.analyses._sheets import Cell, Strip, cells, draw, fitting, say_why, slice_strips
from experiments.analysing import COLUMNS, Output
from experiments.describing.data import examples_of, pictures
from experiments.describing.names import file_names, in_a_line
from experiments.describing.shares import share
from experiments.drawing import OTHER, colour, drawing
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput, Unsupported

BASE = "base"  # the group of numbers about all examples that opponents were sought among
SIGNS = {"opponents": -1, "proponents": 1}
KINDS = {"train": "training", "validation": "validation", "test": "test"}
BOLD = FontProperties(size=9, weight="bold")
PALE = 0.4  # opacity of the bars beside those of opponents
MOST = 10  # slices of a run that have bars and sentences; all of them are counted
SHOWN = ("run", "slice", "kind", "rank", "id", "label", "prediction", "loss", "influence", "text")


class Found(NamedTuple):
    """The strongest opponents and proponents of a run's slices.

    Parameters
    ----------
    run : FinishedRun
    name : str
        Of the run.
    split : str
        In which they were sought.
    strongest : DataFrame
        With columns slice (from 1), sign, rank, id, influence (nats), and those of `examples`; in this order.
    examples : DataFrame
        All of that split by id, with columns label, text, attribute_<name> and carries (bool).
    """

    run: FinishedRun
    name: str
    split: str
    strongest: pd.DataFrame
    examples: pd.DataFrame

    def of(self, index: int, kind: str) -> pd.DataFrame:
        """The opponents, or the proponents, of one slice."""
        table = self.strongest
        return table[(table["slice"] == index) & (table["sign"] == SIGNS[kind])]


def analyse(
    runs: Sequence[FinishedRun],
    out: Output,
    attribute: str | None = None,
    values: Sequence[Any] | None = None,
    k: int = 50,
    split: str | None = None,
    most: int = 3,
    n: int = 4,
) -> pd.DataFrame:
    """Which share of the strongest opponents of each slice carries an attribute, and which labels they have.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Where a run has no opponents, or its data are not here, a sentence says so.
    out : Output
    attribute : str, optional
        Without one, only labels are counted.
    values : sequence, optional
        Those of its values that count; not needed where it says yes or no.
    k : int
        Opponents, and proponents, of a slice that count.
    split : str, optional
        In which they were sought: whichever it was, unless a certain one is expected.
    most, n : int
        The n strongest members and opponents of the worst slices are shown, as pictures and in a table.

    Returns
    -------
    DataFrame
        Measures share_of_opponents, share_of_proponents (group: the attribute) and label_of_opponents (group: the
        label) a slice, with Wilson's interval at 95%; share_of_split (group `base`) a run.

    Raises
    ------
    InvalidInput
        Where no run sought opponents, or there is no such attribute, value or split.

    Notes
    -----
    After the InfEmbed paper: the share of the 50 strongest opponents that carry a planted signal (section 4.4), and
    opponents beside members (section 4.2, figures 1 and 2).
    """
    if min(k, most, n) < 1:
        raise InvalidInput(f"k is {k}, most is {most} and n is {n}, expected at least 1")
    if not any(len(run.opponents) or run.definition["evaluation"].get("opponents") for run in runs):
        raise InvalidInput("these runs sought no opponents: make them with evaluation.opponents=50")
    what = "" if attribute is None else attribute if values is None else f"{attribute}={' or '.join(map(str, values))}"
    found = [
        Found(run, name, sought, _strongest(run, examples, k), examples)
        for run, name, sought, examples in _examples(runs, out, split, attribute, values)
    ]
    counted = [pd.DataFrame(_rows(one, what), columns=list(COLUMNS)) for one in found]
    for one, numbers in zip(found, counted, strict=True):
        _say(one, numbers, f"{one.name}, " if len(runs) > 1 else "", what, out)
    if what and found:
        _draw_bars(found, counted, what, out)
    files = file_names([one.name for one in found])
    tables = [t for one, file in zip(found, files, strict=True) for t in _show(one, file, attribute, most, n, out)]
    if tables:
        caption = "The strongest members of the worst slices, and their strongest opponents."
        out.table(pd.concat(tables).dropna(axis=1, how="all"), "examples", caption)
    return pd.concat(counted, ignore_index=True) if counted else pd.DataFrame(columns=list(COLUMNS))


def _examples(
    runs: Sequence[FinishedRun], out: Output, split: str | None, attribute: str | None, values: Sequence[Any] | None
) -> Iterator[tuple[FinishedRun, str, str, pd.DataFrame]]:
    """Each run that has opponents, with its name and the examples that they were sought among."""
    for run, name in zip(runs, titles(list(runs)), strict=True):
        sought = run.definition["evaluation"].get("opponents_from", "train")
        if split not in (None, sought):
            raise InvalidInput(f"split is {split!r}, but {run.folder} has opponents from the {sought} split")
        if run.opponents.empty:
            out.say(f"{name}: there are no opponents.")
            continue
        try:
            examples = examples_of(run, sought)
        except InvalidInput as error:
            out.say(f"{name}: opponents are not counted: {str(error).rstrip('.')}.")
            continue
        carries = False if attribute is None else _carries(run, examples, attribute, values)
        yield run, name, sought, examples.assign(carries=carries)


def _carries(run: FinishedRun, examples: pd.DataFrame, attribute: str, values: Sequence[Any] | None) -> pd.Series:
    """Which examples have one of these values; a missing one is none of them."""
    names = [str(name).removeprefix("attribute_") for name in examples if str(name).startswith("attribute_")]
    if attribute not in names:
        have = ", ".join(names) or "none"
        raise InvalidInput(f"{run.folder}: there is no attribute {attribute!r}, expected one of {have}")
    column = examples[f"attribute_{attribute}"]
    there = set(column.dropna())
    says_yes_or_no = there <= {False, True}  # in some splits all of them the same
    if values is None and says_yes_or_no:
        return column.isin([True])
    known = ["False", "True"] if says_yes_or_no else sorted(map(str, there))
    asked = [str(value) for value in values or ()]
    if values is None or not set(asked) <= set(known):
        said = "values are missing" if values is None else f"values are {', '.join(asked)}"
        raise InvalidInput(f"{run.folder}: {said}, expected some of {attribute}'s: {', '.join(known[:20])}")
    return column.map(str).isin(asked)


def _strongest(run: FinishedRun, examples: pd.DataFrame, k: int) -> pd.DataFrame:
    table = run.opponents[(run.opponents["problem"] == "all") & (run.opponents["rank"] <= k)]
    table = table.rename(columns={"example_id": "id"}).assign(slice=table["slice"] + 1)
    return table.sort_values(["slice", "sign", "rank"]).join(examples, on="id")


def _rows(found: Found, what: str) -> Iterator[dict[str, Any]]:
    identity, carries = found.run.identity, found.examples["carries"]
    if what:
        yield {**identity, "group": BASE, "measure": "share_of_split", "value": carries.mean(), "n": len(carries)}
    for index in found.strongest["slice"].unique():
        of_slice = {**identity, "slice": index}
        for kind in SIGNS if what else ():
            carry = found.of(index, kind)["carries"]
            if len(carry):
                yield {**of_slice, "group": what, "measure": f"share_of_{kind}", **share(carry)}
        labels = found.of(index, "opponents")["label"].dropna()
        for label in labels.value_counts().index:
            yield {**of_slice, "group": label, "measure": "label_of_opponents", **share(labels == label)}


def _say(found: Found, numbers: pd.DataFrame, where: str, what: str, out: Output) -> None:
    """What most opponents of each slice have in common: the attribute that is asked for, else a label."""
    measure = "share_of_opponents" if what else "label_of_opponents"
    base = f"against {found.examples['carries'].mean():.0%} of the {KINDS[found.split]} examples"
    rows = numbers[numbers["measure"] == measure].drop_duplicates("slice").head(MOST)
    for index, group, value, n in rows[["slice", "group", "value", "n"]].to_numpy():
        does = f"carry {what}, {base}" if what else f"have the label {in_a_line(group)}"
        out.say(f"{where}slice {index:.0f}: {value * n:.0f} of the {n} strongest opponents ({value:.0%}) {does}.")


def _draw_bars(found: Sequence[Found], counted: Sequence[pd.DataFrame], what: str, out: Output) -> None:
    """Opponents and proponents of each slice below each other, the slices of a run below its name."""
    drawn = [numbers["slice"].dropna().unique()[:MOST] for numbers in counted]
    with drawing(6.4, 1.2 + 0.36 * sum(len(slices) + 1 for slices in drawn)) as (figure, (axes,)):
        top, ticks = 0, {}
        for one, numbers, slices in zip(found, counted, drawn, strict=True):
            name = fitting(one.name, 5, BOLD)
            axes.text(0.005, top, name, fontproperties=BOLD, va="center", parse_math=False)
            for at, index in enumerate(slices, start=top + 1):
                ticks[at] = f"slice {index:.0f}"
                of_slice = numbers[numbers["slice"] == index].set_index("measure")
                _bar(axes, at - 0.2, of_slice, "share_of_opponents", colour(one.run.method), 1)
                _bar(axes, at + 0.2, of_slice, "share_of_proponents", colour(one.run.method), PALE)
            base = one.examples["carries"].mean()
            axes.plot([base, base], [top + 0.5, top + len(slices) + 0.5], color="black", lw=1, ls=":")
            top += len(slices) + 1
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.set(xlim=(0, 1), ylim=(top - 0.4, -0.5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(visible=False, axis="y")
        kinds = " or ".join(dict.fromkeys(KINDS[one.split] for one in found))
        axes.set_xlabel(f"share with {what}; dotted: of all {kinds} examples", parse_math=False)
        patches = [Patch(color=OTHER, label="opponents"), Patch(color=OTHER, alpha=PALE, label="proponents")]
        figure.legend(handles=patches, loc="outside upper right", ncols=2)
        caption = f"Share of the strongest opponents and proponents of each slice with {what}, and its interval at 95%."
        out.picture(figure, "shares", caption)


def _bar(axes: Axes, at: float, of_slice: pd.DataFrame, measure: str, shade: str, alpha: float) -> None:
    """A share and its interval; nothing where a slice has no such examples."""
    if measure in of_slice.index:
        row = of_slice.loc[measure]
        axes.barh(at, row["value"], height=0.38, color=shade, alpha=alpha)
        axes.plot([row["low"], row["high"]], [at, at], color="black", lw=1)


def _show(found: Found, file: str, attribute: str | None, most: int, n: int, out: Output) -> Iterator[pd.DataFrame]:
    """Members of the worst slices and their opponents: drawn where they are pictures, and as tables."""
    members = slice_strips(found.run, n, most)
    harmful = [found.of(index, "opponents").head(n) for index in range(1, len(members) + 1)]
    try:
        _draw_sheet(found, members, harmful, n, file, attribute, out)
    except Unsupported:
        pass  # texts and numbers can be read in the table
    except InvalidInput as error:
        say_why(found.run, error, out)
    columns = [*SHOWN, *([] if attribute is None else [f"attribute_{attribute}"])]
    for index, (strip, opponents) in enumerate(zip(members, harmful, strict=True), start=1):
        for kind, table in (("member", strip.examples), ("opponent", opponents)):
            numbered = table.assign(run=found.name, slice=index, kind=kind, rank=range(1, len(table) + 1))
            yield numbered.reindex(columns=columns)


def _draw_sheet(
    found: Found,
    members: Sequence[Strip],
    harmful: Sequence[pd.DataFrame],
    n: int,
    file: str,
    attribute: str | None,
    out: Output,
) -> None:
    """One row a slice: its members on the left, their opponents on the right."""
    run, title = found.run, f"its strongest opponents ({KINDS[found.split]} examples)"
    left = pictures(run, run.identity["split"], pd.concat([strip.examples for strip in members])["id"])
    right = pictures(run, found.split, pd.concat(harmful)["id"])
    rows = [
        ((strip.title, cells(strip.examples, left)), (title, _cells(opponents, right, attribute)))
        for strip, opponents in zip(members, harmful, strict=True)
    ]
    below = "label" if attribute is None else f"label and {attribute}"
    caption = (
        f"{found.name}: strongest members of the worst slices with label, prediction (red where it is wrong) and loss "
        f"in nats; beside them their strongest opponents with {below}."
    )
    draw(rows, n, out, file, caption, run.dataset)


def _cells(opponents: pd.DataFrame, found: Mapping[str, Image.Image], attribute: str | None) -> list[Cell]:
    """Opponents with their label, and the attribute where one is asked for."""
    second = "" if attribute is None else f"{attribute}="
    ends = [""] * len(opponents) if attribute is None else opponents[f"attribute_{attribute}"].map(in_a_line)
    columns = (opponents["id"], opponents["label"], ends)
    return [Cell(found[i], in_a_line(label), second, end) for i, label, end in zip(*columns, strict=True)]
