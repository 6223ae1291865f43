"""What a two-class model got right and wrong in each slice, and which findings those examples have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from experiments.analyses._measured import ALL
from experiments.analysing import Output
from experiments.describing.names import plain, shortened
from experiments.drawing import drawing
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

DRAWN = 40  # findings; a table of any length is no picture
OUTCOMES = {"TN": "true negatives", "FP": "false positives", "FN": "false negatives", "TP": "true positives"}
LONGEST = 28  # letters of a finding in a picture
ABSENT, NOBODY = "absent", "-"

Cell = tuple[str, int]  # an outcome in a slice


def analyse(
    runs: Sequence[FinishedRun],
    out: Output,
    positive: str | None = None,
    attributes: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    most: int = 5,
) -> pd.DataFrame:
    """Outcomes and accuracy by slice, and the share of each finding by slice and outcome.

    Appendix H and table 4 of Wang et al. (2023).

    Parameters
    ----------
    runs : sequence of FinishedRun
        With labels, and one problem each.
    out : Output
    positive : str, optional
        The class whose detection is asked about; by default the one that is also the name of a finding.
    attributes : sequence of str, optional
        The findings, each of which must be known; by default all attributes that are yes or no.
    rows : sequence of str, optional
        The findings of a published table in its order, instead of `attributes`; those that the data lack are written
        down as absent.
    most : int
        Slices of a run that are drawn, and 40 findings; all of them are in the table.

    Returns
    -------
    DataFrame
        Measures outcome_count (group `FP`) and accuracy of each slice, accuracy of the whole split (group `all`), and
        finding_share (group `Pneumonia, FP`): the share of the `n` examples with this outcome in this slice of which
        it is known whether they have the finding; there is no row where there are none.
    """
    tables, numbers, names = [], [], titles(list(runs))
    for number, (run, name) in enumerate(zip(runs, names, strict=True), start=1):
        outcomes, (found, absent) = _outcomes(run, positive), _findings(run, attributes, rows)
        cells = _cells(run, outcomes)
        numbers += [*_accuracies(run), *_counts(run, cells), *_shares(run, found, cells)]
        texts = _texts(found, cells, list(rows or found.columns))
        tables.append(_table(name, texts, cells))
        name = name if run.dataset in name else f"{run.dataset}, {name}"
        _say(name, run, cells, absent, out)
        sizes = {cell: int(mask.sum()) for cell, mask in cells.items() if cell[1] <= most}
        if sizes and len(texts):
            _draw(name, texts[list(sizes)].head(DRAWN), sizes, out, f"shares-{number}" if len(runs) > 1 else "shares")
    caption = f"Share of each finding by slice and outcome; {NOBODY}: no such example, {ABSENT}: not in the data."
    out.table(pd.concat(tables).fillna(""), "shares", caption)
    return pd.DataFrame(numbers)


def _outcomes(run: FinishedRun, positive: str | None) -> np.ndarray:
    """TN, FP, FN or TP for each example: shape (n,)."""
    examples = run.examples
    if examples["label"].isna().any() or examples["prediction"].isna().any():
        raise InvalidInput(
            f"{run.folder} has examples without label or prediction: none is right or wrong about a class"
        )
    classes = sorted({*examples["label"], *examples["prediction"]})
    named = [name for name in classes if name in run.attributes()]
    if positive is None and len(named) != 1:
        raise InvalidInput(f"{run.folder}: set positive to the class that is to be detected, one of {_some(classes)}")
    positive = positive or named[0]
    if positive not in classes:
        raise InvalidInput(f"{run.folder}: there is no class {positive!r}, expected one of {_some(classes)}")
    label, prediction = (examples["label"] == positive).to_numpy(), (examples["prediction"] == positive).to_numpy()
    return np.select([label & prediction, label, prediction], ["TP", "FN", "FP"], "TN")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _findings(
    run: FinishedRun, attributes: Sequence[str] | None, rows: Sequence[str] | None
) -> tuple[pd.DataFrame, list[str]]:
    """A column of 0, 1 or not a number for each finding, in the order of `run.examples`; and those that are absent."""
    have = run.attributes()
    if rows is not None:
        names = [name for name in rows if name in have]
        if not names:
            raise InvalidInput(
                f"{run.folder}: the data know none of the rows, expected some of {_some(have) or 'none'}"
            )
    else:
        names = [name for name in have if _is_finding(run.attribute(name))] if attributes is None else list(attributes)
    for name in names:
        if run.attribute(name).notna().any() and not _is_finding(run.attribute(name)):
            raise InvalidInput(f"{run.folder}: the attribute {name!r} is not yes or no, as a finding is")
    columns = {name: run.attribute(name).map({True: 1.0, False: 0.0}).astype(float) for name in names}
    return pd.DataFrame(columns, index=run.examples.index), [name for name in rows or () if name not in have]


def _is_finding(values: pd.Series) -> bool:
    """Whether an attribute is a yes or a no, wherever it is known."""
    known = values.dropna()
    return len(known) > 0 and bool(known.isin([True, False]).all())


def _cells(run: FinishedRun, outcomes: np.ndarray) -> dict[Cell, np.ndarray]:
    """Which examples have each outcome in each slice: (n,) bool, outcome by outcome."""
    members = run.members()
    return {
        (outcome, slice_): members[:, slice_ - 1] & (outcomes == outcome)
        for outcome in OUTCOMES
        for slice_ in range(1, members.shape[1] + 1)
    }


def _accuracies(run: FinishedRun) -> list[dict[str, Any]]:
    correct = run.examples["correct"].to_numpy(bool)
    of_slices = enumerate(run.members().T, start=1)
    accuracy = {**run.identity, "measure": "accuracy"}
    return [
        {**accuracy, "group": ALL, "value": correct.mean(), "n": len(correct)},
        *({**accuracy, "slice": s, "value": correct[m].mean(), "n": int(m.sum())} for s, m in of_slices if m.any()),
    ]


def _counts(run: FinishedRun, cells: Mapping[Cell, np.ndarray]) -> list[dict[str, Any]]:
    sizes = run.members().sum(axis=0)  # (s,)
    count = {**run.identity, "measure": "outcome_count"}
    return [
        {**count, "slice": slice_, "group": outcome, "value": int(mask.sum()), "n": int(sizes[slice_ - 1])}
        for (outcome, slice_), mask in cells.items()
    ]


def _shares(run: FinishedRun, found: pd.DataFrame, cells: Mapping[Cell, np.ndarray]) -> list[dict[str, Any]]:
    share = {**run.identity, "measure": "finding_share"}
    return [
        {**share, "slice": slice_, "group": f"{name}, {outcome}", "value": known.mean(), "n": len(known)}
        for (outcome, slice_), mask in cells.items()
        for name, values in found.items()
        if len(known := values[mask].dropna())
    ]


def _texts(found: pd.DataFrame, cells: Mapping[Cell, np.ndarray], names: list[str]) -> pd.DataFrame:
    """What people read: a share, `-` where there is no example, `absent` where the data do not know the finding."""
    shares = pd.DataFrame({cell: found[mask].mean() for cell, mask in cells.items()}, index=found.columns)
    texts = shares.map(lambda share: NOBODY if np.isnan(share) else f"{share:.2f}")
    return texts.reindex(names, fill_value=ABSENT)


def _table(name: str, texts: pd.DataFrame, cells: Mapping[Cell, np.ndarray]) -> pd.DataFrame:
    """The shares of one run below how many examples they are of."""
    counts = {f"{outcome}, slice {slice_}": str(mask.sum()) for (outcome, slice_), mask in cells.items()}
    shares = texts.set_axis(list(counts), axis="columns").rename_axis("finding").reset_index()
    table = pd.concat([pd.DataFrame([{"finding": "(examples)", **counts}]), shares])
    table.insert(0, "run", name)
    return table


def _say(name: str, run: FinishedRun, cells: Mapping[Cell, np.ndarray], absent: Sequence[str], out: Output) -> None:
    correct, of_slices = run.examples["correct"].to_numpy(bool), []
    for slice_, member in enumerate(run.members().T, start=1):
        accuracy = f"accuracy {correct[member].mean():.3g} of " if member.any() else ""
        wrong = (f"{cells[outcome, slice_].sum()} {outcome}" for outcome in ("FP", "FN"))
        of_slices.append(f"slice {slice_} {accuracy}{member.sum()} examples, {', '.join(wrong)}")
    whole = f"{name}: accuracy {correct.mean():.3g} of {len(correct)} examples"
    out.say("; ".join([whole, *of_slices]) + ("." if of_slices else "; no slices."))
    if absent:
        out.say(f"{name}: the data do not know {', '.join(absent)}: absent, which is not a share of 0.")


def _draw(name: str, texts: pd.DataFrame, sizes: Mapping[Cell, int], out: Output, picture: str) -> None:
    n_slices, findings = (
        len(sizes) // len(OUTCOMES),
        [plain(shortened(str(finding), LONGEST)) for finding in texts.index],
    )
    columns = [f"slice {slice_}\nn={size}" for (_, slice_), size in sizes.items()]
    values = texts.apply(pd.to_numeric, errors="coerce").to_numpy(float)  # (findings, cells)
    wide = max(0.52 * n_slices, 1.15)  # at least as wide as the words above
    with drawing(2.2 + len(OUTCOMES) * wide, 1.5 + 0.25 * len(texts)) as (figure, (axes,)):
        axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        _annotate(axes, texts)
        _head(axes, n_slices)
        axes.set_yticks(range(len(findings)), findings)
        axes.set_xticks(range(len(columns)), columns)
        axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(visible=False)
        figure.suptitle(name, x=0.01, ha="left", fontsize="medium", weight="bold")
        caption = f"{name}: share of each finding by slice and outcome; {NOBODY} no such example."
        out.picture(figure, picture, caption)


def _head(axes: Axes, n_slices: int) -> None:
    """The outcomes above their columns, and lines between them."""
    above: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
    for position, words in enumerate(OUTCOMES.values()):
        left = position * n_slices - 0.5
        axes.annotate(words, (left + n_slices / 2, 1), (0, 26), weight="bold", **above)
        if position:
            axes.axvline(left, color="black", lw=1)


def _annotate(axes: Axes, texts: pd.DataFrame) -> None:
    """Write every share into its cell; one hatched band for a finding that is absent."""
    n_cells = texts.shape[1]
    for row, of_finding in enumerate(texts.to_numpy()):
        if (of_finding == ABSENT).all():
            band: dict[str, Any] = {"facecolor": "#f3f3f3", "edgecolor": "#c8c8c8", "hatch": "////", "linewidth": 0}
            axes.add_patch(Rectangle((-0.5, row - 0.5), n_cells, 1, **band))
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            for middle in (np.arange(len(OUTCOMES)) + 0.5) * n_cells / len(OUTCOMES) - 0.5:
                axes.text(middle, row, ABSENT, ha="center", va="center", size=7, bbox=box)
            continue
        for column, text in enumerate(of_finding):
            shade = "#999999" if text in (NOBODY, "0.00") else "white" if float(text) > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", size=7.5, color=shade)
