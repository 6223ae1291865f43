import pytest
import torch
from torch import nn

from methods.influence_estimate import estimate_factors, estimate_table, peak_growth
from methods.influence_gradients import LayerGradients

CPU = torch.device("cpu")


def test_the_memory_of_factors_is_their_arithmetic_and_what_a_product_takes():
    calls = []

    def product(vector):
        calls.append(1)
        return vector + torch.ones(30_000_000)[:1]  # 120 MB

    estimate = estimate_factors(product, 100_000, 10, krylov_dim=50, rank=20)
    factors = 100_000 * (50 + 20) * 4
    if peak_growth(CPU)() is None:
        pytest.skip("this system does not tell how much memory a process has held")
    assert factors + 100e6 < estimate.peak_bytes < factors + 200e6
    assert 2 <= len(calls) <= 4
    assert estimate.seconds > 0


def test_time_grows_with_examples_steps_and_probes():
    def product(vector):
        return vector + torch.ones(10_000_000).sum()

    first, *others = (
        estimate_factors(product, 100, scale, krylov_dim=steps, rank=10, probes=probes).seconds
        for scale, steps, probes in ((1, 20, 0), (100, 20, 0), (1, 2000, 0), (1, 20, 2000))
    )
    assert all(other > 3 * first for other in (others[0], others[1] * 4, others[2]))


def test_a_batch_that_is_larger_than_the_sample_takes_more():
    def product(vector):
        return vector + torch.ones(30_000_000)[:1]

    small, large = (
        estimate_factors(product, 1000, 10, krylov_dim=50, rank=20, batches_scale=scale).peak_bytes for scale in (1, 8)
    )
    assert 5 * small < large < 10 * small


def test_a_table_is_measured_on_as_many_rows_as_are_done_at_once_and_holds_all_directions():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(100, 200), nn.Tanh(), nn.Linear(200, 5))
    inputs, seen = torch.randn(40, 100, generator=torch.Generator().manual_seed(0)), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    gradients = LayerGradients(model, ("0",))
    estimate = estimate_table(gradients, inputs, n_classes=5, n_rows=4000, rank=50)
    assert gradients.n_parameters * 50 * 4 <= estimate.peak_bytes < 1e9
    assert estimate.seconds > 0
    assert seen
