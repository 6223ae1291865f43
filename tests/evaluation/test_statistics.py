import numpy as np
import pytest
import torch

from evaluation.statistics import accuracy_gap, slice_statistics
from methods.contract import InvalidInput, ModelOutputs, Slices

LOSSES = [4.0, 2.0, 0.1, 0.3, 0.2]
CORRECT = [False, True, True, True, False]


def outputs(**known):
    ids = tuple("abcde")
    return ModelOutputs.from_arrays(ids, embeddings=torch.zeros(5, 1), losses=LOSSES, correct=CORRECT, **known)


def slices(*columns):
    members = torch.tensor(columns, dtype=torch.bool).T
    return Slices(tuple("abcde"), members.float(), members)


def logits(predictions):
    return torch.nn.functional.one_hot(torch.tensor(predictions), 3).float()


def describe(*columns, **known):
    return slice_statistics(slices(*columns), outputs(**known), resamples=200)


def test_size_loss_accuracy_and_gap_by_hand():
    (row,) = describe([1, 1, 0, 0, 0])
    assert (row["size"], row["accuracy"]) == (2, 1 / 2)
    assert row["mean_loss"] == pytest.approx(3.0)
    assert row["gap"] == pytest.approx(2 / 3 - 1 / 2)  # 2 of the 3 others are right
    assert row["gap_low"] <= row["gap"] <= row["gap_high"]


def test_label_homogeneity_by_hand():
    (row,) = describe([1, 1, 1, 1, 0], labels=[0, 0, 0, 2, 1], logits=logits([2, 2, 0, 0, 1]))
    assert row["modal_label_share"] == 3 / 4
    assert row["label_entropy"] == pytest.approx(-(3 / 4) * np.log(3 / 4) - (1 / 4) * np.log(1 / 4))
    assert row["modal_prediction_share"] == 1 / 2
    assert row["prediction_entropy"] == pytest.approx(np.log(2))


def test_members_that_agree_have_no_entropy():
    (row,) = describe([1, 1, 0, 0, 0], labels=[1, 1, 0, 2, 1])
    assert (row["modal_label_share"], row["label_entropy"]) == (1, 0)


def test_homogeneity_is_left_out_where_labels_or_logits_are():
    (row,) = describe([1, 1, 0, 0, 0], labels=[0, 0, 0, 1, 1])
    assert {"modal_label_share", "label_entropy"} <= set(row)
    assert not {"modal_prediction_share", "prediction_entropy"} & set(row)
    assert set(describe([1, 0, 0, 0, 0])[0]) == {"size", "mean_loss", "accuracy", "gap", "gap_low", "gap_high"}


def test_an_empty_slice_has_a_size_and_nothing_else():
    empty, full = describe([0, 0, 0, 0, 0], [1, 0, 0, 0, 0], labels=[0, 0, 0, 1, 1])
    assert empty == {"size": 0.0}
    assert full["size"] == 1


def test_a_slice_of_everything_has_no_gap():
    (row,) = describe([1, 1, 1, 1, 1])
    assert row["accuracy"] == 3 / 5
    assert not {"gap", "gap_low", "gap_high"} & set(row)


def test_no_slices_have_no_statistics():
    assert slice_statistics(Slices.none(tuple("abcde")), outputs()) == []


def test_a_slice_is_described_alike_whatever_the_others():
    alone = describe([1, 1, 0, 0, 0])
    assert describe([0, 0, 1, 1, 0], [1, 1, 0, 0, 0])[1:] == alone


def test_the_gap_interval_is_that_of_resampled_rows():
    rng = np.random.default_rng(0)
    members, correct = np.arange(400) < 50, rng.random(400) < 0.8
    gap = accuracy_gap(members, correct, confidence=0.9, resamples=20_000, seed=1)
    inside, outside = correct[members], correct[~members]
    by_rows = [rng.choice(outside, 350).mean() - rng.choice(inside, 50).mean() for _ in range(5_000)]
    assert [gap.low, gap.high] == pytest.approx(np.quantile(by_rows, [0.05, 0.95]), abs=0.015)


def test_more_confidence_is_a_wider_interval_and_more_data_a_narrower_one():
    def width(copies, confidence):
        members, correct = np.tile(np.arange(50) < 10, copies), np.tile(np.arange(50) % 3 == 0, copies)
        gap = accuracy_gap(members, correct, confidence=confidence)
        return gap.high - gap.low

    assert width(1, 0.99) > width(1, 0.9) > width(10, 0.9)


def test_a_small_slice_that_is_all_wrong_has_a_wide_interval():
    members = np.arange(5_000) < 4
    correct = (np.arange(5_000) % 100 < 82) & ~members
    gap = accuracy_gap(members, correct)
    # Newcombe's interval of two proportions, 0 of 4 and 4,096 of 4,996
    assert [gap.low, gap.high] == pytest.approx([0.330, 0.831], abs=0.06)


@pytest.mark.parametrize(("inside", "outside"), [(0.02, 0.9), (0.5, 0.9), (0.95, 0.98)])
def test_the_gap_interval_covers_as_often_as_it_says(inside, outside):
    generator = np.random.default_rng(0)
    members = np.arange(300) < 20
    covered = 0
    for seed in range(400):
        correct = generator.random(300) < np.where(members, inside, outside)
        gap = accuracy_gap(members, correct, resamples=500, seed=seed)
        covered += gap.low <= outside - inside <= gap.high
    assert 0.92 <= covered / 400 <= 0.995


def test_the_gap_interval_follows_its_seed():
    members, correct = np.arange(99) < 10, np.arange(99) % 3 == 0
    gaps = [accuracy_gap(members, correct, resamples=50, seed=seed) for seed in (1, 1, 2)]
    assert gaps[0] == gaps[1] != gaps[2]


def test_a_gap_needs_both_sides():
    for members in ([True, True], [False, False]):
        with pytest.raises(InvalidInput, match="some inside and some outside"):
            accuracy_gap(members, [True, False])


@pytest.mark.parametrize(
    ("argument", "value", "allowed"), [("confidence", 1.0, "between 0 and 1"), ("resamples", 0, "at least 1")]
)
def test_arguments_out_of_range_are_refused_even_without_slices(argument, value, allowed):
    with pytest.raises(InvalidInput, match=f"{argument} is {value}, expected .*{allowed}"):
        slice_statistics(Slices.none(tuple("abcde")), outputs(), **{argument: value})


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("resamples", [1, 2, 101, 2_000])
def test_the_interval_of_the_gap_is_of_percentiles_of_the_draws(resamples, confidence):
    # 3 of 4 right outside, 2 of 5 inside
    correct, members = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0], dtype=bool), np.arange(9) >= 4
    gap = accuracy_gap(members, correct, confidence=confidence, resamples=resamples, seed=6)
    rng = np.random.default_rng(6)
    draws = rng.beta(3.5, 1.5, resamples) - rng.beta(2.5, 3.5, resamples)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    assert (gap.low, gap.high) == (min(low, gap.gap), max(high, gap.gap))
