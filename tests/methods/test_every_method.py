"""To exist is to be tested: every config of conf/method goes through all of this."""

import inspect
from functools import cache, partial
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

import conf
from methods.checks import CHECKS, SIZE, Trial, planted, precision_at_10
from methods.contract import InvalidInput

CONFIGS = {path.stem: path for path in sorted((Path(conf.__path__[0]) / "method").glob("*.yaml"))}
METHODS = [name for name in CONFIGS if name != "custom"]
# what a data set's config says, made fit for the planted data
NUMBERS = {"${dataset.slice_size}": SIZE, "${dataset.n_components}": 16}
# the kind of slice that a method looks for; None: it looks for none
LOOKS_FOR = {
    **dict.fromkeys(
        ["highest_loss", "gmm", "spotlight", "kmeans", "infembed", "infembed_rule", "ball", "ridge"], "blob"
    ),
    **dict.fromkeys(["domino", "george", "planespot"], "blob"),
    "confusion": "cell",
    "random": None,
}
# UMAP takes seconds: the tests of the methods themselves have it
QUICKER = {"george": {"reduce": "pca"}, "planespot": {"reduce": "pca"}}


def made(name, **changed):
    values = yaml.safe_load(CONFIGS[name].read_text())
    target = get_object(values.pop("_target_"))
    values = {key: NUMBERS.get(value, value) if isinstance(value, str) else value for key, value in values.items()}
    values = {key: value for key, value in values.items() if key not in ("defaults", "only_with", "otherwise")}
    if "seed" in inspect.signature(target).parameters:
        values["seed"] = 0
    return target(**(values | QUICKER.get(name, {}) | changed))


@cache
def trial(name):
    """One for all checks of a method, which fit it no more often than they must."""
    return Trial(partial(made, name))


def test_every_config_is_covered():
    assert METHODS
    assert CHECKS
    assert set(METHODS) == set(LOOKS_FOR)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_contract(name, check):
    CHECKS[check](trial(name))


@pytest.mark.parametrize("name", [name for name in METHODS if LOOKS_FOR[name]])
def test_an_easy_slice_of_its_kind_is_found(name):
    assert precision_at_10(trial(name), LOOKS_FOR[name]) >= 0.8


@pytest.mark.parametrize(
    "name", [name for name in METHODS if "n_slices" in inspect.signature(made(name).__class__).parameters]
)
def test_no_slices_at_all_is_refused(name):
    outputs, _ = planted("blob")
    with pytest.raises(InvalidInput, match="n_slices is 0, expected at least 1"):
        made(name, n_slices=0).fit(outputs)
