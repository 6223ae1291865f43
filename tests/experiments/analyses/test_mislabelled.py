"""Mislabelled examples in slices against hand computation."""

import numpy as np
import pytest

from experiments.analyses.mislabelled import analyse
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import value

WRONG = ["yes", "no", "yes", "no", "no", "yes", "no", "no"]
MEMBERS = [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0], [0, 0]]
MEMBERSHIP = [[0.9, 0.0], [0.8, 0.0], [0.7, 0.0], [0.0, 0.3], [0.0, 0.2], [0.1, 0.0], [0.0, 0.0], [0.0, 0.0]]


def news(wrong=WRONG, **columns):
    n = len(wrong)
    return {"loss": np.arange(n, 0, -1.0), "correct": False, "attribute_wrong": wrong, **columns}


@pytest.fixture
def run(finished_run):
    return finished_run(news(), MEMBERS, membership=MEMBERSHIP)


def test_the_share_of_each_slice_and_of_the_whole_split(run, unsaved):
    numbers = analyse([run], unsaved)
    assert value(numbers, "mislabelled_share", slice=1) == pytest.approx(2 / 3)
    assert value(numbers, "mislabelled_share", slice=2) == 0
    assert value(numbers, "mislabelled_share", group="all") == 3 / 8
    assert list(numbers.loc[numbers["measure"] == "mislabelled_share", "n"]) == [8, 3, 2]


def test_shares_have_wilsons_interval(run, unsaved):
    numbers = analyse([run], unsaved)
    low, high = numbers.loc[
        (numbers["measure"] == "mislabelled_share") & (numbers["slice"] == 2), ["low", "high"]
    ].values[0]
    # of 0 among n it is (0, z^2 / (n + z^2)), z = 1.96
    np.testing.assert_allclose([low, high], [0, 3.841459 / 5.841459], atol=1e-6)


def test_precision_among_the_first_members_of_the_worst_slice(run, unsaved):
    numbers = analyse([run], unsaved, k=(1, 2, 3))
    found = [value(numbers, "mislabelled_precision_at_k", group=f"k={k}") for k in (1, 2, 3)]
    np.testing.assert_allclose(found, [1, 1 / 2, 2 / 3])


def test_members_that_a_slice_lacks_count_as_misses(run, unsaved):
    numbers = analyse([run], unsaved, k=[10])
    # row 5 is mislabelled and has a membership, but is no member
    assert value(numbers, "mislabelled_precision_at_k", group="k=10") == pytest.approx(0.2)
    assert list(numbers.loc[numbers["group"] == "k=10", "n"]) == [3]


def test_others_of_larger_membership_do_not_come_before_members(finished_run, unsaved):
    run = finished_run(news(), [[0], [0], [1], *[[0]] * 5], membership=[[0.9], [0.8], [0.1], *[[0.0]] * 5])
    assert value(analyse([run], unsaved, k=[1]), "mislabelled_precision_at_k", group="k=1") == 1


def test_recall_is_the_share_of_the_mislabelled_in_any_slice(run, unsaved):
    assert value(analyse([run], unsaved), "mislabelled_recall", group="all") == pytest.approx(2 / 3)


def test_auroc_by_loss_and_by_the_largest_membership(run, unsaved):
    numbers = analyse([run], unsaved)
    # mislabelled are rows 0, 2, 5 of falling loss: 5 + 4 + 2 of 15 pairs in order
    assert value(numbers, "mislabelled_auroc", group="by loss") == pytest.approx(11 / 15)
    # by membership 0.9, 0.7, 0.1 against 0.8, 0.3, 0.2, 0, 0: 5 + 4 + 2
    assert value(numbers, "mislabelled_auroc", group="by membership") == pytest.approx(11 / 15)


def test_the_two_rankings_are_not_the_same(finished_run, unsaved):
    examples = news(["yes", "no"], loss=[0.0, 1.0])
    numbers = analyse([finished_run(examples, [[1], [0]])], unsaved)
    assert value(numbers, "mislabelled_auroc", group="by loss") == 0
    assert value(numbers, "mislabelled_auroc", group="by membership") == 1


@pytest.mark.parametrize(
    "wrong", [[True, False, True], ["Yes", " no", "TRUE"], [1, 0, 1], [1.0, 0.0, 1.0], ["1", "false", "yes"]]
)
def test_the_attribute_may_be_bools_words_or_numbers(finished_run, unsaved, wrong):
    numbers = analyse([finished_run(news(wrong), [[1], [1], [0]])], unsaved)
    assert value(numbers, "mislabelled_share", slice=1) == 0.5
    assert value(numbers, "mislabelled_share", group="all") == pytest.approx(2 / 3)


@pytest.mark.parametrize("missing", [None, np.nan, "", " "])
def test_examples_of_which_it_is_not_known_do_not_count(finished_run, unsaved, missing):
    run = finished_run(news([missing, "yes", "no", missing]), [[1], [1], [0], [1]])
    numbers = analyse([run], unsaved, k=[1])
    assert value(numbers, "mislabelled_share", group="all") == 0.5
    assert value(numbers, "mislabelled_share", slice=1) == 1
    assert value(numbers, "mislabelled_precision_at_k", group="k=1") == 1


def test_another_attribute_can_be_asked_for(finished_run, unsaved):
    run = finished_run(news(attribute_flipped=["no"] * 7 + ["yes"]), [[0]] * 7 + [[1]])
    assert value(analyse([run], unsaved, attribute="flipped"), "mislabelled_share", slice=1) == 1


def test_an_unknown_attribute_is_refused_with_those_there_are(run, unsaved):
    with pytest.raises(InvalidInput, match="no attribute 'noisy', expected one of wrong"):
        analyse([run], unsaved, attribute="noisy")


def test_runs_whose_data_do_not_say_are_left_out_and_said(run, finished_run, unsaved):
    official = finished_run({"loss": [1.0], "correct": True}, [[1]], method="gmm")
    numbers = analyse([official, run], unsaved)
    assert set(numbers["method"]) == {"spotlight"}
    assert unsaved.sentences[0] == "gmm: its data do not say which labels are wrong, so it is left out."


@pytest.mark.parametrize(("wrong", "says"), [(["3", "no"], "says 3, expected yes or no"), ([None, ""], "says nothing")])
def test_an_attribute_that_says_something_else_is_refused(finished_run, unsaved, wrong, says):
    with pytest.raises(InvalidInput, match=says):
        analyse([finished_run(news(wrong), [[1], [0]])], unsaved)


def test_a_k_of_nothing_is_refused(run, unsaved):
    with pytest.raises(InvalidInput, match="k"):
        analyse([run], unsaved, k=[0])


@pytest.mark.parametrize("wrong", ["yes", "no"])
def test_where_all_or_none_are_mislabelled_there_is_no_auroc(finished_run, unsaved, wrong):
    numbers = analyse([finished_run(news([wrong] * 8), MEMBERS)], unsaved)
    assert "mislabelled_auroc" not in set(numbers["measure"])
    assert ("mislabelled_recall" in set(numbers["measure"])) == (wrong == "yes")


def test_an_empty_worst_slice_finds_nothing(finished_run, unsaved):
    numbers = analyse([finished_run(news(), [[0, 1], *[[0, 0]] * 7])], unsaved, k=[1])
    assert value(numbers, "mislabelled_precision_at_k", group="k=1") == 0
    assert list(numbers["slice"].dropna()) == [2]


def test_a_run_without_slices_finds_nothing(finished_run, unsaved):
    numbers = analyse([finished_run(news(), [[]] * 8)], unsaved, k=[10])
    assert value(numbers, "mislabelled_precision_at_k", group="k=10") == 0
    assert value(numbers, "mislabelled_recall", group="all") == 0
    assert "by membership" not in set(numbers["group"])
    assert unsaved.pictures == []


def test_the_sentence_says_what_was_found(run, unsaved):
    analyse([run], unsaved, k=[1, 2])
    assert unsaved.sentences == [
        "spotlight: 37.5% of the split are mislabelled, at most 67% of a slice (slice 1, n=3), 100%, 50% of the worst "
        "slice's first 1, 2 members, 67% of the mislabelled are in a slice, AUROC 0.73 by loss and 0.73 by membership."
    ]


def test_the_picture_has_the_slices_of_all_methods_and_the_base_rate(run, finished_run, unsaved, figures):
    analyse([run, finished_run(news(), [[1]] * 8, method="gmm")], unsaved)
    (axes,) = figures[0].axes
    shares = [line.get_xdata(orig=False) for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(np.concatenate(shares), [2 / 3, 0, 3 / 8])
    base_rates = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert {tuple(line.get_xdata()) for line in base_rates} == {(3 / 8, 3 / 8)}


def test_the_picture_is_written_and_shows_no_examples(run, out):
    analyse([run], out)
    assert {path.suffix for path in out.folder.glob("tested-shares.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None
