"""What can be said of each discovered slice without ground truth: size, loss, accuracy, gap, label homogeneity."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from evaluation.checks import Bools, Floats, as_outcomes, check_count, check_same_examples, check_share
from methods.contract import InvalidInput, ModelOutputs, Slices


class Gap(NamedTuple):
    """The accuracy of the rest minus the accuracy of the slice, in [-1, 1], with its interval."""

    gap: float
    low: float
    high: float


def slice_statistics(
    slices: Slices, outputs: ModelOutputs, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> list[dict[str, float]]:
    """Statistics of the members of each discovered slice.

    Parameters
    ----------
    slices : Slices
    outputs : ModelOutputs
        Of the same examples.
    confidence : float, in (0, 1)
        Of the interval around the gap in accuracy.
    resamples : int
        At least 1.
    seed : int

    Returns
    -------
    list of dict, length s
        size, mean_loss (nats), accuracy, gap, gap_low, gap_high; with labels modal_label_share and label_entropy
        (nats), with logits modal_prediction_share and prediction_entropy. An empty slice has its size only, and a
        slice of all examples no gap.

    Notes
    -----
    Shares and entropies of labels and predictions measure label homogeneity (Wang et al. 2023, appendix C.5): the
    modal share is 1 and the entropy 0 where all members agree.

    Examples
    --------
    >>> import torch
    >>> arrays = {"embeddings": torch.zeros(3, 1), "losses": [2.0, 0.1, 4.0], "correct": [False, True, False]}
    >>> outputs = ModelOutputs.from_arrays(["a", "b", "c"], **arrays, labels=[1, 1, 1])
    >>> members = torch.tensor([[True], [False], [True]])
    >>> row = slice_statistics(Slices(outputs.example_ids, members.float(), members), outputs)[0]
    >>> row["size"], row["mean_loss"], row["accuracy"], row["gap"], row["modal_label_share"]
    (2.0, 3.0, 0.0, 1.0, 1.0)
    """
    check_same_examples(slices, outputs)
    check_share("confidence", confidence)
    check_count("resamples", resamples)
    columns = _Columns.of(outputs)
    rows = []
    for members in slices.members.numpy(force=True).T:  # (n,)
        row = columns.describe(members)
        if members.any() and not members.all():
            gap = accuracy_gap(members, columns.correct, confidence=confidence, resamples=resamples, seed=seed)
            row |= {"gap": gap.gap, "gap_low": gap.low, "gap_high": gap.high}
        rows.append(row)
    return rows


def accuracy_gap(
    members: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Gap:
    """How much less accurate the model is on a slice than on the rest, with an interval.

    Parameters
    ----------
    members : array-like, shape (n,), bool
        With at least one example inside and one outside.
    correct : array-like, shape (n,), bool
    confidence : float, in (0, 1)
    resamples : int
        Draws, at least 1.
    seed : int

    Returns
    -------
    Gap
        The less certain the fewer examples a side has, also where the model is always right, or always wrong, on it.

    Notes
    -----
    After k right answers of m, the accuracy of a side has Jeffreys' posterior Beta(k + 1/2, m - k + 1/2), whose
    intervals cover well (Brown, Cai and DasGupta 2001); both sides are drawn from theirs, and the interval is of
    percentiles of the difference. It always holds the gap itself.

    Examples
    --------
    >>> gap = accuracy_gap([True, True, False, False], [False, False, True, True])
    >>> gap.gap, gap.low < 0.5, gap.high
    (1.0, True, 1.0)
    """
    check_share("confidence", confidence)
    check_count("resamples", resamples)
    mask = as_outcomes("members", members)
    right = as_outcomes("correct", correct, len(mask))
    if not mask.any() or mask.all():
        raise InvalidInput(f"members holds {mask.sum()} of {len(mask)} examples, expected some inside and some outside")
    rng = np.random.default_rng(seed)
    shares = [rng.beta(part.sum() + 0.5, (~part).sum() + 0.5, resamples) for part in (right[~mask], right[mask])]
    low, high = _quantiles(shares[0] - shares[1], np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    gap = float(right[~mask].mean() - right[mask].mean())
    return Gap(gap, min(float(low), gap), max(float(high), gap))


def _quantiles(draws: Floats, shares: Floats) -> Floats:
    """As numpy.quantile, which takes longer than to draw; `draws` are sorted in place."""
    draws.sort()
    at = shares * (len(draws) - 1)
    below = at.astype(np.int64)
    above = np.minimum(below + 1, len(draws) - 1)
    part, step = at - below, draws[above] - draws[below]
    ends: Floats = np.where(part < 0.5, draws[below] + step * part, draws[above] - step * (1 - part))
    return ends


class _Columns(NamedTuple):
    """What the outputs say of each example, taken out of them once for all slices."""

    losses: npt.NDArray[np.floating]
    correct: Bools
    classes: dict[str, npt.NDArray[np.integer]]

    @classmethod
    def of(cls, outputs: ModelOutputs) -> Self:
        classes = {"label": outputs.labels, "prediction": outputs.predictions}
        known = {name: values.numpy(force=True) for name, values in classes.items() if values is not None}
        return cls(outputs.losses.numpy(force=True), outputs.correct.numpy(force=True), known)

    def describe(self, members: Bools) -> dict[str, float]:
        """All but the gap."""
        row = {"size": float(members.sum())}
        if not members.any():
            return row
        row["mean_loss"] = float(self.losses[members].mean(dtype=np.float64))
        row["accuracy"] = float(self.correct[members].mean())
        for name, classes in self.classes.items():
            counts = np.bincount(classes[members])  # (c,)
            row |= {
                f"modal_{name}_share": float(counts.max() / counts.sum()),
                f"{name}_entropy": float(entr(counts / counts.sum()).sum()),
            }
        return row
