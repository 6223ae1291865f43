from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from evaluation.comparison import TESTS, holm, indistinguishable_from_best, paired_test
from methods.contract import InvalidInput


def test_the_permutation_test_by_hand():
    # of the 8 sign patterns of (1, 2, 3), the means of +++ and --- are the only ones as far from 0 as 2
    assert paired_test([1, 2, 3], [0, 0, 0]) == pytest.approx(2 / 8)
    # (1, 2, -3) has mean 0: every pattern is at least as far from 0
    assert paired_test([1, 2, 0], [0, 0, 3]) == 1


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8))
def test_the_permutation_test_counts_every_way_to_flip_the_signs(differences):
    flipped = [abs(np.dot(signs, differences)) for signs in product([-1, 1], repeat=len(differences))]
    expected = np.mean(np.array(flipped) >= abs(sum(differences)))
    assert paired_test(differences, np.zeros(len(differences))) == pytest.approx(expected)


@pytest.mark.parametrize("resamples", [1, 500, 1_001, 9_999])
@pytest.mark.parametrize("n_groups", [2, 9, 13, 40])
def test_the_permutation_test_is_that_of_scipy_to_the_last_digit(n_groups, resamples):
    rng = np.random.default_rng(n_groups)
    for differences in (rng.normal(0.1, 1, n_groups), rng.integers(-5, 6, n_groups) / 10):
        expected = permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=resamples,
            batch=1_000,
            rng=np.random.default_rng(5),
        )
        assert paired_test(differences, np.zeros(n_groups), resamples=resamples, seed=5) == expected.pvalue


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.2]), min_size=2, max_size=25), st.sampled_from(sorted(TESTS)))
def test_ties_and_zeros_always_have_a_p_value(differences, test):
    assert 0 < paired_test(differences, np.zeros(len(differences)), test=test, resamples=99) <= 1


def test_the_wilcoxon_test_by_hand():
    # all six differences positive: one of the 2^6 sign patterns on either side
    assert paired_test([1, 2, 3, 4, 5, 6], np.zeros(6), test="wilcoxon") == pytest.approx(2 / 64)


@pytest.mark.parametrize("test", TESTS)
def test_p_values_are_uniform_at_most_where_methods_do_not_differ(test):
    rng = np.random.default_rng(0)
    p_values = [paired_test(rng.random(15), rng.random(15), test=test, resamples=200) for _ in range(300)]
    # the standard error is 0.013
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert np.mean(np.array(p_values) <= 0.5) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("test", TESTS)
def test_many_groups_show_a_clear_difference_and_the_side_does_not_matter(test):
    rng = np.random.default_rng(1)
    first, second = rng.random(60) + 0.5, rng.random(60)
    assert paired_test(first, second, test=test, resamples=999) < 0.01
    assert paired_test(second, first, test=test) == pytest.approx(paired_test(first, second, test=test), abs=0.001)


def test_sampled_signs_follow_their_seed():
    rng = np.random.default_rng(2)
    first, second = rng.random(30), rng.random(30)
    p_values = [paired_test(first, second, resamples=500, seed=seed) for seed in (1, 1, 2, 3)]
    assert p_values[0] == p_values[1]
    assert len(set(p_values)) > 1


@pytest.mark.parametrize("test", TESTS)
def test_equal_scores_and_single_groups_tell_nothing_apart(test):
    assert paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], test=test) == 1
    assert paired_test([0.9], [0.1], test=test) == 1


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and the last rises to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.01, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p_values, alpha):
    """The rule as first told: go up the sorted p-values until one exceeds alpha / (number left)."""
    rejected, left = set(), len(p_values)
    for index in np.argsort(p_values, kind="stable"):
        if p_values[index] * left > alpha:
            break
        rejected.add(int(index))
        left -= 1
    assert set(np.flatnonzero(holm(p_values) <= alpha).tolist()) == rejected


def leaderboard():
    rng = np.random.default_rng(3)
    best = rng.random(20)
    return {
        "random": best - 0.5 + 0.05 * rng.normal(size=20),
        "spotlight": best,
        "domino": best - 0.05 + 0.2 * rng.normal(size=20),
    }


@pytest.mark.parametrize("test", TESTS)
def test_a_near_equal_cannot_be_told_from_the_best_and_a_poor_method_can(test):
    result = indistinguishable_from_best(leaderboard(), test=test)
    assert result.name == "spotlight"
    assert result.indistinguishable == ("domino",)
    assert result.p_values["random"] < 0.01


def test_p_values_are_corrected_for_their_number():
    scores = leaderboard()
    result = indistinguishable_from_best(scores, resamples=999)
    others = list(result.p_values)
    raw = [paired_test(scores[result.name], scores[other], resamples=999) for other in others]
    assert [result.p_values[other] for other in others] == holm(raw).tolist()
    assert max(result.p_values.values()) >= max(raw)


def test_alpha_decides_who_is_indistinguishable():
    scores = {"a": [0.9, 0.8, 0.9, 0.7], "b": [0.5, 0.6, 0.4, 0.5]}  # p = 2 / 2^4
    assert indistinguishable_from_best(scores, alpha=0.05).indistinguishable == ("b",)
    assert indistinguishable_from_best(scores, alpha=0.125).indistinguishable == ()


def test_with_one_group_every_method_is_indistinguishable():
    result = indistinguishable_from_best({"a": [0.1], "b": [0.9], "c": [0.5]})
    assert (result.name, result.indistinguishable) == ("b", ("a", "c"))
    assert result.p_values == {"a": 1.0, "c": 1.0}


def test_a_method_alone_is_the_best():
    assert indistinguishable_from_best({"a": [0.1, 0.2]}) == ("a", {}, (), 2)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InvalidInput, match="the nearest is wilcoxon"):
        paired_test([1, 2], [0, 0], test="wilcox")
    with pytest.raises(InvalidInput, match="expected the same"):
        indistinguishable_from_best({"a": [0.1, 0.2], "b": [0.1]})
    with pytest.raises(InvalidInput, match="'b' are infinite or all missing"):
        indistinguishable_from_best({"a": [0.1, 0.2], "b": [np.nan, np.nan]})
    with pytest.raises(InvalidInput, match="alpha is 0, expected"):
        indistinguishable_from_best({"a": [0.1, 0.2]}, alpha=0)
    for nothing in ({}, {"a": []}):
        with pytest.raises(InvalidInput, match="at least 1"):
            indistinguishable_from_best(nothing)
