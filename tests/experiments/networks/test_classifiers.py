from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from experiments.contract import Dataset, Split
from experiments.networks.classifiers import audited, class_logits, head_of
from experiments.networks.pixels import Pixels
from methods.contract import InvalidInput, Unsupported


def dataset(class_names=("cat", "dog"), **more):
    split = Split(("0",), [None], torch.zeros(1, dtype=torch.int64), pd.DataFrame(index=pd.Index(["0"])))
    return Dataset("toy", "image", class_names, {"test": split}, "toy", **more)


def test_superclass_probabilities_are_sums_renormalised():
    classes = ((3, 5), (999, 0, 7))
    outputs = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    logits = class_logits("net", 1000, dataset(imagenet_classes=classes))(outputs)
    sums = torch.stack([outputs.softmax(dim=1)[:, list(indices)].sum(dim=1) for indices in classes], dim=1)
    torch.testing.assert_close(logits.softmax(dim=1), sums / sums.sum(dim=1, keepdim=True))


def test_a_background_beside_imagenet_s_classes_is_passed_over():
    outputs = torch.randn(2, 1001)
    names = ["background", *(f"class {i}" for i in range(1000))]
    read = class_logits("net", 1001, dataset(imagenet_classes=((3,), (5,))), names)
    torch.testing.assert_close(read(outputs), outputs[:, [4, 6]])
    of_all = class_logits("net", 1001, dataset(tuple(f"{i}" for i in range(1000))), names)
    torch.testing.assert_close(of_all(outputs), outputs[:, 1:])


def test_only_classes_of_several_outputs_are_no_linear_map_of_the_hidden_layer():
    classes = [(0, 1), (2,)], [(0,), (2,)]
    models = [
        audited(
            "net",
            nn.Sequential(nn.Flatten(), nn.Linear(3, 1000)),
            Pixels(),
            replace(dataset(), modality="image", imagenet_classes=part),
        )
        for part in classes
    ]
    assert [model.grouped is not None for model in models] == [True, False]


@pytest.mark.parametrize("names", [(), ("LABEL_0", "LABEL_1"), ("cat", "dog")])
def test_as_many_outputs_as_classes_are_taken_as_they_come(names):
    outputs = torch.randn(2, 2)
    assert class_logits("net", 2, dataset(), names)(outputs) is outputs


def test_outputs_with_the_classes_names_are_put_into_their_order():
    outputs = torch.tensor([[1.0, 2.0, 3.0]])
    read = class_logits("net", 3, dataset(("a", "b", "c")), ("b", "a", "c"))
    assert read(outputs).tolist() == [[2.0, 1.0, 3.0]]


@pytest.mark.parametrize(
    ("n_outputs", "more"), [(5, {}), (1000, {}), (1001, {}), (5, {"imagenet_classes": ((0,), (1,))})]
)
def test_another_number_of_outputs_is_refused_with_both_counts(n_outputs, more):
    with pytest.raises(InvalidInput, match=f"net has {n_outputs} outputs, expected 2, the classes of toy"):
        class_logits("net", n_outputs, dataset(**more))


def test_a_model_of_superclasses_is_taken_as_one():
    outputs = torch.randn(2, 2)
    assert class_logits("net", 2, dataset(imagenet_classes=((0,), (1,))))(outputs) is outputs


def test_without_a_linear_map_the_last_convolution_is_the_head():
    assert head_of(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Flatten())) == ("2", 5)
    with pytest.raises(Unsupported, match="Sequential has no linear map at its end"):
        head_of(nn.Sequential(nn.ReLU()))
