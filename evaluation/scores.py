"""All scores of one problem's discovered slices, as tidy rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from evaluation.checks import Bools, check_count, check_name
from evaluation.discovery import Discovery, discovery
from evaluation.matching import PROTOCOLS, Candidates, Match
from evaluation.overlap import Overlap, overlap
from evaluation.ranking import hits_at_k
from evaluation.statistics import slice_statistics
from methods.contract import InvalidInput, ModelOutputs, Slices

Measured: TypeAlias = tuple[str, int | None, float]  # metric, k or None, value
VERSION = 3  # raised when a score changes: runs of different versions are never mixed


def score(
    slices: Slices,
    outputs: ModelOutputs,
    true_slices: Tensor | None,
    *,
    protocols: Sequence[str],
    k: Sequence[int],
    seed: int,
    confidence: float,
    resamples: int,
    discovery_precision: float = 0.8,
    discovery_recall: float = 0.8,
) -> list[dict[str, Any]]:
    """Score discovered slices against the true ones by each protocol, and describe each slice by itself.

    Parameters
    ----------
    slices : Slices
    outputs : ModelOutputs
        Of the same examples: the half that is scored on.
    true_slices : Tensor, shape (n, g), bool, or None
        Where None, only what needs no ground truth is returned. Each holds some examples, and not all.
    protocols : sequence of str
        Of `evaluation.matching.PROTOCOLS`.
    k : sequence of int
        Each at least 1.
    seed : int
        Of the order among equal memberships, and of the draws for the gap's interval.
    confidence : float, in (0, 1)
        Of the interval around the gap in accuracy.
    resamples : int
        At least 1.
    discovery_precision, discovery_recall : float, in (0, 1)
        As for `evaluation.discovery.discovery`.

    Returns
    -------
    list of dict
        With the keys protocol, true_slice, slice, metric, k, value. For each protocol and true slice: precision_at_k
        and recall_at_k (a row for each k), average_precision, auroc, precision, recall, f1. For each slice, with
        protocol and true_slice None: `slice_statistics`, with a row only for what there is; and once n_slices. `slice`
        is the index of the discovered slice that was matched, and -1 - index where its complement was. By the protocol
        `spotcheck`, which looks at all slices together: discovery_rate (0 or 1) for each true slice, and once
        false_discovery_rate, which is left out where there are no slices.

    Raises
    ------
    InvalidInput
        Where an argument is out of range, or ids or shapes do not agree.

    Notes
    -----
    No discovered slice ranks nothing: average precision is the base rate, AUROC is 0.5, the rest is 0, and `slice`
    is None. An example with membership 0 is in no top k.

    Examples
    --------
    >>> arrays = {"embeddings": torch.zeros(3, 1), "losses": [2.0, 0.1, 4.0], "correct": [False, True, False]}
    >>> outputs = ModelOutputs.from_arrays(["a", "b", "c"], **arrays)
    >>> members = torch.tensor([[True], [False], [True]])
    >>> slices = Slices(outputs.example_ids, members.float(), members)
    >>> rows = score(slices, outputs, members, protocols=["first"], k=[2], seed=0, confidence=0.95, resamples=100)
    >>> rows[0]
    {'protocol': 'first', 'true_slice': 0, 'slice': 0, 'metric': 'precision_at_k', 'k': 2, 'value': 1.0}
    """
    for protocol in protocols:
        check_name("protocol", protocol, PROTOCOLS)
    for value in k:
        check_count("k", value)
    described = slice_statistics(slices, outputs, confidence=confidence, resamples=resamples, seed=seed)
    rows: list[dict[str, Any]] = []
    for index, true_slice in enumerate(_columns(true_slices, outputs.n_examples)):
        for protocol, code, measured in _against(slices, outputs, true_slice, protocols, k, seed):
            rows += _rows(protocol, index, code, measured)
    if true_slices is not None:
        members, truth = slices.members.numpy(force=True), true_slices.numpy(force=True)
        rows += _discovery_rows(discovery(members, truth, discovery_precision, discovery_recall))
    rows += _rows(None, None, None, [("n_slices", None, float(slices.n_slices))])
    for index, statistics in enumerate(described):
        rows += _rows(None, None, index, [(metric, None, value) for metric, value in statistics.items()])
    return rows


def _against(
    slices: Slices, outputs: ModelOutputs, true_slice: Bools, protocols: Sequence[str], k: Sequence[int], seed: int
) -> list[tuple[str, int | None, list[Measured]]]:
    """For each protocol: its name, the code of the slice that it matches, and the metrics of that."""
    if slices.n_slices == 0:
        return [(protocol, None, _no_slice(true_slice, k)) for protocol in protocols]
    membership, members = slices.membership.numpy(force=True), slices.members.numpy(force=True)
    candidates = Candidates(membership, members, outputs.losses.numpy(force=True), true_slice)
    matches = {protocol: PROTOCOLS[protocol](candidates) for protocol in protocols}
    # protocols often agree: measure each chosen slice once
    measured = {match: _measure(candidates, match, k, seed) for match in set(matches.values())}
    return [(protocol, match.code, measured[match]) for protocol, match in matches.items()]


def _measure(candidates: Candidates, match: Match, k: Sequence[int], seed: int) -> list[Measured]:
    membership, members = candidates.membership_of(match), candidates.members_of(match)
    true_slice = candidates.true_slice
    hits = hits_at_k(membership, true_slice, k, seed, candidates.retrieved_by(match)).tolist()
    size = int(true_slice.sum())
    return [
        *[("precision_at_k", at, hit / at) for at, hit in zip(k, hits, strict=True)],
        *[("recall_at_k", at, hit / size) for at, hit in zip(k, hits, strict=True)],
        ("average_precision", None, candidates.average_precision(match)),
        ("auroc", None, candidates.auroc(match)),
        *[(metric, None, value) for metric, value in overlap(members, true_slice)._asdict().items()],
    ]


def _discovery_rows(found: Discovery) -> list[dict[str, Any]]:
    rows = []
    for index, discovered in enumerate(found.discovered.tolist()):
        rows += _rows("spotcheck", index, None, [("discovery_rate", None, float(discovered))])
    if len(found.false):
        rows += _rows("spotcheck", None, None, [("false_discovery_rate", None, float(found.false.mean()))])
    return rows


def _no_slice(true_slice: Bools, k: Sequence[int]) -> list[Measured]:
    at_k: list[Measured] = [(metric, at, 0.0) for metric in ("precision_at_k", "recall_at_k") for at in k]
    chance: list[Measured] = [("average_precision", None, float(true_slice.mean())), ("auroc", None, 0.5)]
    return [*at_k, *chance, *[(metric, None, 0.0) for metric in Overlap._fields]]


def _rows(
    protocol: str | None, true_slice: int | None, code: int | None, measured: Iterable[Measured]
) -> list[dict[str, Any]]:
    key = {"protocol": protocol, "true_slice": true_slice, "slice": code}
    return [{**key, "metric": metric, "k": at, "value": value} for metric, at, value in measured]


def _columns(true_slices: Tensor | None, n_examples: int) -> list[Bools]:
    """Each true slice as an array (n,), checked."""
    if true_slices is None:
        return []
    if true_slices.dtype != torch.bool or true_slices.ndim != 2 or len(true_slices) != n_examples:
        found = f"{str(true_slices.dtype).removeprefix('torch.')} and shape {tuple(true_slices.shape)}"
        raise InvalidInput(f"true_slices has {found}, expected bool and ({n_examples}, true slices)")
    for index, size in enumerate(true_slices.sum(dim=0).tolist()):
        if not 0 < size < n_examples:
            raise InvalidInput(f"true slice {index} holds {size} of {n_examples} examples, expected some but not all")
    return list(true_slices.numpy(force=True).T)
