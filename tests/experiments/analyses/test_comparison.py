"""Two methods against each other, against hand computation."""

import numpy as np
import pytest

from experiments.analyses.comparison import analyse
from methods.contract import InvalidInput
from tests.experiments.analyses.reading import the_one, value

EXAMPLES = {"loss": [0.0, 1.0, 3.0, 5.0], "correct": [True, True, False, False]}
ANY = [[1], [0], [0], [0]]


def scores(values, metric="f1", protocol="worst_slice", kind="rare", k=None):
    """A row for each problem: `a 1` is a problem of group a; None is a refusal."""
    return [
        {"problem": name, "group": name.split(" ")[0], "kind": kind}
        | (
            {"metric": "refused", "value": 1.0}
            if value is None
            else {"protocol": protocol, "true_slice": 0, "slice": 0, "metric": metric, "k": k, "value": value}
        )
        for name, value in values.items()
    ]


@pytest.fixture
def scored(finished_run):
    def make(method, rows, **names):
        problems = {row["problem"]: ANY for row in rows}
        return finished_run(EXAMPLES, problems, method=method, scores=rows, dataset="suite name=digits", **names)

    return make


# With true slices


def test_differences_are_paired_over_the_problems_that_both_have(scored, unsaved):
    one = scored("spotlight", scores({"a 1": 0.5, "b 1": 0.75, "c 1": 1.0}))
    other = scored("domino", scores({"a 1": 0.25, "b 1": 0.5, "d 1": 0.0}))
    numbers = analyse([one, other], unsaved)
    found = the_one(numbers, "f1_difference", method="spotlight - domino")
    assert (found["value"], found["low"], found["high"], found["n"]) == (0.25, 0.25, 0.25, 2)
    assert found["group"] == "rare, worst_slice"
    assert value(numbers, "f1", method="spotlight") == 0.625  # on those problems only


def test_a_problem_counts_with_the_mean_over_its_true_slices(scored, unsaved):
    rows = scores({"a 1": 1.0}) + [{**r, "true_slice": 1} for r in scores({"a 1": 0.0})]
    numbers = analyse([scored("spotlight", rows), scored("domino", scores({"a 1": 0.25}))], unsaved)
    assert value(numbers, "f1_difference", method="spotlight - domino") == 0.25


def test_kinds_protocols_and_metrics_are_kept_apart(scored, unsaved):
    def rows(shift):
        return (
            scores({"a 1": shift})
            + scores({"a 1": 2 * shift}, protocol="best_average_precision")
            + scores({"a 1": 3 * shift}, metric="precision_at_k", k=10)
            + scores({"a 1": 9 * shift}, metric="precision_at_k", k=25)
            + scores({"b 1": 4 * shift}, kind="correlation")
        )

    numbers = analyse([scored("spotlight", rows(0.125)), scored("domino", rows(0.0))], unsaved)
    differences = numbers[numbers["method"] == "spotlight - domino"]
    found = {(r["group"], r["measure"]): r["value"] for r in differences.to_dict("records")}
    assert found == {
        ("rare, worst_slice", "f1_difference"): 0.125,
        ("rare, best_average_precision", "f1_difference"): 0.25,
        ("rare, worst_slice", "precision_at_10_difference"): 0.375,
        ("correlation, worst_slice", "f1_difference"): 0.5,
    }


def test_other_embeddings_are_not_compared_and_named(scored, unsaved):
    one = scored("spotlight", scores({"a 1": 0.5}), embedding="encoder")
    other = scored("domino", scores({"a 1": 0.5}))
    assert analyse([one, other], unsaved).empty
    assert "suite name=digits, rare, encoder: domino has no scores (it refused, or was not run), spotlight has." in (
        unsaved.sentences
    )


def test_problems_of_other_data_or_seeds_are_not_paired(scored, unsaved):
    one = scored("spotlight", scores({"a 1": 0.5}), definition={"seeds": {"split": 0, "method": 3}})
    alike = scored("domino", scores({"a 1": 0.5}), definition={"seeds": {"split": 0, "method": 0}})
    other = scored("domino", scores({"a 1": 0.5}), definition={"seeds": {"split": 1, "method": 0}})
    assert not analyse([one, alike], unsaved).empty
    assert analyse([one, other], unsaved).empty


def test_refused_problems_are_said(scored, unsaved):
    one = scored("spotlight", scores({"a 1": 0.5, "a 2": 0.5}))
    analyse([one, scored("domino", scores({"a 1": 0.5, "a 2": None}))], unsaved)
    assert "suite name=digits, rare: domino refused 1 of 2 problems." in unsaved.sentences


def test_variants_are_compared_each(scored, unsaved):
    runs = [scored("domino", scores({"a 1": value}), variant=name) for value, name in ((0.5, ""), (0.25, "pca=2"))]
    numbers = analyse([scored("spotlight", scores({"a 1": 0.5})), *runs], unsaved)
    found = numbers[numbers["measure"] == "f1_difference"].set_index("variant")["value"].to_dict()
    assert found == {"": 0.0, "plain - pca=2": 0.25}


def test_how_many_differences_are_clear_is_said_first(scored, unsaved):
    values = {f"{group} 1": 0.5 for group in "abc"}
    analyse([scored("spotlight", scores(values)), scored("domino", scores(dict.fromkeys(values, 0.25)))], unsaved)
    assert unsaved.sentences[0].startswith("Of 1 paired differences")
    assert "1 have their whole interval in favour of spotlight, 0 in favour of domino" in unsaved.sentences[0]
    assert "f1 0.50 against 0.25, difference +0.25 (95% interval +0.25 to +0.25)" in unsaved.sentences[1]


def test_one_group_has_no_interval_and_still_a_picture(scored, out):
    analyse([scored("spotlight", scores({"a 1": 0.5})), scored("domino", scores({"a 1": 0.25}))], out)
    assert "one group: no interval" in out.sentences[1]
    assert {path.suffix for path in out.folder.glob("tested-differences.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None


# Without true slices


def test_numbers_of_the_worst_slice_are_those_of_the_largest_mean_loss(finished_run, out):
    slices = [[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]  # mean losses 2 and 2.5, and an empty one
    numbers = analyse([finished_run(EXAMPLES, slices), finished_run(EXAMPLES, ANY, method="domino")], out)
    assert value(numbers, "worst_mean_loss", method="spotlight") == 2.5
    assert the_one(numbers, "worst_mean_loss", method="spotlight")["slice"] == 2
    assert value(numbers, "worst_accuracy", method="spotlight") == 0.5
    assert value(numbers, "worst_size", method="spotlight") == 2
    assert value(numbers, "worst_loss_gap", method="spotlight") == 0.5
    assert value(numbers, "worst_loss_gap", method="domino") == -3
    assert "in 1 of 1 settings" in out.sentences[0]


def test_a_slice_of_everything_has_no_gap(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, [[1]] * 4), finished_run(EXAMPLES, ANY, method="domino")], unsaved)
    of_spotlight = numbers[numbers["method"] == "spotlight"]
    assert set(of_spotlight["measure"]) == {"worst_mean_loss", "worst_accuracy", "worst_size"}


def test_data_on_which_a_method_is_missing_is_named(finished_run, unsaved):
    runs = [finished_run(EXAMPLES, ANY, method=m, dataset=d) for m, d in (("spotlight", "squad"), ("domino", "wine"))]
    numbers = analyse(runs, unsaved)
    assert "squad: domino has no slices (it refused, or was not run)." in unsaved.sentences
    assert "wine: spotlight has no slices (it refused, or was not run)." in unsaved.sentences
    assert len(numbers) == 8


def test_empty_slices_only_are_said_and_have_no_numbers(finished_run, unsaved):
    empty = finished_run(EXAMPLES, [[0]] * 4)
    none = finished_run(EXAMPLES, np.zeros((4, 0)), method="domino")
    assert analyse([empty, none], unsaved).empty
    assert unsaved.sentences == [
        "fairface: spotlight found no slice with members.",
        "fairface: domino found no slice with members.",
    ]


def test_a_row_of_the_picture_is_a_setting(finished_run, unsaved, figures):
    names = [("wine", "resnet"), ("adult", "mlp"), ("adult", "resnet")]
    analyse(
        [finished_run(EXAMPLES, ANY, method=m, dataset=d, model=o) for m in ("spotlight", "domino") for d, o in names],
        unsaved,
    )
    (figure,) = figures
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["adult, mlp", "adult, resnet", "wine"]


def test_other_methods_are_left_out(finished_run, unsaved):
    runs = [finished_run(EXAMPLES, ANY, method=m) for m in ("spotlight", "domino", "gmm")]
    assert set(analyse(runs, unsaved)["method"]) == {"spotlight", "domino"}


def test_a_method_without_runs_is_named_with_those_that_there_are(finished_run, unsaved):
    with pytest.raises(InvalidInput, match="no run of 'dominoes' to compare, expected one of spotlight"):
        analyse([finished_run(EXAMPLES, ANY)], unsaved, second="dominoes")
