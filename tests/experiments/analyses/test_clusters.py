"""Spotlights above clusters, against hand computation."""

import math

import pytest

from experiments.analyses import clusters
from experiments.analyses.clusters import analyse
from tests.experiments.analyses.reading import value

EXAMPLES = {"loss": [4.0, 2.0, 3.0, 5.0, 0.0, 1.0], "correct": [False, True, True, False, True, True]}
SPOTLIGHT = [[1, 0], [1, 0], [1, 0], [0, 0], [0, 1], [0, 0]]  # mean losses 3 and 0
CLUSTERS = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]  # 5, 4, 1.5, empty


@pytest.fixture
def two_runs(finished_run):
    return [finished_run(EXAMPLES, SPOTLIGHT), finished_run(EXAMPLES, CLUSTERS, method="gmm")]


def test_clusters_of_higher_loss_than_the_first_spotlight_are_counted(two_runs, unsaved):
    numbers = analyse(two_runs, unsaved)
    assert value(numbers, "clusters_above_first_spotlight", method="gmm", group="all") == 2
    assert value(numbers, "clusters_above_smaller", method="gmm", group="all") == 2
    assert set(numbers.loc[numbers["measure"].str.startswith("clusters_above"), "n"]) == {3}, "an empty one is none"


def test_a_cluster_as_large_as_the_spotlight_is_not_smaller(finished_run, unsaved):
    mixture = finished_run(EXAMPLES, [[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [0, 1]], method="gmm")  # 4 and 1
    numbers = analyse([finished_run(EXAMPLES, SPOTLIGHT), mixture], unsaved)
    assert value(numbers, "clusters_above_first_spotlight") == 1
    assert value(numbers, "clusters_above_smaller") == 0


def test_every_slice_has_its_size_and_loss_and_an_empty_one_no_loss(two_runs, unsaved):
    numbers = analyse(two_runs, unsaved)
    assert value(numbers, "size", method="gmm", slice=3) == 4
    assert value(numbers, "mean_loss", method="gmm", slice=3) == 1.5
    assert value(numbers, "mean_loss", method="spotlight", group="all") == 2.5
    of_empty = numbers[(numbers["method"] == "gmm") & (numbers["slice"] == 4)]
    assert of_empty["measure"].tolist() == ["size"]


def test_the_sentence_says_what_was_measured(two_runs, unsaved):
    analyse(two_runs, unsaved)
    assert unsaved.sentences == [
        "fairface: 2 of 3 clusters of the mixture lie above the first spotlight (mean loss 3, 3 examples), 2 of them "
        "are smaller than it; the highest has 5, 1 examples."
    ]


def test_a_spotlight_below_no_cluster_is_said_to_lie_above_them(finished_run, unsaved):
    spotlight = finished_run(EXAMPLES, [[0], [0], [0], [1], [0], [0]])
    mixture = finished_run(EXAMPLES, [[1, 0], [1, 0], [1, 0], [0, 1], [1, 0], [1, 0]], method="gmm")  # 2 and 5
    numbers = analyse([spotlight, mixture], unsaved)
    assert value(numbers, "clusters_above_first_spotlight") == 0
    assert "lies above every one of the 2 clusters" in unsaved.sentences[0]


def test_each_data_set_is_compared_by_itself(finished_run, unsaved):
    runs = [
        finished_run(EXAMPLES, SPOTLIGHT, dataset="fairface"),
        finished_run(EXAMPLES, CLUSTERS, dataset="fairface", method="gmm"),
        finished_run({**EXAMPLES, "loss": [9.0, 9.0, 9.0, 5.0, 0.0, 1.0]}, SPOTLIGHT, dataset="movielens"),
        finished_run(EXAMPLES, CLUSTERS, dataset="movielens", method="gmm"),
    ]
    numbers = analyse(runs, unsaved)
    assert value(numbers, "clusters_above_first_spotlight", dataset="fairface") == 2
    assert value(numbers, "clusters_above_first_spotlight", dataset="movielens") == 0


def test_a_data_set_with_other_settings_is_another_one_unless_only_sizes_differ(finished_run, unsaved):
    runs = [
        finished_run(EXAMPLES, SPOTLIGHT, dataset="movielens leak=true slice_size=3"),
        finished_run(EXAMPLES, CLUSTERS, dataset="movielens leak=true n_components=4", method="gmm"),
        finished_run(EXAMPLES, CLUSTERS, dataset="movielens", method="gmm"),
    ]
    numbers = analyse(runs, unsaved)
    compared = numbers.loc[numbers["measure"] == "clusters_above_first_spotlight", "dataset"]
    assert compared.tolist() == ["movielens leak=true n_components=4"]


def test_a_missed_spotlight_is_compared_with_nothing(finished_run, unsaved):
    runs = [finished_run(EXAMPLES, [[0]] * 6), finished_run(EXAMPLES, CLUSTERS, method="gmm")]
    numbers = analyse(runs, unsaved)
    assert not numbers["measure"].str.startswith("clusters_above").any()
    assert "has no members" in unsaved.sentences[0]


def test_a_mixture_without_members_is_compared_with_nothing(finished_run, unsaved):
    runs = [finished_run(EXAMPLES, SPOTLIGHT), finished_run(EXAMPLES, [[0]] * 6, method="gmm")]
    numbers = analyse(runs, unsaved)
    assert not numbers["measure"].str.startswith("clusters_above").any()
    assert "no cluster with members" in unsaved.sentences[0]


@pytest.mark.parametrize("method", ["spotlight", "gmm"])
def test_one_method_alone_has_sizes_and_no_comparison(method, finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SPOTLIGHT, method=method)], unsaved)
    assert set(numbers["measure"]) == {"size", "mean_loss"}
    assert unsaved.sentences == []


def test_runs_without_slices_or_labels_do_not_stop_it(finished_run, out):
    runs = [finished_run(EXAMPLES, [[]] * 6), finished_run(EXAMPLES, [[]] * 6, method="gmm")]
    numbers = analyse(runs, out)
    assert set(numbers["measure"]) == {"mean_loss"}
    assert len(out.pictures) == 1


def test_every_slice_is_drawn_and_the_first_spotlight_starred(two_runs, unsaved, figures):
    analyse(two_runs, unsaved)
    (axes,) = figures[0].axes
    counts = sorted(len(dots.get_offsets()) for dots in axes.collections)
    assert counts == [1, 2, 3]  # the star, two spotlights, three clusters with members
    (star,) = (dots for dots in axes.collections if len(dots.get_offsets()) == 1)
    assert star.get_offsets().tolist() == [[50.0, 3.0]]
    assert axes.get_title(loc="left") == "fairface"


def test_the_picture_can_be_shown_anywhere(two_runs, out):
    analyse(two_runs, out)
    assert {path.suffix for path in out.folder.glob("tested-sizes.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_there_is_a_panel_for_each_data_set(n, finished_run, unsaved, figures):
    analyse([finished_run(EXAMPLES, SPOTLIGHT, dataset=f"set{i}") for i in range(n)], unsaved)
    assert sum(axes.get_visible() for axes in figures[0].axes) == n


def test_a_long_axis_has_labels_at_powers_of_ten_alone(finished_run, unsaved):
    with clusters.drawing(3, 2) as (figure, (axes,)):
        clusters.percent_axis(axes, [0.001, 10.0])
        figure.canvas.draw()
        shown = [tick for tick in axes.xaxis.get_majorticklocs() if 0.001 <= tick <= 10]
        assert all(math.isclose(math.log10(tick), round(math.log10(tick))) for tick in shown)
        clusters.percent_axis(axes, [0.1, 10.0])
        figure.canvas.draw()
        assert 0.2 in axes.xaxis.get_majorticklocs().round(6)
