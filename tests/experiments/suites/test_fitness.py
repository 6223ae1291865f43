"""Whether a model fails on the true slices, by numbers that can be counted."""

import pytest
import torch

from experiments.suites.fitness import GAP, Fitness, fitness


def outcomes(*groups):
    """(members, of them right) of the rest and of each true slice in turn: who is right, and the slices."""
    sizes = [n for n, _ in groups]
    correct = torch.cat([torch.arange(n) < right for n, right in groups])
    group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(sizes))
    return correct, torch.stack([group == index for index in range(1, len(groups))], dim=1)


def test_accuracies_are_those_of_the_slices_and_of_what_is_in_none():
    found = fitness(*outcomes((50, 45), (20, 5), (10, 4)))
    assert found == Fitness(sizes=(20, 10), inside=(0.25, 0.4), outside=0.9)
    assert found.gap == pytest.approx(0.5)


def test_an_example_in_two_slices_counts_in_both_and_not_outside():
    slices = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    found = fitness(torch.tensor([True, False, False, True]), slices)
    assert found == Fitness(sizes=(2, 2), inside=(0.5, 0.5), outside=1.0)


def test_every_slice_must_be_done_worse():
    assert fitness(*outcomes((10, 9), (10, 0), (10, 5))).fit
    assert not fitness(*outcomes((10, 9), (10, 0), (10, 9))).fit
    assert fitness(*outcomes((10, 9), (10, 0), (10, 9))).gap == pytest.approx(0)


def test_a_slice_that_is_done_better_is_a_gap_below_zero():
    found = fitness(*outcomes((10, 5), (10, 9)))
    assert found.gap == pytest.approx(-0.4)
    assert not found.fit


@pytest.mark.parametrize("right_outside", range(10, 101, 10))
def test_ten_points_are_enough_whatever_rounding_does(right_outside):
    """In floats 0.9 - 0.8 is less than 0.1."""
    assert GAP == 0.1
    assert fitness(*outcomes((100, right_outside), (100, right_outside - 10))).fit


def test_a_little_less_than_ten_points_is_not_enough():
    assert not fitness(*outcomes((1000, 900), (1000, 801))).fit
