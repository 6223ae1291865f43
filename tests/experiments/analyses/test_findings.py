"""Outcomes and findings by slice, against hand computation."""

import numpy as np
import pandas as pd
import pytest

from experiments.analyses.findings import analyse
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import the_one, value

SICK, WELL = "COVID-19", "no COVID-19"
EXAMPLES = {  # TP, TP, FN, FP, FP, TN
    "label": [SICK, SICK, SICK, WELL, WELL, WELL],
    "prediction": [SICK, SICK, WELL, SICK, SICK, WELL],
    "correct": [True, True, False, False, False, True],
    "loss": [0.1, 0.2, 2.0, 3.0, 1.0, 0.3],
    "attribute_COVID-19": [True, True, True, False, False, False],
    "attribute_Pneumonia": [True, False, True, True, False, False],
    "attribute_age": [40.0, np.nan, 50.0, 61.0, 72.0, 33.0],
    "attribute_sex": ["male", "female", "unknown", "male", "male", "female"],
}
SLICES = [[1, 0], [0, 1], [1, 0], [1, 0], [1, 0], [0, 1]]


def table(out):
    # what stands in the cells, and not what pandas makes of it
    return pd.read_csv(out.folder / "tested-shares.csv", keep_default_na=False, dtype=str).set_index("finding")


def test_outcomes_of_a_slice_are_counted(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved)
    counts = {outcome: value(numbers, "outcome_count", group=outcome, slice=1) for outcome in ("TN", "FP", "FN", "TP")}
    assert counts == {"TN": 0, "FP": 2, "FN": 1, "TP": 1}
    assert value(numbers, "outcome_count", group="TN", slice=2) == 1


def test_accuracy_is_of_each_slice_and_of_the_whole_split(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved)
    assert value(numbers, "accuracy", group=None, slice=1) == 0.25
    assert value(numbers, "accuracy", group=None, slice=2) == 1.0
    assert value(numbers, "accuracy", group="all") == 0.5


def test_the_share_of_a_finding_is_of_those_with_one_outcome_in_one_slice(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved)
    assert value(numbers, "finding_share", group="Pneumonia, FP", slice=1) == 0.5
    assert the_one(numbers, "finding_share", group="Pneumonia, FP", slice=1)["n"] == 2
    assert value(numbers, "finding_share", group="Pneumonia, TP", slice=2) == 0.0


def test_where_there_are_no_examples_there_is_no_share(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved)
    assert not ((numbers["group"] == "Pneumonia, TN") & (numbers["slice"] == 1)).any()
    assert table(unsaved).loc["Pneumonia", "TN, slice 1"] == "-"
    assert table(unsaved).loc["Pneumonia", "TP, slice 2"] == "0.00"


def test_a_finding_that_the_data_do_not_know_is_absent_and_never_zero(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved, rows=["Tuberculosis", "Pneumonia"])
    assert not numbers["group"].str.contains("Tuberculosis", na=False).any()
    shares = table(unsaved).drop(columns="run")
    assert shares.index.tolist() == ["(examples)", "Tuberculosis", "Pneumonia"], "the order of the published table"
    assert set(shares.loc["Tuberculosis"]) == {"absent"}
    assert "absent" not in set(shares.loc["Pneumonia"])
    assert any("do not know Tuberculosis" in sentence for sentence in unsaved.sentences)


def test_all_that_is_yes_or_no_is_a_finding_by_default(finished_run, unsaved):
    analyse([finished_run(EXAMPLES, SLICES)], unsaved)
    assert table(unsaved).index.tolist() == ["(examples)", "COVID-19", "Pneumonia"]
    assert table(unsaved).loc["(examples)", "FP, slice 1"] == "2"


def test_the_findings_can_be_chosen(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved, attributes=["Pneumonia"])
    shares = numbers.loc[numbers["measure"] == "finding_share", "group"]
    assert set(shares.str.split(", ").str[0]) == {"Pneumonia"}


def test_what_is_not_known_of_an_example_is_not_counted_as_no(finished_run, unsaved):
    examples = {**EXAMPLES, "attribute_Fever": [None, None, None, True, None, None]}
    numbers = analyse([finished_run(examples, SLICES)], unsaved)
    assert value(numbers, "finding_share", group="Fever, FP", slice=1) == 1.0
    assert the_one(numbers, "finding_share", group="Fever, FP", slice=1)["n"] == 1
    assert not (numbers["group"] == "Fever, TP").any()


def test_the_class_to_be_detected_can_be_told(finished_run, unsaved):
    numbers = analyse([finished_run(EXAMPLES, SLICES)], unsaved, positive=WELL)
    assert value(numbers, "outcome_count", group="FN", slice=1) == 2
    assert value(numbers, "outcome_count", group="FP", slice=1) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"positive": "flu"}, "there is no class 'flu', expected one of COVID-19, no COVID-19"),
        ({"attributes": ["Fever"]}, "there is no attribute 'Fever', expected one of COVID-19, Pneumonia, age, sex"),
        ({"attributes": ["sex"]}, "'sex' is not yes or no"),
        ({"rows": ["Fever"]}, "know none of the rows, expected some of COVID-19"),
    ],
)
def test_a_mistake_is_named_with_what_there_is(options, reason, finished_run, unsaved):
    with pytest.raises(InvalidInput, match=reason):
        analyse([finished_run(EXAMPLES, SLICES)], unsaved, **options)


def test_the_class_must_be_told_where_no_finding_has_its_name(finished_run, unsaved):
    examples = {name: values for name, values in EXAMPLES.items() if name != "attribute_COVID-19"}
    with pytest.raises(InvalidInput, match="set positive to the class that is to be detected, one of COVID-19, no"):
        analyse([finished_run(examples, SLICES)], unsaved)


def test_a_thousand_classes_are_not_all_listed(finished_run, unsaved):
    names = [f"class {i:04d}" for i in range(1000)]
    examples = {"label": names, "prediction": names, "loss": [1.0] * 1000, "correct": [True] * 1000}
    with pytest.raises(InvalidInput, match="class 0019 and 980 more"):
        analyse([finished_run(examples, [[1]] * 1000)], unsaved)


def test_questions_without_labels_are_refused(finished_run, unsaved):
    examples = {"loss": [1.0], "correct": [True]}
    with pytest.raises(InvalidInput, match="without label or prediction"):
        analyse([finished_run(examples, [[1]])], unsaved, positive="x")


def test_an_empty_slice_and_no_slices_do_not_stop_it(finished_run, out):
    numbers = analyse([finished_run(EXAMPLES, [[0]] * 6)], out)
    assert not ((numbers["measure"] == "accuracy") & (numbers["slice"] == 1)).any()
    assert value(numbers, "outcome_count", group="FP", slice=1) == 0
    none = analyse([finished_run(EXAMPLES, [[]] * 6)], out)
    assert none["measure"].tolist() == ["accuracy"]
    assert out.sentences[-1].endswith("no slices.")


def test_data_without_findings_have_outcomes(finished_run, unsaved):
    examples = {name: values for name, values in EXAMPLES.items() if not name.startswith("attribute_")}
    numbers = analyse([finished_run(examples, SLICES)], unsaved, positive=SICK)
    assert set(numbers["measure"]) == {"accuracy", "outcome_count"}
    assert unsaved.pictures == []


def test_long_names_and_many_findings_fit_into_the_picture_and_stay_whole_in_the_table(finished_run, unsaved, figures):
    long, price = "a finding with a very long name, " * 4, "costs $5 to $9"
    findings = {f"attribute_{name}": [True] * 6 for name in (long, price, *map(str, range(60)))}
    analyse([finished_run({**EXAMPLES, **findings}, SLICES)], unsaved, attributes=[long, price, *map(str, range(60))])
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert len(labels) == 40
    assert labels[0] == "a finding with a very long …"
    assert labels[1] == r"costs \$5 to \$9"
    assert {long, price, "59"} <= set(table(unsaved).index)


def test_the_sentence_has_accuracy_and_errors_by_slice(finished_run, unsaved):
    analyse([finished_run(EXAMPLES, SLICES, dataset="covid_xray", method="infembed")], unsaved)
    assert unsaved.sentences == [
        "covid_xray, infembed: accuracy 0.5 of 6 examples; slice 1 accuracy 0.25 of 4 examples, 2 FP, 1 FN; "
        "slice 2 accuracy 1 of 2 examples, 0 FP, 0 FN."
    ]


def test_runs_with_other_numbers_of_slices_share_a_table(finished_run, unsaved):
    analyse([finished_run(EXAMPLES, SLICES), finished_run(EXAMPLES, [[1]] * 6, method="gmm")], unsaved)
    shares = table(unsaved)
    assert set(shares["run"]) == {"spotlight", "gmm"}
    assert set(shares.loc[shares["run"] == "gmm", "FP, slice 2"]) == {""}
    assert [picture["file"] for picture in unsaved.pictures] == ["tested-shares-1", "tested-shares-2"]


def test_shares_are_written_into_a_heat_map(finished_run, unsaved, figures):
    analyse([finished_run(EXAMPLES, np.repeat(SLICES, 4, axis=1))], unsaved, rows=["Tuberculosis", "Pneumonia"], most=1)
    (axes,) = figures[0].axes
    assert axes.images[0].get_array().shape == (2, 4)
    assert len(axes.patches) == 1, "one band for the finding that is absent"
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("absent") == 4
    assert {"-", "0.50", "1.00", "true negatives", "false positives"} <= set(texts)


def test_the_picture_can_be_shown_anywhere(finished_run, out):
    analyse([finished_run(EXAMPLES, SLICES)], out)
    assert {path.suffix for path in out.folder.glob("tested-shares.*")} == {".png", ".svg", ".csv"}
    assert out.pictures[0]["shows"] is None
