"""Labels and predictions of slices against hand computation."""

import numpy as np
import pytest

from experiments.analyses.distributions import analyse
from experiments.analysing import Output
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import members, value

#         a -> b   a -> b   a right  b -> a   b right  b right  c -> a   c right
LABELS = ["a", "a", "a", "b", "b", "b", "c", "c"]
PREDICTIONS = ["b", "b", "a", "a", "b", "b", "a", "c"]


def examples(labels=LABELS, predictions=PREDICTIONS):
    correct = [label == prediction for label, prediction in zip(labels, predictions, strict=True)]
    return {"loss": [1.0] * len(labels), "correct": correct, "label": labels, "prediction": predictions}


def slices(*rows, n=8):
    return members(n, *rows)


@pytest.fixture
def drawn():
    """Of each picture, from the titles of its slices: the classes, and the lengths of their bars."""
    return []


@pytest.fixture
def out(out, drawn, monkeypatch):
    """Pictures are looked at and not written, which takes longer than all the rest."""

    def look(figure, name, caption, shows=None):
        drawn.append({axes.get_title(loc="left"): _seen(axes) for axes in figure.axes if axes.get_visible()})

    monkeypatch.setattr(out, "picture", look)
    return out


def _seen(axes):
    lengths = [[round(float(bar.get_width())) for bar in bars] for bars in axes.containers]
    return [tick.get_text() for tick in axes.get_yticklabels()], lengths


def test_homogeneity_and_error_rate_of_a_slice(finished_run, out):
    numbers = analyse([finished_run(examples(), slices([0, 1, 2, 3]))], out)
    assert value(numbers, "label_homogeneity", group=None, slice=1) == 0.75
    assert value(numbers, "prediction_homogeneity", group=None, slice=1) == 0.5
    assert value(numbers, "error_rate", group=None, slice=1) == 0.75


def test_the_commonest_error_of_a_slice_is_a_share_of_its_members(finished_run, out):
    numbers = analyse([finished_run(examples(), slices([0, 1, 2, 3], [2, 4]))], out)
    assert value(numbers, "pair_share", group="a -> b", slice=1) == 0.5
    assert set(numbers.loc[numbers["measure"] == "pair_share", "slice"]) == {1}  # slice 2 has no error


def test_errors_of_the_whole_split_are_shares_of_the_label_and_of_all_errors(finished_run, out):
    numbers = analyse([finished_run(examples(), slices([0]))], out)
    np.testing.assert_allclose(value(numbers, "pair_rate", group="a -> b"), 2 / 3)
    assert value(numbers, "pair_rate", group="c -> a") == 0.5
    assert value(numbers, "pair_share_of_errors", group="a -> b") == 0.5
    assert value(numbers, "pair_share_of_errors", group="c -> a") == 0.25
    assert value(numbers, "pair_share_of_errors", group="c -> b") == 0.0


def test_a_model_without_errors_has_no_shares_of_errors(finished_run, out):
    numbers = analyse([finished_run(examples(LABELS, LABELS), slices([0, 1]))], out, rule={"max_accuracy": 0.5})
    assert not {"pair_share_of_errors", "share_of_errors_found_by_rule", "pair_share"} & set(numbers["measure"])
    assert value(numbers, "pair_rate", group="a -> b") == 0.0


def test_the_rule_says_which_slices_count(finished_run, out):
    run = finished_run(examples(), slices([0, 1, 2], [0, 1, 3], [4, 5], [6], []))
    numbers = analyse([run], out, rule={"max_accuracy": 0.4, "min_size": 2})
    assert value(numbers, "n_slices_by_rule", group="all") == 2
    assert value(numbers, "n_examples_by_rule", group="all") == 4  # 0 and 1 are in both
    assert value(numbers, "n_errors_found_by_rule", group="all") == 3
    assert value(numbers, "share_of_errors_found_by_rule", group="all") == 0.75
    assert value(numbers, "accuracy_by_rule", group="all") == 0.25
    assert out.sentences[0] == (
        "spotlight: 2 slices have an accuracy of at most 40% and at least 2 examples; together 4 examples with "
        "accuracy 25%, and 3 (75%) of 4 errors."
    )


def test_slices_are_measured_also_where_the_rule_leaves_them_out(finished_run, out, drawn):
    numbers = analyse([finished_run(examples(), slices([4, 5]))], out, rule={"max_accuracy": 0.1})
    assert value(numbers, "error_rate", group=None, slice=1) == 0.0
    assert value(numbers, "n_slices_by_rule", group="all") == 0
    assert value(numbers, "share_of_errors_found_by_rule", group="all") == 0.0
    assert "accuracy_by_rule" not in set(numbers["measure"])
    assert out.sentences == ["spotlight: no slice has an accuracy of at most 10% and at least 1 examples."]
    assert drawn == []


def test_only_slices_by_the_rule_are_drawn(finished_run, out, drawn):
    analyse([finished_run(examples(), slices([4, 5], [0, 1, 2]))], out, rule={"max_accuracy": 0.4})
    (picture,) = drawn
    assert list(picture) == ["slice 2: n=3, error rate 67%"]
    assert out.sentences[0].startswith("spotlight: 1 slice has an accuracy of at most 40% and at least 1 examples;")


@pytest.mark.parametrize("rule", [{"accuracy": 0.1}, {"max_accuracy": 10}, {"max_accuracy": "10%"}, {"min_size": 0}])
def test_another_rule_is_refused(finished_run, out, rule):
    with pytest.raises(InvalidInput, match="expected max_accuracy"):
        analyse([finished_run(examples(), slices([0]))], out, rule=rule)


def test_a_slice_is_described_in_a_sentence(finished_run, out):
    analyse([finished_run(examples(), slices([0, 1, 2], []), method="infembed")], out)
    assert out.sentences == ["slice 1 of infembed: 3 examples, accuracy 33%, labels a 100%, predictions b 67%"]


def test_all_of_few_classes_are_drawn_in_percent(finished_run, out, drawn):
    analyse([finished_run(examples(), slices([0, 1, 2, 3]))], out)
    (picture,) = drawn
    labels, predictions = [75, 25, 0], [50, 50, 0]
    assert picture == {"slice 1: n=4, error rate 75%": (["a", "b", "c"], [labels, predictions])}


def test_of_many_classes_the_commonest_in_the_slice_are_drawn(finished_run, out, drawn):
    labels = [f"class {i:02d}" for i in [0] * 10 + list(range(1, 11)) + list(range(90))]
    predictions = ["class 00"] * len(labels)
    run = finished_run(examples(labels, predictions), slices(list(range(20)), [0, 1, 11], n=len(labels)))
    analyse([run], out)
    (first, second) = drawn[0].values()
    assert first[0] == [*(f"class {i:02d}" for i in range(6)), "5 other classes"]
    assert first[1] == [[50, 5, 5, 5, 5, 5, 25], [100, 0, 0, 0, 0, 0, 0]]
    assert second[0] == ["class 00", "class 02"]


def test_no_more_slices_are_drawn_than_asked_for(finished_run, out, drawn):
    run = finished_run(examples(), slices([0], [1], [2], [3]))
    numbers = analyse([run], out, most=2)
    assert len(drawn[0]) == len(out.sentences) == 2
    assert set(numbers["slice"].dropna()) == {1, 2, 3, 4}


def test_runs_without_labels_have_error_rates_and_no_picture(finished_run, out, drawn):
    questions = {"loss": [1.0, 2.0], "correct": [True, False]}
    numbers = analyse([finished_run(questions, [[1], [1]], dataset="squad")], out, rule={"max_accuracy": 0.5})
    assert value(numbers, "error_rate", group=None, slice=1) == 0.5
    assert value(numbers, "n_slices_by_rule", group="all") == 1
    assert "no labels" in out.sentences[-1]
    assert drawn == []


def test_a_run_without_slices_has_the_errors_of_the_split_only(finished_run, out, drawn):
    numbers = analyse([finished_run(examples(), np.zeros((8, 0)))], out)
    assert set(numbers["measure"]) == {"pair_rate", "pair_share_of_errors"}
    assert drawn == []


def test_kinds_of_error_are_counted_up_to_a_hundred(finished_run, out):
    labels = [f"class {i}" for i in range(200)]
    numbers = analyse([finished_run(examples(labels, labels[1:] + labels[:1]), slices([0], n=200))], out)
    assert (numbers["measure"] == "pair_share_of_errors").sum() == 100


def test_each_run_has_a_picture_as_png_and_svg(finished_run, tmp_path):
    strange = ["$x$", "<b>", "_z", "a very long name of a class " * 3] * 2
    runs = [
        finished_run(examples(), slices([0, 1])),
        finished_run(examples(strange, strange[::-1]), slices([0, 1]), method="highest_loss"),
    ]
    out = Output(tmp_path / "analysis", "tested")
    analyse(runs, out)
    names = {path.name for path in out.folder.iterdir()}
    assert names == {f"tested-{name}.{kind}" for name in ("spotlight", "highest-loss") for kind in ("png", "svg")}
    assert "$x$" in (out.folder / "tested-highest-loss.svg").read_text()
    assert {picture["shows"] for picture in out.pictures} == {None}
