import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.intervals import difference_interval, mean_interval
from methods.contract import InvalidInput


def grouped(seed, n_groups=25):
    """Scores of mean 0 whose groups, of 1 to 6 problems, share most of their luck."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 7, n_groups))
    return rng.normal(size=n_groups)[groups] + 0.3 * rng.normal(size=len(groups)), groups


def coverage(interval_of):
    intervals = [interval_of(*grouped(seed), confidence=0.9, resamples=500) for seed in range(200)]
    return np.mean([interval.low <= 0 <= interval.high for interval in intervals])


def test_the_mean_is_over_problems_and_not_over_groups():
    assert mean_interval([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]).mean == 3 / 4


def test_the_interval_is_over_problems_and_not_over_groups():
    # ten groups of ten problems score 1, ten of one problem score 0: the groups' own means would centre on 1/2
    values = np.repeat([1.0, 0.0], [100, 10])
    groups = np.concatenate([np.repeat(np.arange(10), 10), np.arange(10, 20)])
    interval = mean_interval(values, groups)
    assert interval.mean == pytest.approx(10 / 11)
    assert 0.7 < interval.low < 10 / 11 < interval.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    # 200 draws at 0.9 have a standard error of 0.02; 25 groups of unequal size cost a little
    assert 0.83 <= coverage(mean_interval) <= 0.96


def test_problems_taken_one_by_one_would_cover_far_too_rarely():
    def by_problem(values, groups, **settings):
        return mean_interval(values, np.arange(len(values)), **settings)

    assert coverage(by_problem) < 0.78


def test_a_group_drawn_twice_says_nothing_new():
    values, groups = grouped(0)
    once, twice = mean_interval(values, groups), mean_interval(np.tile(values, 2), np.tile(groups, 2))
    assert twice == pytest.approx(once)


def test_two_groups_can_only_be_drawn_in_three_ways():
    interval = mean_interval([0.0, 1.0], ["a", "b"])
    assert interval == (0.5, 0.0, 1.0)


def test_names_and_order_of_groups_do_not_matter_to_the_mean_and_hardly_to_the_ends():
    values, groups = grouped(1)
    order = np.random.default_rng(0).permutation(len(values))
    renamed = mean_interval(values[order], [f"subclass {group}" for group in groups[order]])
    assert renamed == pytest.approx(mean_interval(values, groups), abs=0.03)


def test_more_confidence_is_a_wider_interval():
    values, groups = grouped(2)
    narrow, wide = mean_interval(values, groups, 0.8), mean_interval(values, groups, 0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_the_same_seed_gives_the_same_interval():
    values, groups = grouped(3)
    intervals = [mean_interval(values, groups, resamples=200, seed=seed) for seed in (1, 1, 2)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_a_skewed_score_gets_the_skewed_interval_of_bca():
    # scipy's own answer for the plain mean of one value a group
    from scipy.stats import bootstrap

    values = np.random.default_rng(4).exponential(size=30)
    expected = bootstrap((values,), np.mean, n_resamples=20_000, rng=0).confidence_interval
    interval = mean_interval(values, np.arange(30), resamples=20_000)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.02)
    assert interval.high - interval.mean > interval.mean - interval.low


@pytest.mark.parametrize("resamples", [1, 999, 2_001])
@pytest.mark.parametrize("n_groups", [2, 25, 1_100])
def test_the_interval_is_that_of_scipy_to_the_last_digit(n_groups, resamples):
    from scipy.stats import bootstrap

    values, groups = grouped(n_groups, n_groups)
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups).astype(float)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one resample scipy says that it is few
        expected = bootstrap(
            (sums, counts),
            lambda sums, counts, axis=-1: sums.sum(axis=axis) / counts.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=1_000,
            rng=np.random.default_rng(3),
        ).confidence_interval
    interval = mean_interval(values, groups, resamples=resamples, seed=3)
    if np.isfinite(expected).all():
        assert (interval.low, interval.high) == tuple(expected)
    else:
        assert resamples == 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_constant_scores_have_an_interval_of_no_width(value):
    assert mean_interval([value] * 7, [0, 0, 0, 1, 1, 2, 3]) == (value, value, value)


def test_groups_of_one_mean_fall_back_to_percentiles():
    # BCa has no answer here, though the scores are not constant
    interval = mean_interval([0.0, 1.0, 0.5, 0.25, 0.75], ["a", "a", "b", "c", "c"])
    assert interval == pytest.approx((0.5, 0.5, 0.5))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 5)), min_size=1, max_size=20))
def test_ends_are_finite_ordered_and_among_the_scores_whenever_there_are_two_groups(rows):
    values, groups = zip(*rows, strict=True)
    interval = mean_interval(values, groups, resamples=100)
    assert interval.mean == pytest.approx(np.mean(values))
    if len(set(groups)) < 2:
        assert np.isnan([interval.low, interval.high]).all()
    else:
        assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_one_group_has_a_mean_and_no_interval():
    interval = mean_interval([0.2, 0.4], ["a", "a"])
    assert interval.mean == pytest.approx(0.3)
    assert np.isnan([interval.low, interval.high]).all()


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    hardness, groups = grouped(5)
    rng = np.random.default_rng(6)
    first, second = (hardness + 0.1 * rng.normal(size=len(groups)) + shift for shift in (0.1, 0.0))
    a, b = mean_interval(first, groups), mean_interval(second, groups)
    paired = difference_interval(first, second, groups)
    assert paired.mean == pytest.approx(a.mean - b.mean)
    unpaired_width = np.hypot(a.high - a.low, b.high - b.low)
    assert paired.high - paired.low < 0.3 * unpaired_width
    assert paired.low > 0  # the pairs show the shift, which each method's own interval hides
    assert a.low < b.high


def test_a_difference_is_the_interval_of_the_differences():
    first, groups = grouped(7)
    second = np.random.default_rng(8).random(len(first))
    assert difference_interval(first, second, groups) == mean_interval(first - second, groups)


def test_turning_the_difference_round_turns_its_interval_round():
    first, groups = grouped(9)
    second = np.random.default_rng(10).random(len(first))
    there, back = difference_interval(first, second, groups), difference_interval(second, first, groups)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=0.03)


def test_a_difference_leaves_out_problems_that_one_method_lacks():
    first, second = [0.5, np.nan, 0.5, 0.9], [0.25, 0.1, 0.25, np.nan]
    assert difference_interval(first, second, ["a", "a", "b", "b"]) == (0.25, 0.25, 0.25)


def test_methods_without_a_common_problem_have_no_difference():
    assert np.isnan(difference_interval([0.5, np.nan], [np.nan, 0.5], ["a", "b"])).all()


@pytest.mark.parametrize(
    ("values", "groups", "changed", "message"),
    [
        ([0.1, np.nan], [0, 1], {}, "nan at row 1"),
        ([0.1], [0, 1], {}, r"shapes \(1,\) and \(2,\)"),
        ([], [], {}, "at least 1"),
        ([0.1, 0.2], [0, 1], {"confidence": 0}, "confidence is 0, expected a number between 0 and 1"),
        ([0.1, 0.2], [0, 1], {"resamples": 0}, "resamples is 0, expected a whole number of at least 1"),
    ],
)
def test_what_cannot_be_resampled_is_refused(values, groups, changed, message):
    with pytest.raises(InvalidInput, match=message):
        mean_interval(values, groups, **changed)
