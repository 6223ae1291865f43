"""Losses of spotlights of several sizes, against hand computation."""

import numpy as np
import pytest

from experiments.analyses.sizes import analyse
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import value

LOSSES = [4.0, 2.0, 3.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
EXAMPLES = {"loss": LOSSES, "correct": [True] * 10}


@pytest.fixture
def spotlight(finished_run):
    """A run with one spotlight of so much weight on each of the first examples."""

    def make(size, weights, **changes):
        column = np.zeros(10)
        column[: len(weights)] = weights
        top = np.argsort(-column, kind="stable")[:size]
        members = np.isin(np.arange(10), top) & (column > 0)
        options = {"dataset": f"fairface slice_size={size}", "diagnostics": [{"size": size, "missed": False}]}
        return finished_run(EXAMPLES, members[:, None], membership=column[:, None], **options | changes)

    return make


def test_the_average_loss_is_under_the_weights_and_the_mean_that_of_the_members(spotlight, unsaved):
    numbers = analyse([spotlight(2, [1.0, 0.5, 0.25])], unsaved)
    np.testing.assert_allclose(value(numbers, "average_loss", group="size 20%"), (4 + 1 + 0.75) / 1.75)
    assert value(numbers, "mean_loss", group="size 20%") == 3.0
    assert set(numbers.loc[numbers["group"] == "size 20%", "slice"].dropna()) == {1}


def test_the_scale_of_the_weights_does_not_matter(spotlight, unsaved):
    numbers = analyse([spotlight(2, [0.2, 0.1, 0.05])], unsaved)
    np.testing.assert_allclose(value(numbers, "average_loss", group="size 20%"), 5.75 / 1.75, rtol=1e-6)


def test_no_spotlight_of_a_size_can_have_more_than_the_highest_losses(spotlight, unsaved):
    numbers = analyse([spotlight(3, [1, 1, 1])], unsaved)
    assert value(numbers, "highest_possible_loss", group="size 30%") == 4.0
    assert value(numbers, "mean_loss", group="all") == 1.5


def test_the_overlap_is_with_the_next_smaller_size_in_whatever_order_runs_come(spotlight, unsaved):
    runs = [spotlight(5, [1, 1, 0, 1, 1, 1]), spotlight(1, [0, 0, 1]), spotlight(2, [1, 1])]
    numbers = analyse(runs, unsaved)
    assert value(numbers, "overlap", group="size 20%") == 0.0
    assert value(numbers, "overlap", group="size 50%") == 0.4
    assert not ((numbers["measure"] == "overlap") & (numbers["group"] == "size 10%")).any()


def test_sizes_that_two_digits_do_not_tell_apart_get_more(finished_run, unsaved):
    n = 1000
    examples = {"loss": np.arange(n, dtype=float), "correct": [True] * n}
    runs = [
        finished_run(
            examples,
            (np.arange(n) < size)[:, None],
            dataset=f"fairface slice_size={size}",
            diagnostics=[{"size": size}],
        )
        for size in (101, 102)
    ]
    assert set(analyse(runs, unsaved)["group"]) == {"all", "size 10.1%", "size 10.2%"}


def test_a_tenth_of_a_percent_of_fairface_is_called_that(finished_run, unsaved):
    n = 10_954  # 11 of them are 0.1004%
    examples = {"loss": np.arange(n, dtype=float), "correct": [True] * n}
    run = finished_run(examples, (np.arange(n) < 11)[:, None], diagnostics=[{"size": 11}])
    assert "size 0.1%" in set(analyse([run], unsaved)["group"])


def test_a_missed_spotlight_is_said_and_has_no_loss(spotlight, unsaved):
    runs = [spotlight(1, [], diagnostics=[{"size": 1, "missed": True}]), spotlight(2, [1, 1])]
    numbers = analyse(runs, unsaved)
    of_missed = numbers.loc[numbers["group"] == "size 10%", "measure"]
    assert of_missed.tolist() == ["highest_possible_loss"]
    assert "missed at 10%:" in unsaved.sentences[1]
    assert not (numbers["measure"] == "overlap").any()


def test_one_that_was_not_missed_is_not_said_to_be(spotlight, unsaved):
    analyse([spotlight(1, [1])], unsaved)
    assert [sentence for sentence in unsaved.sentences if "missed" in sentence] == []
    assert "4 at 10%" in unsaved.sentences[0]


def test_the_size_comes_from_the_settings_where_the_slice_does_not_say_it(spotlight, unsaved):
    run = spotlight(2, [1, 1], diagnostics=[{}], definition={"method": {"size": 2}})
    assert "size 20%" in set(analyse([run], unsaved)["group"])


def test_another_spotlight_can_be_asked_for(finished_run, unsaved):
    members = np.array([[1, 0]] * 2 + [[0, 1]] * 2 + [[0, 0]] * 6)
    run = finished_run(EXAMPLES, members, diagnostics=[{"size": 2}] * 2)
    numbers = analyse([run], unsaved, slice=2)
    assert value(numbers, "average_loss", group="size 20%") == 4.0
    assert set(numbers["slice"].dropna()) == {2}


@pytest.mark.parametrize("asked", [0, 2])
def test_a_spotlight_that_there_is_not_is_refused(asked, spotlight, unsaved):
    with pytest.raises(InvalidInput, match=f"slice is {asked}, expected 1 to 1"):
        analyse([spotlight(2, [1, 1])], unsaved, slice=asked)


def test_other_methods_have_no_size_and_are_left_out(spotlight, finished_run, unsaved):
    other = finished_run(EXAMPLES, [[1]] * 10, method="random")
    assert set(analyse([spotlight(2, [1, 1]), other], unsaved)["method"]) == {"spotlight"}
    with pytest.raises(InvalidInput, match="none of the 1 runs is of the method spotlight"):
        analyse([other], unsaved)


def test_each_data_set_has_a_curve_of_its_own(spotlight, unsaved, figures):
    runs = [spotlight(size, [1] * size, dataset=f"{name} slice_size={size}") for name in ("a", "b") for size in (1, 2)]
    numbers = analyse(runs, unsaved)
    assert (numbers["measure"] == "overlap").sum() == 2
    lines = [axes.get_lines()[0].get_xdata().tolist() for axes in figures[0].axes]
    assert lines == [[10.0, 20.0], [10.0, 20.0]]


def test_the_picture_can_be_shown_anywhere(spotlight, out):
    analyse([spotlight(1, []), spotlight(2, [1, 1])], out)
    assert {path.suffix for path in out.folder.glob("tested-losses.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None
