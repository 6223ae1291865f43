"""What is said of one slice."""

import numpy as np
import pandas as pd
import pytest

from experiments.describing.problems import FoundProblem
from experiments.report.assets import Assets
from experiments.report.examples import Gallery
from experiments.report.slice_section import CLASSES, TRAITS, section
from tests.experiments.analyses.reading import members
from tests.experiments.report.conftest import eight_examples


def described(run, index=1, problem="all"):
    return section(FoundProblem(run, problem), index, Gallery(run, Assets(None)))


def test_a_slice_has_its_numbers(stored_run):
    numbers = described(stored_run()).numbers
    assert (numbers["size"], numbers["mean_loss"], numbers["accuracy"]) == (3, 2.5, pytest.approx(1 / 3))
    assert numbers["gap"] == pytest.approx(4 / 5 - 1 / 3)


def test_the_most_common_error_is_told_with_its_share_of_the_slice_and_of_all(stored_run):
    error = described(stored_run()).error
    assert (error.value, error.in_slice) == ("cat taken for dog", pytest.approx(2 / 3))
    assert 0 < error.in_all <= error.in_slice
    assert described(stored_run(slices=members(8, [3, 5]))).error is None


def test_examples_without_labels_have_no_error_of_a_kind_and_no_classes(stored_run):
    one = described(stored_run({"loss": [1.0, 2.0], "correct": [False, True]}, members(2, [0])))
    assert one.error is None
    assert one.classes == []


def test_labels_and_predictions_stand_beside_those_of_the_whole_split(stored_run):
    cat, dog = described(stored_run()).classes
    assert (cat.name, cat.labels, cat.all_labels) == ("cat", 1.0, 3 / 8)
    assert (cat.predictions, cat.all_predictions) == (pytest.approx(1 / 3), 2 / 8)
    assert (dog.name, dog.labels, dog.predictions) == ("dog", 0.0, pytest.approx(2 / 3))


def test_of_many_classes_the_rest_is_put_together(stored_run):
    n = 3 * CLASSES
    names = [f"class {row}" for row in range(n)]
    table = {"loss": [1.0] * n, "correct": [True] * n, "label": names, "prediction": names}
    shown = described(stored_run(table, members(n, range(CLASSES)))).classes
    assert [share.name for share in shown] == [*names[:CLASSES], f"{2 * CLASSES} other classes"]
    assert shown[-1].labels == 0.0
    assert sum(share.all_labels for share in shown) == pytest.approx(1)


def test_how_it_agrees_with_each_true_slice(stored_run):
    one = described(stored_run(truth=members(8, [0, 1, 4, 5], [6])))
    assert [(hit.index, hit.both, hit.size, hit.true_size) for hit in one.hits] == [(1, 2, 3, 4), (2, 0, 3, 1)]
    assert described(stored_run()).hits == []


def test_an_empty_slice_has_a_size_and_nothing_else(stored_run):
    one = described(stored_run(slices=members(8, range(3), [])), index=2)
    assert one.numbers["size"] == 0
    assert np.isnan(one.numbers["gap"])
    assert one.shown == one.worst == one.classes == one.told == one.others == []
    assert one.error is None


def test_a_slice_of_all_examples_has_no_gap(stored_run):
    one = described(stored_run(eight_examples(attribute_age=range(8)), members(8, range(8))))
    assert one.numbers["size"] == 8
    assert np.isnan(one.numbers["gap"])
    assert not one.told


def test_the_methods_warnings_are_kept(stored_run):
    assert described(stored_run(diagnostics=[{"warnings": ["did not converge"], "steps": 5}])).warnings == [
        "did not converge"
    ]


def test_what_stands_out_comes_first_and_the_rest_is_there_to_be_asked_for(stored_run):
    n = 100
    inside = np.arange(n) < 30
    told = {f"attribute_{number}": np.where(inside, "yes", "no") for number in range(TRAITS)}
    table = {"loss": [1.0] * n, "correct": [True] * n, **told, "attribute_even": np.arange(n) % 2 == 0}
    one = described(stored_run(table, members(n, range(30))))
    assert len(one.told) == TRAITS
    assert all(trait.stands_out for trait in one.told)
    assert {trait.attribute for trait in one.others} > {"even"}
    assert one.first.deviations > 0


def test_if_there_is_room_for_one_thing_it_is_what_there_is_more_of(stored_run):
    n = 200
    kinds = np.where(np.arange(n) < 40, "rare", "common")
    one = described(
        stored_run({"loss": [1.0] * n, "correct": [True] * n, "attribute_kind": kinds}, members(n, range(40)))
    )
    assert one.first.value == "rare"


def test_both_halves_of_the_data_are_told(stored_run):
    table = pd.concat(
        [pd.DataFrame(eight_examples(id=[f"{s} {i}" for i in range(8)], split=s)) for s in ("validation", "test")]
    )
    evaluation = {"evaluation": {"fit_split": "validation"}}
    run = stored_run(table, members(8, [0], [1]), fitted=members(8, [0, 3], []), definition=evaluation)
    sought, held_out = described(run).halves
    assert (sought.name, sought.numbers["size"], sought.numbers["accuracy"]) == ("where it was found", 2, 0.5)
    assert (held_out.name, held_out.numbers["size"], held_out.numbers["accuracy"]) == ("held out", 1, 0.0)
    assert described(run, index=2).halves[0].numbers["size"] == 0


def test_one_half_is_not_told_twice(stored_run):
    assert described(stored_run()).halves == []
