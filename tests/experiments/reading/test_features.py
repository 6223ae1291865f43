import numpy as np
import pandas as pd
import pytest
import torch

from experiments.reading.features import features


def of(numbers, learn_from, **categories):
    n = len(numbers)
    return features(np.array(numbers, dtype=float).reshape(n, -1), pd.DataFrame(categories, index=range(n)), learn_from)


def test_numbers_are_scaled_by_what_is_learned_from_and_by_nothing_else():
    values = of([0.0, 2.0, 100.0], [0, 1])
    assert values.dtype == torch.float32
    assert values.flatten().tolist() == [-1.0, 1.0, 99.0]


def test_a_constant_column_becomes_zeros():
    assert of([0.1, 0.1, 0.1], [0, 1, 2]).abs().max() < 1e-12


def test_a_column_that_is_constant_where_it_is_learned_from_says_nothing_elsewhere():
    assert of([5.0, 5.0, 1e6], [0, 1]).flatten().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("largest", [1e308, 1e200])
def test_numbers_too_large_to_be_scaled_are_not_mistaken_for_zeros(largest):
    assert not of([0.0, largest, -largest], [0, 1, 2]).isfinite().any()


def test_a_category_that_was_never_learned_has_no_column():
    assert of([[], [], []], [0, 1], place=["b", "a", "new"]).tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
