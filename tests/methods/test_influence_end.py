import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from methods.influence import ModuleInfluence
from methods.influence_end import cut
from methods.influence_gradients import LayerGradients


class Network(nn.Module):
    """Two convolutions and a head, with pooling between modules, as torchvision's have it."""

    def __init__(self, skip=False, tied=False, asks_inputs=False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.act, self.fc = nn.ReLU(), nn.Linear(4, 3)
        self.skip, self.asks_inputs = skip, asks_inputs
        if tied:
            self.body[1].weight, self.stem[0] = nn.Parameter(torch.randn(4, 4, 3, 3) / 6), nn.Conv2d(4, 4, 3)
            self.stem[0].weight = self.body[1].weight
        self.tied = tied

    def forward(self, x):
        stem = self.act(self.stem(torch.cat([x, x[:, :1]], 1) if self.tied else x)) - 0.1
        hidden = self.body(stem)
        if self.skip:
            hidden = hidden + stem.mean()
        if self.asks_inputs:
            hidden = hidden * x.mean(dim=(1, 2, 3), keepdim=True)
        return self.fc(self.act(relu(hidden).mean(dim=(2, 3))))


def made(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs, labels = Network(**options).eval(), torch.randn(20, 3, 8, 8), torch.randint(0, 3, (20,))
    return model, lambda: zip(inputs.split(8), labels.split(8), strict=True)


@pytest.mark.parametrize("layers", [["fc"], ["fc", "body"], ["body.1"], ["stem.0", "fc"], [""]])
def test_products_with_the_end_are_products_with_the_whole(layers):
    model, batches = made()
    end = cut(model, layers, batches)
    whole, alone = LayerGradients(model, tuple(layers)), LayerGradients(end.module, end.layers)
    vector = torch.randn(whole.n_parameters, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        alone.hessian_product(end.batches)(vector), whole.hessian_product(batches)(vector), rtol=1e-5, atol=1e-6
    )
    assert [name.removeprefix("module.") for name in alone.parameters] == list(whole.parameters)


def test_what_comes_before_runs_once_however_many_products_there_are():
    model, batches = made()
    calls = []
    model.stem[0].register_forward_hook(lambda *_: calls.append(1))
    end = cut(model, ["body"], batches)
    before = len(calls)
    ModuleInfluence.fit(end.module, end.layers, end.batches, krylov_dim=10, rank=5)
    assert len(calls) == before
    model(torch.zeros(1, 3, 8, 8))
    assert len(calls) == before + 1  # and the model is as it was


def test_a_layer_that_changes_its_input_in_place_finds_it_unchanged_the_next_time():
    model, batches = made()
    end = cut(model, ["body"], batches)
    before = [entering.clone() for entering, _ in end.batches()]
    LayerGradients(end.module, end.layers).hessian_product(end.batches)(torch.ones(148))
    assert all(torch.equal(a, b) for a, (b, _) in zip(before, end.batches(), strict=True))


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"skip": True}, ["body.1"]),  # logits depend on what comes before in another way, too
        ({"asks_inputs": True}, ["body"]),
        ({"tied": True}, ["body"]),  # a chosen parameter is used before
    ],
)
def test_a_model_that_cannot_be_cut_there_is_left_whole(options, layers):
    model, batches = made(**options)
    assert cut(model, layers, batches) is None


def test_inputs_that_do_not_fit_are_not_kept():
    model, batches = made()
    asked = []
    assert cut(model, ["body"], batches, fits=lambda each: asked.append(each)) is None
    assert asked == [4 * 6 * 6 * 4]


def test_a_model_that_takes_several_tensors_is_left_whole():
    model, batches = made()
    assert cut(model, ["fc"], lambda: [({"x": inputs}, labels) for inputs, labels in batches()]) is None


def test_logits_that_depend_on_the_input_after_the_layer_s_own_input_count_too():
    """The input of the last layer holds all that comes before, whatever that depended on."""
    model, batches = made(asks_inputs=True)
    assert cut(model, ["fc"], batches) is not None
