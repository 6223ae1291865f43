"""One problem of a run: its examples, its slices, and what is known of both."""

import numpy as np
import pandas as pd
import pytest

from experiments.describing.data import examples_of, picture_reader
from experiments.describing.problems import FoundProblem
from methods.errors import Unsupported
from tests.experiments.analyses.reading import members

LOSSES = [4.0, 3.0, 2.0, 1.0]
EXAMPLES = {"loss": LOSSES, "correct": [False, False, True, True], "label": ["a", "a", "b", "b"]}


def two_halves(**columns):
    """The same four examples in both splits, under other ids."""
    halves = [
        pd.DataFrame({**EXAMPLES, "split": split, "id": [f"{split} {i}" for i in range(4)], **columns})
        for split in ("validation", "test")
    ]
    return pd.concat(halves, ignore_index=True)


def test_the_strongest_members_come_first_and_of_equal_ones_the_worst(finished_run):
    run = finished_run(EXAMPLES, members(4, [1, 2, 3]), membership=[[0.9], [0.2], [0.8], [0.2]])
    assert FoundProblem(run, "all").scored.ranked(1)["loss"].tolist() == [2.0, 3.0, 1.0]


def test_slices_have_the_numbers_of_the_scores(finished_run):
    numbers = FoundProblem(finished_run(EXAMPLES, members(4, [0, 1], [1, 2])), "all").numbers
    assert numbers.index.tolist() == [1, 2]
    assert numbers.loc[1, ["size", "mean_loss", "accuracy", "gap"]].tolist() == [2, 3.5, 0.0, 1.0]
    assert numbers.loc[2, ["size", "mean_loss", "accuracy", "gap"]].tolist() == [2, 2.5, 0.5, 0.0]


def test_an_empty_slice_has_a_size_and_one_of_all_has_no_gap(finished_run):
    numbers = FoundProblem(finished_run(EXAMPLES, members(4, [], range(4))), "all").numbers
    assert numbers["size"].tolist() == [0, 4]
    assert numbers["accuracy"].isna().tolist() == [True, False]
    assert numbers["gap"].isna().all()


def test_without_slices_there_are_no_numbers(finished_run):
    problem = FoundProblem(finished_run(EXAMPLES, np.zeros((4, 0))), "all")
    assert problem.numbers.empty
    assert problem.scored.slices.n_slices == 0


def test_a_problem_has_its_own_labels(finished_run):
    changed = {"problem": ["p"], "example_id": ["00002"], "label": ["a"], "loss": [9.0], "correct": [False]}
    run = finished_run(EXAMPLES, {"p": members(4, [2]), "q": members(4, [2])}, relabelled=changed)
    examples = FoundProblem(run, "p").scored.examples
    assert examples["label"].tolist() == ["a", "a", "a", "b"]
    assert examples["loss"].tolist() == [4.0, 3.0, 9.0, 1.0]
    assert examples["correct"].dtype == bool
    assert FoundProblem(run, "p").numbers.loc[1, "size"] == 1
    assert FoundProblem(run, "q").scored.examples["label"].tolist() == EXAMPLES["label"]


def test_the_true_slices_of_a_problem_are_known_where_they_were_kept(finished_run):
    truth = {"p": members(4, [0, 3], [1])}
    run = finished_run(EXAMPLES, {"p": members(4, [0]), "q": members(4, [0])}, truth=truth)
    assert FoundProblem(run, "p").truth.tolist() == truth["p"].astype(bool).tolist()
    assert FoundProblem(run, "q").truth is None
    assert FoundProblem(finished_run(EXAMPLES, members(4, [0])), "all").truth is None


def test_the_half_that_was_fitted_has_numbers_of_its_own(finished_run):
    evaluation = {"evaluation": {"fit_split": "validation"}}
    run = finished_run(two_halves(), members(4, [3]), fitted=members(4, [0, 2]), definition=evaluation)
    problem = FoundProblem(run, "all")
    assert problem.scored.examples["id"].tolist() == [f"test {i}" for i in range(4)]
    assert problem.fitted.examples["id"].tolist() == [f"validation {i}" for i in range(4)]
    assert problem.fitted_numbers.loc[1, ["size", "mean_loss", "accuracy", "gap"]].tolist() == [2, 3.0, 0.5, 0.0]


def test_there_is_no_fitted_half_where_it_is_the_same_one(finished_run):
    problem = FoundProblem(finished_run(EXAMPLES, members(4, [0])), "all")
    assert problem.fitted is None
    assert problem.fitted_numbers is None


@pytest.fixture
def stored(finished_run):
    """A run of two stored problems, whose examples have the same ids."""
    tables = [two_halves(text=f"about {name}").assign(problem=name) for name in ("p", "q")]
    return finished_run(pd.concat(tables, ignore_index=True), {"p": members(4, [0]), "q": members(4, [1, 2])})


def test_stored_problems_have_examples_of_their_own(stored):
    for name, size in (("p", 1), ("q", 2)):
        found = FoundProblem(stored, name).scored
        assert found.texts == (f"about {name}",) * 4
        assert found.members.sum() == size
        assert examples_of(stored, "validation", name)["text"].tolist() == [f"about {name}"] * 4


def test_of_a_thousand_stored_problems_only_one_is_read(stored, monkeypatch):
    monkeypatch.setattr(type(stored), "all_examples", property(lambda run: pytest.fail("all were read")))
    assert len(FoundProblem(stored, "q").scored.examples) == 4
    with pytest.raises(Unsupported, match="problems with examples of their own, and no pictures"):
        picture_reader(stored, "test")


def test_texts_are_those_of_all_examples_or_none(finished_run):
    texts = ["a dull film", None, "👍", ""]
    found = FoundProblem(finished_run({**EXAMPLES, "text": texts}, members(4, [0])), "all").scored
    assert found.texts == ("a dull film", "", "👍", "")
    assert FoundProblem(finished_run(EXAMPLES, members(4, [0])), "all").scored.texts == ()


def test_pairs_of_texts_are_read_as_two(finished_run):
    pairs = [str(("where?", "it's there"))] * 4
    found = FoundProblem(finished_run({**EXAMPLES, "text": pairs}, members(4, [0])), "all").scored
    assert found.texts == ("where?\nit's there",) * 4
