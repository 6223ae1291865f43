"""To exist is to be tested: every config of conf/method goes through all of this."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_object

import conf
from methods.contract import InvalidInput, ModelOutputs

CONFIGS = {path.stem: path for path in sorted((Path(conf.__path__[0]) / "method").glob("*.yaml"))}
METHODS = [name for name in CONFIGS if name != "custom"]
SIZE = 50
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


def planted(kind, seed=0):
    """400 examples in eight blobs, four classes; SIZE of them fail: a blob of its own, or a cell of the confusion."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.arange(400) % 8
    centers = 6 * torch.randn(8, 5, generator=generator)
    embeddings = centers[blobs] + 0.5 * torch.randn(400, 5, generator=generator)
    labels = blobs % 4
    in_slice = blobs == 3
    predictions = labels.clone()
    if kind == "cell":
        in_slice = torch.zeros(400, dtype=torch.bool)
        in_slice[torch.nonzero(labels == 1).flatten()[:SIZE]] = True
    predictions[in_slice] = (labels[in_slice] + 1) % 4
    logits = 4.0 * torch.nn.functional.one_hot(predictions, 4) + 0.1 * torch.randn(400, 4, generator=generator)
    ids = [f"{i:03d}" for i in range(400)]
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, logits=logits), in_slice


def test_every_config_is_covered():
    assert METHODS
    assert set(METHODS) == set(LOOKS_FOR)


@pytest.mark.parametrize("name", METHODS)
def test_slices_fit_the_contract(name):
    outputs, _ = planted("blob")
    slices = made(name).fit(outputs).predict(outputs)
    assert slices.example_ids == outputs.example_ids
    assert slices.n_slices <= made(name).__dict__.get("n_slices", 1)
    assert (slices.membership[slices.members] > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_slices(name):
    outputs, _ = planted("blob")
    first, second = (made(name).fit(outputs).predict(outputs) for _ in range(2))
    assert torch.equal(first.membership, second.membership)
    assert torch.equal(first.members, second.members)


@pytest.mark.parametrize("name", METHODS)
def test_fitting_again_forgets_the_first_fit(name):
    other, _ = planted("cell", seed=1)
    outputs, _ = planted("blob")
    method = made(name)
    again = method.fit(other).fit(outputs).predict(outputs)
    assert torch.equal(again.membership, made(name).fit(outputs).predict(outputs).membership)


@pytest.mark.parametrize("name", METHODS)
def test_the_constructor_only_stores(name):
    method = made(name)
    assert not [attribute for attribute in vars(method) if attribute.endswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_other_examples_get_slices_too(name):
    outputs, _ = planted("blob")
    others, _ = planted("blob", seed=2)
    assert made(name).fit(outputs).predict(others).example_ids == others.example_ids


@pytest.mark.parametrize("name", [name for name in METHODS if LOOKS_FOR[name]])
def test_an_easy_slice_of_its_kind_is_found(name):
    outputs, in_slice = planted(LOOKS_FOR[name])
    slices = made(name).fit(outputs).predict(outputs)
    top = slices.membership[:, 0].topk(10).indices
    assert in_slice[top].float().mean() >= 0.8


@pytest.mark.parametrize(
    "name", [name for name in METHODS if "n_slices" in inspect.signature(made(name).__class__).parameters]
)
def test_no_slices_at_all_is_refused(name):
    outputs, _ = planted("blob")
    with pytest.raises(InvalidInput, match="n_slices is 0, expected at least 1"):
        made(name, n_slices=0).fit(outputs)
