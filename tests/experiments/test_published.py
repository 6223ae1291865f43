"""Published numbers: each with its source and its place, and beside it the rows that were measured of the same."""

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

import conf
from experiments.analysing import COLUMNS
from experiments.published import as_text, compare, interval_as_text, published

MEASURES = [(experiment, measure) for experiment, entries in published().items() for measure in entries]
NAMES = {"dataset": "fairface slice_size=100", "model": "resnet", "embedding": "final_hidden", "method": "spotlight"}
IDENTITY = {**NAMES, "corruption": "none", "variant": "", "split": "test"}


def numbers(*rows):
    """A table of numbers; what a row leaves out is that of a spotlight on FairFace, or empty."""
    table = pd.DataFrame([{"analysis": "slices", **IDENTITY, **row} for row in rows], columns=list(COLUMNS))
    return table.astype({"slice": "Int64", "n": "Int64", "value": "float64", "low": "float64", "high": "float64"})


def row_of(table, measure):
    (row,) = table[table["measure"] == measure].to_dict("records")
    return row


def rows_with(entry, *rows, monkeypatch):
    """What is set beside an experiment's only entry."""
    about = {"source": "paper", "place": "section 1", "measured_on": "somewhere"}
    monkeypatch.setattr("experiments.published.published", lambda: {"any": {"objective": {**about, **entry}}})
    return compare("any", numbers(*rows)).to_dict("records")


def analyses_of(experiment):
    described = yaml.safe_load((Path(conf.__path__[0]) / "experiment" / f"{experiment}.yaml").read_text())["experiment"]
    return {one if isinstance(one, str) else next(iter(one)) for one in described["analyses"]}


def test_both_papers_are_there():
    assert {experiment.split("/")[0] for experiment in published()} == {"spotlight", "infembed"}


@pytest.mark.parametrize(("experiment", "measure"), MEASURES)
def test_a_number_has_a_source_and_a_place(experiment, measure):
    entry = published()[experiment][measure]
    assert set(entry) <= {"value", "source", "place", "measured_on", "measured", "otherwise"}
    values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
    assert values
    assert all(isinstance(value, int | float) for value in values)
    assert entry["source"] in ("paper", "release")
    assert entry["place"].startswith(("section", "figure", "table", "appendix", "stored results"))


@pytest.mark.parametrize(("experiment", "measure"), MEASURES)
def test_what_is_set_beside_a_number_is_made_by_an_analysis_of_its_experiment(experiment, measure):
    entry = published()[experiment][measure]
    assert set(entry["measured"]) <= {*COLUMNS, "except"}
    assert entry["measured"]["analysis"] in analyses_of(experiment)
    lists = [wanted for wanted in entry["measured"].values() if isinstance(wanted, list)]
    assert all(len(wanted) == len(entry["value"]) for wanted in lists)


def test_objectives_stand_in_the_order_of_the_slices():
    spotlights = [{"measure": "objective", "slice": s, "value": v} for s, v in ((2, 0.5), (1, 0.7))]
    others = [{"measure": "objective", "slice": 1, "value": 9.0, "method": "george"}]
    row = row_of(compare("spotlight/fairface", numbers(*spotlights, *others)), "objective")
    assert row["measured"] == [0.7, 0.5]
    assert row["published"] == [0.811, 0.656, 0.684, 0.567, 0.552]
    assert (row["source"], row["low"], row["note"]) == ("release", None, "")


def test_what_was_not_measured_says_so():
    table = compare("spotlight/fairface", numbers({"measure": "objective", "slice": 1, "value": 0.7}))
    row = row_of(table, "n_george_clusters")
    assert (row["published"], row["measured"], row["note"]) == (6, None, "not measured")
    assert len(table) == len(published()["spotlight/fairface"])


def test_an_experiment_of_which_nothing_was_published_has_no_rows():
    table = compare("spotlight/tabular", numbers({"measure": "objective", "slice": 1, "value": 0.7}))
    assert table.empty
    assert "measured" in table


def test_a_share_of_one_slice_and_of_the_whole_set_are_told_apart():
    shares = [{"measure": "share_aged_0_9", "slice": s, "value": v} for s, v in ((1, 0.2), (2, 0.4))]
    whole = {"measure": "share_aged_0_9", "group": "all", "value": 0.1}
    table = compare("spotlight/fairface", numbers(*({**row, "analysis": "makeup"} for row in (*shares, whole))))
    assert row_of(table, "share_aged_0_9")["measured"] == [0.2, 0.4]
    assert row_of(table, "share_aged_0_9_whole")["measured"] == 0.1


def test_an_interval_comes_along():
    f1 = {"analysis": "relabelling", "measure": "f1", "group": "all", "variant": "tuned", "value": 0.71}
    row = row_of(compare("spotlight/synthetic", numbers({**f1, "low": 0.65, "high": 0.77})), "f1_spotlight")
    assert interval_as_text(row) == "0.71 [0.65; 0.77]"
    cell = {"analysis": "cells", "measure": "precision_at_10_natural_rare", "method": "infembed"}
    row = row_of(compare("infembed/dcbench", numbers({**cell, "value": 0.6, "low": 0.5, "high": 0.7})), cell["measure"])
    assert interval_as_text(row) == "-, 0.6 [0.5; 0.7]"


def test_several_settings_are_several_rows_with_what_tells_them_apart():
    f1 = {"analysis": "relabelling", "measure": "f1", "group": "all", "variant": "tuned", "model": "small_cnn"}
    noisy = {"dataset": "digits", "corruption": "relabel_subclass noise=0.05", "value": 0.5}
    both = numbers({**f1, "dataset": "digits", "value": 0.7}, {**f1, **noisy})
    rows = compare("spotlight/synthetic", both).to_dict("records")
    assert [(row["measured"], row["note"]) for row in rows] == [
        (0.7, "corruption=none"),
        (0.5, "corruption=relabel_subclass noise=0.05"),
    ]


def test_a_note_names_no_more_than_it_takes():
    seconds = {"analysis": "cost", "measure": "seconds", "group": "all"}
    sets = [{**seconds, "dataset": name, "model": f"{name}_net", "value": 1.0} for name in ("adult", "wine")]
    rows = compare("spotlight/cost", numbers(*sets)).to_dict("records")
    assert [row["note"] for row in rows] == ["dataset=adult", "dataset=wine"]


def test_methods_stand_in_the_order_of_the_published_ones():
    cell = {"analysis": "cells", "measure": "precision_at_10_natural_rare", "dataset": "suite"}
    infembed = {**cell, "method": "infembed", "embedding": "influence", "value": 0.6}
    both = numbers(infembed, {**cell, "method": "domino", "value": 0.5})
    assert row_of(compare("infembed/dcbench", both), cell["measure"])["measured"] == [0.5, 0.6]
    measured = row_of(compare("infembed/dcbench", numbers(infembed)), cell["measure"])["measured"]
    assert math.isnan(measured[0])
    assert measured[1] == 0.6


def test_some_words_of_a_data_set_are_enough_and_others_may_be_left_out():
    counted = {"analysis": "distributions", "measure": "n_slices_by_rule", "group": "all", "method": "infembed"}
    official = {**counted, "dataset": "ag_news layout=noisy_train", "value": 8}
    rows = numbers(official, {**counted, "dataset": "ag_news layout=noisy", "value": 3})
    assert row_of(compare("infembed/ag_news", rows), "n_slices")["measured"] == 8

    rule = {**counted, "method": "infembed_rule"}
    sets = [{**rule, "dataset": f"bone_age signal={name}", "value": v} for name, v in (("blur", 3), ("tag", 2))]
    plain = {**rule, "dataset": "bone_age", "value": 9}
    measured = row_of(compare("infembed/bone_age", numbers(plain, *sets)), "n_slices")["measured"]
    assert (measured[0], measured[2]) == (2, 3)
    assert math.isnan(measured[1])


def test_a_cell_of_table_4_is_a_finding_an_outcome_and_a_slice():
    share = {"analysis": "findings", "measure": "finding_share", "method": "infembed"}
    cells = [
        {**share, "group": "SARS, FP", "slice": 3, "value": 0.4},
        {**share, "group": "SARS, TN", "slice": 1, "value": 0},
    ]
    row = row_of(compare("infembed/covid", numbers(*cells)), "share_with_finding, SARS")
    assert row["published"][0] == 0.12  # true negatives in slice 1
    assert row["published"][5] == 0.5  # false positives in slice 3
    assert (row["measured"][0], row["measured"][5]) == (0, 0.4)
    assert as_text(row["measured"]) == "0, -, -, -, -, 0.4, -, -, -, -, -, -"


def test_table_4_has_nineteen_findings_and_twelve_cells():
    cells = {m: e["value"] for m, e in published()["infembed/covid"].items() if m.startswith("share_with_finding")}
    assert len(cells) == 19
    assert {len(row) for row in cells.values()} == {12}
    # an outcome that no example has in a slice has no share of any finding
    assert {tuple(i for i, v in enumerate(row) if math.isnan(v)) for row in cells.values()} == {(2, 7, 10, 11)}


def test_an_empty_column_can_be_asked_for(monkeypatch):
    whole, of_slice = {"measure": "objective", "value": 1.0}, {"measure": "objective", "value": 2.0, "slice": 1}
    (row,) = rows_with({"value": 1, "measured": {"slice": None}}, whole, of_slice, monkeypatch=monkeypatch)
    assert row["measured"] == 1.0


def test_a_number_that_nothing_is_set_beside_was_not_measured(monkeypatch):
    (row,) = rows_with({"value": 1}, {"measure": "objective", "value": 1.0}, monkeypatch=monkeypatch)
    assert row["note"] == "not measured"


def test_a_row_without_a_value_was_not_measured(monkeypatch):
    (row,) = rows_with({"value": 1, "measured": {}}, {"measure": "objective"}, monkeypatch=monkeypatch)
    assert (row["measured"], row["note"]) == (None, "not measured")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.3494, "0.349"),
        (954, "954"),
        (7600.0, "7600"),
        (999.7, "1000"),
        (0, "0"),
        ([2.0, math.nan], "2, -"),
        (None, "-"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert as_text(value) == text


def test_that_nothing_was_measured_may_mean_something(monkeypatch):
    entry = {"value": 0.2, "measured": {"analysis": "findings"}, "otherwise": "absent: nobody looked"}
    (row,) = rows_with(entry, monkeypatch=monkeypatch)
    assert (row["measured"], row["note"]) == (None, "absent: nobody looked")
