"""Published numbers: each with its source and its place, so that a reader can look it up."""

from pathlib import Path

import pytest
import yaml

import experiments

PUBLISHED = yaml.safe_load((Path(experiments.__path__[0]) / "published.yaml").read_text())
MEASURES = [(experiment, measure) for experiment, of_one in PUBLISHED.items() for measure in of_one]


def test_both_papers_are_there():
    assert {experiment.split("/")[0] for experiment in PUBLISHED} == {"spotlight", "infembed"}


@pytest.mark.parametrize(("experiment", "measure"), MEASURES)
def test_a_number_has_a_source_and_a_place(experiment, measure):
    entry = PUBLISHED[experiment][measure]
    assert set(entry) == {"value", "source", "place", "measured_on"}
    values = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
    assert values
    assert all(isinstance(value, int | float) for value in values)
    assert entry["source"] in ("paper", "release")
    assert entry["place"].startswith(("section", "figure", "table", "appendix", "stored results"))
