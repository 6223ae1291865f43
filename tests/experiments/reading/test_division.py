import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.reading.division import divide, divide_groups, draw
from methods.errors import InvalidInput, InvalidSetting


@given(n=st.integers(10, 200), train=st.floats(0.1, 0.5), validation=st.integers(0, 4), seed=st.integers(0, 2**32 - 1))
def test_every_row_is_in_exactly_one_split(n, train, validation, seed):
    rows = divide(n, {"train": train, "validation": validation}, "test", seed)
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(n))
    assert len(rows.get("validation", [])) == validation


def test_each_split_has_its_share_of_each_stratum():
    strata = np.repeat([0, 1], [90, 10])
    for rows in divide(100, {"train": 0.5, "validation": 0.2}, "test", 0, strata).values():
        assert strata[rows].mean() == pytest.approx(0.1)


def test_the_seed_decides():
    first, again, other = (divide(50, {"train": 0.5}, "test", seed)["train"].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("sizes", [{"train": 1.0}, {"train": 10}, {"train": 0.6, "validation": 4}])
def test_nothing_left_is_refused(sizes):
    with pytest.raises(InvalidInput, match="leave none for test"):
        divide(10, sizes, "test", 0)


@pytest.mark.parametrize(
    ("n", "sizes", "strata", "said"),
    [
        (
            12_611,
            {"train": 12_000, "validation": 1611},
            1,
            "train 12,000 and validation 1,611 of 12,611 examples leave no",
        ),
        (12_611, {"train": 12_000, "validation": 1611}, 1, "none for test: ask for fewer"),
        (8, {"train": 0.5, "validation": 0.5}, 1, "none for test: expected below 1 together"),
        (8, {"train": 1.0}, 1, "train 1 of 8 examples leave none for test: expected below 1"),
        (60, {"validation": 1e-6}, 1, "validation 1e-06 of 60 examples are fewer than one: ask for more, or for 0"),
        (60, {"train": 0.5, "validation": 2}, 3, "validation 2 of 60 examples are fewer than the 3 classes or kinds"),
        (60, {"train": 58}, 3, "train 58 of 60 examples leave fewer than the 3 classes or kinds"),
    ],
)
def test_a_size_that_does_not_fit_is_said_in_our_own_words(n, sizes, strata, said):
    with pytest.raises(InvalidSetting, match=said):
        divide(n, sizes, "test", 0, np.arange(n) % strata)


def test_a_stratum_that_is_used_up_by_the_first_split_is_refused():
    with pytest.raises(
        InvalidInput, match="10 examples cannot be divided: the class or kind 1 has fewer than there are"
    ):
        divide(10, {"train": 0.5, "validation": 2}, "test", 0, (np.arange(10) >= 8).astype(int))


def test_a_stratum_of_one_is_refused():
    with pytest.raises(InvalidInput, match="10 examples cannot be divided"):
        divide(10, {"train": 0.5}, "test", 0, np.arange(10) == 0)


def test_a_draw_keeps_the_order():
    assert draw(np.arange(10), 3, 0).tolist() == sorted(draw(np.arange(10), 3, 0))
    assert draw(np.arange(10), None, 0).tolist() == list(range(10))
    assert draw(np.arange(10), 30, 0).tolist() == list(range(10))


def test_no_group_is_divided():
    groups = np.repeat([f"patient {i}" for i in range(20)], 3)
    rows = divide_groups(groups, {"train": 0.5, "validation": 4}, "test", 0)
    assert {name: len(set(groups[r])) for name, r in rows.items()} == {"train": 10, "validation": 4, "test": 6}
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(60))
    assert sum(len(set(groups[r])) for r in rows.values()) == 20


def test_each_split_has_its_share_of_the_groups_of_each_stratum():
    groups = np.repeat(np.arange(20), 3)
    for rows in divide_groups(groups, {"train": 0.5}, "test", 0, strata=groups >= 16).values():
        assert (groups[rows] >= 16).mean() == pytest.approx(0.2)
