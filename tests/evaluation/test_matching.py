import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluation.matching import PROTOCOLS, Candidates, Match, best_auroc, best_average_precision, first, worst_slice
from evaluation.ranking import auroc, average_precision

thorough = settings(deadline=None, derandomize=True, max_examples=60)


def candidates(membership, members=None, losses=None, true_slice=None):
    """One slice a column; members above 0.5, all losses equal, the first example true where not given."""
    membership = np.asarray(membership, dtype=np.float32)
    n = len(membership)
    return Candidates(
        membership,
        membership > 0.5 if members is None else np.asarray(members, dtype=bool),
        np.ones(n) if losses is None else np.asarray(losses),
        np.arange(n) == 0 if true_slice is None else np.asarray(true_slice),
    )


@st.composite
def any_candidates(draw):
    n, s = draw(st.integers(2, 15)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    true_slice = rng.random(n) < 0.4
    assume(true_slice.any() and not true_slice.all())
    membership = rng.integers(0, draw(st.sampled_from([2, 4, 1000])), (n, s)) / 1000  # few levels: many ties
    return candidates(membership, rng.random((n, s)) < 0.3, rng.integers(0, 4, n).astype(float), true_slice)


def test_worst_slice_has_the_largest_mean_loss():
    # mean losses 2, 3 and 2.5; the largest sum is the first slice's
    members = [[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]]
    assert worst_slice(candidates(members, losses=[1, 3, 2, 3])) == Match(1)


def test_worst_slice_passes_over_slices_without_members():
    assert worst_slice(candidates([[0, 0.9], [0, 0.1]], losses=[0.0, 0.0])) == Match(1)


def test_worst_slice_is_the_first_where_all_are_empty():
    assert worst_slice(candidates(np.zeros((3, 4)))) == Match(0)


def test_first_is_the_first_even_where_it_is_empty():
    assert first(candidates([[0, 1], [0, 1]])) == Match(0)


def test_best_average_precision_by_hand():
    # true slice: example 0, ranked third, second and second: average precisions 1/3, 1/2 and 1/2
    membership = [[0.1, 0.5, 0.6], [0.9, 0.9, 0.7], [0.8, 0.1, 0.5], [0.0, 0.0, 0.4]]
    chosen = best_average_precision(candidates(membership))
    assert chosen == Match(1)
    assert candidates(membership).average_precision(chosen) == pytest.approx(1 / 2)


def test_best_average_precision_offers_complements():
    chosen = candidates([[0.1, 0.5], [0.9, 0.9], [0.8, 0.4]])
    assert best_average_precision(chosen) == Match(0, complement=True)
    assert chosen.average_precision(Match(0, complement=True)) == 1
    assert chosen.members_of(Match(0, complement=True)).tolist() == [True, False, False]


def test_best_auroc_offers_none():
    # AUROC 0 and 1/2; the complement of the first would have 1
    assert best_auroc(candidates([[0.1, 0.5], [0.9, 0.9], [0.8, 0.4]])) == Match(1)


def test_a_slice_goes_before_a_complement_that_ranks_alike():
    # the complement of slice 0 is slice 1
    assert best_average_precision(candidates([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]])) == Match(1)


def test_a_complement_tells_small_memberships_apart():
    # in single precision 1 - m is 1 for both
    tiny = candidates([[1e-10], [2e-10], [3e-10]])
    assert tiny.average_precision(Match(0, complement=True)) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ties_go_to_the_earlier_slice(protocol):
    twins = np.repeat([[0.9], [0.2], [0.6]], 3, axis=1)
    assert PROTOCOLS[protocol](candidates(twins)) == Match(0)


@thorough
@given(any_candidates())
def test_the_best_is_never_below_another_protocol_on_its_own_criterion(problem):
    matches = [protocol(problem) for protocol in PROTOCOLS.values()]
    best = problem.average_precision(best_average_precision(problem))
    assert best == max(map(problem.average_precision, [*matches, *problem.slices, *problem.complements]))
    without_complements = [match for match in matches if not match.complement]
    assert problem.auroc(best_auroc(problem)) == max(map(problem.auroc, without_complements + problem.slices))


@thorough
@given(any_candidates())
def test_worst_slice_is_never_empty_nor_better_than_another(problem):
    match = worst_slice(problem)
    losses = [problem.losses[members].mean() for members in problem.members.T if members.any()]
    assert not match.complement
    assert problem.members_of(match).any() or not losses
    assert not losses or problem.losses[problem.members_of(match)].mean() == pytest.approx(max(losses))


@thorough
@given(any_candidates(), st.randoms(use_true_random=False))
def test_no_protocol_depends_on_row_order(problem, random):
    order = random.sample(range(len(problem.losses)), len(problem.losses))
    shuffled = Candidates(
        problem.membership[order], problem.members[order], problem.losses[order], problem.true_slice[order]
    )
    for protocol in PROTOCOLS.values():
        assert protocol(shuffled) == protocol(problem)


@thorough
@given(any_candidates())
def test_only_the_first_two_protocols_are_blind_to_the_true_slice(problem):
    other = Candidates(problem.membership, problem.members, problem.losses, ~problem.true_slice)
    assert first(other) == first(problem)
    assert worst_slice(other) == worst_slice(problem)


@thorough
@given(any_candidates())
def test_metrics_of_slices_and_complements_are_those_of_what_ranks_the_examples(problem):
    for match in problem.slices + problem.complements:
        ranked = problem.membership_of(match), problem.true_slice
        assert problem.average_precision(match) == average_precision(*ranked)
        assert problem.auroc(match) == auroc(*ranked)


def test_codes_of_slices_and_complements_never_meet():
    codes = [Match(index, complement).code for index in range(5) for complement in (False, True)]
    assert sorted(codes) == list(range(-5, 5))
