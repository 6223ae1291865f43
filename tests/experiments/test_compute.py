import os
import subprocess
import sys

import pytest

from experiments.compute import TOLD, n_threads
from experiments.settings import Compute

FAULTS = """
import resource, torch
from experiments.compute import keep_freed_memory
def faults():
    torch.ones(20_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):  # the first few may get new pages, until a freed piece is large enough
        torch.ones(20_000_000)  # 80 MB: 20,000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
returned = faults()
print(keep_freed_memory(), returned, faults())
"""


def test_memory_that_was_freed_is_used_again():
    """Else each layer's activations are new pages, which the system has to fill with zeros first."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    set_here, returned, kept = done.stdout.split()
    if set_here == "False":
        pytest.skip("this C library has no mallopt")
    assert int(kept) < 0.5 * int(returned)


@pytest.mark.parametrize(
    ("told", "n"),
    [
        ({"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "7"}, 3),
        ({"OMP_NUM_THREADS": "7"}, 7),
        ({}, None),
        ({"OMP_NUM_THREADS": "4,2"}, None),
    ],
    ids=["a cluster's share", "the user's wish", "all", "what is no number"],
)
def test_a_process_takes_its_share_of_the_cores(monkeypatch, told, n):
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert n_threads(Compute()) == (n or len(os.sched_getaffinity(0)))
    assert n_threads(Compute(threads=5)) == 5
