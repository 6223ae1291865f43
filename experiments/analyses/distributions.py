"""Labels and predictions of the examples in each slice, and which label is taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysing import Output
from experiments.describing.names import file_name, in_a_line, plain, shortened
from experiments.drawing import LABEL, PREDICTION, drawing
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

ALL = "all"  # the group of numbers about all slices that satisfy the rule
CLASSES = 6  # drawn of one slice; the rest is put together
PAIRS = 100  # kinds of error in the whole split that are counted: all of up to 10 classes, else the commonest
LONGEST = 24  # letters of a class in pictures and sentences
COLUMNS = 3  # slices beside each other in a picture

Row = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """Which slices count: accuracy in [0, 1] of at most, and at least so many members."""

    max_accuracy: float = 1.0
    min_size: int = 1

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Rule:
        """`InvalidInput` where a name or a value is not one that a rule has."""
        if not set(given) <= {"max_accuracy", "min_size"}:
            raise InvalidInput(f"rule has {', '.join(given)}, expected max_accuracy and min_size")
        rule = cls(**given)
        if not all(isinstance(value, int | float) for value in given.values()):
            raise InvalidInput(f"rule is {dict(given)}, expected max_accuracy and min_size as numbers")
        if not 0 <= rule.max_accuracy <= 1 or rule.min_size < 1:
            raise InvalidInput(f"rule is {dict(given)}, expected max_accuracy in [0, 1] and min_size of at least 1")
        return rule

    def __str__(self) -> str:
        return f"accuracy of at most {self.max_accuracy:.0%} and at least {self.min_size} examples"


def analyse(
    runs: Sequence[FinishedRun], out: Output, most: int = 6, rule: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Numbers of each slice, kinds of error in the whole split, and a picture of each run's slices.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Those without labels have error rates only, and no picture.
    out : Output
    most : int
        Slices of a run that are drawn and described; all of them are counted.
    rule : {"max_accuracy": float, "min_size": int}, optional
        Only slices that satisfy it are drawn and summed up; either name may be left out.

    Returns
    -------
    DataFrame
        label_homogeneity and prediction_homogeneity (share of the commonest), error_rate and pair_share (group
        `LABEL -> PREDICTION`, the commonest error in a slice, as a share of its members) a slice; without a slice
        pair_rate (share of the examples with this label) and pair_share_of_errors (share of all errors) of each kind of
        error. With a rule also n_slices_by_rule and, over the examples in any of these slices, n_examples_by_rule,
        n_errors_found_by_rule, share_of_errors_found_by_rule and accuracy_by_rule (group `all`).

    Raises
    ------
    InvalidInput
        Where the rule has other names or values than these.

    Notes
    -----
    The InfEmbed paper: figures 1 and 3 (distributions), section 4.3 (slices by rule) and appendix F, whose percentages
    of confused labels are shares of all errors.
    """
    wanted = None if rule is None else Rule.read(rule)
    rows: list[Row] = []
    for run, name in zip(runs, titles(list(runs)), strict=True):
        members, correct = run.members(), run.examples["correct"].to_numpy(bool)  # (n, s), (n,)
        chosen = _satisfying(members, correct, wanted or Rule())
        of_run = [*_of_slices(run, members)]
        if wanted is not None:
            by_rule = _by_rule(members[:, [index - 1 for index in chosen]], correct)
            of_run += by_rule
            out.say(_summary(name, wanted, {row["measure"]: row["value"] for row in by_rule}, int((~correct).sum())))
        if _has_labels(run):
            of_run += _pairs(run.examples)
            _show(run, name, members, chosen[:most], out)
        else:
            out.say(f"{name}: its examples have no labels, hence no distributions of labels and predictions.")
        rows += [{**run.identity, **row} for row in of_run]
    return pd.DataFrame(rows)


def _has_labels(run: FinishedRun) -> bool:
    return bool(run.examples[["label", "prediction"]].notna().all(axis=None))


def _satisfying(members: np.ndarray, correct: np.ndarray, rule: Rule) -> list[int]:
    """The numbers of these slices, from 1; an empty one satisfies no rule."""
    return [
        index
        for index, member in enumerate(members.T, start=1)
        if member.sum() >= rule.min_size and correct[member].mean() <= rule.max_accuracy
    ]


def _of_slices(run: FinishedRun, members: np.ndarray) -> Iterator[Row]:
    labelled = _has_labels(run)
    for index, member in enumerate(members.T, start=1):
        examples = run.examples[member]
        place = {"slice": index, "n": len(examples)}
        if len(examples):
            yield {**place, "measure": "error_rate", "value": 1 - examples["correct"].mean()}
        if len(examples) and labelled:
            for column in ("label", "prediction"):
                shares = examples[column].value_counts(normalize=True)
                yield {**place, "measure": f"{column}_homogeneity", "value": shares.iloc[0]}
            for (label, prediction), count in islice(_errors(examples).items(), 1):
                row = {**place, "measure": "pair_share", "group": f"{label} -> {prediction}"}
                yield {**row, "value": count / len(examples)}


def _errors(examples: pd.DataFrame) -> dict[tuple[str, str], int]:
    """How often each label is taken for each other one, the commonest first, then by name."""
    pairs = Counter(zip(examples["label"], examples["prediction"], strict=True))
    wrong = [(pair, count) for pair, count in pairs.items() if pair[0] != pair[1]]
    return dict(sorted(wrong, key=lambda one: (-one[1], one[0])))


def _pairs(examples: pd.DataFrame) -> Iterator[Row]:
    errors, of_label = _errors(examples), Counter(examples["label"])
    n_errors, classes = sum(errors.values()), _classes(examples)
    if len(classes) * (len(classes) - 1) <= PAIRS:  # that an error never happens is a number too
        errors = {pair: errors.get(pair, 0) for pair in permutations(classes, 2)}
    for (label, prediction), count in islice(errors.items(), PAIRS):
        for measure, n in (("pair_rate", of_label[label]), ("pair_share_of_errors", n_errors)):
            if n:
                yield {"group": f"{label} -> {prediction}", "measure": measure, "value": count / n, "n": n}


def _classes(examples: pd.DataFrame) -> list[str]:
    return sorted(set(examples["label"]) | set(examples["prediction"]))


def _by_rule(members: np.ndarray, correct: np.ndarray) -> list[Row]:
    """Of all slices that satisfy it together: an example in two of them counts once."""
    found, wrong = members.any(axis=1), ~correct
    measured = {
        "n_slices_by_rule": (members.shape[1], len(correct)),
        "n_examples_by_rule": (found.sum(), len(correct)),
        "n_errors_found_by_rule": (wrong[found].sum(), wrong.sum()),
    }
    if wrong.any():
        measured["share_of_errors_found_by_rule"] = (wrong[found].sum() / wrong.sum(), wrong.sum())
    if found.any():
        measured["accuracy_by_rule"] = (correct[found].mean(), found.sum())
    return [{"group": ALL, "measure": m, "value": value, "n": int(n)} for m, (value, n) in measured.items()]


def _summary(name: str, rule: Rule, values: Mapping[str, float], n_errors: int) -> str:
    if not values["n_slices_by_rule"]:
        return f"{name}: no slice has an {rule}."
    have = "slice has" if values["n_slices_by_rule"] == 1 else "slices have"
    share = f" ({values['share_of_errors_found_by_rule']:.0%})" if n_errors else ""
    return (
        f"{name}: {values['n_slices_by_rule']} {have} an {rule}; together {values['n_examples_by_rule']:,} "
        f"examples with accuracy {values['accuracy_by_rule']:.0%}, and {values['n_errors_found_by_rule']:,}{share} of "
        f"{n_errors:,} errors."
    )


def _show(run: FinishedRun, name: str, members: np.ndarray, chosen: Sequence[int], out: Output) -> None:
    """Describe and draw these slices."""
    panels = []
    for index in chosen:
        examples = run.examples[members[:, index - 1]]
        n, accuracy = len(examples), examples["correct"].mean()
        commonest = ", ".join(f"{column}s {_commonest(examples[column])}" for column in ("label", "prediction"))
        out.say(f"slice {index} of {name}: {n:,} examples, accuracy {accuracy:.0%}, {commonest}")
        panels.append((f"slice {index}: n={n:,}, error rate {1 - accuracy:.0%}", _shares(run.examples, examples)))
    if panels:
        _draw(panels, name, run, out)


def _commonest(names: pd.Series) -> str:
    shares = names.value_counts(normalize=True)
    return f"{_short(str(shares.index[0]))} {shares.iloc[0]:.0%}"


def _shares(everything: pd.DataFrame, examples: pd.DataFrame) -> pd.DataFrame:
    """The share of each class among labels and predictions: all classes where they are few, else the slice's own."""
    shares = pd.DataFrame({name: examples[name].value_counts(normalize=True) for name in ("label", "prediction")})
    classes = _classes(everything)
    if len(classes) <= CLASSES + 1:
        return shares.reindex(classes).fillna(0)
    shares = shares.fillna(0)
    shares = shares.loc[shares.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    if len(shares) <= CLASSES + 1:
        return shares
    others = pd.DataFrame([shares.iloc[CLASSES:].sum()], index=[f"{len(shares) - CLASSES} other classes"])
    return pd.concat([shares.iloc[:CLASSES], others])


def _draw(panels: Sequence[tuple[str, pd.DataFrame]], name: str, run: FinishedRun, out: Output) -> None:
    n_columns = min(COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    height = 0.45 + 0.3 * max(len(shares) for _, shares in panels)
    width = 3.0 + 0.06 * max(len(_short(str(text))) for _, shares in panels for text in shares.index)
    with drawing(round(max(4.5, width * n_columns), 1), 0.6 + n_rows * (height + 0.3), n_rows, n_columns) as (
        figure,
        axes,
    ):
        for one, (title, shares) in zip(axes, panels, strict=False):
            _draw_slice(one, title, shares)
        for empty in axes[len(panels) :]:
            empty.set_visible(False)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        figure.supxlabel("share of the slice, %", fontsize=9)
        caption = (
            f"Labels (red) and predictions (blue) in slices of {name}, of the {run.identity['split']} split of "
            f"{run.identity['dataset']}."
        )
        out.picture(figure, file_name(name), caption)


def _draw_slice(axes: Any, title: str, shares: pd.DataFrame) -> None:
    at = np.arange(len(shares))
    for offset, column, shade in ((-0.2, "label", LABEL), (0.2, "prediction", PREDICTION)):
        axes.barh(at + offset, 100 * shares[column], 0.38, color=shade, label=f"{column}s")
    axes.set_yticks(at, [plain(_short(str(text))) for text in shares.index], fontsize=8)
    axes.set(xlim=(0, 100), ylim=(len(shares) - 0.5, -0.5), title=title)
    axes.grid(visible=False, axis="y")


def _short(text: str) -> str:
    return shortened(in_a_line(text), LONGEST)
