"""Distances of influence explanations against hand computation."""

import numpy as np
import pandas as pd
import pytest

from experiments.analyses.coherence import analyse
from experiments.analysing import COLUMNS, _tidy
from experiments.files import write_parquet
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import the_one, value

EXAMPLES = {"loss": [0.0] * 10, "correct": [True] * 10}
# a slice of 6 and one of 2, of 10 examples
TWO = [("split", None, 10, 4.0), ("members", None, 8, 3.0), ("slice", 0, 6, 0.5), ("slice", 1, 2, 2.5)]
PARTS = [("split", None, 10, 4.0), ("members", None, 10, 4.0), ("slice", 0, 9, 1.0), ("slice", 1, 1, 0.0)]
EMPTY = [("split", None, 10, 4.0)]


def table(rows, problem="all", bound=10.0):
    frame = pd.DataFrame(rows, columns=["group", "slice", "n", "distance"]).astype({"slice": "Int64"})
    frame = frame.assign(bound=bound * frame["distance"], tight_bound=2 * frame["distance"])
    return frame.assign(problem=problem)


@pytest.fixture
def measured_run(finished_run):
    def make(*tables, **names):
        run = finished_run(EXAMPLES, [[1]] * 10, **names)
        write_parquet(run.folder / "coherence.parquet", pd.concat(tables, ignore_index=True))
        return run

    return make


def test_slices_are_numbered_from_one_and_have_their_own_numbers(measured_run, out):
    numbers = analyse([measured_run(table(TWO))], out)
    assert value(numbers, "explanation_distance", slice=2) == 2.5
    assert value(numbers, "relative_distance", slice=2) == 2.5 / 4
    assert value(numbers, "ratio", slice=1) == pytest.approx(10)
    assert the_one(numbers, "relative_distance", slice=1)["n"] == 6
    assert set(numbers.loc[numbers["slice"].isna(), "group"]) == {"split", "members", "all"}
    assert numbers.loc[numbers["slice"].notna(), "group"].isna().all()


def test_all_is_the_mean_over_the_members_of_slices(measured_run, out):
    numbers = analyse([measured_run(table(TWO))], out)
    assert value(numbers, "explanation_distance", group="all") == pytest.approx((6 * 0.5 + 2 * 2.5) / 8)
    assert value(numbers, "relative_distance", group="all") == pytest.approx(1 / 4)
    assert value(numbers, "relative_to_members", group="all") == pytest.approx(1 / 3)
    assert value(numbers, "bound", group="all") == pytest.approx(10)
    assert value(numbers, "tight_ratio", group="all") == pytest.approx(2)
    assert value(numbers, "explanation_distance", group="split") == 4
    assert the_one(numbers, "explanation_distance", group="all")["n"] == 8


def test_equation_6_sums_over_pairs(measured_run, out):
    numbers = analyse([measured_run(table(TWO))], out)
    assert value(numbers, "total_distance", group="all") == pytest.approx(36 * 0.5 + 4 * 2.5)
    assert value(numbers, "total_bound", group="all") == pytest.approx(10 * (36 * 0.5 + 4 * 2.5))
    assert value(numbers, "relative_total", group="all") == pytest.approx((36 * 0.5 + 4 * 2.5) / (100 * 4))


def test_numbers_of_many_problems_are_means_over_them(measured_run, out):
    numbers = analyse([measured_run(table(TWO, "a"), table(PARTS, "b"), table(EMPTY, "c"))], out)
    assert value(numbers, "relative_distance", group="all") == pytest.approx((1 / 4 + 0.9 / 4) / 2)
    assert the_one(numbers, "relative_distance", group="all")["n"] == 18
    assert the_one(numbers, "explanation_distance", group="split")["n"] == 30


def test_nothing_is_relative_to_no_distance(measured_run, out):
    numbers = analyse([measured_run(table(PARTS))], out)
    assert value(numbers, "relative_distance", slice=2) == 0
    assert "ratio" not in set(numbers.loc[numbers["slice"] == 2, "measure"])
    still = [(group, slice_, n, 0.0) for group, slice_, n, _ in TWO]
    numbers = analyse([measured_run(table(still))], out)
    assert not {"relative_distance", "ratio", "relative_total"} & set(numbers["measure"])
    assert np.isfinite(numbers["value"]).all()


def test_a_run_without_slices_has_the_numbers_of_the_split_and_no_picture(measured_run, out):
    numbers = analyse([measured_run(table(EMPTY))], out)
    assert set(numbers["group"]) == {"split"}
    assert out.pictures == []
    assert "spotlight none" in out.sentences[0]


def test_the_report_names_the_most_coherent_first(measured_run, out):
    analyse([measured_run(table(TWO), method="kmeans"), measured_run(table(PARTS), method="infembed")], out)
    assert out.sentences[0].startswith("fairface: distance of influence explanations within slices")
    assert out.sentences[0].endswith(
        "infembed 0.23 / 0.20; kmeans 0.25 / 0.07 (80% of the split; 0.33 of their distance as one slice)."
    )
    assert out.sentences[1] == (
        "fairface: the bound of lemma 1 is 10 times the distance, with the smallest constant 2."
    )
    assert len(out.sentences) == 2


def test_one_slice_of_one_member_is_told_and_drawn(measured_run, out):
    analyse([measured_run(table([("split", None, 10, 4.0), ("members", None, 1, 0.0), ("slice", 0, 1, 0.0)]))], out)
    assert out.sentences[0].endswith("spotlight 0.00 / 0.00 (10% of the split).")
    assert len(out.pictures) == 1


def test_runs_that_were_explained_otherwise_are_told_apart(measured_run, out):
    other = [(group, slice_, n, 3 * distance) for group, slice_, n, distance in TWO]
    analyse([measured_run(table(TWO)), measured_run(table(other), method="infembed")], out)
    assert "beware" in out.sentences[-1]
    assert "4 to 12 nats^2" in out.sentences[-1]


def test_other_models_of_a_data_set_may_have_other_explanations(measured_run, out):
    other = [(group, slice_, n, 3 * distance) for group, slice_, n, distance in TWO]
    analyse([measured_run(table(TWO)), measured_run(table(other), model="small_cnn")], out)
    assert not any("beware" in sentence for sentence in out.sentences)


def test_a_run_that_was_not_asked_for_coherence_says_how_to(finished_run, out):
    with pytest.raises(InvalidInput, match=r"no coherence.parquet: run it with evaluation.coherence=true"):
        analyse([finished_run(EXAMPLES, [[1]] * 10)], out)


def test_one_picture_with_a_panel_a_data_set(measured_run, unsaved, figures):
    runs = [
        measured_run(table(rows), method=method, dataset=dataset)
        for dataset, rows in (("digits", PARTS), ("ag_news slice_size=9", TWO), ("squad", EMPTY))
        for method in ("infembed", "kmeans", "domino")
    ]
    analyse(runs, unsaved, most=2)
    (figure,) = figures
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["digits", "ag_news"]
    assert [len(axes.get_yticks()) for axes in panels] == [2, 2]
    (points,) = panels[1].collections[:1]
    np.testing.assert_allclose(np.asarray(points.get_offsets())[:, 0], [0.5 / 4, 2.5 / 4])
    assert np.asarray(panels[0].collections[0].get_offsets())[1, 0] == 1e-3  # one member, at the edge
    assert unsaved.pictures[0]["shows"] is None


def test_pictures_are_written_and_numbers_fit_into_the_table_of_all_analyses(measured_run, out):
    numbers = analyse([measured_run(table(TWO))], out)
    assert {path.suffix for path in out.folder.glob("tested-distances.*")} == {".png", ".svg"}
    assert list(_tidy([numbers.assign(analysis="coherence")]).columns) == list(COLUMNS)
