"""Which problems of a run are shown, and what is said of the run."""

import numpy as np
import pytest

from experiments.report.assets import Assets
from experiments.report.run_page import MOST_SLICES, run_page
from tests.experiments.analyses.reading import members
from tests.experiments.report.conftest import eight_examples


def page(run, n_problems=3):
    return run_page(run, "run-1", "a run", Assets(None), n_problems)


def score(problem, value, metric="precision_at_k", **more):
    k = 10 if metric == "precision_at_k" else None
    row = {"problem": problem, "group": "a group", "protocol": "worst_slice", "metric": metric, "k": k, "value": value}
    return {**row, "slice": 0, "true_slice": 0, **more}


def statistics(problem):
    own = {"problem": problem, "group": "a group", "slice": 0}
    numbers = {"size": 3.0, "mean_loss": 2.5, "accuracy": 1 / 3, "gap": 0.5, "gap_low": 0.1, "gap_high": 0.9}
    return [{**own, "metric": metric, "value": value} for metric, value in numbers.items()]


@pytest.fixture
def scored_run(stored_run):
    """Make a run whose problems, by their names, have this precision."""

    def make(refused=None, **precision):
        rows = [score(name, value) for name, value in precision.items()]
        rows += [row for name in precision for row in statistics(name)]
        slices = {name: members(8, range(3)) for name in precision}
        return stored_run(slices=slices, scores=rows, refused=refused)

    return make


def shown(run, n):
    return [(problem.name, problem.why) for problem in page(run, n).problems]


def test_the_lowest_the_middle_and_the_highest_score_are_shown(scored_run):
    run = scored_run(a=0.5, b=0.1, c=0.9, d=0.3, e=0.7)
    assert shown(run, 3) == [
        ("b", "the lowest precision-at-10 of 5 problems"),
        ("a", "the middle precision-at-10 of 5 problems"),
        ("c", "the highest precision-at-10 of 5 problems"),
    ]


def test_as_many_problems_are_shown_as_were_asked_for(scored_run):
    run = scored_run(a=0.5, b=0.1, c=0.9, d=0.3, e=0.7)
    assert [name for name, _ in shown(run, 1)] == ["b"]
    assert [name for name, _ in shown(run, 2)] == ["b", "c"]
    assert [name for name, _ in shown(run, 4)] == ["b", "d", "a", "c"]
    assert [name for name, _ in shown(run, 99)] == ["b", "d", "a", "e", "c"]
    assert shown(run, 5)[1] == ("d", "the lowest but 1 precision-at-10 of 5 problems")


def test_two_problems_are_the_lowest_and_the_highest(scored_run):
    assert [why.split(" ")[1] for _, why in shown(scored_run(a=0.5, b=0.1), 3)] == ["lowest", "highest"]


def test_a_single_problem_needs_no_reason_and_no_table(scored_run):
    made = page(scored_run(a=0.5))
    assert [(problem.name, problem.why) for problem in made.problems] == [("a", "")]
    assert made.rows == []


def test_refused_problems_are_told_and_never_shown(scored_run):
    made = page(scored_run(a=0.5, refused={"x": "too few examples"}))
    assert [problem.name for problem in made.problems] == ["a"]
    assert [(row.name, row.refused) for row in made.rows] == [("a", None), ("x", "too few examples")]


def test_problems_without_true_slices_are_shown_in_their_order(stored_run):
    slices = {name: members(8, range(3)) for name in "cab"}
    made = page(stored_run(slices=slices), 2)
    assert [problem.name for problem in made.problems] == ["c", "a"]
    assert [row.scores for row in made.rows] == [[None, None, None]] * 3


def test_a_score_that_is_no_number_is_none(stored_run):
    rows = [score("a", np.nan), score("b", 0.5), *statistics("a"), *statistics("b")]
    made = page(stored_run(slices=dict.fromkeys("ab", members(8, range(3))), scores=rows))
    assert [row.scores[0] for row in made.rows] == [None, 0.5]
    assert [problem.name for problem in made.problems] == ["b"]


def test_a_problem_with_two_true_slices_has_the_mean_of_their_scores(stored_run):
    rows = [score("a", 0.2), score("a", 0.6, true_slice=1), score("a", 1.0, metric="f1"), *statistics("a")]
    made = page(
        stored_run(slices={"a": members(8, range(3)), "b": members(8, range(3))}, scores=[*rows, *statistics("b")])
    )
    assert made.rows[0].scores == [pytest.approx(0.4), 1.0, None]
    assert made.rows[0].group == "a group"


def test_a_problem_says_what_the_whole_split_is_like(stored_run):
    (problem,) = page(stored_run(truth=members(8, [0, 1], [2]))).problems
    assert (problem.split, problem.n, problem.n_slices) == ("test", 8, 1)
    assert problem.accuracy == 5 / 8
    assert problem.mean_loss == pytest.approx(10.5 / 8)
    assert problem.truths == [2, 1]
    assert problem.axis.low <= 0 <= problem.axis.high


def test_of_many_slices_the_worst_are_shown_one_by_one(stored_run):
    (problem,) = page(stored_run(slices=members(8, *[[row % 8] for row in range(MOST_SLICES + 2)]))).problems
    assert len(problem.slices) == MOST_SLICES
    assert problem.n_slices == MOST_SLICES + 2


def test_a_run_without_slices_says_so(stored_run):
    (problem,) = page(stored_run(slices=np.zeros((8, 0)))).problems
    assert problem.slices == []


def test_a_map_is_drawn_where_embeddings_differ(stored_run):
    assert page(stored_run()).problems[0].map is None
    (problem,) = page(stored_run(eight_examples(map_x=range(8), map_y=range(8)))).problems
    assert problem.map.startswith("data:image/png;base64,")
    assert problem.on_map == 1


def test_a_map_of_places_that_are_no_numbers_is_not_drawn(stored_run):
    places = [np.nan, *range(7)]
    assert page(stored_run(eight_examples(map_x=places, map_y=places))).problems[0].map is None


def test_what_was_run_and_how_is_told(stored_run):
    definition = {"method": {"_target_": "methods.Spotlight", "size": 10, "rate": 0.001, "start": None}}
    run = stored_run(definition=definition, seconds={"train": 61.25, "train: waiting": 5.0, "score": 0.01})
    made = page(run)
    assert dict(made.facts) == {
        "dataset": "fairface",
        "model": "resnet",
        "embedding": "final_hidden",
        "method": "spotlight (size=10, rate=0.001)",
    }
    work = dict(made.work)
    assert work["work"] == "train 61.2 s; on cpu, threads: 1"
    assert work["code"] == "abc"
    assert work["folder"] == run.folder.name


def test_an_old_run_that_does_not_name_its_machine_is_shown(stored_run):
    run = stored_run()
    for name in ("device", "threads", "git"):
        del run.content[name]
    work = dict(page(run).work)
    assert work["work"].endswith("on unknown, threads: unknown")
    assert work["code"] == "unknown"


def test_what_a_reader_must_know_is_told_once(stored_run):
    content = {
        "dataset_notes": ["two files are missing"],
        "embedding": {"test": {"notes": ["cut at 10"]}, "train": {"notes": ["cut at 10"]}, "old": {}},
        "scale": {"name": "here", "stand_ins": ["fewer pictures"]},
    }
    assert page(stored_run(content=content)).notes == [
        "two files are missing",
        "embedding: cut at 10",
        "stand-in: fewer pictures",
    ]


def test_missing_pictures_are_told_among_the_notes(pictures_run):
    (note,) = page(pictures_run(broken=1)).notes
    assert (
        note == "pictures of the test split are missing: 1 of 4 pictures cannot be read, test/thing/00.png among them"
    )


def test_whether_slices_are_shown_where_they_were_found(stored_run):
    assert not page(stored_run()).held_out
    assert page(stored_run(definition={"evaluation": {"fit_split": "validation"}})).held_out
