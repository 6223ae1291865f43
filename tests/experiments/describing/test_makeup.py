"""What stands out in a slice, against the moments of drawing without replacement."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from experiments.describing.makeup import traits


def members(n, size):
    return np.arange(n) < size


def table(**attributes):
    return pd.DataFrame({f"attribute_{name}": values for name, values in attributes.items()})


def the_one(found, value):
    (trait,) = [trait for trait in found if trait.value == value]
    return trait


def test_a_share_is_told_in_standard_deviations_of_a_slice_drawn_at_random():
    hats = ["hat"] * 30 + ["none"] * 10 + ["hat"] * 30 + ["none"] * 130  # of 200, the first 40 are the slice
    trait = the_one(traits(table(head=hats), members(200, 40)), "hat")
    drawn = hypergeom(200, 60, 40)
    assert (trait.attribute, trait.in_slice, trait.in_all) == ("head", 0.75, 0.3)
    assert trait.deviations == pytest.approx((30 - drawn.mean()) / drawn.std())
    assert trait.stands_out


def test_a_mean_is_told_the_same_way():
    ages = np.arange(20.0) ** 2
    (trait,) = traits(table(age=ages), members(20, 5))
    error = ages.std() * np.sqrt((20 - 5) / (20 - 1) / 5)
    assert trait.value is None
    assert (trait.in_slice, trait.in_all) == (ages[:5].mean(), ages.mean())
    assert trait.deviations == pytest.approx((ages[:5].mean() - ages.mean()) / error)


def test_the_deviations_are_those_of_many_random_slices():
    generator = np.random.default_rng(0)
    shade, age = generator.choice(["light", "dark"], 300), generator.normal(size=300)
    drawn = [generator.permutation(members(300, 60)) for _ in range(400)]
    found = [{t.value: t.deviations for t in traits(table(shade=shade, age=age), member)} for member in drawn]
    for value in ("light", None):
        deviations = [of_one[value] for of_one in found]
        assert np.mean(deviations) == pytest.approx(0, abs=0.15)
        assert np.std(deviations) == pytest.approx(1, abs=0.1)


def test_a_slice_of_all_examples_differs_in_nothing():
    found = traits(table(shade=["a", "b"] * 20, age=np.arange(40.0)), members(40, 40))
    assert [trait.deviations for trait in found] == [0.0, 0.0, 0.0]


def test_of_few_examples_nothing_is_said():
    rare = ["rare"] * 4 + ["common"] * 396
    assert the_one(traits(table(kind=rare), members(400, 4)), "rare").deviations == 0.0
    assert the_one(traits(table(kind=["rare", *rare]), members(401, 5)), "rare").stands_out


def test_what_is_furthest_from_chance_comes_first_and_of_equals_the_commonest():
    shade = ["dark"] * 20 + ["light"] * 80
    thing = ["car", "dog"] * 10 + ["cat"] * 80
    found = traits(table(thing=thing, shade=shade, same=[1] * 100), members(100, 20))
    assert {found[0].value, found[1].value, found[2].value} == {"dark", "light", "cat"}
    few = [trait.value for trait in traits(table(kind=["a"] * 2 + ["b"] * 4 + ["c"] * 3), members(9, 1))]
    assert few == ["b", "c", "a"]


def test_missing_values_are_a_value_and_no_part_of_a_mean():
    found = traits(table(hat=["yes", None] * 10, age=[np.nan, *range(19)]), members(20, 10))
    assert the_one(found, "none").in_all == 0.5
    assert the_one(found, None).in_all == 9.0


@pytest.mark.parametrize("kind", ["Int64", "Float64", "float32"])
def test_numbers_are_read_however_they_are_stored(kind):
    few, many = pd.array([1, 2, None, 1] * 6, dtype=kind), pd.array([None, *range(23)], dtype=kind)
    found = traits(table(few=few, many=many), members(24, 6))
    assert {trait.value for trait in found} == {"1", "2", "none", None}
    assert the_one(found, None).in_all == 11.0


def test_true_and_false_are_words():
    assert {trait.value for trait in traits(table(smiles=[True, False] * 5), members(10, 5))} == {"True", "False"}


def test_names_of_examples_and_what_all_have_are_left_out():
    assert traits(table(file=[str(i) for i in range(300)], same=["a"] * 300, one=[7.0] * 300), members(300, 9)) == []
