"""Do slices hold the examples whose label is wrong, where the data say which these are?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from evaluation.ranking import auroc, hits_at_k
from experiments.analyses._measured import ALL, Measured, draw_intervals
from experiments.analysing import Output
from experiments.describing.shares import share
from experiments.finished import FinishedRun, titles
from methods.errors import InvalidInput

SHARE, PRECISION = "mislabelled_share", "mislabelled_precision_at_k"
RECALL, AUROC = "mislabelled_recall", "mislabelled_auroc"
BY_LOSS, BY_MEMBERSHIP = "by loss", "by membership"
TRUTH = dict.fromkeys(("yes", "true", "1", "1.0"), True) | dict.fromkeys(("no", "false", "0", "0.0"), False)
DRAWN = 10  # slices of a run


def analyse(
    runs: Sequence[FinishedRun], out: Output, attribute: str = "wrong", k: Sequence[int] = (10, 25, 50, 100)
) -> pd.DataFrame:
    """How many of a slice's members are mislabelled, and how many of the mislabelled examples are found.

    Parameters
    ----------
    runs : sequence of FinishedRun
        With one problem each. Those without the attribute are left out, and a sentence says so.
    out : Output
    attribute : str
        Whether an example's label is wrong: yes or no, true or false, 1 or 0. Examples without one do not count.
    k : sequence of int, each >= 1
        How many members of the worst slice are looked at.

    Returns
    -------
    DataFrame
        mislabelled_share, with its 95% interval (Wilson's), of each slice and of the whole split (group `all`);
        mislabelled_precision_at_k (groups `k=10` ...), the share of k among the first k members of the worst slice,
        missing members counting as misses; mislabelled_recall (group `all`), the share of all mislabelled examples that
        are in any slice; mislabelled_auroc, of the losses (group `by loss`) and of the largest membership over all
        slices (group `by membership`). Recall and AUROC are left out where nothing is mislabelled.

    Raises
    ------
    InvalidInput
        Where no run has this attribute, or it says something else; and where a k is below 1.
    """
    measured = []
    for run, name in zip(runs, titles(list(runs)), strict=True):
        if attribute in run.attributes():
            measured.append(Measured(name, run, pd.DataFrame(_of_run(run, attribute, list(k)))))
        else:
            out.say(f"{name}: its data do not say which labels are wrong, so it is left out.")
    if not measured:
        runs[0].attribute(attribute)  # refuses, and names those that there are
    for one in measured:
        _say(one, out)
    label = "mislabelled, with 95% interval; dotted: of the whole split"
    caption = "Share of mislabelled examples in each slice; the dotted line is that of the whole split."
    draw_intervals(measured, SHARE, out, "shares", label, caption, DRAWN, percent=True)
    return pd.concat([one.numbers for one in measured], ignore_index=True)


def _of_run(run: FinishedRun, attribute: str, k: Sequence[int]) -> list[dict[str, Any]]:
    known, wrong = _truth(run, attribute)  # (n,), (n_known,)
    slices, losses = run.slices(), run.examples["loss"].to_numpy(float)[known]
    members, membership = slices.members.numpy()[known], slices.membership.numpy()[known]  # (n_known, s)
    rows = [{"group": ALL, "measure": SHARE, **share(wrong)}]
    rows += [{"slice": i, "measure": SHARE, **share(wrong[m])} for i, m in enumerate(members.T, 1) if m.any()]
    rows += _precisions(members, membership, wrong, k)
    if wrong.any():
        rows.append({"group": ALL, "measure": RECALL, **share(members.any(axis=1)[wrong])})
    if wrong.any() and not wrong.all():
        scores = {BY_LOSS: losses, **({BY_MEMBERSHIP: membership.max(axis=1)} if slices.n_slices else {})}
        n = int(wrong.sum())
        rows += [{"group": g, "measure": AUROC, "value": auroc(s, wrong), "n": n} for g, s in scores.items()]
    return [{**run.identity, **row} for row in rows]


def _truth(run: FinishedRun, attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """Of which examples it is known whether the label is wrong, (n,), and whether it is, (n_known,)."""
    values = run.attribute(attribute)
    words = values.astype(object).where(values.notna(), "").map(lambda value: str(value).strip().lower())
    known = (words != "").to_numpy()
    odd = [word for word in dict.fromkeys(words[known]) if word not in TRUTH] if known.any() else ["nothing"]
    if odd:
        raise InvalidInput(
            f"{run.folder}: the attribute {attribute!r} says {', '.join(odd[:3])}, expected yes or no, true or false, "
            "1 or 0"
        )
    return known, words[known].map(TRUTH).to_numpy(bool)


def _precisions(
    members: np.ndarray, membership: np.ndarray, wrong: np.ndarray, k: Sequence[int]
) -> list[dict[str, Any]]:
    """Of the worst slice; all 0 where there is none."""
    none = np.zeros(len(wrong), dtype=bool)
    member, strength = (members[:, 0], membership[:, 0]) if members.shape[1] else (none, none)
    inside = np.where(member, strength, -1.0)  # whatever their membership, others come after all members
    hits = hits_at_k(inside, wrong, k, retrieved=member)
    return [
        {"group": f"k={count}", "measure": PRECISION, "value": hit / count, "n": min(count, int(member.sum()))}
        for count, hit in zip(k, hits, strict=True)
    ]


def _say(one: Measured, out: Output) -> None:
    rows = one.numbers.reindex(columns=["slice", "group", "measure", "value", "n"])
    whole = rows.dropna(subset="group").set_index(["measure", "group"])["value"]
    parts = [f"{whole[SHARE, ALL]:.1%} of the split are mislabelled"]
    of_slices = rows[rows["measure"] == SHARE].dropna(subset="slice")
    if len(of_slices):
        best = of_slices.iloc[of_slices["value"].argmax()]
        parts.append(f"at most {best['value']:.0%} of a slice (slice {best['slice']:.0f}, n={best['n']:,.0f})")
    at_k = rows[rows["measure"] == PRECISION]
    if len(at_k):
        first, found = ", ".join(at_k["group"].str.removeprefix("k=")), ", ".join(f"{v:.0%}" for v in at_k["value"])
        parts.append(f"{found} of the worst slice's first {first} members")
    if (RECALL, ALL) in whole:
        parts.append(f"{whole[RECALL, ALL]:.0%} of the mislabelled are in a slice")
    aurocs = [f"{whole[AUROC, g]:.2f} {g}" for g in (BY_LOSS, BY_MEMBERSHIP) if (AUROC, g) in whole]
    parts += [f"AUROC {' and '.join(aurocs)}"] * bool(aurocs)
    out.say(f"{one.name}: {', '.join(parts)}.")
