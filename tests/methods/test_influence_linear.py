import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy, one_hot

import methods.influence_linear as influence_linear
from methods.errors import InvalidInput
from methods.influence import combine, residuals
from methods.influence_linear import LinearInfluence, softmax_hessian


@pytest.fixture(scope="module")
def digits():
    """Inputs (n, 128) of the last layer of a small digits model, its logits (n, 10) and the labels, in float64."""
    data = load_digits()
    x, labels = torch.tensor(data.data / 16, dtype=torch.float32)[:1200], torch.tensor(data.target)[:1200]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        adam.zero_grad()
        cross_entropy(model(x), labels).backward()
        adam.step()
    with torch.no_grad():
        hidden = model[1](model[0](x))
        return hidden.double(), model[2](hidden).double(), labels


def problem(n=60, d=4, c=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=generator, dtype=dtype)
    logits = torch.randn(n, c, generator=generator, dtype=dtype)
    labels = torch.randint(0, c, (n,), generator=generator)
    return features, logits, labels


def exact_hessian(features, logits, bias=True):
    """Sum of (diag p - p p^T) outer [h, 1] [h, 1]^T, in the order weight (c, d), bias (c,)."""
    (n, d), c, p = features.shape, logits.shape[1], logits.softmax(1)
    h = torch.cat([features, torch.ones(n, bias, dtype=features.dtype)], 1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]  # (n, c, c)
    hessian = torch.stack([torch.stack([h.T @ (curvature[:, a, b, None] * h) for b in range(c)]) for a in range(c)])
    order = torch.arange(c * (d + bias)).view(c, d + bias)
    order = torch.cat([order[:, :d].flatten(), order[:, d:].flatten()])
    return hessian.permute(0, 2, 1, 3).reshape(len(order), len(order))[order][:, order]


def gradients(features, logits, labels, bias=True):
    """(n, c d + c), by the outer product."""
    r = logits.softmax(1) - one_hot(labels, logits.shape[1])
    weight = (r[:, :, None] * features[:, None]).flatten(1)
    return torch.cat([weight, r], 1) if bias else weight


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_on_digits_the_influence_matrix_is_that_of_the_exact_hessian(digits):
    features, logits, labels = digits
    influence = LinearInfluence.fit(features, logits, krylov_dim=500, rank=100, dtype=torch.float64)
    mu = influence.embed(features, residuals(logits, labels))
    values, vectors = torch.linalg.eigh(exact_hessian(features, logits))
    projected = gradients(features, logits, labels) @ vectors[:, -100:]
    assert mu.shape == (1200, 100)
    assert relative(influence.factors.eigenvalues, values[-100:].flip(0)) < 1e-6
    assert relative(mu @ mu.T, (projected / values[-100:]) @ projected.T) < 1e-3
    assert influence.factors.trace == pytest.approx(values.sum().item(), rel=1e-9)
    assert influence.factors.captured == pytest.approx((values[-100:].sum() / values.sum()).item(), rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_explicit_hessian(bias):
    features, logits, _ = problem(n=1500)  # more than a block
    hessian = exact_hessian(features, logits, bias)
    vector = torch.randn(len(hessian), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(softmax_hessian(features, logits.softmax(1), bias)(vector), hessian @ vector)


def test_the_explicit_hessian_is_that_of_autograd():
    features, logits, labels = problem()
    weight = torch.linalg.lstsq(features, logits).solution.T  # (c, d)

    def loss(flat):
        return cross_entropy(features @ flat[:12].view(3, 4).T + flat[12:], labels, reduction="sum")

    flat = torch.cat([weight.flatten(), torch.zeros(3, dtype=torch.float64)])
    vector = torch.randn(15, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.functional.hvp(loss, flat, vector)[1]
    torch.testing.assert_close(softmax_hessian(features, (features @ weight.T).softmax(1))(vector), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_with_all_directions_influence_is_that_of_the_pseudo_inverse(bias):
    features, logits, labels = problem()
    influence = LinearInfluence.fit(features, logits, bias=bias, krylov_dim=15, rank=15, dtype=torch.float64)
    mu, g = influence.embed(features, residuals(logits, labels)), gradients(features, logits, labels, bias)
    expected = g @ torch.linalg.pinv(exact_hessian(features, logits, bias), hermitian=True) @ g.T
    torch.testing.assert_close(mu @ mu.T, expected)


@pytest.mark.parametrize("bias", [True, False])
def test_the_table_gives_what_recomputing_after_relabelling_gives(bias):
    features, logits, labels = problem(c=4)
    influence = LinearInfluence.fit(features, logits, bias=bias, krylov_dim=16, rank=8, dtype=torch.float64)
    table = influence.table(features)
    assert table.shape == (60, 4, 8)
    for shift in range(4):
        r = residuals(logits, (labels + shift) % 4)
        torch.testing.assert_close(combine(table, r), influence.embed(features, r))


def test_flipping_the_label_of_a_confident_binary_example_turns_its_vector_round():
    features, logits, labels = problem(c=2)
    influence = LinearInfluence.fit(features, 12 * logits, krylov_dim=10, rank=4, dtype=torch.float32)
    features, logits = features.float(), 12 * logits.float()
    before, after = (influence.embed(features, residuals(logits, y)) for y in (labels, 1 - labels))
    torch.testing.assert_close(torch.cosine_similarity(before, after, eps=1e-30), -torch.ones(60), atol=1e-5, rtol=0)


def test_a_confident_example_keeps_its_gradient_in_float32():
    logits = torch.tensor([[30.0, 0.0, 1.0]])
    exact = logits.double().softmax(1) - one_hot(torch.tensor([0]), 3)
    r = residuals(logits, torch.tensor([0]))
    torch.testing.assert_close(r.double(), exact, rtol=1e-2, atol=0)
    assert r[0, 0] != 0


def test_the_hessian_of_confident_examples_keeps_its_sign_in_float32():
    features, logits, _ = problem(n=300, d=8, c=10)
    confident = 3 * logits.softmax(1) + 18 * one_hot(logits.argmax(1), 10)  # p(1 - p) is below 1e-6
    exact = torch.linalg.eigvalsh(exact_hessian(features, confident))
    influence = LinearInfluence.fit(features.float(), confident.float(), krylov_dim=90, rank=10)
    torch.testing.assert_close(influence.factors.eigenvalues, exact.flip(0)[:10], rtol=1e-3, atol=0)
    assert influence.factors.ritz_values.min() > -1e-5 * exact.max()
    assert influence.factors.trace == pytest.approx(exact.sum().item(), rel=1e-4)


def test_gradient_products_of_a_linear_model_are_products_of_margins_and_of_inputs():
    features, logits, labels = problem()
    margin = one_hot(labels, 3) - logits.softmax(1)
    weight = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    shift = logits - features @ weight.detach().T  # so that these are the model's logits
    losses = cross_entropy(features @ weight.T + shift, labels, reduction="none")
    g = torch.stack([torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten() for loss in losses])
    torch.testing.assert_close(g @ g.T, (margin @ margin.T) * (features @ features.T))  # equation 11
    torch.testing.assert_close(gradients(features, logits, labels, bias=False), g)


def test_lemma_1_bounds_explanations_made_of_explicit_inverse_hessian_products(digits):
    features, logits, labels = (part[:400] for part in digits)
    influence = LinearInfluence.fit(features, logits, krylov_dim=300, rank=60, dtype=torch.float64)
    mu, g = influence.embed(features, residuals(logits, labels)), gradients(features, logits, labels)
    values, vectors = (part[..., -60:] for part in torch.linalg.eigh(exact_hessian(features, logits)))
    inverse = (vectors / values) @ vectors.T  # equation 7
    train, test = slice(0, 300), slice(300, 400)
    explanations = g[test] @ inverse @ g[train].T  # (100, 300): equation 3
    bound = mu[train].square().sum().sqrt()
    exactly = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    ours, theirs = (torch.cdist(values, values, **exactly) for values in (mu[test], explanations))
    assert (theirs <= 1.0001 * bound * ours).all()
    assert theirs.max() > 0.05 * (bound * ours).max()  # not a bound by accident


def test_leaving_an_example_out_and_retraining_changes_losses_as_influence_says():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] + 1.5 * torch.randn(60, generator=generator, dtype=torch.float64) > 0).long()
    train, test = slice(0, 40), slice(40, 60)

    def trained(keep):
        """The minimum of the summed cross-entropy, by Newton's method: weight (2, 3) and bias (2,)."""
        theta = torch.zeros(8, dtype=torch.float64)
        for _ in range(15):
            logits = features[keep] @ theta[:6].view(2, 3).T + theta[6:]
            g = gradients(features[keep], logits, labels[keep]).sum(0)
            theta = theta - torch.linalg.pinv(exact_hessian(features[keep], logits), hermitian=True) @ g
        return features @ theta[:6].view(2, 3).T + theta[6:]

    everyone = torch.arange(40)
    logits = trained(everyone)
    influence = LinearInfluence.fit(features[train], logits[train], krylov_dim=8, rank=4, dtype=torch.float64)
    mu = influence.embed(features, residuals(logits, labels))
    predicted = mu[train] @ mu[test].T  # (40, 20)
    before = cross_entropy(logits, labels, reduction="none")
    changes = [
        cross_entropy(trained(everyone[everyone != i]), labels, reduction="none")[test] - before[test]
        for i in range(40)
    ]
    ranks = [values.flatten().argsort().argsort().double() for values in (predicted, torch.stack(changes))]
    assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.9


def test_many_classes_are_projected_in_float32_or_with_small_residuals_in_bfloat16(monkeypatch):
    features, logits, labels = problem(n=200, d=16, c=100, dtype=torch.float32)
    influence = LinearInfluence.fit(features, 3 * logits, krylov_dim=40, rank=20)
    r = residuals(3 * logits, labels)
    expected = combine(influence.table(features), r)
    for mixed, error in ((True, 1e-3), (False, 1e-5)):
        monkeypatch.setattr(LinearInfluence, "_is_worth_mixing", lambda self, weight, mixed=mixed: mixed)
        assert relative(influence.embed(features, r), expected) < error
    monkeypatch.setattr(influence_linear, "ROWS", 64)
    monkeypatch.setattr(influence_linear, "LIGHT_ROWS", 128)
    assert relative(influence.embed(features, r), expected) < 1e-5


def test_mixing_is_for_many_classes_in_float32_on_a_processor_that_can():
    features, logits, _ = problem(c=3)
    influence = LinearInfluence.fit(features, logits, krylov_dim=15, rank=5)
    assert not influence._is_worth_mixing(influence.factors.directions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(60, 1)}, "logits has 1 column"),
        ({"logits": torch.zeros(59, 3)}, "logits has 59 rows, features has 60"),
        ({"features": torch.zeros(60)}, r"features has shape \(60,\)"),
        ({"rank": 600}, "rank is 600, expected at most krylov_dim, 500"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    features, logits, _ = problem()
    with pytest.raises(InvalidInput, match=message):
        LinearInfluence.fit(**{"features": features, "logits": logits} | change)


def test_what_does_not_belong_to_the_hessian_is_refused():
    features, logits, labels = problem()
    influence = LinearInfluence.fit(features, logits, krylov_dim=15, rank=5)
    r = residuals(logits, labels)
    with pytest.raises(InvalidInput, match="have 3 and 3 columns, expected 4 and 3"):
        influence.embed(features[:, :3], r)
    with pytest.raises(InvalidInput, match=r"expected \(rows, 4\)"):
        influence.table(features[:, :3])
    with pytest.raises(InvalidInput, match=r"residuals has shape \(60, 2\), expected \(60, 3\)"):
        combine(influence.table(features), r[:, :2])
    with pytest.raises(InvalidInput, match=r"labels has shape \(59,\)"):
        residuals(logits, labels[:59])
