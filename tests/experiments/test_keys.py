from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.keys import derive, first_difference, key_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
CONTENT = st.dictionaries(st.text(), PLAIN, max_size=5)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(CONTENT)
def test_the_order_of_entries_does_not_change_a_key(content):
    assert key_of(dict(reversed(content.items()))) == key_of(content)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(CONTENT, CONTENT)
def test_a_difference_is_found_exactly_where_there_is_one(first, second):
    assert (first_difference(first, second) is None) == (first == second)
    assert first_difference(first, first) is None


def test_a_seed_for_each_purpose():
    seeds = {derive(seed, name) for seed in range(10) for name in ("a", "b", "a b")}
    assert len(seeds) == 30
    assert derive(0, "a", "b") != derive(0, "a b")
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_names_that_are_no_text_are_compared_too():
    assert first_difference({1: "a", "b": 2}, {"b": 2}) == ("1", "a", "(absent)")
