import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.discovery import discovery
from methods.contract import InvalidInput


def slices_of(*rows, n=10):
    """Slices that hold these rows, as columns."""
    members = np.zeros((n, len(rows)), dtype=bool)
    for column, held in enumerate(rows):
        members[list(held), column] = True
    return members


def test_the_truth_itself_is_discovered_and_nothing_is_false():
    truth = slices_of(range(4), range(5, 8))
    found = discovery(truth, truth)
    assert found.discovered.all()
    assert not found.false.any()


def test_several_slices_may_cover_one_true_slice_together():
    truth = slices_of(range(6))
    assert not discovery(slices_of([0, 1, 2]), truth).discovered.any()  # recall 0.5
    assert discovery(slices_of([0, 1, 2], [3, 4, 5]), truth).discovered.all()


def test_what_an_imprecise_slice_holds_does_not_count():
    truth = slices_of(range(6))
    found = discovery(slices_of([0, 1, 2], [3, 4, 5, 6]), truth)  # precision 1 and 0.75
    assert not found.discovered.any()
    assert found.false.tolist() == [False, True]


def test_the_bounds_are_exclusive():
    truth = slices_of(range(5))
    exactly = slices_of([0, 1, 2, 3, 9])  # precision and recall 0.8
    assert not discovery(exactly, truth).discovered.any()
    assert discovery(exactly, truth, min_precision=0.79, min_recall=0.79).discovered.all()


def test_no_slice_discovers_nothing_and_an_empty_one_is_false():
    truth = slices_of(range(3))
    nothing = discovery(slices_of(), truth)
    assert (nothing.discovered.tolist(), nothing.false.tolist()) == ([False], [])
    assert discovery(slices_of([]), truth).false.tolist() == [True]


@pytest.mark.parametrize("shape", [(10,), (9, 1)])
def test_shapes_that_do_not_agree_are_refused(shape):
    with pytest.raises(InvalidInput, match="expected"):
        discovery(np.zeros(shape, dtype=bool), slices_of([0]))


BOOLS = arrays(bool, st.tuples(st.just(8), st.integers(0, 4)))


@given(BOOLS, BOOLS, st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_it_is_the_definition_word_by_word(found, truth, min_precision, min_recall):
    precise = [
        {s for s in range(found.shape[1]) if found[:, s].any() and truth[found[:, s], t].mean() > min_precision}
        for t in range(truth.shape[1])
    ]
    result = discovery(found, truth, min_precision, min_recall)
    for t, belonging in enumerate(precise):
        rows = {row for s in belonging for row in np.flatnonzero(found[:, s])}
        inside = np.flatnonzero(truth[:, t])
        recall = sum(row in rows for row in inside) / max(1, len(inside))
        assert result.discovered[t] == (recall > min_recall)
    assert result.false.tolist() == [not any(s in b for b in precise) for s in range(found.shape[1])]


@given(BOOLS, BOOLS, arrays(bool, 8))
def test_one_more_slice_never_hides_a_true_one(found, truth, more):
    before = discovery(found, truth).discovered
    assert (discovery(np.column_stack([found, more]), truth).discovered >= before).all()
