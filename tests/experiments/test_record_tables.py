"""What a run keeps for reports: true slices, changed labels, the half that a method was fitted on."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.corruption import make_problems
from experiments.describing.problems import FoundProblem
from experiments.discovery import discover
from experiments.finished import FinishedRun
from experiments.loading import load_dataset
from experiments.run import audit, run_on
from experiments.settings import settings_of
from methods import InvalidInput

N, D, C = 60, 3, 3
BOTH = ("evaluation.fit_split=validation", "evaluation.score_split=test", "evaluation.fit_slices=true")


@pytest.fixture
def settings(workspace):
    """Of a run over a file with subclasses, half of it held out, and a method that goes by losses."""

    def made(*overrides, **columns):
        generator = np.random.default_rng(0)
        labels = generator.integers(0, C, N)
        arrays = {
            "id": np.array([f"e{row:02d}" for row in generator.permutation(N)]),
            "label": np.array(["ant", "bee", "cat"])[labels],
            "embeddings": generator.normal(size=(N, D)),
            "logits": generator.normal(size=(N, C)) + 3 * np.eye(C)[labels],
            "subclass": np.array([f"{label}{generator.integers(2)}" for label in labels]),
        }
        np.savez("mine.npz", **arrays, **columns)
        common = ("dataset=predictions", "dataset.path=mine.npz", "tracking=none", "method=highest_loss")
        return settings_of([*common, "dataset.held_out=0.5", "dataset.slice_size=7", "compute.threads=1", *overrides])

    return made


def problems_of(settings):
    """The problems as the run had them, and what it found in them."""
    problems = list(make_problems(settings, audit(settings, load_dataset(settings))))
    return problems, discover(settings, problems)


def read(settings, problem):
    return FoundProblem(FinishedRun.read(run_on(settings, load_dataset(settings))), problem)


def check_half(found, outputs, slices):
    """What is read of a half is what the method saw of it, and gave for it."""
    names = np.array(["ant", "bee", "cat"])
    examples = found.examples
    assert tuple(examples["id"]) == outputs.example_ids == found.slices.example_ids
    assert examples["label"].tolist() == names[outputs.labels].tolist()
    assert examples["prediction"].tolist() == names[outputs.predictions].tolist()
    assert examples["correct"].tolist() == outputs.correct.tolist()
    assert examples["correct"].dtype == bool
    assert np.array_equal(examples["loss"], outputs.losses)
    assert torch.equal(found.slices.members, slices.members)
    assert torch.equal(found.slices.membership, slices.membership)


def check_numbers(numbers, outputs, slices):
    members = slices.members[:, 0]
    row = numbers.loc[1]
    assert row["size"] == members.sum()
    assert row["mean_loss"] == pytest.approx(float(outputs.losses[members].mean()))
    assert row["accuracy"] == pytest.approx(float(outputs.correct[members].float().mean()))
    rest = outputs.correct[~members].float().mean()
    assert row["gap"] == pytest.approx(float(rest) - row["accuracy"], abs=1e-6)
    assert row["gap_low"] <= row["gap"] <= row["gap_high"]


@pytest.mark.parametrize("corruption", [(), ("corruption=relabel_subclass", "corruption.n_seeds=1")])
def test_both_halves_come_back_as_the_method_saw_them(settings, corruption):
    asked = settings(*BOTH, *corruption)
    problems, discovered = problems_of(asked)
    assert len(problems) == (6 if corruption else 1)
    for problem in problems:
        assert problem.fit is not problem.score
        found = read(asked, problem.name)
        check_half(found.scored, problem.score, discovered.found[problem.name])
        check_half(found.fitted, problem.fit, discovered.fitted[problem.name])
        check_numbers(found.numbers, problem.score, discovered.found[problem.name])
        check_numbers(found.fitted_numbers, problem.fit, discovered.fitted[problem.name])


def test_labels_and_losses_of_a_relabelled_subclass_are_those_by_hand(settings):
    asked = settings("dataset.held_out=0", "corruption=relabel_subclass", "corruption.n_seeds=1")
    plain = read(settings("dataset.held_out=0"), "all").scored.examples.set_index("id")
    logits = pd.DataFrame(np.load("mine.npz")["logits"], index=np.load("mine.npz")["id"], columns=["ant", "bee", "cat"])
    names = [problem.name for problem in problems_of(asked)[0]]
    for name in names:
        found = read(asked, name)
        examples = found.scored.examples.set_index("id")
        changed = examples["label"] != plain["label"]
        assert set(examples.index[changed]) <= set(examples.index[found.truth[:, 0]])
        for i, row in examples.iterrows():
            by_hand = np.log(np.exp(logits.loc[i]).sum()) - logits.loc[i, row["label"]]
            assert row["loss"] == pytest.approx(by_hand, rel=1e-4)
            assert row["correct"] == (logits.loc[i].idxmax() == row["label"])
        unchanged = examples.columns.difference(["label", "loss", "correct"])
        pd.testing.assert_frame_equal(examples[unchanged], plain[unchanged])
    assert len(names) == 6


def test_true_slices_come_back_as_the_problem_had_them(settings):
    asked = settings("dataset.held_out=0", "corruption=relabel_subclass", "corruption.n_seeds=1")
    for problem in problems_of(asked)[0]:
        found = read(asked, problem.name)
        assert np.array_equal(found.truth, problem.true_slices.numpy())
        subclass = found.scored.examples["attribute_subclass"]
        assert subclass[found.truth[:, 0]].nunique() == 1


def test_a_run_that_was_not_asked_for_them_keeps_no_slices_of_the_fitted_half(settings):
    found = read(settings(*BOTH[:2]), "all")
    assert found.fitted is None
    assert found.fitted_numbers is None
    assert found.truth is None
    assert found.scored.split == "test"


def test_one_half_for_both_has_no_other_one(settings):
    found = read(settings("dataset.held_out=0", "evaluation.fit_slices=true"), "all")
    assert found.fitted is None
    assert len(found.scored.examples) == N


def test_runs_without_the_setting_keep_their_keys(settings):
    plain, asked = settings(), settings("evaluation.fit_slices=true")
    assert "fit_slices" not in plain.defining()["evaluation"]
    assert asked.defining()["evaluation"]["fit_slices"] is True


def test_the_strongest_members_come_first_and_among_equal_ones_the_worst(settings):
    found = read(settings("dataset.held_out=0", "method=confusion"), "all").scored
    ranked = found.ranked(1)
    assert set(ranked.index) == set(np.flatnonzero(found.members[:, 0]))
    assert ranked["loss"].is_monotonic_decreasing  # all of one strength


def test_a_problem_that_is_not_there_is_refused(settings):
    with pytest.raises(InvalidInput, match="no slices for a problem 'none'"):
        _ = read(settings(), "none").scored
