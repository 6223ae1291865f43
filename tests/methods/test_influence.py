import resource
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from methods.errors import InvalidInput
from methods.influence import ModuleInfluence, combine, residuals
from methods.influence_linear import LinearInfluence
from methods.opponents import opponents

LARGE = """
import resource, torch
from torch import nn
from methods.influence import ModuleInfluence
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(400, 1000), nn.Tanh(), nn.Linear(1000, 100))
inputs, labels = torch.randn(2_500, 400), torch.randint(0, 100, (2_500,))
few = lambda: [(inputs[:50], labels[:50])]
influence = ModuleInfluence.fit(model, ["0", "2"], few, krylov_dim=40, rank=20, probes=0)
embeddings = influence.embed(inputs, labels)
print(influence.gradients.n_parameters, *embeddings.shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def trained(dtype=torch.float64, n=120, d=5, c=3):
    """A small model after some training, its inputs and labels, and the inputs and logits of its last layer."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, d, generator=generator, dtype=dtype)
    labels = (inputs[:, 0] + torch.randn(n, generator=generator, dtype=dtype)).gt(0).long() + (inputs[:, 1] > 1).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(d, 6), nn.Tanh(), nn.Linear(6, c)).to(dtype)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        adam.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        adam.step()
    adam.zero_grad()
    with torch.no_grad():
        return model, inputs, labels, model[1](model[0](inputs)), model(inputs)


def batches_of(inputs, labels, size=50):
    return lambda: zip(inputs.split(size), labels.split(size), strict=True)


def test_over_the_last_layer_it_is_the_closed_form():
    model, inputs, labels, hidden, logits = trained()
    options = {"krylov_dim": 21, "rank": 10, "dtype": torch.float64}
    by_module = ModuleInfluence.fit(model, ["2"], batches_of(inputs, labels), **options)
    by_formula = LinearInfluence.fit(hidden, logits, **options)
    torch.testing.assert_close(by_module.factors.eigenvalues, by_formula.factors.eigenvalues)
    torch.testing.assert_close(by_module.factors.trace, by_formula.factors.trace)
    ours, theirs = by_module.embed(inputs, labels), by_formula.embed(hidden, residuals(logits, labels))
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T)


def test_influence_is_that_of_the_explicit_hessian_with_its_negative_eigenvalues_dropped():
    model, inputs, labels, *_ = trained(n=40)
    influence = ModuleInfluence.fit(
        model, [""], batches_of(inputs, labels), krylov_dim=57, rank=25, dtype=torch.float64, tolerance=1e-4
    )
    names, start = [name for name, _ in model.named_parameters()], [p.detach() for p in model.parameters()]
    sizes = [p.numel() for p in start]

    def losses(flat):
        pieces = [piece.view(p.shape) for piece, p in zip(flat.split(sizes), start, strict=True)]
        output = torch.func.functional_call(model, dict(zip(names, pieces, strict=True)), (inputs,))
        return cross_entropy(output, labels, reduction="none")

    flat = torch.cat([p.flatten() for p in start])
    hessian = torch.autograd.functional.hessian(lambda theta: losses(theta).sum(), flat)
    gradients = torch.autograd.functional.jacobian(losses, flat)
    values, vectors = torch.linalg.eigh(hessian)
    assert values[0] < -1e-4 * values[-1]  # so that there is something to drop
    kept = (values > 1e-4 * values[-1]).nonzero().flatten()[-25:]
    projected = gradients @ vectors[:, kept]
    mu = influence.embed(inputs, labels)
    assert mu.shape == (40, len(kept))
    torch.testing.assert_close(mu @ mu.T, (projected / values[kept]) @ projected.T, rtol=1e-6, atol=1e-8)
    assert any("Ritz values are negative" in note for note in influence.factors.notes)


def test_the_table_gives_what_recomputing_after_relabelling_gives():
    model, inputs, labels, _, logits = trained()
    influence = ModuleInfluence.fit(model, ["0", "2"], batches_of(inputs, labels), krylov_dim=40, rank=12)
    table = influence.table(inputs)
    assert table.shape == (120, 3, 12)
    for shift in range(3):
        other = (labels + shift) % 3
        torch.testing.assert_close(combine(table, residuals(logits, other)), influence.embed(inputs, other))


def test_batches_change_nothing_but_memory():
    model, inputs, labels, *_ = trained()
    fits = [
        ModuleInfluence.fit(model, ["0"], batches_of(inputs, labels, size), krylov_dim=36, rank=8, dtype=torch.float64)
        for size in (120, 7)
    ]
    torch.testing.assert_close(fits[0].factors.eigenvalues, fits[1].factors.eigenvalues)
    matrices = [mu @ mu.T for mu in (fit.embed(inputs, labels) for fit in fits)]
    torch.testing.assert_close(*matrices)


@pytest.mark.filterwarnings("ignore")
def test_captum_agrees_where_it_has_converged(tmp_path):
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    model, inputs, labels, *_ = trained()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    oracle = ArnoldiInfluenceFunction(
        model,
        TensorDataset(inputs, labels),
        str(tmp_path / "model.pt"),
        layers=["2"],
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        batch_size=120,
        arnoldi_dim=21,  # all of the 21 parameters
        arnoldi_tol=1e-9,
        projection_dim=6,
        hessian_reg=0.0,
        hessian_inverse_tol=1e-9,
    )
    expected = oracle.influence((inputs[:30], labels[:30]))  # (30, 120)
    influence = ModuleInfluence.fit(
        model, ["2"], batches_of(inputs, labels), krylov_dim=21, rank=6, dtype=torch.float64
    )
    mu = influence.embed(inputs, labels)
    torch.testing.assert_close(mu[:30] @ mu.T, expected.double(), rtol=1e-3, atol=1e-5)


def test_seeds_repeat_and_neither_the_global_generator_nor_requires_grad_changes():
    model, inputs, labels, *_ = trained()
    model[0].weight.requires_grad_(False)
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    first, second = (
        ModuleInfluence.fit(model, ["0"], batches_of(inputs, labels), krylov_dim=20, rank=8, seed=3).embed(
            inputs, labels
        )
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(values, state[name]) for name, values in model.state_dict().items())


def test_the_opponents_of_a_mislearned_example_are_those_that_were_mislabelled():
    model, inputs, labels, *_ = trained()
    wrong = labels.clone()
    confident = model(inputs).softmax(1).max(1).values.argsort(descending=True)[:3]
    wrong[confident] = (labels[confident] + 1) % 3
    influence = ModuleInfluence.fit(model, ["2"], batches_of(inputs, wrong), krylov_dim=21, rank=10)
    members = influence.embed(inputs[confident], labels[confident])
    found = opponents(influence.embed(inputs, wrong), [str(i) for i in range(120)], members, k=3)
    assert {int(entry.example_id) for entry in found[:3]} == set(confident.tolist())


def test_the_memory_limit_holds_for_both():
    model, inputs, labels, hidden, logits = trained()
    with pytest.raises(InvalidInput, match="20 basis vectors x 21 parameters x 4 bytes"):
        ModuleInfluence.fit(model, ["2"], batches_of(inputs, labels), krylov_dim=20, rank=5, max_bytes=1000)
    with pytest.raises(InvalidInput, match="20 basis vectors x 21 parameters x 4 bytes"):
        LinearInfluence.fit(hidden, logits, krylov_dim=20, rank=5, max_bytes=1000)


def test_factors_of_other_layers_are_refused():
    model, inputs, labels, *_ = trained()
    influence = ModuleInfluence.fit(model, ["2"], batches_of(inputs, labels), krylov_dim=20, rank=5)
    other = type(influence.gradients)(model, ("0",))
    with pytest.raises(InvalidInput, match="the factors are over 21 parameters, the chosen layers have 36"):
        ModuleInfluence(other, influence.factors)


def test_gradients_that_would_take_five_gigabytes_stay_below_two():
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if limited:
        pytest.skip("the address space is limited here")
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    n_parameters, n_rows, rank, peak = (int(number) for number in done.stdout.split())
    assert (n_parameters, n_rows, rank) == (501_100, 2_500, 20)
    assert peak < 2e9
