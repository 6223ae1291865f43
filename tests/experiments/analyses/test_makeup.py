"""Shares of attributes in slices and in the whole split, against hand computation."""

import numpy as np
import pandas as pd
import pytest

from experiments.analyses.makeup import analyse
from experiments.analysing import Output
from experiments.describing.attributes import natural
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import members, the_one, value

AGES = ["0-2", "0-2", "10-19", "3-9", "3-9", "3-9", "10-19", "10-19"]


def examples(**columns):
    n = len(AGES)
    return {"loss": np.arange(n, dtype=float), "correct": np.arange(n) % 2 == 0, "attribute_age": AGES, **columns}


def slices(*rows):
    return members(len(AGES), *rows)


@pytest.fixture
def drawn():
    """What is kept of each picture: its name, ticks and legend."""
    return []


@pytest.fixture
def out(out, drawn, monkeypatch):
    """Pictures are looked at and not written, which takes longer than all the rest."""

    def look(figure, name, caption, shows=None):
        (axes,) = figure.axes
        legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        drawn.append({"name": name, "ticks": [tick.get_text() for tick in axes.get_yticklabels()], "legend": legend})

    monkeypatch.setattr(out, "picture", look)
    return out


def test_shares_in_a_slice_stand_beside_those_of_the_split(finished_run, out):
    numbers = analyse([finished_run(examples(), slices([0, 1, 2, 3]))], out, ["age"])
    in_slice = the_one(numbers, "share_of_slice", group="age=0-2", slice=1)
    assert (in_slice["value"], in_slice["n"]) == (0.5, 4)
    assert value(numbers, "share_of_slice", group="age=0-2", slice=None) == 0.25
    assert value(numbers, "enrichment", group="age=0-2", slice=1) == 2.0


def test_shares_of_a_slice_sum_to_one_also_where_a_value_is_unknown(finished_run, out):
    run = finished_run(examples(attribute_age=["a", None, "", "a", "b", "b", "b", "b"]), slices([0, 1, 2, 4]))
    numbers = analyse([run], out, ["age"])
    shares = numbers[(numbers["measure"] == "share_of_slice") & (numbers["slice"] == 1)]
    assert dict(zip(shares["group"], shares["value"], strict=True)) == {"age=a": 0.25, "age=b": 0.25, "age=none": 0.5}


def test_mean_loss_by_value_has_an_interval_of_the_mean(finished_run, out):
    row = the_one(
        analyse([finished_run(examples(), slices([0]))], out, ["age"]),
        "mean_loss_by_value",
        group="age=3-9",
        slice=None,
    )
    half = 1.96 * 1.0 / np.sqrt(3)  # losses 3, 4, 5
    assert row["n"] == 3
    np.testing.assert_allclose([row["value"], row["low"], row["high"]], [4, 4 - half, 4 + half])


def test_accuracy_by_value_stays_within_zero_and_one(finished_run, out):
    row = the_one(analyse([finished_run(examples(), slices([0]))], out, ["age"]), "accuracy_by_value", group="age=0-2")
    assert (row["value"], row["low"], row["high"]) == (0.5, 0.0, 1.0)


def test_one_example_alone_has_no_interval(finished_run, out):
    run = finished_run(examples(attribute_age=["a", *["b"] * 7]), slices([0]))
    row = the_one(analyse([run], out, ["age"]), "mean_loss_by_value", group="age=a")
    assert row["value"] == 0.0
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])


def test_labels_and_predictions_count_as_attributes(finished_run, out):
    run = finished_run(
        examples(label=["1", "1", "5", "5", "5", "5", "5", "5"], prediction=["5"] * 8), slices([0, 1, 2])
    )
    numbers = analyse([run], out, ["label", "prediction"])
    np.testing.assert_allclose(value(numbers, "share_of_slice", group="label=1", slice=1), 2 / 3)
    assert value(numbers, "share_of_slice", group="prediction=5", slice=1) == 1.0


def test_many_numbers_are_summarised_by_their_mean(finished_run, out):
    lengths = [float(i) for i in range(19)] + [np.nan]
    table = {"loss": [1.0] * 20, "correct": [True] * 20, "attribute_length": lengths}
    numbers = analyse([finished_run(table, members(20, [10, 12, 19], [19]))], out, ["length"])
    assert set(numbers["measure"]) == {"mean_of_attribute"}
    assert value(numbers, "mean_of_attribute", group="length", slice=None) == 9.0
    in_slice = the_one(numbers, "mean_of_attribute", group="length", slice=1)
    assert (in_slice["value"], in_slice["n"]) == (11.0, 2)
    assert 2 not in set(numbers["slice"])  # nothing is known of its only member
    assert out.sentences == ["spotlight: mean length 9; 11 in slice 1"]


def test_the_mean_of_all_is_said_where_a_run_has_no_slices(finished_run, out):
    table = {"loss": [1.0] * 20, "correct": [True] * 20, "attribute_length": [float(i) for i in range(20)]}
    analyse([finished_run(table, [[]] * 20)], out, ["length"])
    assert out.sentences == ["spotlight: mean length 9.5; no slice with any"]


def test_few_numbers_are_counted_by_value(finished_run, out):
    run = finished_run(examples(attribute_quality=[3.0, 10.0, np.nan, 3.0, 3.0, 3.0, 3.0, 3.0]), slices([1]))
    groups = analyse([run], out, ["quality"])["group"].unique()
    assert list(groups) == ["quality=3", "quality=10", "quality=none"]


def test_own_measures_are_shares_of_any_of_the_values(finished_run, out):
    shares = {"share_aged_0_9": {"attribute": "age", "values": ["0-2", "3-9"]}}
    numbers = analyse([finished_run(examples(), slices([0, 1, 3, 6]))], out, [], shares)
    assert value(numbers, "share_aged_0_9", group=None, slice=1) == 0.75
    assert value(numbers, "share_aged_0_9", group="all") == 5 / 8


def test_own_measures_take_values_as_a_config_writes_them(finished_run, out):
    run = finished_run(examples(attribute_signal=[True] * 2 + [False] * 6, label=["1", *["2"] * 7]), slices([0, 2]))
    shares = {"marked": {"attribute": "signal", "values": [True]}, "one": {"attribute": "label", "values": [1]}}
    numbers = analyse([run], out, [], shares)
    assert value(numbers, "marked", group=None, slice=1) == 0.5
    assert value(numbers, "one", group="all") == 1 / 8


def test_what_the_data_lacks_is_absent_and_not_nought(finished_run, out):
    shares = {"share_old": {"attribute": "age", "values": ["80-89"]}}
    runs = [finished_run(examples(), slices([0])), finished_run(examples(), slices([1]), method="gmm")]
    numbers = analyse(runs, out, ["age"], shares)
    assert "share_old" not in set(numbers["measure"])
    sentences = [sentence for sentence in out.sentences if "share_old" in sentence]
    assert sentences == ["share_old: no example has age 80-89; there are 0-2, 3-9, 10-19"]


def test_an_unknown_attribute_is_refused_with_those_that_there_are(finished_run, out):
    run = finished_run(examples(attribute_race=["a"] * 8), slices([0]))
    with pytest.raises(InvalidInput, match="no attribute 'sex', expected one of age, race"):
        analyse([run], out, ["age", "sex"])
    with pytest.raises(InvalidInput, match="no attribute 'label'"):
        analyse([run], out, ["age"], {"share": {"attribute": "label", "values": ["1"]}})


@pytest.mark.parametrize(
    "wanted",
    ["age", {"attribute": "age"}, {"attribute": "age", "values": "0-2"}, {"attribute": ["age"], "values": ["0-2"]}],
)
def test_shares_in_another_form_are_refused(finished_run, out, wanted):
    with pytest.raises(InvalidInput, match=r"shares\.young"):
        analyse([finished_run(examples(), slices([0]))], out, ["age"], {"young": wanted})


def test_a_run_that_lacks_an_attribute_is_left_out_of_it(finished_run, out):
    wine = {"loss": [1.0, 2.0], "correct": [True, True], "attribute_colour": ["red", "white"]}
    runs = [finished_run(examples(), slices([0])), finished_run(wine, [[1], [0]], dataset="wine")]
    shares = {"young": {"attribute": "age", "values": ["0-2"]}}
    numbers = analyse(runs, out, ["age", "colour"], shares)
    of_wine = numbers[numbers["dataset"] == "wine"]
    assert set(of_wine["group"]) == {"colour=red", "colour=white"}
    assert value(of_wine, "share_of_slice", group="colour=red", slice=1) == 1.0


def test_empty_slices_and_runs_without_slices_have_no_shares(finished_run, out):
    runs = [
        finished_run(examples(), slices([], [0])),
        finished_run(examples(), np.zeros((8, 0)), method="planespot"),
    ]
    numbers = analyse(runs, out, ["age"], {"young": {"attribute": "age", "values": ["0-2"]}})
    assert set(numbers["slice"].dropna()) == {2}
    assert set(numbers.loc[numbers["method"] == "planespot", "slice"].isna()) == {True}


def test_rare_values_have_no_row_where_they_do_not_occur(finished_run, out):
    table = {"loss": [1.0] * 20, "correct": [True] * 20, "attribute_title": [f"film {i}" for i in range(20)]}
    numbers = analyse([finished_run(table, np.eye(20)[:, :1])], out, ["title"])
    in_slice = numbers[(numbers["measure"] == "share_of_slice") & (numbers["slice"] == 1)]
    assert list(in_slice["group"]) == ["title=film 0"]


def test_the_value_that_stands_out_most_in_a_slice_is_said_unless_chance_explains_it(finished_run, out):
    table = {"loss": [1.0] * 100, "correct": [True] * 100}
    table |= {"attribute_age": ["0-2"] * 10 + ["3-9"] * 90, "attribute_race": ["x"] * 50 + ["y"] * 50}
    first = [*range(6), *range(10, 15), *range(60, 65)]  # 6 of 16 aged 0-2
    second = [*range(4), *range(60, 78)]  # only 4 aged 0-2: too few to be said
    third = [*range(20, 28), *range(60, 72)]  # 60% y: so has one random slice in four
    analyse([finished_run(table, members(100, first, second, third))], out, ["age", "race"])
    assert out.sentences == [
        "spotlight slice 1: age 0-2, 38% against 10% of the split (n=16)",
        "spotlight slice 2: race y, 82% against 50% of the split (n=22)",
    ]


def test_values_are_sorted_as_people_count():
    ages = ["3-9", "more than 70", "10-19", "0-2", "unknown", "60-69"]
    assert sorted(ages, key=natural) == ["0-2", "3-9", "10-19", "60-69", "more than 70", "unknown"]
    assert sorted(["25-34", "65 and more", "below 25"], key=natural) == ["below 25", "25-34", "65 and more"]
    assert sorted([">50K", "<=50K"], key=natural) == ["<=50K", ">50K"]


def test_one_picture_holds_the_slices_of_all_runs_below_the_whole_split(finished_run, out, drawn):
    runs = [
        finished_run(examples(), slices([0, 1], [2, 3, 4])),
        finished_run(examples(), slices([5]), method="gmm"),
    ]
    analyse(runs, out, ["age"])
    ages, losses = drawn
    whole, *bars = ages["ticks"]
    assert whole == "whole split (n=8)"
    assert bars == ["spotlight, slice 1 (n=2)", "spotlight, slice 2 (n=3)", "gmm, slice 1 (n=1)"]
    assert ages["legend"] == ["0-2", "3-9", "10-19"]
    assert losses["ticks"] == ["age", "0-2 (n=2)", "3-9 (n=3)", "10-19 (n=3)"]


def test_a_picture_takes_whole_runs_until_it_is_full(finished_run, out, drawn):
    many = slices(*[[i % 8] for i in range(11)])
    runs = [finished_run(examples(), many, method=name) for name in ("spotlight", "gmm", "kmeans")]
    analyse(runs, out, ["age"], most=10)
    assert [(one["name"], len(one["ticks"])) for one in drawn] == [("age", 21), ("age-2", 11), ("mean-loss", 4)]


def test_runs_on_other_examples_have_a_picture_of_their_own(finished_run, out, drawn):
    other = examples(loss=np.ones(8))
    analyse([finished_run(examples(), slices([0])), finished_run(other, slices([0]), method="gmm")], out, ["age"])
    assert [one["name"] for one in drawn] == ["age", "age-2", "mean-loss", "mean-loss-2"]


def test_of_many_values_those_that_matter_are_drawn(finished_run, out, drawn):
    table = pd.DataFrame({"loss": np.repeat(np.arange(20.0), 5), "correct": True})
    table["attribute_title"] = [f"film {i}" for i in table["loss"].astype(int)]
    analyse([finished_run(table, table[["loss"]].to_numpy() >= 18)], out, ["title"])
    titles, losses = drawn
    assert len(titles["legend"]) == 12
    assert {"film 18", "film 19", "other values"} <= set(titles["legend"])
    assert losses["ticks"][:2] == ["title: 12 of 20, the worst", "film 19 (n=5)"]


def test_pictures_hold_text_that_looks_like_a_formula_or_markup_as_it_is(finished_run, tmp_path):
    strange = ["$5-$9", "<b>x</b>", "_hidden", "a\nb" * 40, "$\\frac{$", "%s", "{}", "é"]
    table = {name: column for name, column in examples().items() if name != "attribute_age"}
    out = Output(tmp_path / "analysis", "tested")
    analyse([finished_run({**table, "attribute_E.Coli": strange}, slices([0, 1]))], out, ["E.Coli"])
    names = {path.name for path in out.folder.iterdir()}
    assert names == {f"tested-{name}.{kind}" for name in ("e-coli", "mean-loss") for kind in ("png", "svg")}
    svg = (out.folder / "tested-e-coli.svg").read_text()
    assert all(text in svg for text in ("$5-$9", "&lt;b&gt;x&lt;/b&gt;", "_hidden", "…"))
    assert {picture["shows"] for picture in out.pictures} == {None}
