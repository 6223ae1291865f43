import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation.ranking import auroc, average_precision, hits_at_k, precision_at_k, ranking, recall_at_k
from methods.contract import InvalidInput

thorough = settings(deadline=None, derandomize=True, max_examples=100)

# By falling membership: true, false, true, true, false
MEMBERSHIP = [0.1, 0.9, 0.4, 0.6, 0.7]
TRUE_SLICE = [False, True, True, True, False]


@st.composite
def ranked(draw):
    """A membership with many ties, and a true slice with examples inside and outside."""
    rows = draw(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans()), min_size=2, max_size=30))
    membership, true_slice = np.array([m for m, _ in rows]), np.array([t for _, t in rows])
    assume(true_slice.any() and not true_slice.all())
    return membership, true_slice


@st.composite
def ranked_without_ties(draw):
    membership, true_slice = draw(ranked())
    order = np.random.default_rng(draw(st.integers(0, 1000))).permutation(len(membership))
    return order / len(order), true_slice


def test_precision_at_k_by_hand():
    values = [precision_at_k(MEMBERSHIP, TRUE_SLICE, k) for k in (1, 2, 3, 4, 5)]
    assert values == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])


def test_recall_at_k_by_hand():
    values = [recall_at_k(MEMBERSHIP, TRUE_SLICE, k) for k in (1, 2, 3, 4, 5)]
    assert values == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1, 1])


def test_average_precision_by_hand():
    # each hit adds a third of recall at precision 1/1, 2/3 and 3/4
    assert average_precision(MEMBERSHIP, TRUE_SLICE) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_average_precision_of_ties_by_hand():
    # the two tied come in together: recall 1/2 at precision 1/2, then recall 1 at precision 2/3
    assert average_precision([1, 1, 0], [True, False, True]) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)


def test_auroc_by_hand():
    # of the 3 x 2 pairs, 0.9 beats both outside, 0.6 and 0.4 beat only 0.1
    assert auroc(MEMBERSHIP, TRUE_SLICE) == pytest.approx(4 / 6)


@pytest.mark.parametrize("digits", [1, 2, 8])
@pytest.mark.parametrize("n", [2, 3, 30, 3_000])
def test_scores_are_those_of_scikit_learn_to_the_last_digit(n, digits):
    rng = np.random.default_rng(n)
    for skew in (1, 20):
        membership = rng.random(n).round(digits) ** skew  # with few, some or many equal ones
        true_slice = rng.permutation(n) < max(n // 50, 1)
        assert average_precision(membership, true_slice) == average_precision_score(true_slice, membership)
        assert average_precision(-membership, true_slice) == average_precision_score(true_slice, -membership)
        assert auroc(membership, true_slice) == roc_auc_score(true_slice, membership)


@thorough
@given(ranked(), st.integers(1, 35), st.integers(0, 3))
def test_hits_are_counted_along_the_whole_ranking(problem, k, seed):
    membership, true_slice = problem
    hits = (true_slice & (membership != 0))[ranking(membership, seed)][:k].sum()
    assert hits_at_k(membership, true_slice, [k], seed).tolist() == [hits]


def test_auroc_counts_a_tie_half():
    # pairs (1, 1) and (0, 1): a tie and a loss
    assert auroc([1, 1, 0], [True, False, True]) == pytest.approx(1 / 4)


def test_precision_divides_by_k_even_beyond_the_slice_and_the_problem():
    assert precision_at_k([0.9, 0.1, 0.2], [True, False, False], k=2) == 1 / 2
    assert precision_at_k([0.9, 0.1, 0.2], [True, True, True], k=10) == 3 / 10
    assert recall_at_k([0.9, 0.1, 0.2], [True, True, True], k=10) == 1


def test_several_k_agree_with_one_at_a_time():
    one_by_one = [hits_at_k(MEMBERSHIP, TRUE_SLICE, [k])[0] for k in (3, 1, 9)]
    assert hits_at_k(MEMBERSHIP, TRUE_SLICE, [3, 1, 9]).tolist() == one_by_one == [2, 1, 3]


@pytest.mark.parametrize("rows", ["slice first", "slice last"])
def test_ties_give_the_base_rate_whatever_the_row_order(rows):
    true_slice = np.arange(100) < 20 if rows == "slice first" else np.arange(100) >= 80
    precisions = [precision_at_k(np.full(100, 0.5), true_slice, k=10, seed=seed) for seed in range(500)]
    # the standard error of the mean is 0.005
    assert np.mean(precisions) == pytest.approx(0.2, abs=0.025)
    recalls = [recall_at_k(np.full(100, 0.5), true_slice, k=10, seed=seed) for seed in range(500)]
    assert np.mean(recalls) == pytest.approx(0.1, abs=0.0125)


def test_ties_do_not_reach_over_the_untied():
    membership = np.array([0.5] * 50 + [0.9] * 5)
    for seed in range(20):
        assert set(ranking(membership, seed)[:5].tolist()) == {50, 51, 52, 53, 54}


def test_the_same_seed_ranks_the_same():
    tied = np.zeros(50)
    assert ranking(tied, 3).tolist() == ranking(tied, 3).tolist()
    assert ranking(tied, 3).tolist() != ranking(tied, 4).tolist()


@thorough
@given(ranked(), st.randoms(use_true_random=False))
def test_average_precision_and_auroc_do_not_depend_on_row_order_even_with_ties(problem, random):
    membership, true_slice = problem
    order = random.sample(range(len(membership)), len(membership))
    for metric in (average_precision, auroc):
        assert metric(membership[order], true_slice[order]) == pytest.approx(metric(membership, true_slice))


@thorough
@given(ranked_without_ties(), st.integers(1, 40), st.randoms(use_true_random=False))
def test_without_ties_neither_row_order_nor_seed_matters(problem, k, random):
    membership, true_slice = problem
    order = random.sample(range(len(membership)), len(membership))
    for metric in (precision_at_k, recall_at_k):
        expected = metric(membership, true_slice, k, seed=0)
        assert metric(membership[order], true_slice[order], k, seed=1) == expected


@thorough
@given(ranked(), st.integers(1, 40))
def test_every_metric_lies_between_0_and_1(problem, k):
    membership, true_slice = problem
    values = [metric(membership, true_slice, k) for metric in (precision_at_k, recall_at_k)]
    values += [metric(membership, true_slice) for metric in (average_precision, auroc)]
    assert all(0 <= value <= 1 for value in values)


@thorough
@given(ranked())
def test_a_perfect_membership_scores_1(problem):
    _, true_slice = problem
    size = int(true_slice.sum())
    assert precision_at_k(true_slice, true_slice, size) == recall_at_k(true_slice, true_slice, size) == 1
    assert average_precision(true_slice, true_slice) == auroc(true_slice, true_slice) == 1


@thorough
@given(ranked())
def test_auroc_is_the_share_of_pairs_won(problem):
    membership, true_slice = problem
    inside, outside = membership[true_slice], membership[~true_slice]
    assert auroc(membership, true_slice) == pytest.approx(
        mannwhitneyu(inside, outside, method="asymptotic").statistic / (len(inside) * len(outside))
        if np.ptp(membership)
        else 0.5
    )


@thorough
@given(ranked_without_ties())
def test_average_precision_is_the_mean_precision_at_the_hits(problem):
    membership, true_slice = problem
    hits = np.flatnonzero(true_slice[np.argsort(-membership)])
    expected = np.mean([precision_at_k(1 + membership, true_slice, int(at) + 1) for at in hits])
    assert average_precision(membership, true_slice) == pytest.approx(expected)


def test_tensors_do_as_well_as_arrays():
    membership, true_slice = torch.tensor(MEMBERSHIP), torch.tensor(TRUE_SLICE)
    assert precision_at_k(membership, true_slice, 3) == pytest.approx(2 / 3)
    assert auroc(membership, true_slice) == pytest.approx(4 / 6)


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_a_k_below_1_or_broken_is_refused(k):
    with pytest.raises(InvalidInput, match=rf"k is {k}, expected a whole number of at least 1"):
        precision_at_k(MEMBERSHIP, TRUE_SLICE, k)


def test_a_true_slice_that_cannot_be_scored_is_refused():
    with pytest.raises(InvalidInput, match="no example"):
        average_precision([0.1, 0.2], [False, False])
    with pytest.raises(InvalidInput, match="holds every example"):
        auroc([0.1, 0.2], [True, True])
    with pytest.raises(InvalidInput, match=r"shape \(3,\), expected bool and \(2,\)"):
        precision_at_k([0.1, 0.2], [True, True, False], 1)
    with pytest.raises(InvalidInput, match=r"int64 .* expected bool"):
        precision_at_k([0.1, 0.2], [0, 1], 1)
    with pytest.raises(InvalidInput, match=r"membership has shape \(1, 2\)"):
        precision_at_k([[0.1, 0.2]], [False, True], 1)


def test_what_a_slice_does_not_hold_is_no_hit():
    # four held, one of them right: the six examples of membership 0 behind them are right by chance only
    membership, true_slice = [0.9, 0.8, 0.7, 0.6, 0, 0, 0, 0, 0, 0], [True, False, False, False, *[True] * 6]
    assert precision_at_k(membership, true_slice, 10) == 0.1
    assert precision_at_k([0.0] * 10, true_slice, 10) == 0.0
