"""What an independent classifier says of the labels in slices."""

import numpy as np
import pytest

from experiments.analyses import second_opinion
from experiments.analyses.second_opinion import analyse
from methods.errors import InvalidInput
from tests.experiments.analyses import reading

# 20 reviews that anyone can tell apart; the labels of the first two are the wrong way round
TEXTS = ["splendid lovely novel", "awful broken kettle"] * 10
LABELS = ["negative", "positive", *["positive", "negative"] * 9]


def reviews(**columns):
    correct = [False, True, False, *[True] * 17]
    return {"text": TEXTS, "label": LABELS, "loss": np.arange(20.0), "correct": correct, **columns}


def members(*slices):
    return reading.members(20, *slices)


def of(numbers, **where):
    return reading.the_one(numbers, "second_opinion_disagrees", **where)


def test_the_share_of_a_slice_whose_label_is_contradicted(finished_run, unsaved):
    numbers = analyse([finished_run(reviews(), members({0, 1, 2, 3}, {4, 5}))], unsaved)
    assert set(numbers["measure"]) == {"second_opinion_disagrees"}
    assert (of(numbers, slice=1)["value"], of(numbers, slice=1)["n"]) == (0.5, 4)
    assert of(numbers, slice=2)["value"] == 0


def test_the_whole_split_and_the_models_errors_stand_beside_the_slices(finished_run, unsaved):
    numbers = analyse([finished_run(reviews(), members({0}))], unsaved)
    assert (of(numbers, group="all")["value"], of(numbers, group="all")["n"]) == (0.1, 20)
    assert (of(numbers, group="errors")["value"], of(numbers, group="errors")["n"]) == (0.5, 2)  # rows 0 and 2


def test_shares_have_wilsons_interval(finished_run, unsaved):
    row = of(analyse([finished_run(reviews(), members({0, 1, 2, 3}))], unsaved), slice=1)
    # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with p = 1/2, n = 4, z = 1.96
    np.testing.assert_allclose([row["low"], row["high"]], [0.150036, 0.849964], atol=1e-5)


def test_nobody_is_judged_by_a_classifier_that_saw_them(finished_run, unsaved):
    # each text has a word of its own, which a classifier that saw it would take for a sign of its label
    texts = [f"unique{row}" for row in range(20)]
    numbers = analyse([finished_run(reviews(text=texts), members({0}))], unsaved)
    assert of(numbers, group="all")["value"] > 0.2


def test_the_same_run_gives_the_same_numbers(finished_run, unsaved):
    texts = [f"{word} number{row}" for row, word in enumerate(["fine", "bad", "fine", "odd"] * 5)]
    run = finished_run(reviews(text=texts), members({0, 1, 2}))
    first = analyse([run], unsaved)
    second_opinion._disagrees.cache_clear()
    assert first["value"].equals(analyse([run], unsaved)["value"])


def test_more_folds_than_examples_of_a_class_are_no_trouble(finished_run, unsaved):
    labels = ["negative", *["positive"] * 19]
    numbers = analyse([finished_run(reviews(label=labels), members({0}))], unsaved, folds=30)
    assert of(numbers, slice=1)["value"] == 1  # nobody but itself is negative


def test_an_empty_slice_has_no_number(finished_run, unsaved):
    numbers = analyse([finished_run(reviews(), members(set(), {0}))], unsaved)
    assert list(numbers["slice"].dropna()) == [2]


def test_a_model_without_errors_and_a_run_without_slices(finished_run, unsaved):
    numbers = analyse([finished_run(reviews(correct=True), [[]] * 20)], unsaved)
    assert list(numbers["group"]) == ["all"]
    assert unsaved.sentences == ["spotlight: the second classifier contradicts 10% of all labels."]
    assert unsaved.pictures == []


def test_the_sentence_has_all_the_shares(finished_run, unsaved):
    analyse([finished_run(reviews(), members({0, 1, 2, 3}))], unsaved)
    assert unsaved.sentences == [
        "spotlight: the second classifier contradicts 10% of all labels, 50% of what the model gets wrong; slice 1: "
        "50% of 4."
    ]


def test_the_picture_has_a_dot_a_slice_and_two_lines_a_run(finished_run, unsaved, figures):
    runs = [finished_run(reviews(), members({0, 1}, {2}), method=name) for name in ("spotlight", "gmm")]
    analyse(runs, unsaved)
    (axes,) = figures[0].axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[1.0, 0.0]] * 2
    assert [line.get_linestyle() for line in axes.lines if len(set(line.get_xdata())) == 1].count("--") == 2
    assert next(label.get_text() for label in axes.get_yticklabels()) == "spotlight, slice 1 (n=2)"


def test_the_picture_is_written_and_shows_no_examples(finished_run, out):
    analyse([finished_run(reviews(), members({0, 1}, {2}))], out)
    assert {path.suffix for path in out.folder.glob("tested-shares.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None


def test_questions_and_single_classes_are_left_out_and_said(finished_run, unsaved):
    questions = finished_run({"text": TEXTS, "loss": np.ones(20), "correct": True}, members({0}), method="gmm")
    one_class = finished_run(reviews(label="positive"), members({0}), method="ball")
    numbers = analyse([finished_run(reviews(), members({0})), questions, one_class], unsaved)
    assert set(numbers["method"]) == {"spotlight"}
    assert [sentence.split(":")[0] for sentence in unsaved.sentences[:2]] == ["gmm", "ball"]


def test_runs_without_texts_alone_are_refused(finished_run, unsaved):
    with pytest.raises(InvalidInput, match="none of the 1 runs has texts with labels"):
        analyse([finished_run({"label": ["a", "b"], "loss": [1.0, 2.0], "correct": True}, [[1], [0]])], unsaved)


def test_a_single_fold_is_refused(finished_run, unsaved):
    with pytest.raises(InvalidInput, match="folds is 1"):
        analyse([finished_run(reviews(), members({0}))], unsaved, folds=1)
