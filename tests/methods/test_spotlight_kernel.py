import os
import subprocess
import sys

import numpy as np
import pytest

from methods.spotlight_kernel import _count, _sixteen

CLIMB = """
import torch
from methods.spotlight_ascent import ascend
from methods.spotlight_rows import Rows
from methods.spotlight_start import covering

torch.set_num_threads(1)
x = torch.randn(300, 40, generator=torch.Generator().manual_seed(0)) / 40**0.5
center, log_precision = covering(Rows(x))
one = torch.ones(1)
end = ascend(Rows(x), x[None, :, 0].exp(), 20 * one, 4 * one, center[None], log_precision[None], steps=300)
print(end.history.numpy().tobytes().hex())
"""


def test_compiled_code_from_the_cache_gives_the_same_bits(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CLIMB]
    printed = [subprocess.run(command, env=environment, check=True, capture_output=True).stdout for _ in range(2)]
    assert any(tmp_path.rglob("*.nbi"))
    assert printed[0] == printed[1]


def test_where_nothing_can_be_kept_the_kernel_is_compiled_all_the_same():
    nowhere = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "_IPythonCacheLocator"}  # which keeps notebooks' only
    command = [sys.executable, "-c", "from methods.spotlight_kernel import prepare; print(prepare.stats.cache_path)"]
    printed = subprocess.run(command, env=nowhere, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "None"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 7), (17, 33), (64, 128)])
def test_products_of_some_rows_are_those_of_numpy(n, d, dtype):
    random = np.random.default_rng(n)
    rows, query = random.standard_normal((2 * n, d)).astype(dtype), random.standard_normal(d).astype(dtype)
    places, out = random.permutation(2 * n)[:n], np.full(64, np.nan, dtype)
    for k in range(0, n, 16):
        _sixteen(rows, places, k, n - 1, query, out)
    np.testing.assert_allclose(out[:n], rows[places] @ query, rtol=1e-4, atol=1e-5)
    assert np.isnan(out[n:]).all()


def test_an_example_that_comes_and_goes_leaves_nothing_behind():
    random = np.random.default_rng(0)
    x, losses = random.standard_normal((9, 5)).astype(np.float32), random.random(9)
    total, weighted, counts = np.zeros(5), np.zeros(5), np.zeros(4)
    for row in (*range(9), 3, 7):
        _count(x[row], 1.0, losses[row], total, weighted, counts)
    for row in (3, 7):
        _count(x[row], -1.0, losses[row], total, weighted, counts)
    squares = (x.astype(float) ** 2).sum(axis=1)
    np.testing.assert_allclose(total, x.sum(axis=0, dtype=float), atol=1e-12)
    np.testing.assert_allclose(weighted, losses @ x, atol=1e-12)
    np.testing.assert_allclose(counts, [9, losses.sum(), squares.sum(), losses @ squares], atol=1e-12)
