"""Outputs of layers as they were when the layer gave them."""

import pandas as pd
import pytest
import torch
from torch import nn

from experiments.contract import ModelUnderAudit, Split
from experiments.inference import forward
from experiments.layers import Layer
from experiments.settings import Compute
from methods.contract import InvalidInput


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.relu = nn.Linear(3, 4), nn.ReLU(inplace=True)
        self.memory, self.unused = nn.LSTM(4, 2, batch_first=True), nn.Linear(1, 1)
        self.last = nn.Linear(2, 2)

    def forward(self, batch):
        states, _ = self.memory(self.relu(self.hidden(batch))[:, None])
        return self.last(input=states[:, 0]) if self.last.bias is None else self.last(states[:, 0])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ModelUnderAudit(Network(), lambda example: example, embedding_layer="hidden")


@pytest.fixture
def split():
    ids = tuple("abcde")
    attributes = pd.DataFrame(index=pd.Index(ids, name="id"))
    return Split(ids, torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), None, attributes)


def test_what_follows_in_place_does_not_change_what_is_kept(model, split):
    layers = (Layer("hidden"), Layer("relu.input"), Layer("relu"))
    rows = forward(model, split, layers, Compute(batch_size=2))
    expected = model.module.hidden(split.examples).detach()
    assert expected.min() < 0
    torch.testing.assert_close(torch.from_numpy(rows[layers[0]]), expected)
    torch.testing.assert_close(torch.from_numpy(rows[layers[1]]), expected)
    torch.testing.assert_close(torch.from_numpy(rows[layers[2]]), expected.relu())


def test_of_several_outputs_the_first_is_kept(model, split):
    (rows,) = forward(model, split, [Layer("memory")], Compute()).values()
    assert rows.shape == (5, 2)


def test_a_layer_that_is_never_asked_is_refused_by_name(model, split):
    with pytest.raises(InvalidInput, match="the layer 'unused' takes no part"):
        forward(model, split, [Layer("unused")], Compute())


def test_what_goes_in_by_name_only_cannot_be_kept(model, split):
    model.module.last = nn.Linear(2, 2, bias=False)
    with pytest.raises(InvalidInput, match=r"the layer 'last.input' gives a tuple, expected a tensor"):
        forward(model, split, [Layer("last.input")], Compute())


def test_a_mistaken_layer_is_refused_in_a_run(slicebench, workspace):
    done = slicebench("run", "embedding=layer", "embedding.layer=hiden", "model.training.epochs=1")
    assert done.exit_code == 2
    assert "no layer 'hiden'; the nearest are hidden" in done.stderr
