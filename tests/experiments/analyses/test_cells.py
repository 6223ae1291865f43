"""Precision at 10 by suite and kind, against hand computation."""

import numpy as np
import pytest

from experiments.analyses.cells import analyse
from methods.contract import InvalidInput
from tests.experiments.analyses.reading import the_one

EXAMPLES = {"loss": [1.0, 2.0], "correct": [True, False]}


def scores(values, kind="rare", protocol="best_average_precision", k=10):
    """A row for each problem: `a 1` is a problem of group a; None is a refusal."""
    return [
        {"problem": f"{kind} {name}", "group": name.split(" ")[0], "kind": kind}
        | (
            {"metric": "refused", "value": 1.0}
            if value is None
            else {"protocol": protocol, "true_slice": 0, "slice": 0, "metric": "precision_at_k", "k": k, "value": value}
        )
        for name, value in values.items()
    ]


@pytest.fixture
def suite(finished_run):
    def make(method, rows, name="natural_images", **names):
        problems = {row["problem"]: [[1], [0]] for row in rows}
        return finished_run(EXAMPLES, problems, method=method, scores=rows, dataset=f"suite name={name}", **names)

    return make


def row(numbers, measure, method, group="natural_images rare"):
    return the_one(numbers, measure, method=method, group=group)


def pair(suite, first, second, **names):
    return [suite("infembed", scores(first), embedding="influence", **names), suite("domino", scores(second), **names)]


def test_a_cell_is_the_mean_over_problems_with_an_interval_over_groups(suite, unsaved):
    numbers = analyse(pair(suite, {"a 1": 0.5, "a 2": 0.5, "b 1": 0.5}, {"a 1": 0.0, "a 2": 1.0}), unsaved)
    found = row(numbers, "precision_at_10", "infembed")
    assert (found["value"], found["low"], found["high"], found["n"]) == (0.5, 0.5, 0.5, 3)
    assert row(numbers, "n_groups", "infembed")["value"] == 2
    assert np.isnan(row(numbers, "precision_at_10", "domino")["low"])  # one group


def test_a_problem_counts_with_the_mean_over_its_true_slices(suite, unsaved):
    runs = pair(suite, {"a 1": 1.0, "b 1": 0.5}, {"a 1": 0.0})
    second = [{**r, "true_slice": 1} for r in scores({"a 1": 0.0})]
    run = suite("gmm", [*scores({"a 1": 1.0, "b 1": 0.5}), *second])
    assert row(analyse([*runs, run], unsaved), "precision_at_10", "gmm")["value"] == 0.5


def test_the_difference_is_paired_over_the_problems_that_both_have(suite, unsaved):
    first = {f"{group} 1": 0.75 for group in "abcdef"} | {"g 1": 0.0}
    second = {f"{group} 1": 0.5 for group in "abcdef"} | {"h 1": 1.0}
    numbers = analyse(pair(suite, first, second), unsaved)
    found = row(numbers, "difference", "infembed - domino")
    assert (found["value"], found["low"], found["n"]) == (0.25, 0.25, 6)
    assert found["embedding"] == "influence - final_hidden"
    assert row(numbers, "p_value", "infembed - domino")["value"] == 2 / 2**6  # all signs alike, of six groups
    assert "infembed is better in 1 and worse in 0" in unsaved.sentences[0]
    assert any(
        "difference +0.25 (95% interval +0.25 to +0.25), p = 0.031: they differ." in s for s in unsaved.sentences
    )


def test_few_groups_cannot_be_told_apart(suite, unsaved):
    analyse(pair(suite, {"a 1": 0.9, "b 1": 0.9}, {"a 1": 0.1, "b 1": 0.1}), unsaved)
    assert "1 cannot be told apart" in unsaved.sentences[0]
    assert "they cannot be told apart (2 groups are too few for that)." in unsaved.sentences[1]
    assert "the best is infembed, on average 0.90; not told apart from it: domino" in unsaved.sentences[2]


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("natural_images", "precision_at_10_natural_rare"),
        ("medical_images", "precision_at_10_medical_rare"),
        ("time_series", "precision_at_10_series_rare"),
        ("digits", "precision_at_10_digits_rare"),
    ],
)
def test_published_cells_have_measures_of_their_own_domino_first(suite, unsaved, name, measure):
    runs = [*pair(suite, {"a 1": 0.5}, {"a 1": 0.25}, name=name), suite("gmm", scores({"a 1": 0.5}), name=name)]
    numbers = analyse(runs, unsaved)
    found = numbers[numbers["measure"] == measure]
    assert list(zip(found["method"], found["value"], strict=True)) == [("domino", 0.25), ("infembed", 0.5)]


def test_refused_problems_are_counted_where_nothing_is_left_too(suite, unsaved):
    runs = pair(suite, {"a 1": 0.5}, {"a 1": 0.5, "a 2": None})
    george = suite("george", [*scores({"a 1": None}), *scores({"a 1": 0.5}, kind="correlation")])
    numbers = analyse([*runs, george], unsaved)
    assert row(numbers, "n_refused", "domino")["value"] == 1
    assert row(numbers, "n_refused", "domino")["n"] == 2
    assert row(numbers, "n_refused", "george")["value"] == 1
    assert (
        "natural images, rare (1 problems, 1 groups): no scores of george (refused, or not run)." in unsaved.sentences
    )


def test_a_method_that_refused_problems_is_not_called_the_best(suite, unsaved):
    runs = pair(suite, {"a 1": 0.5, "a 2": 0.4}, {"a 1": 0.3, "a 2": 0.2})
    analyse([*runs, suite("george", scores({"a 1": None, "a 2": 0.9}))], unsaved)
    title = "natural images, rare (2 problems, 1 groups)"
    assert f"{title}: the best is infembed, on average 0.45; not told apart from it: domino." in unsaved.sentences
    only = f"{title}: george has scores of 1 problems only, on average 0.90, and is not compared."
    assert only in unsaved.sentences


def test_other_protocols_are_shown_under_their_names(suite, unsaved):
    more = [*scores({"a 1": 0.5}), *scores({"a 1": 0.25}, protocol="best_auroc")]
    numbers = analyse([suite("infembed", more), suite("domino", scores({"a 1": 0.5}))], unsaved)
    found = row(numbers, "precision_at_10_by_protocol", "infembed", "natural_images rare, best_auroc")
    assert found["value"] == 0.25
    assert row(numbers, "precision_at_10", "infembed")["value"] == 0.5


def test_another_k_has_another_name(suite, unsaved):
    rows = [*scores({"a 1": 0.5}), *scores({"a 1": 0.125}, k=25)]
    numbers = analyse([suite("infembed", rows), suite("domino", rows)], unsaved, k=25)
    assert row(numbers, "precision_at_25", "infembed")["value"] == 0.125
    assert "precision_at_10" not in set(numbers["measure"])


def test_the_picture_has_a_panel_for_each_cell_and_a_row_for_each_method(suite, unsaved, figures):
    rows = [*scores({"a 1": 0.5, "a 2": 0.5}, kind="noisy_label"), *scores({"a 1": 0.5})]
    runs = [suite("domino", rows), suite("infembed", scores({"a 1": 0.75, "a 2": None}))]
    analyse([*runs, *pair(suite, {"a 1": 0.5}, {"a 1": 0.5}, name="time_series")], unsaved)
    panels = [axes for axes in figures[0].axes if axes.get_title("left")]
    assert [axes.get_title("left") for axes in panels] == [
        "natural images, rare\n(1 problems, 1 groups)",
        "natural images, noisy label\n(2 problems, 1 groups)",
        "time series, rare\n(1 problems, 1 groups)",
    ]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["infembed (1 refused)", "domino"]
    assert {axes.get_xlim() for axes in panels} == {(-0.02, 1.02)}


def test_the_picture_is_written_where_the_first_kind_is_missing_in_a_suite(suite, out):
    later = scores({"a 1": 0.5}, kind="noisy_label")
    runs = pair(suite, {"a 1": 0.5}, {"a 1": 0.5})
    analyse([*runs, *(suite(method, later, name="digits") for method in ("infembed", "domino"))], out)
    assert {path.suffix for path in out.folder.glob("tested-precision.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None


def test_variants_of_a_method_are_told_apart(suite, unsaved):
    runs = [*pair(suite, {"a 1": 0.5}, {"a 1": 0.25}), suite("domino", scores({"a 1": 0.75}), variant="pca=2")]
    numbers = analyse(runs, unsaved)
    found = numbers[numbers["measure"] == "difference"].set_index("variant")["value"].to_dict()
    assert found == {"": 0.25, "plain - pca=2": -0.25}
    assert any("the best is domino pca=2, on average 0.75" in sentence for sentence in unsaved.sentences)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "best"}, "protocol 'best', expected one of best_average_precision"),
        ({"k": 5}, "k is 5, expected one that was scored: 10"),
        ({"second": "dominoes"}, "no run of 'dominoes' to compare, expected one of domino, infembed"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(suite, unsaved, options, message):
    with pytest.raises(InvalidInput, match=message):
        analyse(pair(suite, {"a 1": 0.5}, {"a 1": 0.5}), unsaved, **options)


def test_runs_without_true_slices_have_no_cells(finished_run, unsaved):
    runs = [finished_run(EXAMPLES, [[1], [0]], method=method) for method in ("infembed", "domino")]
    with pytest.raises(InvalidInput, match="k is 10, expected one that was scored: none"):
        analyse(runs, unsaved)
