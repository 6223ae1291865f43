"""To exist is to be tested: what holds for every data set, and the rows of the real files."""

import typing
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import conf
from experiments.check import look, read_recipe
from experiments.listing import items
from experiments.reading.sources import Absent, Source
from experiments.schema import parameters_of

NAMES = [item["name"] for item in items("datasets")]
FOLDER = Path(conf.__path__[0]) / "dataset"
OWN = {"image_folder", "table", "predictions", "suite"}  # of what the user has, or has made here
TESTED_IN = {"suite": "suites"}  # the folder of its tests, where it is not that of the loaders
EMBEDDED = {"digits"}
NAMED_IN_THE_PAPERS = {
    *("digits", "fairface", "imagenet", "imagenet_superclass", "amazon_polarity", "sst2", "movielens", "squad"),
    *("chest_xray", "adult", "wine", "ag_news", "bone_age", "covid_xray", "eeg", "dcbench", "predictions"),
}


def target_of(name):
    module, _, class_name = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["_target_"].rpartition(".")
    return getattr(import_module(module), class_name)


def layouts(name):
    parameter = parameters_of(target_of(name)).get("layout")
    return typing.get_args(parameter.annotation) if parameter else (None,)


PUBLISHED = [(name, layout) for name in NAMES if name not in OWN | EMBEDDED for layout in layouts(name)]


def loader(name, layout):
    return target_of(name)(**({} if layout is None else {"layout": layout}))


def test_the_list_is_complete():
    assert set(NAMES) >= NAMED_IN_THE_PAPERS | OWN
    assert len(PUBLISHED) >= len(NAMED_IN_THE_PAPERS) - len(EMBEDDED)


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_tests_of_its_own_and_says_what_it_is(name):
    tests = (Path(__file__).parent / TESTED_IN.get(name, "loaders") / f"test_{name}.py").read_text()
    if name not in OWN | EMBEDDED:
        assert "test_the_real_files" in tests
    assert next(item for item in items("datasets") if item["name"] == name)["summary"]


@pytest.mark.parametrize(("name", "layout"), PUBLISHED)
def test_every_published_data_set_says_what_to_get_where_there_is_nothing(tmp_path, own_cache, name, layout):
    made = loader(name, layout)
    with pytest.raises(Absent) as absent:
        made.load(tmp_path, seed=0)
    assert str(tmp_path / made.source.folder) in str(absent.value)
    assert made.source.instruction in str(absent.value)


@pytest.mark.parametrize(("name", "layout"), PUBLISHED)
def test_every_source_can_be_followed(name, layout):
    source: Source = loader(name, layout).source
    assert "https://" in source.instruction or "http://" in source.instruction
    assert source.instruction.endswith(".")
    assert source.licence
    for download in source.downloads:
        assert download.url.startswith(("https://", "http://"))
        assert download.sha256 is None or len(download.sha256) == 64


# what data/README.md of the pack promises: name, layout, state, rows of all splits together
PROMISED = [
    ("fairface", None, "partial", 30_000),
    ("imagenet", "nips2017", "found", 1_000),
    ("imagenet_superclass", "tiny", "found", 10_200),
    ("amazon_polarity", "blitzer", "found", 8_000),
    ("sst2", None, "found", 67_349 + 872),
    ("movielens", None, "found", 100_000),
    ("squad", "xquad", "found", 1_190),
    ("squad", "routerlens", "found", 4_330),
    ("chest_xray", None, "found", 5_840),
    ("adult", None, "found", 32_561 + 16_281),
    ("wine", None, "found", 1_599 + 4_898),
    ("ag_news", "official", "found", 7_600),
    ("ag_news", "noisy", "found", 10_000),
    ("bone_age", None, "found", 12_611),
    ("covid_xray", None, "found", 527),
    ("dcbench", None, "found", 3),  # problems
]


@pytest.mark.parametrize(("name", "layout", "state", "n_rows"), PROMISED)
def test_check_counts_the_rows_of_the_real_files(data, name, layout, state, n_rows):
    recipe = read_recipe(name, {} if layout is None else {"layout": layout})
    root = data(recipe.source.folder)
    finding = look(recipe, root)
    assert (finding["state"], sum(finding["rows"].values())) == (state, n_rows)


def test_check_counts_the_samples_of_the_real_recording(data):
    assert "14,980 samples" in look(read_recipe("eeg", {}), data("eeg"))["note"]
