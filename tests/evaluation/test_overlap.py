import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from evaluation.overlap import overlap
from methods.contract import InvalidInput

masks = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


def test_precision_recall_and_f1_by_hand():
    # 4 members, of which 3 in a true slice of 5
    members = [True, True, True, True, False, False, False]
    true_slice = [True, True, True, False, True, True, False]
    precision, recall, f1 = overlap(members, true_slice)
    assert (precision, recall) == (3 / 4, 3 / 5)
    assert f1 == pytest.approx(2 * 3 / (4 + 5))


@pytest.mark.parametrize("true_slice", [[True, False], [False, False], [True, True]])
def test_an_empty_slice_scores_0_without_a_warning(true_slice):
    assert overlap([False, False], true_slice) == (0, 0, 0)


def test_a_slice_that_misses_entirely_scores_0():
    assert overlap([True, False], [False, True]) == (0, 0, 0)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(masks, st.randoms(use_true_random=False))
def test_scores_are_shares_whatever_the_row_order(rows, random):
    members, true_slice = np.array(rows).T
    scores = overlap(members, true_slice)
    both = np.sum(members & true_slice)
    assert scores.precision == pytest.approx(both / max(members.sum(), 1))
    assert scores.recall == pytest.approx(both / max(true_slice.sum(), 1))
    assert scores.f1 == pytest.approx(2 * both / max(members.sum() + true_slice.sum(), 1))
    order = random.sample(range(len(rows)), len(rows))
    assert overlap(members[order], true_slice[order]) == scores


@settings(deadline=None, derandomize=True, max_examples=100)
@given(masks)
def test_scores_are_those_of_scikit_learn_to_the_last_digit(rows):
    members, true_slice = np.array(rows).T
    expected = precision_recall_fscore_support(true_slice, members, average="binary", zero_division=0)
    assert overlap(members, true_slice) == expected[:3]


def test_the_true_slice_itself_scores_1():
    assert overlap([True, False, True], [True, False, True]) == (1, 1, 1)


def test_soft_members_are_refused():
    with pytest.raises(InvalidInput, match="members has float64"):
        overlap([0.7, 0.1], [True, False])
