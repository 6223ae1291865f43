import pandas as pd
import pytest
import torch
from torch import nn

from experiments.contract import Dataset, ModelUnderAudit, Problem, Split
from methods.contract import InvalidInput, ModelOutputs


def split(**changed):
    ids = changed.get("example_ids", ("a", "b"))
    fields = {
        "example_ids": ids,
        "examples": ["x", "y"],
        "labels": torch.tensor([0, 1]),
        "attributes": pd.DataFrame(index=pd.Index(ids)),
    }
    return Split(**(fields | changed))


def dataset(**changed):
    fields = {
        "name": "toy",
        "modality": "text",
        "class_names": ("no", "yes"),
        "splits": {"test": split()},
        "fingerprint": "0",
    }
    return Dataset(**(fields | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"example_ids": ()}, "example_ids is empty"),
        ({"example_ids": ("b", "a")}, "strictly increasing"),
        ({"examples": ["x"]}, "examples has 1 rows, example_ids has 2"),
        ({"paths": ("x",)}, "paths has 1 rows"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels is float32, expected a int64 tensor"),
        ({"attributes": pd.DataFrame(index=["b", "a"])}, "attributes has another index"),
    ],
)
def test_a_bad_split_is_refused(changed, message):
    with pytest.raises(InvalidInput, match=message):
        split(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": ("one",)}, "class_names is .*at least two distinct"),
        ({"class_names": ("same", "same")}, "at least two distinct"),
        ({"splits": {}}, "splits are none"),
        ({"splits": {"dev": split()}}, "splits are dev, expected some of train, validation, test"),
        ({"splits": {"test": split(), "train": split()}}, "example 'a' is in the splits test and train"),
        ({"splits": {"test": split(labels=torch.tensor([0, 2]))}}, r"labels has 2 at row 1 \('b'\), expected 0 to 1"),
    ],
)
def test_a_bad_data_set_is_refused(changed, message):
    with pytest.raises(InvalidInput, match=message):
        dataset(**changed)


def test_a_missing_split_is_named_with_those_that_exist():
    with pytest.raises(InvalidInput, match="toy has no train split, expected one of test"):
        dataset().split("train")


def model(**changed):
    module = nn.Sequential()
    module.add_module("features", nn.Linear(2, 3))
    module.add_module("head", nn.Linear(3, 1))
    return ModelUnderAudit(module, lambda x: x, **({"embedding_layer": "features", "key": "0"} | changed))


def test_a_missing_layer_is_named_with_the_nearest():
    with pytest.raises(InvalidInput, match="no layer 'feature'; the nearest are features"):
        model(embedding_layer="feature")


def test_the_model_is_in_evaluation_mode():
    assert not model().module.training


def test_a_single_logit_becomes_two_columns():
    logits = model().logits(torch.ones(4, 2))
    assert logits.shape == (4, 2)
    assert (logits[:, 0] == 0).all()


def test_losses_are_the_cross_entropy_in_nats():
    losses = model().loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    assert losses.tolist() == pytest.approx([0.6931472])


def problem(true_slices):
    outputs = ModelOutputs.from_arrays("ab", embeddings=[[0], [1]], losses=[0, 1], correct=[1, 0])
    return Problem("p", "g", "rare", outputs, outputs, true_slices)


def test_a_problem_may_have_no_truth():
    assert problem(None).true_slices is None


@pytest.mark.parametrize(
    ("true_slices", "message"),
    [
        (torch.zeros(3, 1, dtype=torch.bool), "true_slices of p has 3 rows"),
        (torch.tensor([[True, False], [True, False]]), "true_slices of p: true slice 1 has no members"),
        (torch.ones(2, 1), "true_slices of p is float32"),
    ],
)
def test_bad_truth_is_refused(true_slices, message):
    with pytest.raises(InvalidInput, match=message):
        problem(true_slices)
