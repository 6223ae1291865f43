import sys

import pytest
import torch
from torch import nn

from methods import influence_estimate
from methods.influence_estimate import estimate_factors, estimate_table, peak_growth
from methods.influence_gradients import LayerGradients

GROWTH = 120_000_000


@pytest.fixture
def measured(monkeypatch):
    """What is measured is always the same: two seconds for a product, 120 MB more in memory, a second for a basis."""
    monkeypatch.setattr(influence_estimate, "seconds_of", lambda work: work() and 2.0)
    monkeypatch.setattr(influence_estimate, "peak_growth", lambda _device: lambda: GROWTH)
    monkeypatch.setattr(influence_estimate, "basis_seconds", lambda *_: 1.0)


def product(vector):
    return vector + 1


def test_the_time_is_that_of_steps_and_probes_over_all_examples(measured):
    estimate = estimate_factors(product, 100_000, 10, krylov_dim=50, rank=20, probes=8)
    assert estimate.seconds == (50 + 8) * 10 * 2 + 1


def test_no_more_steps_are_made_than_there_are_parameters(measured):
    assert estimate_factors(product, 30, 10, krylov_dim=500, rank=20).seconds == 30 * 10 * 2 + 1


def test_the_memory_of_factors_is_their_arithmetic_and_what_a_product_takes(measured):
    factors = 100_000 * (50 + 20) * 4
    assert estimate_factors(product, 100_000, 10, krylov_dim=50, rank=20).peak_bytes == factors + GROWTH


def test_a_batch_that_is_larger_than_the_sample_takes_more_but_vectors_do_not(measured):
    vectors, factors = 6 * 100_000 * 4, 100_000 * (50 + 20) * 4
    estimate = estimate_factors(product, 100_000, 10, krylov_dim=50, rank=20, batches_scale=8)
    assert estimate.peak_bytes == factors + vectors + 8 * (GROWTH - vectors)


def test_a_table_is_measured_on_as_many_rows_as_are_done_at_once_and_holds_all_directions(measured):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(100, 200), nn.Tanh(), nn.Linear(200, 5))
    inputs, seen = torch.randn(40, 100, generator=torch.Generator().manual_seed(0)), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    gradients = LayerGradients(model, ("0",))
    estimate = estimate_table(gradients, inputs, n_classes=5, n_rows=4000, rank=2_000)
    n_measured = influence_estimate.FEW_BYTES // (gradients.n_parameters * 4)
    n_measured = min(n_measured, 2_000)
    assert estimate.peak_bytes == GROWTH + (2_000 - n_measured) * gradients.n_parameters * 4
    assert estimate.seconds == 2 * 4000 / 40
    assert seen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process's memory")
def test_growth_is_the_most_that_was_held_since():
    grown = peak_growth(torch.device("cpu"))
    block = torch.ones(2**28)  # 1 GB: more than a process has lying about
    del block
    assert 0.5 * 2**30 < grown() < 1.5 * 2**30
    assert peak_growth(torch.device("cpu"))() < 2**29
