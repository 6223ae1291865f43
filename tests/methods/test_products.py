import pytest
import torch

from methods.products import products, sums


@pytest.mark.parametrize("n", [5, 255, 256, 2048, 2049])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 25])
def test_they_are_products_of_matrices(n, dtype, k):
    generator = torch.Generator().manual_seed(0)
    x, w, weights = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((n, 70), (k, 70), (n, k)))
    torch.testing.assert_close(products(x, w).double(), x.double() @ w.double().T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sums(weights, x).double(), weights.double().T @ x.double(), rtol=1e-5, atol=1e-3)


def test_rows_of_a_larger_table_are_taken_as_they_are():
    table = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(products(table[100:612], table[:3]), table[100:612] @ table[:3].T)
