"""Many embeddings in a memory-mapped file: what a method holds beside them."""

import os
import subprocess
import sys

import numpy as np
import pytest

N, D = 200_000, 128  # 102 MB in the file, 205 MB in double precision
LIMIT = 180_000_000

PROGRAM = f"""
import re, sys, threading, time
from pathlib import Path
import numpy as np, torch
from methods.contract import ModelOutputs
from methods.domino import Domino
from methods.kmeans import KMeansSlices
from methods import domino_start, kmeans

def own():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def watch():
    while True:
        peaks[0] = max(peaks[0], own())
        time.sleep(0.002)

torch.set_num_threads(1)
kmeans.IN_MEMORY = domino_start.IN_MEMORY = 2**20  # as if there were no room
labels = torch.arange({N}) % 2
logits = torch.randn({N}, 2, generator=torch.Generator().manual_seed(0))
embeddings = np.load(sys.argv[1], mmap_mode="r")
peaks = [0]
threading.Thread(target=watch, daemon=True).start()
before = peaks[0] = own()
outputs = ModelOutputs.from_arrays(embeddings=embeddings, labels=labels, logits=logits)
method = eval(sys.argv[2])
assert method.fit(outputs).predict(outputs).n_slices
print(peaks[0] - before)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("mapped") / "embeddings.npy"
    random = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (N, D))
    for start in range(0, N, 10_000):
        file[start : start + 10_000] = random.standard_normal((10_000, D), np.float32) + start % 3
    file.flush()
    return path


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read where Linux tells it")
@pytest.mark.parametrize(
    "method",
    [
        "KMeansSlices(n_clusters=25, max_iter=2)",
        "KMeansSlices(n_clusters=25, max_iter=2, normalise=True)",
        "Domino(pca=None, max_iter=2, tol=1e-9)",
        "Domino(pca=8, start='kmeans', n_components=8, max_iter=2)",
    ],
)
def test_less_is_held_than_a_copy_in_double_precision(path, method):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), method], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < LIMIT
