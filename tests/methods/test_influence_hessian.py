import numpy as np
import pytest
import torch

import methods.influence_hessian as influence_hessian
from methods.errors import InvalidInput
from methods.influence_hessian import HessianFactors, bytes_needed, factor_hessian


def symmetric(values, seed=0):
    """A symmetric matrix with these eigenvalues, in float64."""
    values = torch.as_tensor(values, dtype=torch.float64)
    noise = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = torch.linalg.qr(noise).Q
    return (vectors * values) @ vectors.T


def factored(matrix, dtype=torch.float64, **options):
    matrix = matrix.to(dtype)
    return factor_hessian(lambda v: matrix @ v, len(matrix), dtype=dtype, **options)


def decaying(n=200):
    return symmetric(2.0 ** -torch.arange(n))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_largest_eigenpairs_are_found(dtype, error):
    matrix = decaying()
    factors = factored(matrix, dtype, krylov_dim=60, rank=10)
    torch.testing.assert_close(factors.eigenvalues, 2.0 ** -torch.arange(10).double(), rtol=error, atol=0)
    m = factors.directions.double()
    torch.testing.assert_close(m @ m.T, torch.eye(10).double(), rtol=0, atol=error)
    assert ((matrix @ m.T - m.T * factors.eigenvalues).norm(dim=0) < error).all()
    assert factors.directions.dtype == dtype


def test_the_basis_stays_orthonormal_where_lanczos_alone_would_lose_it():
    lanczos = influence_hessian._Lanczos((decaying().float()).__matmul__, torch.empty(150, 200), torch.float32, seed=0)
    lanczos.run()
    gram = lanczos.basis[: lanczos.n_steps] @ lanczos.basis[: lanczos.n_steps].T
    assert lanczos.n_steps > 20
    assert (gram - torch.eye(lanczos.n_steps)).abs().max() < 1e-5


def test_equal_eigenvalues_are_all_found():
    factors = factored(symmetric([5.0] * 7 + [1.0] * 3 + [0.0] * 20), krylov_dim=30, rank=15)
    assert factors.eigenvalues.round(decimals=9).tolist() == [5.0] * 7 + [1.0] * 3


def test_negative_and_zero_eigenvalues_are_dropped_and_said():
    factors = factored(symmetric([3.0, 2.0, 1e-9, 0.0, 0.0, -1.0, -2.0]), krylov_dim=7, rank=5)
    torch.testing.assert_close(factors.eigenvalues, torch.tensor([3.0, 2.0]).double())
    assert factors.rank == 2
    assert torch.isfinite(factors.directions).all()
    assert any("2 of 7 Ritz values are negative, down to -0.67 of the largest" in note for note in factors.notes)
    assert any("2 of 5 directions" in note for note in factors.notes)


def test_an_exhausted_krylov_space_stops_early_and_is_said():
    factors = factored(symmetric([3.0, 2.0, 1.0] + [0.0] * 97), krylov_dim=50, rank=3)
    assert 4 <= factors.n_steps <= 8
    assert any("exhausted" in note and "of 50 products" in note for note in factors.notes)
    assert factored(decaying(), krylov_dim=20, rank=10).notes == ()


def test_the_stop_does_not_depend_on_the_scale_of_the_loss():
    runs = [factored(scale * decaying(), krylov_dim=30, rank=10) for scale in (1.0, 2.0**-30, 2.0**30)]
    assert {run.n_steps for run in runs} == {30}
    assert all(torch.equal(run.directions, runs[0].directions) for run in runs)


def test_too_few_products_are_said():
    notes = factored(symmetric(torch.linspace(0.01, 2, 100)), krylov_dim=12, rank=10).notes
    assert any("12 products for 10 directions" in note for note in notes)
    assert any("have not converged" in note for note in notes)


def test_residuals_tell_how_far_an_eigenpair_is_from_exact():
    matrix = symmetric(torch.linspace(1, 2, 100))
    factors = factored(matrix, krylov_dim=20, rank=5)
    m = factors.directions
    torch.testing.assert_close(factors.residuals, (matrix @ m.T - m.T * factors.eigenvalues).norm(dim=0))


def test_captured_curvature_and_effective_rank():
    factors = factored(symmetric([4.0, 4.0, 2.0, -1.0] + [0.0] * 6), krylov_dim=10, rank=2, trace=9.0)
    assert factors.captured == pytest.approx(0.8)  # 8 of 10: the trace without the negative eigenvalue
    assert factors.effective_rank == pytest.approx(2.0)
    assert factored(decaying(), krylov_dim=20, rank=2).captured is None


def test_the_trace_is_estimated_from_probes():
    matrix = symmetric(1.0 / torch.arange(1, 301) ** 0.5)
    estimate = factored(matrix, krylov_dim=40, rank=10, probes=30).trace
    assert estimate == pytest.approx(matrix.trace().item(), rel=0.03)
    assert factored(symmetric([2.0, 1.0, -1.0] + [0.0] * 20), krylov_dim=20, rank=2, probes=1).trace == pytest.approx(2)


def test_the_same_seed_gives_the_same_factors_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    runs = [factored(decaying(), krylov_dim=20, rank=5, probes=2, seed=seed) for seed in (7, 7, 8)]
    assert torch.equal(runs[0].directions, runs[1].directions)
    assert runs[0].trace == runs[1].trace
    assert not torch.equal(runs[0].directions, runs[2].directions)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_product_may_return_what_it_was_given_or_what_it_keeps():
    kept = torch.ones(5)
    assert factor_hessian(lambda v: v, 5, krylov_dim=5, rank=5).eigenvalues.tolist() == pytest.approx([1.0] * 5)
    factor_hessian(lambda v: kept, 5, krylov_dim=3, rank=1)
    assert kept.tolist() == [1.0] * 5


@pytest.mark.parametrize("columns", [16_384, 64])
def test_a_basis_in_a_file_gives_what_one_in_memory_gives(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(influence_hessian, "COLUMNS", columns)
    in_memory = factored(decaying(), krylov_dim=30, rank=10)
    in_file = factored(decaying(), krylov_dim=30, rank=10, basis_file=tmp_path / "basis.bin")
    assert torch.equal(in_file.directions, in_memory.directions)
    assert (tmp_path / "basis.bin").stat().st_size == 10 * 200 * 8  # cut to the directions
    assert np.array_equal(np.fromfile(tmp_path / "basis.bin"), in_memory.directions.flatten().numpy())


def test_a_basis_in_bfloat16_gives_nearly_the_same(tmp_path):
    n = 3000
    diagonal = 2.0 ** (-torch.arange(n) / 2)
    exact = factor_hessian(lambda v: diagonal * v, n, krylov_dim=60, rank=5)
    for where in ({}, {"basis_file": tmp_path / "basis.bin"}):
        rough = factor_hessian(lambda v: diagonal * v, n, krylov_dim=60, rank=5, storage=torch.bfloat16, **where)
        torch.testing.assert_close(rough.eigenvalues, exact.eigenvalues, rtol=1e-2, atol=0)
        cosines = torch.linalg.vecdot(rough.directions, exact.directions).abs()
        assert rough.directions.dtype == torch.float32
        assert (cosines > 0.999).all()
    assert not (tmp_path / "basis.bin").exists()


def test_a_basis_that_cannot_fit_is_refused_with_the_arithmetic():
    with pytest.raises(InvalidInput) as refusal:
        factor_hessian(lambda v: v, 8_900_000, max_bytes=16 * 10**9)
    for part in (
        "500 basis vectors x 8,900,000 parameters x 4 bytes = 17.80 GB",
        "100 directions x 8,900,000 parameters x 4 bytes = 3.56 GB",
        "together 21.36 GB of the 16.00 GB",
        "storage=bfloat16",
        "basis_file",
    ):
        assert part in str(refusal.value)
    assert bytes_needed(8_900_000, storage=torch.bfloat16) == 8_900_000 * (500 * 2 + 100 * 4)


def test_the_limit_is_what_is_free_on_this_machine():
    free = influence_hessian.free_bytes(torch.device("cpu"))
    if free is None:
        pytest.skip("this machine does not tell how much memory is free")
    with pytest.raises(InvalidInput, match="does not fit"):
        factor_hessian(lambda v: v, free // 2000)


def test_a_file_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"basis\.bin: No such file or directory, for 500 vectors x 1,000 param"):
        factor_hessian(lambda v: v, 1000, basis_file=tmp_path / "absent" / "basis.bin")
    with pytest.raises(InvalidInput, match="needs device=cpu"):
        factor_hessian(lambda v: v, 1000, basis_file=tmp_path / "basis.bin", device="meta")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"krylov_dim": 0}, "krylov_dim is 0, expected at least 1"),
        ({"rank": 0}, "rank is 0, expected at least 1"),
        ({"krylov_dim": 5, "rank": 6}, "rank is 6, expected at most krylov_dim, 5"),
        ({"tolerance": 1.0}, "tolerance is 1.0, expected at least 0 and below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        factored(decaying(), **options)


def test_products_that_are_not_finite_and_hessians_without_curvature_are_refused():
    with pytest.raises(InvalidInput, match="Hessian-vector product 1 is not finite"):
        factor_hessian(lambda v: v * torch.nan, 3, krylov_dim=3, rank=1)
    for value in (0.0, -1.0):
        with pytest.raises(InvalidInput, match="no eigenvalue of the Hessian is positive"):
            factor_hessian(lambda v, value=value: v * value, 3, krylov_dim=3, rank=1)


def test_factors_survive_a_cache_of_npy_files(tmp_path):
    factors = factored(symmetric([3.0, 2.0, 0.0, -1.0]), krylov_dim=4, rank=3)
    for name, array in factors.to_arrays().items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=False)
    again = HessianFactors.from_arrays(
        {path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in tmp_path.iterdir()}
    )
    assert torch.equal(again.directions, factors.directions)
    assert torch.equal(again.ritz_values, factors.ritz_values)
    assert (again.n_steps, again.trace, again.notes) == (factors.n_steps, None, factors.notes)
    assert len(factors.notes) > 0
