import os
import subprocess
import sys

import numpy as np
import pytest

from methods.spotlight_kernel import _gather, _products

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
@pytest.mark.parametrize("share", [1, 0.6])
@pytest.mark.parametrize(("n", "lanes", "d"), [(1, 1, 1), (3, 4, 7), (17, 5, 33), (64, 11, 128)])
def test_products_of_near_rows_are_those_of_numpy_in_every_shape(n, lanes, d, share, dtype):
    random = np.random.default_rng(n)
    rows, query = random.standard_normal((n, d)).astype(dtype), random.standard_normal((lanes, d)).astype(dtype)
    n_near = np.full(lanes, round(share * n))
    near = np.stack([np.sort(random.permutation(n)[: n_near[0]]) for _ in range(lanes)])
    out = np.full((lanes, 64), np.nan, dtype)
    _products(rows, near, n_near, query, out)
    expected = np.stack([rows[near[lane]] @ query[lane] for lane in range(lanes)])
    np.testing.assert_allclose(out[:, : n_near[0]], expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(out[:, n_near[0] :]).all()


@pytest.mark.parametrize("n_reached", [0, 1, 4, 7])
def test_only_rows_that_are_reached_are_added_up(n_reached):
    random = np.random.default_rng(0)
    rows, losses = random.standard_normal((9, 5)), random.random(9)
    reached = random.permutation(9)
    total, weighted = np.zeros(5), np.zeros(5)
    _gather(rows, losses, 0.25, reached, n_reached, total, weighted)
    some = reached[:n_reached]
    np.testing.assert_allclose(total, rows[some].sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(weighted, (losses[some] - 0.25) @ rows[some], atol=1e-12)
