from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from methods import domino_mixture, domino_start
from methods.domino_mixture import Examples, Mixture, Statistics, fitted
from methods.domino_start import Projection, from_confusion

K = 6


def examples(n=700, seed=0, offset=0.0, n_classes=3, sureness=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator) * torch.tensor([3.0, 1.0, 1.0, 0.1]) + offset
    labels = torch.randint(n_classes, (n,), generator=generator)
    logits = sureness * torch.randn(n, n_classes, generator=generator)
    return Examples(x, x.double().mean(dim=0).float().double(), labels, logits, torch.rand(n, generator=generator))


def start(given, weight=0.0, seed=0):
    """A mixture from random responsibilities."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(given.n_examples, K, generator=generator, dtype=torch.float64) ** 4
    weights /= weights.sum(dim=1, keepdim=True)
    statistics = Statistics.of(given, lambda block: (weights[block.rows], block.losses))
    return Mixture.of(statistics, reg_covar=1e-6, label_weight=weight, prediction_weight=weight)


def sklearn_from(mixture, given, **options):
    model = GaussianMixture(
        K,
        covariance_type="diag",
        weights_init=mixture.weights.numpy(),
        means_init=(mixture.means + given.shift).numpy(),
        precisions_init=(1 / mixture.variances).numpy(),
        **options,
    )
    return model.fit(given.coordinates.double().numpy())


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_without_weights_it_is_scikit_learn_s_diagonal_mixture(offset):
    given = examples(offset=offset)
    first = start(given)
    theirs = sklearn_from(first, given, max_iter=100, tol=1e-3)
    ours = fitted(given, first, max_iter=100, tol=1e-3, reg_covar=1e-6)
    assert len(ours.log_likelihoods) == theirs.n_iter_
    np.testing.assert_allclose(ours.log_likelihoods[-1], theirs.lower_bound_, rtol=1e-6)
    np.testing.assert_allclose(ours.mixture.variances, theirs.covariances_, rtol=1e-6)
    x = given.coordinates.double().numpy()
    np.testing.assert_allclose(ours.mixture.posteriors(given, list(range(K))), theirs.predict_proba(x), atol=1e-6)
    final = Statistics.of(given, ours.mixture.responsibilities).log_likelihood / given.n_examples
    np.testing.assert_allclose(final, theirs.score(x), rtol=1e-6)


@pytest.mark.parametrize("n_steps", [1, 7])
def test_every_step_is_scikit_learn_s(n_steps):
    given = examples()
    with pytest.warns(ConvergenceWarning):
        theirs = sklearn_from(start(given), given, max_iter=n_steps, tol=0)
    ours = fitted(given, start(given), max_iter=n_steps, tol=0, reg_covar=1e-6)
    assert not ours.converged
    np.testing.assert_allclose(ours.log_likelihoods[-1], theirs.lower_bound_, rtol=1e-9)
    np.testing.assert_allclose(ours.mixture.means + given.shift, theirs.means_, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sureness", [0.3, 3.0])
@pytest.mark.parametrize("weight", [1.0, 10.0, 100.0])
def test_soft_predictions_do_not_lower_the_likelihood(seed, sureness, weight):
    given = examples(seed=seed, sureness=sureness)
    history = fitted(given, start(given, weight, seed), max_iter=100, tol=0, reg_covar=1e-6).log_likelihoods
    assert (np.diff(history) >= 0).all()


def test_the_likelihood_is_the_formula_s():
    given = examples(50)
    mixture = start(given, weight=10.0)
    normal = torch.distributions.Normal(mixture.means, mixture.variances.sqrt())
    x = given.coordinates.double() - given.shift
    soft = given.logits.double().softmax(dim=1)  # (n, c)
    density = mixture.weights.log() + normal.log_prob(x[:, None]).sum(dim=2)  # (n, k)
    density += 10 * mixture.labels.T[given.labels].log() + 10 * (soft @ mixture.predictions.T).log()
    log_likelihood = Statistics.of(given, mixture.responsibilities).log_likelihood
    torch.testing.assert_close(log_likelihood, density.logsumexp(dim=1).sum(), rtol=1e-9, atol=0)


def test_blocks_change_nothing(monkeypatch):
    given = examples()
    whole = Statistics.of(given, start(given, 10.0).responsibilities)
    monkeypatch.setattr(domino_mixture, "BLOCK_ROWS", 64)
    in_blocks = Statistics.of(given, start(given, 10.0).responsibilities)
    for a, b in zip(whole, in_blocks, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_each_component_starts_in_a_cell_of_its_own_round_and_round():
    given = examples(n_classes=2, sureness=1e4)
    statistics = Statistics.of(given, from_confusion(6, 2, noise=1e-3, seed=0))
    mixture = Mixture.of(statistics, reg_covar=1e-6, label_weight=1, prediction_weight=1)
    cells = list(zip(mixture.labels.argmax(1).tolist(), mixture.predictions.argmax(1).tolist(), strict=True))
    assert cells == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1)]
    assert not torch.allclose(mixture.means[0], mixture.means[4], rtol=1e-6)


def test_the_projection_is_scikit_learn_s_pca(monkeypatch):
    monkeypatch.setattr(domino_start, "BLOCK_ROWS", 64)
    x = examples(offset=5.0).coordinates
    projection = Projection.learned(x, n_components=3)
    expected = PCA(3).fit_transform(x.double().numpy())
    np.testing.assert_allclose(projection.coordinates(x).abs(), np.abs(expected), atol=1e-4)


def test_without_a_projection_embeddings_are_not_copied():
    x = examples(offset=5.0).coordinates
    projection = Projection.learned(x, n_components=None)
    assert projection.coordinates(x) is x
    torch.testing.assert_close(projection.shift, x.double().mean(dim=0))


def in_single(given):
    return replace(given, dtype=torch.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_in_single_precision_the_likelihood_is_the_same_and_never_falls(seed, offset):
    given = examples(n=20_000, seed=seed, offset=offset)
    first = start(given, weight=10.0, seed=seed)
    assert first.rounding() < 1e-6
    options = {"max_iter": 30, "tol": 1e-6, "reg_covar": 1e-6}
    single, double = (fitted(e, first, **options).log_likelihoods for e in (in_single(given), given))
    assert (np.diff(single) >= 0).all()
    steps = min(len(single), len(double))
    np.testing.assert_allclose(
        single[:steps], double[:steps], rtol=1e-5
    )  # which components part first is a close thing
    np.testing.assert_allclose(single[-1], double[-1], rtol=1e-6)


def test_rounding_is_what_single_precision_errs_by():
    given = examples(n=4_000)
    for shrink in (1.0, 1e-2, 1e-4):
        mixture = start(given)
        mixture = replace(mixture, means=mixture.means + 1, variances=mixture.variances * shrink)
        near = replace(given, coordinates=(mixture.means[0] + given.shift).float().expand(4_000, 4).contiguous())
        exact, rounded = (
            torch.cat([mixture.responsibilities(block)[1].double() for block in e.blocks()])
            for e in (near, in_single(near))
        )
        assert (exact - rounded).abs().max() < 100 * mixture.rounding() + 1e-5


def test_where_single_precision_is_too_coarse_the_fit_goes_on_in_double():
    given = examples(n=20_000)
    place = torch.arange(20_000) % 2  # in two further coordinates: no variance within a place
    constant = 5.0 * place[:, None].expand(-1, 2)
    given = replace(given, coordinates=torch.cat([given.coordinates, constant], dim=1), shift=torch.zeros(6))
    weights = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)[place]
    statistics = Statistics.of(given, lambda block: (weights[block.rows], block.losses))
    first = Mixture.of(statistics, reg_covar=1e-6, label_weight=1.0, prediction_weight=1.0)
    assert first.rounding() < 1e-5
    options = {"max_iter": 40, "tol": 1e-3, "reg_covar": 1e-6}
    single, double = (fitted(e, first, **options) for e in (in_single(given), given))
    assert double.mixture.rounding() > 1e-3  # it did come to that
    np.testing.assert_allclose(single.log_likelihoods[-1], double.log_likelihoods[-1], rtol=1e-6)
    assert (np.diff(single.log_likelihoods) >= 0).all()
