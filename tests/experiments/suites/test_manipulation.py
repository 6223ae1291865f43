"""What a manipulation leaves in training, by hand and for any numbers of examples."""

import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from experiments.suites.manipulation import MANIPULATIONS, Cells
from methods.contract import InvalidInput

COUNTS = (60, 90, 70, 180)  # class and value, class only, value only, neither
KINDS = {"rare": 0.2, "correlation": 0.4, "noisy_label": 0.5}
SETTINGS = settings(deadline=None, derandomize=True, max_examples=100)

some = st.integers(20, 400)
tables = st.tuples(some, some, some, some)
seeds = st.integers(0, 2**32 - 1)


def split(counts=COUNTS, n_classes=3):
    """Labels and cells of so many examples, shuffled; the class is 1, and the other classes take turns."""
    order = np.random.default_rng(0).permutation(sum(counts))
    of_class = np.repeat([True, True, False, False], counts)[order]
    with_value = np.repeat([True, False, True, False], counts)[order]
    others = [label for label in range(n_classes) if label != 1]
    labels = np.where(of_class, 1, np.resize(others or [1], len(order)))
    return torch.from_numpy(labels), Cells(of_class, with_value, "cat", "dark")


def trained(kind, counts=COUNTS, strength=None, seed=0, n_classes=3):
    labels, cells = split(counts, n_classes)
    strength = KINDS[kind] if strength is None else strength
    return MANIPULATIONS[kind].train(labels, cells, strength, n_classes, seed)


def kept(manipulated, counts=COUNTS):
    """How many examples of each cell are left, in the order of COUNTS."""
    _, cells = split(counts)
    code = np.where(cells.of_class, np.where(cells.with_value, 0, 1), np.where(cells.with_value, 2, 3))
    return np.bincount(code[manipulated.rows], minlength=4)


def coefficient(manipulated, counts):
    _, cells = split(counts)
    return np.corrcoef(cells.of_class[manipulated.rows], cells.with_value[manipulated.rows])[0, 1]


def possible(counts, share):
    """Of the range from 0 to the largest coefficient with these shares of class and value."""
    p, q = (counts[0] + counts[1]) / sum(counts), (counts[0] + counts[2]) / sum(counts)
    return share * (min(p, q) - p * q) / np.sqrt(p * (1 - p) * q * (1 - q))


def largest_of(error):
    """The largest possible strength, as the message says it."""
    return float(re.search(r"expected (?:a strength of )?at most (\S+)$", str(error.value)).group(1))


def test_the_slice_is_the_value_within_the_class():
    cells = Cells(np.array([True, True, False, False]), np.array([True, False, True, False]), "cat", "dark")
    for kind in ("rare", "noisy_label"):
        assert MANIPULATIONS[kind].slice_names(cells) == ("cat dark",)
        assert MANIPULATIONS[kind].true_slices(cells).tolist() == [[True], [False], [False], [False]]


def test_the_slices_of_a_correlation_are_where_it_does_not_hold():
    cells = Cells(np.array([True, True, False, False]), np.array([True, False, True, False]), "cat", "dark")
    assert MANIPULATIONS["correlation"].slice_names(cells) == ("cat, not dark", "not cat, dark")
    slices = MANIPULATIONS["correlation"].true_slices(cells)
    assert slices.tolist() == [[False, False], [True, False], [False, True], [False, False]]
    assert slices.dtype == torch.bool


@pytest.mark.parametrize(
    ("kind", "counts", "strength", "expected"),
    [
        ("rare", (60, 90, 70, 180), 0.1, [10, 90, 70, 180]),  # 10 of 100
        ("rare", (60, 90, 70, 180), 0.0, [0, 90, 70, 180]),
        ("rare", (60, 90, 70, 180), 0.4, [60, 90, 70, 180]),  # as it was
        ("rare", (5, 95, 0, 0), 0.05, [5, 95, 0, 0]),  # nothing but the class
        ("correlation", (200, 200, 200, 200), 0.6, [200, 50, 50, 200]),  # (200 * 200 - 50 * 50) / 250**2
        ("correlation", (300, 100, 100, 300), 0.5, [300, 100, 100, 300]),  # as it was
        ("correlation", (400, 100, 100, 400), 0.2, [150, 100, 100, 150]),  # less than it was
        ("noisy_label", (60, 90, 70, 180), 0.5, [60, 90, 70, 180]),
    ],
)
def test_how_many_examples_stay_by_hand(kind, counts, strength, expected):
    assert kept(trained(kind, counts, strength), counts).tolist() == expected


@SETTINGS
@given(tables, st.floats(0, 1), seeds)
def test_rare_keeps_all_others_and_leaves_the_share(counts, share, seed):
    strength = share * counts[0] / (counts[0] + counts[1])
    left, *others = kept(trained("rare", counts, strength, seed), counts)
    assert others == list(counts[1:])
    low, high = ((left + half) / (left + half + counts[1]) for half in (-0.5, 0.5))
    assert low - 1e-9 <= strength <= high + 1e-9


@SETTINGS
@given(tables, st.floats(0.001, 0.99), seeds)
def test_a_correlation_has_pearson_s_coefficient(counts, share, seed):
    strength = possible(counts, share)
    manipulated = trained("correlation", counts, strength, seed)
    both, only_class, only_value, neither = kept(manipulated, counts)
    rarest = min(both + only_class, only_value + neither, both + only_value, only_class + neither)
    # each cell is rounded by at most half an example; to first order the four move the coefficient by 2 / rarest
    assert abs(coefficient(manipulated, counts) - strength) <= 3 / rarest


@SETTINGS
@given(tables, st.floats(0.001, 0.99), seeds)
def test_a_correlation_keeps_the_shares_of_class_and_value_and_as_many_examples_as_it_can(counts, share, seed):
    strength, n = possible(counts, share), sum(counts)
    left = kept(trained("correlation", counts, strength, seed), counts)
    p, q = (counts[0] + counts[1]) / n, (counts[0] + counts[2]) / n
    assert abs((left[0] + left[1]) / left.sum() - p) <= 3 / left.sum()
    assert abs((left[0] + left[2]) / left.sum() - q) <= 3 / left.sum()
    # four equations for the shares of the cells; more examples than `bound` would need more than some cell has
    equations = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    shares = np.linalg.solve(equations, [1, p, q, p * q + strength * np.sqrt(p * (1 - p) * q * (1 - q))])
    bound = (np.array(counts) / shares).min()
    assert abs(left.sum() - bound) <= 2
    assert (left == counts).any()


@SETTINGS
@given(tables, st.floats(0.01, 1), st.integers(2, 6), seeds)
def test_noisy_labels_are_wrong_in_the_slice_only_and_about_so_many(counts, strength, n_classes, seed):
    labels, cells = split(counts, n_classes)
    manipulated = MANIPULATIONS["noisy_label"].train(labels, cells, strength, n_classes, seed)
    assert manipulated.rows.tolist() == list(range(sum(counts)))
    changed = (manipulated.labels != labels).numpy()
    assert not changed[~cells.both].any()
    assert binom.ppf(1e-6, counts[0], strength) <= changed.sum() <= binom.isf(1e-6, counts[0], strength)
    assert manipulated.labels.min() >= 0
    assert manipulated.labels.max() < n_classes


def test_with_probability_1_all_labels_of_the_slice_are_wrong():
    labels, cells = split((50, 50, 50, 50), n_classes=2)
    manipulated = MANIPULATIONS["noisy_label"].train(labels, cells, 1.0, 2, seed=0)
    assert manipulated.labels[torch.from_numpy(cells.both)].tolist() == [0] * 50


def test_a_wrong_label_is_any_other_class_alike():
    labels, cells = split((5000, 10, 10, 10), n_classes=5)
    wrong = MANIPULATIONS["noisy_label"].train(labels, cells, 1.0, 5, seed=0).labels[torch.from_numpy(cells.both)]
    counts = np.bincount(wrong, minlength=5)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2, 3, 4]]).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    first, again, other = (trained(kind, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.rows, again.rows)
    assert torch.equal(first.labels, again.labels)
    assert not (np.array_equal(first.rows, other.rows) and torch.equal(first.labels, other.labels))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_increasing_and_labels_are_theirs(kind):
    labels, cells = split()
    before = labels.clone()
    manipulated = MANIPULATIONS[kind].train(labels, cells, KINDS[kind], 3, seed=0)
    assert torch.equal(labels, before)
    assert (manipulated.rows.dtype, manipulated.labels.dtype) == (np.int64, torch.int64)
    assert (np.diff(manipulated.rows) > 0).all()
    if kind != "noisy_label":
        assert torch.equal(manipulated.labels, labels[torch.from_numpy(manipulated.rows)])


@pytest.mark.parametrize("kind", ["rare", "correlation"])
def test_any_example_may_be_the_one_that_goes(kind):
    chosen = set().union(*(trained(kind, seed=seed).rows.tolist() for seed in range(40)))
    assert chosen == set(range(sum(COUNTS)))


@pytest.mark.parametrize(
    ("kind", "strength", "expected"),
    [
        *(("rare", strength, "a share of the class, at least 0 and below 1") for strength in (-0.1, 1.0, 5.0)),
        *(("correlation", strength, "a coefficient above 0 and below 1") for strength in (-0.5, 0.0, 1.0)),
        *(("noisy_label", strength, "a probability above 0 and at most 1") for strength in (-0.5, 0.0, 1.1)),
        ("rare", float("nan"), "a share"),
        ("correlation", float("nan"), "a coefficient"),
        ("noisy_label", float("nan"), "a probability"),
    ],
)
def test_a_strength_that_is_none_is_refused(kind, strength, expected):
    with pytest.raises(InvalidInput, match=f"strength is {strength:g}, expected {expected}"):
        trained(kind, strength=strength)


def test_a_share_above_the_one_that_is_there_is_refused_with_the_numbers():
    with pytest.raises(InvalidInput, match="the slice 'cat dark' has 60 training examples, 90 are needed for a share"):
        trained("rare", strength=0.5)


def test_a_correlation_that_the_shares_forbid_is_refused_with_them():
    counts = (100, 0, 400, 500)
    with pytest.raises(InvalidInput, match=r"cat \(10% of the training examples\) and dark \(50%\) cannot have a corr"):
        trained("correlation", counts, 0.5)


@SETTINGS
@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000), some, some))
def test_the_largest_possible_share_is_said_and_then_accepted(counts):
    most = counts[0] / (counts[0] + counts[1])
    assume(0.02 < most < 0.98)
    with pytest.raises(InvalidInput) as error:
        trained("rare", counts, (1 + most) / 2)
    assert largest_of(error) == pytest.approx(most, rel=0.01, abs=0.002)
    left = kept(trained("rare", counts, largest_of(error)), counts)[0]
    assert left == pytest.approx(counts[0], rel=0.1, abs=1)


@SETTINGS
@given(tables)
def test_the_largest_possible_correlation_is_said_and_then_accepted(counts):
    most = possible(counts, 1)
    assume(most < 0.98)
    with pytest.raises(InvalidInput) as error:
        trained("correlation", counts, (1 + most) / 2)
    assert largest_of(error) == pytest.approx(most, rel=0.01, abs=0.002)
    assert coefficient(trained("correlation", counts, largest_of(error)), counts) == pytest.approx(most, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_without_training_examples_is_refused(kind):
    with pytest.raises(InvalidInput):
        trained(kind, (0, 90, 70, 180), 0.3)


@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5])
def test_rare_never_takes_the_whole_class(strength):
    with pytest.raises(InvalidInput):
        trained("rare", (60, 0, 70, 180), strength)


def test_a_slice_that_is_the_whole_class_can_have_noisy_labels():
    labels, cells = split((60, 0, 70, 180))
    changed = trained("noisy_label", (60, 0, 70, 180), 1.0).labels != labels
    assert changed.numpy().tolist() == cells.both.tolist()


def test_one_class_alone_has_no_wrong_label():
    with pytest.raises(InvalidInput):
        trained("noisy_label", (60, 90, 0, 0), 0.5, n_classes=1)


@SETTINGS
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["class", "other", "value", "no value"]))
def test_what_is_the_same_for_all_examples_correlates_with_nothing(a, b, always):
    counts = {"class": (a, b, 0, 0), "other": (0, 0, a, b), "value": (a, 0, b, 0), "no value": (0, a, 0, b)}[always]
    with pytest.raises(InvalidInput):
        trained("correlation", counts, 0.3)


@pytest.mark.parametrize("empty", range(4))
@pytest.mark.parametrize("strength", [0.1, 0.3])
def test_a_correlation_that_needs_examples_which_are_not_there_is_refused(empty, strength):
    counts = tuple(0 if cell == empty else 100 for cell in range(4))  # on its own it has 0.5 or -0.5
    with pytest.raises(InvalidInput):
        trained("correlation", counts, strength)


@SETTINGS
@given(st.tuples(*[st.integers(0, 15)] * 4), st.floats(0.05, 0.95))
def test_a_correlation_of_few_examples_is_right_or_refused(counts, strength):
    assume(sum(counts) > 0)
    try:
        manipulated = trained("correlation", counts, strength)
    except InvalidInput:
        return
    assert len(manipulated.rows) >= 2
    assert coefficient(manipulated, counts) == pytest.approx(strength, abs=0.1)
