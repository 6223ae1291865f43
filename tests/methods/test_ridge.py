import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as PlainRidge

from methods.contract import InvalidInput, ModelOutputs
from methods.ridge import Ridge


def outputs_of(embeddings, losses):
    ids = [f"{i:04d}" for i in range(len(embeddings))]
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=[True] * len(embeddings))


def linear(n=300, d=20, noise=0.1, seed=0):
    """Losses that grow along the first dimension, which has little of the variance."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator) * torch.linspace(1, 5, d)
    losses = 3 + embeddings[:, 0] + noise * torch.randn(n, generator=generator)
    return outputs_of(embeddings, losses)


def pure_noise(n=200, d=150, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return outputs_of(torch.randn(n, d, generator=generator), torch.randn(n, generator=generator))


def mean_gap(slices, outputs):
    """How far the slice's mean loss is above average, in standard deviations of the losses."""
    members = slices.members[:, 0]
    return float((outputs.losses[members].mean() - outputs.losses.mean()) / outputs.losses.std())


def test_a_linear_direction_of_loss_is_found():
    outputs = linear()
    slices = Ridge(size=30).fit(outputs).predict(outputs)
    worst = outputs.losses.topk(30).indices
    assert slices.members[worst, 0].float().mean() > 0.8
    assert slices.members.sum() == 30
    assert slices.diagnostics[0]["out_of_fold_r_squared"] > 0.95


def test_it_does_not_find_its_own_noise():
    gaps, in_sample = [], []
    for seed in range(5):
        outputs = pure_noise(seed=seed)
        method = Ridge(size=20, penalties=(1e-4,)).fit(outputs)  # too small for noise
        gaps.append(mean_gap(method.predict(outputs), outputs))
        renamed = ModelOutputs.from_arrays(
            [f"new {i:04d}" for i in range(200)],
            embeddings=outputs.embeddings,
            losses=outputs.losses,
            correct=[True] * 200,
        )
        in_sample.append(mean_gap(method.predict(renamed), outputs))
        assert method.r_squared_ <= 0
    assert abs(np.mean(gaps)) < 0.3
    assert np.mean(in_sample) > 1


def test_noise_is_met_with_the_largest_penalty():
    assert Ridge(size=20).fit(pure_noise()).predict(pure_noise()).diagnostics[0]["penalty"] == pytest.approx(100.0)


def test_out_of_fold_predictions_have_not_seen_the_example():
    outputs = linear(n=40)
    changed = outputs.losses.clone()
    changed[7] = 1000.0
    before, after = (
        Ridge(size=5, penalties=(0.1,)).fit(outputs_of(outputs.embeddings, losses)).out_of_fold_
        for losses in (outputs.losses, changed)
    )
    assert before[7] == pytest.approx(after[7])
    assert not np.allclose(before, after)


def test_new_examples_get_the_model_of_all_examples():
    fit, new = linear(), linear(seed=1)
    method = Ridge(size=30, pca=None, penalties=(0.01,)).fit(fit)
    centred = (fit.embeddings - fit.embeddings.mean(dim=0)).double()
    scale = centred.square().sum(dim=1).mean().sqrt()
    plain = PlainRidge(alpha=0.01 * 300).fit((centred / scale).numpy(), fit.losses.double().numpy())
    expected = plain.predict(((new.embeddings - fit.embeddings.mean(dim=0)) / scale).double().numpy())
    # the ids are those of the fit, the embeddings are not
    membership = method.predict(new).membership[:, 0]
    assert torch.equal(membership.argsort(), torch.from_numpy(expected.copy()).argsort())


def test_the_fit_is_recognised_by_ids_and_values_of_the_embeddings():
    outputs = pure_noise()
    method = Ridge(size=20, penalties=(1e-4,)).fit(outputs)
    copied = outputs_of(outputs.embeddings.clone(), outputs.losses)
    assert torch.equal(method.predict(copied).membership, method.predict(outputs).membership)
    other = outputs_of(outputs.embeddings + 1e-3, outputs.losses)
    assert not torch.equal(method.predict(other).membership, method.predict(outputs).membership)


def test_membership_is_the_rank_of_the_predicted_loss():
    outputs = linear(n=50)
    method = Ridge(size=5).fit(outputs)
    membership = method.predict(outputs).membership[:, 0]
    order = torch.from_numpy(method.out_of_fold_).argsort()
    torch.testing.assert_close(membership[order], torch.arange(1, 51) / 50)


def test_the_scale_of_the_embeddings_does_not_matter():
    outputs = linear()
    scaled = outputs_of(1024 * outputs.embeddings, outputs.losses)
    assert torch.equal(*(Ridge(size=30).fit(each).predict(each).members for each in (outputs, scaled)))


def test_the_seed_draws_the_folds():
    outputs = pure_noise()
    first, same, other = (Ridge(size=20, seed=seed).fit(outputs).out_of_fold_ for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("n", "d"), [(4, 1), (4, 300), (300, 3)])
def test_directions_are_cut_to_what_there_is(n, d):
    outputs = linear(n, d)
    method = Ridge(size=2, n_folds=2).fit(outputs)
    assert method.model_.n_features_in_ == min(n, d)
    assert method.predict(outputs).members.sum() == 2


def test_constant_embeddings_and_losses_are_no_failure():
    outputs = outputs_of(torch.ones(20, 3), [1.0] * 20)
    slices = Ridge(size=5).fit(outputs).predict(outputs)
    assert slices.members.sum() == 5
    assert slices.diagnostics[0]["out_of_fold_r_squared"] is None


def test_a_smaller_split_is_a_slice_as_a_whole():
    assert Ridge(size=30).fit(linear()).predict(linear(n=10, seed=1)).members.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 301}, "size is 301, expected at most 300"),
        ({"size": 5, "n_folds": 151}, "n_folds is 151, which needs 302 examples: there are 300"),
        ({"size": 5, "penalties": (0.0,)}, "penalties is 0.0, expected above 0"),
        ({"size": 5, "penalties": ()}, "penalties is empty"),
        ({"size": 5, "pca": 0}, "pca is 0, expected at least 1"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        Ridge(**options).fit(linear())


def test_embeddings_of_another_dimension_are_refused():
    with pytest.raises(InvalidInput, match="embeddings has 19 columns, the method was fitted on 20"):
        Ridge(size=30).fit(linear()).predict(linear(d=19))
