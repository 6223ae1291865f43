from collections import Counter

import pytest
import torch

from evaluation.matching import PROTOCOLS
from evaluation.overlap import overlap
from evaluation.ranking import auroc, average_precision, precision_at_k, recall_at_k
from evaluation.scores import score
from methods.contract import InvalidInput, ModelOutputs, Slices

N = 40
IDS = tuple(f"{i:02d}" for i in range(N))
METRICS = {"precision_at_k", "recall_at_k", "average_precision", "auroc", "precision", "recall", "f1"}


def outputs():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(N, 3, generator=generator), torch.arange(N) % 3
    return ModelOutputs.from_arrays(IDS, embeddings=torch.zeros(N, 1), logits=logits, labels=labels)


def slices(n_slices=3):
    membership = torch.rand(N, n_slices, generator=torch.Generator().manual_seed(1))
    return Slices(IDS, membership, membership > 0.7)


def true_slices(*sizes):
    """True slices of these sizes, each of the last examples."""
    return torch.stack([torch.arange(N) >= N - size for size in sizes], dim=1)


def rows_of(found, truth, protocols=tuple(PROTOCOLS), k=(5, 10), **changed):
    settings = {"seed": 0, "confidence": 0.95, "resamples": 100} | changed
    return score(found, outputs(), truth, protocols=protocols, k=k, **settings)


def value(rows, metric, **key):
    (row,) = [row for row in rows if row["metric"] == metric and all(row[name] == key[name] for name in key)]
    return row["value"]


def test_every_protocol_and_true_slice_has_every_metric_once():
    rows = [row for row in rows_of(slices(), true_slices(4, 9)) if row["protocol"] in PROTOCOLS]
    assert {tuple(row) for row in rows} == {("protocol", "true_slice", "slice", "metric", "k", "value")}
    counts = Counter((row["protocol"], row["true_slice"], row["metric"], row["k"]) for row in rows)
    at_k = {(metric, k) for metric in ("precision_at_k", "recall_at_k") for k in (5, 10)}
    others = {(metric, None) for metric in METRICS - {"precision_at_k", "recall_at_k"}}
    expected = {(name, index, *metric) for name in PROTOCOLS for index in (0, 1) for metric in at_k | others}
    assert counts == dict.fromkeys(expected, 1)


def test_values_are_those_of_the_metrics_themselves():
    found, truth = slices(), true_slices(9)
    rows = rows_of(found, truth, protocols=["first"], seed=3)
    membership, members, true_slice = found.membership[:, 0], found.members[:, 0], truth[:, 0]
    assert value(rows, "precision_at_k", k=10) == precision_at_k(membership, true_slice, 10, seed=3)
    assert value(rows, "recall_at_k", k=10) == recall_at_k(membership, true_slice, 10, seed=3)
    assert value(rows, "average_precision") == average_precision(membership, true_slice)
    assert value(rows, "auroc") == auroc(membership, true_slice)
    assert tuple(value(rows, metric) for metric in ("precision", "recall", "f1")) == overlap(members, true_slice)


def test_a_slice_that_is_the_true_one_is_found_and_scores_1():
    truth, others = true_slices(10), slices(2)
    members = torch.cat([others.members, truth], dim=1)
    rows = rows_of(Slices(IDS, members.float(), members), truth, protocols=["best_average_precision"], k=[10])
    assert [(row["slice"], row["value"]) for row in rows if row["protocol"] in PROTOCOLS] == [(2, 1.0)] * 7


def test_a_complement_is_written_as_minus_1_minus_its_slice():
    truth, others = true_slices(10), slices(1)
    members = torch.cat([others.members, ~truth], dim=1)
    found = Slices(IDS, members.float(), members)
    rows = rows_of(found, truth, protocols=["best_average_precision"], k=[10])
    assert [(row["slice"], row["value"]) for row in rows if row["protocol"] in PROTOCOLS] == [(-2, 1.0)] * 7


def test_each_true_slice_gets_its_own_match():
    truth = true_slices(5, 20)
    found = Slices(IDS, truth.flip(1).float(), truth.flip(1))
    rows = rows_of(found, truth, protocols=["best_auroc"])
    assert {(row["true_slice"], row["slice"]) for row in rows if row["protocol"] in PROTOCOLS} == {(0, 1), (1, 0)}


def test_no_slice_scores_0_and_chance_where_that_is_not_0():
    rows = rows_of(Slices.none(IDS), true_slices(10))
    assert {row["protocol"] for row in rows} == {*PROTOCOLS, "spotcheck", None}
    assert [row["value"] for row in rows if row["metric"] == "n_slices"] == [0.0]
    assert {row["slice"] for row in rows} == {None}
    chance = {"average_precision": 10 / N, "auroc": 0.5}
    assert all(row["value"] == chance.get(row["metric"], 0) for row in rows)
    assert {row["metric"] for row in rows} == METRICS | {"n_slices", "discovery_rate"}


def test_no_slice_has_the_same_rows_as_some_slice():
    def keys(rows):
        return [
            (row["protocol"], row["true_slice"], row["metric"], row["k"])
            for row in rows
            if row["protocol"] in PROTOCOLS
        ]

    assert keys(rows_of(Slices.none(IDS), true_slices(10, 5))) == keys(rows_of(slices(), true_slices(10, 5)))


def test_an_empty_slice_is_ranked_by_its_membership_and_its_members_score_0():
    truth = true_slices(10)
    rows = rows_of(Slices(IDS, truth.float(), torch.zeros_like(truth)), truth, protocols=["worst_slice"], k=[10])
    for metric in ("precision_at_k", "recall_at_k", "average_precision", "auroc"):
        assert value(rows, metric) == 1
    for metric in ("precision", "recall", "f1"):
        assert value(rows, metric) == 0


def test_statistics_need_no_true_slices_and_belong_to_no_protocol():
    rows = rows_of(slices(2), None)
    assert {(row["protocol"], row["true_slice"], row["k"]) for row in rows} == {(None, None, None)}
    sizes = [row["value"] for row in rows if row["metric"] == "size"]
    assert sizes == slices(2).members.sum(dim=0).tolist()
    homogeneity = {"modal_label_share", "modal_prediction_share", "label_entropy", "prediction_entropy"}
    expected = {"size", "mean_loss", "accuracy", "gap", "gap_low", "gap_high"} | homogeneity
    assert {row["metric"] for row in rows if row["slice"] == 1} == expected


def test_an_empty_slice_has_no_statistics_but_its_size():
    found = Slices(IDS, torch.zeros(N, 1), torch.zeros(N, 1, dtype=torch.bool))
    assert [(row["metric"], row["value"]) for row in rows_of(found, None)] == [("n_slices", 1.0), ("size", 0.0)]


def test_discovery_counts_for_each_true_slice_and_once_for_what_is_false():
    truth = true_slices(5, 20)
    members = torch.cat([truth, slices(1).members], dim=1)  # both, and a slice of other examples too
    found = Slices(IDS, members.float(), members)
    rows = [row for row in rows_of(found, truth) if row["protocol"] == "spotcheck"]
    by_metric = [(row["metric"], row["true_slice"], row["value"]) for row in rows]
    assert by_metric == [("discovery_rate", 0, 1), ("discovery_rate", 1, 1), ("false_discovery_rate", None, 1 / 3)]
    strict = rows_of(Slices(IDS, members[:, 2:].float(), members[:, 2:]), truth, discovery_precision=0.99)
    assert value(strict, "false_discovery_rate") == 1


def test_values_are_plain_finite_numbers():
    rows = rows_of(slices(), true_slices(4))
    assert all(type(row["value"]) is float and 0 <= row["value"] < float("inf") for row in rows if row["protocol"])
    assert all(type(row["value"]) is float for row in rows)


def test_the_same_seed_gives_the_same_rows():
    tied = Slices(IDS, torch.full((N, 1), 0.5), torch.ones(N, 1, dtype=torch.bool))
    several = [rows_of(tied, true_slices(20), k=(5, 11), seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert several[0] == several[1]
    assert any(rows != several[0] for rows in several[2:])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocols": ["worst"]}, "no protocol is called 'worst'"),
        ({"k": [10, 0]}, "k is 0, expected a whole number of at least 1"),
        ({"confidence": 95}, "confidence is 95, expected a number between 0 and 1"),
        ({"resamples": 0}, "resamples is 0, expected a whole number of at least 1"),
    ],
)
def test_wrong_arguments_are_refused_whatever_there_is_to_score(changed, message):
    for found, truth in [(slices(), true_slices(4)), (Slices.none(IDS), None)]:
        with pytest.raises(InvalidInput, match=message):
            rows_of(found, truth, **changed)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (true_slices(4)[:, 0], r"shape \(40,\), expected bool and \(40, true slices\)"),
        (true_slices(4)[1:], r"shape \(39, 1\)"),
        (true_slices(4).float(), "float32"),
        (true_slices(4, 0), "true slice 1 holds 0 of 40 examples"),
        (true_slices(N), "true slice 0 holds 40 of 40 examples"),
    ],
)
def test_true_slices_that_cannot_be_scored_are_refused(truth, message):
    with pytest.raises(InvalidInput, match=message):
        rows_of(slices(), truth)


def test_slices_of_other_examples_are_refused():
    found = slices()
    moved = Slices((*IDS[:-1], "zz"), found.membership, found.members)
    with pytest.raises(InvalidInput, match="differ at row 39: slices have 'zz', outputs have '39'"):
        rows_of(moved, true_slices(4))
    with pytest.raises(InvalidInput, match="slices have 39 examples, outputs have 40"):
        rows_of(Slices(IDS[1:], found.membership[1:], found.members[1:]), None)
