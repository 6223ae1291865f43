"""Tokens that are more frequent in a slice of texts than elsewhere, and how long those texts are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import NullLocator
from scipy.stats import t

from experiments.analyses._measured import ALL, DRAWN, SPOTLIGHT, Measured, draw_intervals
from experiments.analysing import Output
from experiments.describing.members import strongest
from experiments.describing.names import file_names, shortened
from experiments.describing.texts import Pairs, texts_of
from experiments.describing.tokens import token_ratios
from experiments.drawing import OTHER, colour, drawing
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

RATIO, LENGTH = "token_ratio", "mean_length"
LONGEST_TEXT = 5_000  # letters of a text in the table, for who opens it in a spreadsheet
COLUMNS = 3  # of panels


def analyse(
    runs: Sequence[FinishedRun],
    out: Output,
    most: int = 5,
    n_tokens: int = 10,
    n_texts: int = 5,
    min_count: int = 5,
    smoothing: float = 1.0,
    pairs: Pairs = "first",
) -> pd.DataFrame:
    """The tokens most over-represented in each slice, its mean length in words, and its strongest texts.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Those without texts are left out, and a sentence says so.
    out : Output
    most : int, >= 1
        Slices of a run that are drawn and told of, the worst first; all of them are counted.
    n_tokens : int, >= 1
        Tokens of a slice, at most.
    n_texts : int, >= 0
        Texts of a slice in the table: its strongest members.
    min_count : int, >= 1
        Members of a slice that must hold a token.
    smoothing : float, >= 0
        Texts with the token, and as many without it, that are added to the slice and to the split.
    pairs : {"first", "both"}
        What counts of a pair of texts: the first of them (SQuAD's question), or both.

    Returns
    -------
    DataFrame
        Measures token_ratio a slice and token (the group; `n` members hold it) and mean_length, in words, with its 95%
        interval, a slice and for the whole split (group `all`).

    Raises
    ------
    InvalidInput
        Where no run has texts.

    Notes
    -----
    Figures 4 and D11 of d'Eon et al. (2022). As in section 4.3, frequencies in a spotlight are those under its
    weights, and so are lengths; all members of another method's slice weigh the same. A frequency is the share of
    texts that hold a token; with c such texts of n in all it enters the ratio as (c + smoothing) / (n + 2 smoothing).
    Tokens are ranked as in the authors' code, which adds 0.005 to both frequencies instead: or rare tokens, of which
    all are in the slice, would come first. They are words in lower case, where the paper's are pieces of words; English
    stop words are left out.
    """
    _check(most, n_tokens, n_texts, min_count, smoothing, pairs)
    measured = []
    for run, name, texts in _with_texts(runs, out, pairs):
        numbers = _of_run(run, texts, n_tokens, min_count, smoothing)
        measured.append(Measured(name, run, pd.DataFrame(numbers)))
    _write_texts(measured, out, n_texts, most)
    for one in measured:
        _say(one, out, most, min_count)
    _draw(measured, out, most, min_count)
    lengths = "words per text, with 95% interval; dotted: of the whole split"
    draw_intervals(measured, LENGTH, out, "lengths", lengths, "Mean length of the texts of each slice.", most)
    return pd.concat([one.numbers for one in measured], ignore_index=True)


def _check(most: int, n_tokens: int, n_texts: int, min_count: int, smoothing: float, pairs: str) -> None:
    counts = {"most": (most, 1), "n_tokens": (n_tokens, 1), "n_texts": (n_texts, 0), "min_count": (min_count, 1)}
    for name, (value, least) in {**counts, "smoothing": (smoothing, 0)}.items():
        if value < least:
            raise InvalidInput(f"{name} is {value}, expected at least {least}")
    if pairs not in ("first", "both"):
        raise InvalidInput(f"pairs is {pairs!r}, expected first or both")


def _with_texts(
    runs: Sequence[FinishedRun], out: Output, pairs: Pairs
) -> list[tuple[FinishedRun, str, tuple[str, ...]]]:
    """The runs whose texts hold words, with their titles and texts."""
    named = [(run, name, texts_of(run, pairs)) for run, name in zip(runs, titles(list(runs)), strict=True)]
    found = [one for one in named if one[2]]
    if not found:
        raise InvalidInput(f"none of the {len(runs)} runs has texts, whose tokens could be counted")
    for name in (name for _, name, texts in named if not texts):
        out.say(f"{name}: its examples have no texts, so it is left out.")
    return found


def _of_run(
    run: FinishedRun, texts: tuple[str, ...], n_tokens: int, min_count: int, smoothing: float
) -> list[dict[str, Any]]:
    lengths = np.array([len(text.split()) for text in texts], dtype=float)  # (n,)
    members, weights = run.members(), _weights(run)  # (n, s), (n, s)
    whole = _mean(lengths, np.ones(len(texts)))
    rows = [{**run.identity, "group": ALL, "measure": LENGTH, **whole, "n": len(texts)}]
    for index, (member, weight) in enumerate(zip(members.T, weights.T, strict=True), start=1):
        if not member.any():
            continue
        of_slice = {**run.identity, "slice": index}
        rows.append({**of_slice, "measure": LENGTH, **_mean(lengths, weight), "n": int(member.sum())})
        ratios = token_ratios(texts, member, weight, smoothing)
        over = (ratios["n"] >= min_count) & (ratios["value"] > 1) & (ratios["rank"] > 1)
        top = ratios[over].head(n_tokens)
        rows += [
            {**of_slice, "group": token, "measure": RATIO, "value": ratio, "n": count}
            for token, ratio, count in zip(top["group"], top["value"], top["n"], strict=True)
        ]
    return rows


def _weights(run: FinishedRun) -> np.ndarray:
    """How much each example counts in each slice: (n, s)."""
    slices = run.slices()
    # only of spotlights are memberships a distribution; of others they rank, and may be large outside of the slice
    is_soft = run.method.startswith(SPOTLIGHT)
    return (slices.membership if is_soft else slices.members).double().numpy()


def _mean(values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """The weighted mean with the 95% interval of Student's t; without one where fewer than two examples count."""
    mean = float(weights @ values / weights.sum())
    effective = float(weights.sum() ** 2 / (weights**2).sum())  # the number of examples where all weigh the same
    if effective <= 1 + 1e-9:
        return {"value": mean, "low": np.nan, "high": np.nan}
    variance = float(weights**2 @ (values - mean) ** 2) / weights.sum() ** 2 * effective / (effective - 1)
    margin = float(t.ppf(0.975, effective - 1)) * math.sqrt(variance)
    return {"value": mean, "low": mean - margin, "high": mean + margin}


def _write_texts(measured: Sequence[Measured], out: Output, n_texts: int, most: int) -> None:
    columns = ["slice", "id", "label", "prediction", "loss", "text"]
    tables = [strongest(one.run, n_texts, most)[columns].assign(run=one.name) for one in measured]
    table = pd.concat(tables, ignore_index=True).round({"loss": 4})
    table["text"] = table["text"].fillna("").map(lambda text: shortened(text, LONGEST_TEXT))
    out.table(table[["run", *columns]], "texts", "The strongest members of each slice.")


def _say(one: Measured, out: Output, most: int, min_count: int) -> None:
    lengths, tokens = one.of(LENGTH), one.of(RATIO)
    whole = lengths.loc[lengths["group"] == ALL, "value"].iloc[0]
    for index in range(1, min(most, one.run.slices().n_slices) + 1):
        own = lengths.loc[_is(lengths, index), "value"]
        ratios = tokens[_is(tokens, index)]
        words = ", ".join(
            f"{token} x{ratio:.1f}" for token, ratio in zip(ratios["group"], ratios["value"], strict=True)
        )
        words = words or f"no over-represented token in {min_count} of its texts"
        ends = f"{words}; {own.iloc[0]:.1f} words on average against {whole:.1f}" if len(own) else "no members"
        out.say(f"{one.called(index)}: {ends}.")
    if not one.run.slices().n_slices:
        out.say(f"{one.name}: no slices were found.")


def _is(rows: pd.DataFrame, index: int) -> pd.Series:
    """Which rows are of one slice; a table in which no slice has any lacks the column."""
    return rows["slice"] == index if "slice" in rows else pd.Series(False, index=rows.index)


def _draw(measured: Sequence[Measured], out: Output, most: int, min_count: int) -> None:
    """One picture a run: a panel for each of its first slices."""
    drawn = [one for one in measured if one.run.slices().n_slices]
    for one, file in list(zip(drawn, file_names([one.name for one in drawn]), strict=True))[:DRAWN]:
        _draw_run(one, out, file, most, min_count)
    if len(drawn) > DRAWN:
        out.say(f"Tokens of the first {DRAWN} of {len(drawn)} runs are drawn; all are counted.")


def _draw_run(one: Measured, out: Output, file: str, most: int, min_count: int) -> None:
    n_panels = min(most, one.run.slices().n_slices)
    columns = min(COLUMNS, n_panels)
    rows = math.ceil(n_panels / columns)
    tokens, sizes = one.of(RATIO), one.run.members().sum(axis=0)
    longest = tokens.get("slice", pd.Series(dtype=float)).value_counts().max() if len(tokens) else 3
    with drawing(max(4.4, 3.1 * columns), 0.7 + rows * (0.5 + 0.19 * longest), rows, columns) as (figure, panels):
        room = 1.3 * math.log(max([*tokens["value"], 1.01]))
        for index, axes in enumerate(panels[:n_panels], start=1):
            own, size = tokens[_is(tokens, index)], int(sizes[index - 1])
            _draw_panel(axes, own, colour(one.run.method))
            axes.set(xlim=(1, math.exp(room)), ylim=(longest - 0.4, -0.6))
            axes.set_title(f"{one.word} {index} (n={size:,})")
            if own.empty:
                _explain(axes, f"no over-represented token\nin {min_count} of its texts" if size else "no members")
        for axes in panels[n_panels:]:
            axes.set_visible(False)
        figure.suptitle(shortened(one.name, 60), fontsize="medium", parse_math=False)
        figure.supxlabel("times as frequent as in the whole split, logarithmic", fontsize="medium")
        caption = f"{one.name}: the tokens that tell most of each slice, and how much more frequent they are there."
        out.picture(figure, file, caption)


def _draw_panel(axes: Axes, tokens: pd.DataFrame, fill: str) -> None:
    """Bars of one slice, the first token above; a bar begins where a token is as frequent as elsewhere."""
    axes.set_xscale("log")
    bars = axes.barh(np.arange(len(tokens)), tokens["value"] - 1, left=1, height=0.75, color=fill)
    axes.bar_label(bars, [f"×{ratio:.1f}" for ratio in tokens["value"]], padding=2, fontsize="small")
    axes.set_yticks(range(len(tokens)), [_drawable(token) for token in tokens["group"]], parse_math=False)
    axes.xaxis.set(major_locator=NullLocator(), minor_locator=NullLocator())
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)


def _explain(axes: Axes, why: str) -> None:
    """Say why a panel is empty."""
    axes.spines[:].set_visible(False)
    axes.text(0, 0, why, transform=axes.get_yaxis_transform(), va="top", color=OTHER)


def _drawable(text: str) -> str:
    """The text with a box for what the pictures' font lacks, as Chinese."""
    font = get_font(findfont("DejaVu Sans"))
    return "".join(letter if font.get_char_index(ord(letter)) else "□" for letter in text)
