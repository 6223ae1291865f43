import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import methods.influence_gradients as influence_gradients
from methods.errors import InvalidInput
from methods.influence_gradients import LayerGradients


class Convolutional(nn.Module):
    """Strides, groups, padding, dilation, batch norm, group norm."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Conv2d(4, 4, 3, groups=2, padding=2, dilation=2, bias=False),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.Dropout(0.5),
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.body(x).mean(dim=(2, 3)))


class Textual(nn.Module):
    """An embedding, layer norm and attention; keyword arguments, an output with a field `logits`, two-way masks."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 4, padding_idx=0)
        self.norm = nn.LayerNorm(4)
        self.qkv = nn.Linear(4, 12)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.classifier = nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        if attention_mask.all():  # as transformers does: vmap cannot look at values
            attention_mask = None
        h = self.norm(self.words(input_ids))
        q, k, v = self.qkv(h)[:, None].chunk(3, dim=-1)
        bias = None if attention_mask is None else attention_mask[:, None, None].bool()
        h = self.scale * nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)[:, 0]
        return type("Output", (), {"logits": self.classifier(h.mean(dim=1))})


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.double()


def mlp():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def batch(kind, n=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    if kind is Textual:
        words = torch.randint(1, 11, (n, 5), generator=generator)
        return {"input_ids": words, "attention_mask": torch.arange(5) < 3 + labels[:, None]}, labels
    shape = (n, 5) if kind is mlp else (n, 2, 8, 8)
    return torch.randn(*shape, generator=generator, dtype=torch.float64), labels


KINDS = {mlp: ("0", "2"), Convolutional: ("body.0", "body.1", "body.3", "body.4", "fc"), Textual: ("",)}
SINGLE = [(kind, (layer,)) for kind, layers in KINDS.items() for layer in layers]
SINGLE += [(Textual, (layer,)) for layer in ("words", "norm", "qkv", "classifier")]


def made(kind, layers, **options):
    model = seeded(kind)
    return model, LayerGradients(model, layers, dtype=torch.float64, **options)


def loop(model, names, inputs, labels):
    """Gradients by plain autograd, example by example, in evaluation mode."""
    model.eval()
    parameters, rows = [dict(model.named_parameters())[name] for name in names], []
    for i, label in enumerate(labels):
        row = {k: v[i : i + 1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[i : i + 1]
        output = model(**row).logits if isinstance(row, dict) else model(row)
        found = torch.autograd.grad(cross_entropy(output, label[None]), parameters)
        rows.append(torch.cat([gradient.flatten() for gradient in found]))
    return torch.stack(rows)


@pytest.mark.parametrize(("kind", "layers"), [*SINGLE, *KINDS.items()])
def test_gradients_are_those_of_plain_autograd_for_each_example(kind, layers):
    model, gradients = made(kind, layers)
    inputs, labels = batch(kind)
    expected = loop(model, gradients.parameters, inputs, labels)
    torch.testing.assert_close(gradients.of_losses(inputs, labels), expected)
    directions = torch.randn(4, gradients.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(gradients.project_losses(directions, inputs, labels), expected @ directions.T)


@pytest.mark.parametrize(("kind", "layers"), KINDS.items())
def test_gradients_of_logits_make_those_of_losses_under_any_label(kind, layers):
    _, gradients = made(kind, layers)
    inputs, _ = batch(kind)
    directions = torch.randn(4, gradients.n_parameters, dtype=torch.float64)
    by_logit = gradients.project_logits(directions, inputs)
    p = gradients.logits(inputs).softmax(1)
    for label in range(3):
        r = p - nn.functional.one_hot(torch.full((7,), label), 3)
        expected = gradients.project_losses(directions, inputs, torch.full((7,), label))
        torch.testing.assert_close(torch.einsum("nc,ncd->nd", r, by_logit), expected)


@pytest.mark.parametrize(("kind", "layers"), [*SINGLE, *KINDS.items()])
def test_hessian_products_are_those_of_plain_autograd(kind, layers):
    model, gradients = made(kind, layers)
    batches = [batch(kind, n, seed) for n, seed in ((4, 0), (3, 1))]
    vector = torch.randn(gradients.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    model.eval()

    def loss(flat):
        parameters = {**dict(model.named_parameters()), **gradients.split(flat)}
        total = 0
        for inputs, labels in batches:
            given = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
            output = torch.func.functional_call(model, parameters, *given)
            total = total + cross_entropy(getattr(output, "logits", output), labels, reduction="sum")
        return total

    flat = torch.cat([part.detach().flatten() for part in gradients.parameters.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.autograd.functional.hvp(loss, flat, vector)[1]
    torch.testing.assert_close(gradients.hessian_product(lambda: batches)(vector), expected)


@pytest.mark.parametrize("scale", [1, 30, 3000])
def test_confident_examples_keep_their_derivatives_in_float32_and_extreme_logits_give_no_nan(scale):
    model = seeded(lambda: nn.Linear(5, 3, bias=False))
    model.weight.data *= scale
    inputs, _ = batch(mlp)
    logits = model(inputs).detach()
    for labels, lost in ((logits.argmax(1), 1e-36), (logits.argmin(1), 1e-9)):
        exact, rough = (LayerGradients(model, ("",), dtype=dtype) for dtype in (torch.float64, torch.float32))
        expected = exact.of_losses(inputs, labels)
        found = rough.of_losses(inputs, labels).double()
        assert ((found - expected).norm(dim=1) <= 1e-3 * expected.norm(dim=1) + 1e-36).all()
        vector = torch.ones(15, dtype=torch.float64).cumsum(0)
        expected = exact.hessian_product(lambda labels=labels: [(inputs, labels)])(vector)
        found = rough.hessian_product(lambda labels=labels: [(inputs, labels)])(vector.float()).double()
        assert (found - expected).norm() <= 1e-3 * expected.norm() + lost


def test_blocks_of_rows_change_nothing(monkeypatch):
    _, gradients = made(Convolutional, ("fc", "body.0"))
    inputs, labels = batch(Convolutional)
    directions = torch.randn(4, gradients.n_parameters, dtype=torch.float64)
    losses, logits = gradients.project_losses(directions, inputs, labels), gradients.project_logits(directions, inputs)
    monkeypatch.setattr(influence_gradients, "BLOCK_ROWS", 3)
    torch.testing.assert_close(gradients.project_losses(directions, inputs, labels), losses)
    monkeypatch.setattr(influence_gradients, "BLOCK_BYTES", 1)
    torch.testing.assert_close(gradients.project_logits(directions, inputs), logits)


def test_the_model_is_left_as_it_was():
    model, gradients = made(Convolutional, ("body",))
    model.train()
    model.body[3].eval()
    model.fc.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    state = {name: values.clone() for name, values in model.state_dict().items()}
    inputs, labels = batch(Convolutional)
    vector = torch.ones(gradients.n_parameters, dtype=torch.float64)
    gradients.hessian_product(lambda: [(inputs, labels)])(vector)
    gradients.project_losses(vector[None], inputs, labels)
    gradients.project_logits(vector[None], inputs)
    assert [module.training for module in model.modules()] == modes
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["fc.weight"]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(values, state[name]) for name, values in model.state_dict().items())


def test_frozen_parameters_count_where_their_layer_is_chosen():
    model, gradients = made(mlp, ("2",))
    inputs, labels = batch(mlp)
    expected = gradients.of_losses(inputs, labels)
    model.requires_grad_(False)
    assert torch.equal(LayerGradients(model, ("2",), dtype=torch.float64).of_losses(inputs, labels), expected)


def test_a_parameter_shared_by_two_layers_counts_once():
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)))
    model[2].weight = model[0].weight
    inputs, labels = batch(mlp)
    by_second = LayerGradients(model, ("2",), dtype=torch.float64)
    assert list(by_second.parameters) == ["0.weight", "2.bias"]
    assert LayerGradients(model, ("0", "2"), dtype=torch.float64).n_parameters == 15
    expected = loop(model, by_second.parameters, inputs[:, :3], labels)
    torch.testing.assert_close(by_second.of_losses(inputs[:, :3], labels), expected)


def test_layers_within_layers_count_once():
    _, gradients = made(Convolutional, ("body", "body.0", "body.0"))
    assert gradients.n_parameters == sum(p.numel() for p in gradients.module.body.parameters())


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_a_single_logit_is_one_of_two_columns(shape):
    model = seeded(lambda: nn.Linear(5, 1))
    inputs, labels = batch(mlp)
    labels = labels % 2
    gradients = LayerGradients(model, ("",), lambda output: output.reshape(shape), dtype=torch.float64)
    error = torch.sigmoid(model(inputs)).detach() - labels[:, None]
    torch.testing.assert_close(gradients.of_losses(inputs, labels), torch.cat([error * inputs, error], dim=1))


def test_half_precision_models_are_computed_in_float32():
    model, inputs = seeded(mlp).bfloat16(), batch(mlp)[0]
    gradients = LayerGradients(model, ("2",)).of_losses(inputs, batch(mlp)[1])
    assert gradients.dtype == torch.float32
    assert next(model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("layer2",), r"no layer called 'layer2'; the nearest are layer1, layer10"),
        (("head",), r"no layer called 'head'; the nearest are layer1, layer10"),
        (("act",), r"the layer 'act' has no parameters \(ReLU\)"),
        ((), "layers is empty, expected names like layer1, layer10"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(layers, message):
    model = nn.Sequential()
    for name, layer in (("layer1", nn.Linear(2, 2)), ("act", nn.ReLU()), ("layer10", nn.Linear(2, 2))):
        model.add_module(name, layer)
    with pytest.raises(InvalidInput, match=message):
        LayerGradients(model, layers)


def test_batches_that_cannot_be_started_anew_are_refused():
    _, gradients = made(mlp, ("2",))
    once = iter([batch(mlp)])
    product = gradients.hessian_product(lambda: once)
    vector = torch.ones(gradients.n_parameters, dtype=torch.float64)
    product(vector)
    with pytest.raises(InvalidInput, match="batches\\(\\) gave no rows"):
        product(vector)
    with pytest.raises(InvalidInput, match=r"labels has shape \(6,\), expected \(7,\)"):
        gradients.of_losses(batch(mlp)[0], batch(mlp)[1][:6])


def test_errors_of_the_model_itself_are_not_hidden():
    _, gradients = made(mlp, ("2",))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradients.of_losses(torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.long))
