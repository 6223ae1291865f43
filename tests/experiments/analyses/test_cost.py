"""Seconds a slice, against hand computation."""

import pytest

from experiments.analyses.cost import analyse
from tests.experiments.analyses.reading import value

EXAMPLES = {"loss": [1.0, 2.0, 3.0], "correct": [True, True, False]}


@pytest.fixture
def timed(finished_run):
    """A run that took so many seconds to find so many slices in each of its problems."""

    def make(seconds, *n_slices, content=None, steps=None, **names):
        scores = [
            {"problem": f"p{i}", "group": "all", "metric": "n_slices", "value": n} for i, n in enumerate(n_slices)
        ]
        scores.append({"problem": "no", "group": "no", "metric": "refused", "value": 1.0})
        definition = {"method": {"n_slices": 5} | ({} if steps is None else {"steps": steps})}
        run = finished_run(EXAMPLES, [[1]] * 3, seconds=seconds, scores=scores, definition=definition, **names)
        run.content.update(content or {})
        return run

    return make


def test_seconds_are_a_slice_and_of_the_search_alone(timed, unsaved):
    numbers = analyse([timed({"train": 100.0, "discover": 20.0}, 5)], unsaved)
    assert value(numbers, "seconds", group="all") == 4.0
    assert value(numbers, "seconds_total", group="all") == 20.0
    assert value(numbers, "n_slices") == 5
    assert set(numbers["n"]) == {3}


def test_the_slices_of_all_problems_share_the_seconds(timed, unsaved):
    assert value(analyse([timed({"discover": 20.0}, 5, 3)], unsaved), "seconds") == 2.5


def test_steps_are_told_where_the_method_takes_some(timed, unsaved):
    numbers = analyse([timed({"discover": 1.0}, 1, steps=5000), timed({"discover": 1.0}, 1, method="gmm")], unsaved)
    assert value(numbers, "steps") == 5000
    assert "spotlight, 5,000 steps, " in unsaved.sentences[0]
    assert "steps" not in unsaved.sentences[1]


def test_the_sentence_names_the_machine(timed, unsaved):
    analyse([timed({"discover": 61.5}, 1, content={"device": "cpu", "threads": 2})], unsaved)
    assert unsaved.sentences == [
        "spotlight, device cpu, threads 2: a slice took 61.5 s on fairface; 0 of 1 below 60 s."
    ]


def test_machines_do_not_share_a_sentence(timed, unsaved):
    machines = {"device": "cpu", "threads": 2}, {"device": "NVIDIA H200", "threads": 16}
    analyse([timed({"discover": 2.0}, 1, content=machine) for machine in machines], unsaved)
    assert [sentence.split(":")[0] for sentence in unsaved.sentences] == [
        "spotlight, device cpu, threads 2",
        "spotlight, device NVIDIA H200, threads 16",
    ]


def test_an_old_run_that_does_not_name_its_machine_is_still_counted(timed, unsaved):
    old = timed({"discover": 2.0}, 1)
    del old.content["device"]
    assert value(analyse([old], unsaved), "seconds") == 2.0
    assert "device unknown" in unsaved.sentences[0]


def test_a_run_that_was_taken_up_again_is_said(timed, unsaved):
    analyse([timed({"discover": 2.0}, 1, content={"sessions": [{}]})], unsaved)
    assert len(unsaved.sentences) == 1
    analyse([timed({"discover": 2.0}, 1, content={"sessions": [{}, {}]})], unsaved)
    assert "seconds are those of 2 sessions together" in unsaved.sentences[-1]


def test_no_slices_have_no_seconds_each(timed, unsaved):
    numbers = analyse([timed({"discover": 2.0}, 0)], unsaved)
    assert set(numbers["measure"]) == {"seconds_total", "n_slices"}
    assert unsaved.pictures == []


def test_a_run_that_noted_no_seconds_has_no_rows(timed, unsaved):
    numbers = analyse([timed({"train": 2.0}, 1), timed({"discover": 3.0}, 1, dataset="wine")], unsaved)
    assert set(numbers["dataset"]) == {"wine"}
    assert analyse([timed({"train": 2.0}, 1)], unsaved).empty


def test_a_bar_for_each_of_the_slowest_runs_and_what_the_paper_stayed_below(timed, unsaved, figures):
    runs = [timed({"discover": s}, 1, dataset=name) for name, s in (("a", 0.01), ("b", 300.0), ("c", 2.0))]
    analyse(runs, unsaved, most=2)
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [300.0, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b, spotlight", "c, spotlight"]
    assert axes.get_xlim()[0] < 2.0 < 300.0 < axes.get_xlim()[1]
    assert "60 s on one V100 (paper)" in [text.get_text() for text in axes.texts]


def test_two_runs_of_a_method_on_a_data_set_are_told_apart(timed, unsaved, figures):
    analyse([timed({"discover": 2.0}, 1, variant=variant) for variant in ("", "steps=5000")], unsaved)
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == ["spotlight", "spotlight steps=5000"]
    assert "2 s on spotlight steps=5000" in unsaved.sentences[0]


def test_the_picture_can_be_shown_anywhere(timed, out):
    analyse([timed({"discover": 0.0}, 1), timed({"discover": 2.0}, 1, method="gmm")], out)
    assert {path.suffix for path in out.folder.glob("tested-seconds.*")} == {".png", ".svg"}
    assert out.pictures[0]["shows"] is None
