import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.contract import ModelOutputs
from methods.spotlight import Spotlight
from methods.spotlight_ascent import ascend
from methods.spotlight_rows import Rows
from methods.spotlight_sample import refine, spread
from methods.spotlight_start import EmbeddingMap, covering

# fits and predicts on a file that is mapped into memory: the most memory of its own that the process had meanwhile
MEMORY = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[2])
from benchmarks.measuring import peak_memory
from methods.contract import ModelOutputs
from methods import spotlight_start
from methods.spotlight import Spotlight

torch.set_num_threads(1)
spotlight_start.IN_MEMORY = 2**20
embeddings = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c"))
losses = 3.0 * (embeddings[:, 0] > 1.5)
ids = tuple(f"{i:06d}" for i in range(len(embeddings)))
outputs = ModelOutputs(example_ids=ids, embeddings=embeddings, losses=losses, correct=losses < 1)
settings = {"n_slices": 1, "size": 2_000, "steps": 10}
few = ModelOutputs(ids[:5000], embeddings[:5000].clone(), losses[:5000], losses[:5000] < 1)
Spotlight(**settings).fit(few)  # compiles the kernel
for more in ({}, {"sample": 10_000}):
    with peak_memory(every=0.001) as peak:
        Spotlight(**settings, **more).fit(outputs).predict(outputs)
    print(peak[0])
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n=20_000, d=12, seed=0):
    """Embeddings in groups, and losses that are high for most of one group."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(10, (n,), generator=generator)
    x = 2 * torch.randn(10, d, generator=generator)[groups] + torch.randn(n, d, generator=generator)
    is_bad = (groups == 3) & (torch.rand(n, generator=generator) < 0.7)
    return x, 0.5 * torch.rand(n, generator=generator) + 3 * is_bad


def outputs(x, losses):
    return ModelOutputs(tuple(f"{i:06d}" for i in range(len(x))), x, losses, losses < 1)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_a_sample_has_one_of_each_stretch(n, share):
    n_sample = max(1, round(share * n))
    rows = spread(n, n_sample)
    bounds = torch.arange(n_sample + 1) * n // n_sample
    assert ((bounds[:-1] <= rows) & (rows < bounds[1:])).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_and_its_neighbours_do_what_all_examples_do(seed):
    x, losses = problem(seed=seed)
    full = Spotlight(n_slices=1, size=400, steps=500).fit(outputs(x, losses))
    sampled = Spotlight(n_slices=1, size=400, steps=500, sample=4_000).fit(outputs(x, losses))
    (expected,), (found,) = full.diagnostics_, sampled.diagnostics_
    assert found["objective"] >= 0.98 * expected["objective"]
    assert 0.95 < found["size_ratio"] < 1.5


def test_a_sample_of_all_is_an_ordinary_fit():
    x, losses = problem(n=500)
    fits = [Spotlight(n_slices=2, size=30, steps=50, sample=n).fit(outputs(x, losses)) for n in (None, 500, 900)]
    for fit in fits[1:]:
        assert torch.equal(fit.centers_, fits[0].centers_)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_refined_is_never_worse_over_all_than_the_sample_alone(seed):
    x, losses = problem(n=5_000, seed=seed)
    rows, losses = EmbeddingMap.learned(x, normalise=True, n_components=None).rows(x), losses[None]
    size, penalty, some = torch.tensor([100.0]), torch.tensor([3.5]), spread(5_000, 300)
    part = Rows(rows[some])
    center, log_precision = covering(part)
    start = center[None], log_precision[None]
    found = ascend(part, losses[:, some], size * 0.06, penalty, *start, steps=200)
    options = {"steps": 200, "learning_rate": 0.01, "patience": 10}
    refined = refine(rows, losses, size, penalty, found, n_held=1_000, passes=2, **options)
    k = torch.relu(1 - found.log_precisions.exp() * (rows.whole() - found.centers).square().sum(dim=1))
    before = (k * losses[0]).sum() / k.sum() - penalty * torch.relu(1.05 * size - k.sum()) ** 2 / (0.05 * size) ** 2
    assert refined.objectives.item() > before.item()
    assert refined.history is found.history


def test_a_file_is_never_held_as_a_whole(tmp_path):
    np = pytest.importorskip("numpy")
    n, d = 200_000, 128  # 102 MB
    file = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(n, d))
    random = np.random.default_rng(0)
    for start in range(0, n, 20_000):
        file[start : start + 20_000] = random.standard_normal((20_000, d), dtype=np.float32)
    file.flush()
    scripts = os.path.join(os.path.dirname(__file__), "..", "..", "scripts")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "x.npy"), scripts]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    full, sampled = (int(line) for line in printed.split())
    assert full < 40e6  # losses, weights, members and blocks; not the 102 MB, of which any copy is one
    assert sampled < 80e6  # 20,000 neighbours are held
