import os
import subprocess
import sys

import pytest

from experiments.compute import TOLD, n_threads
from experiments.settings import Compute

FAULTS = """
import resource, sys, torch
from experiments.compute import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(20_000_000)
before = faults()
for _ in range(5):
    torch.ones(20_000_000)  # 80 MB: 20,000 pages
print(kept, faults() - before)
"""


def page_faults(how):
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    kept, n = done.stdout.split()
    return kept == "True", int(n)


def test_memory_that_was_freed_is_used_again():
    """Else each layer's activations are new pages, which the system has to fill with zeros first."""
    kept, n = page_faults("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert n < 0.5 * page_faults("return")[1]


@pytest.mark.parametrize(
    ("told", "n"),
    [({"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "7"}, 3), ({"OMP_NUM_THREADS": "7"}, 7), ({}, None), ({"OMP_NUM_THREADS": "4,2"}, None)],
    ids=["a cluster's share", "the user's wish", "all", "what is no number"],
)
def test_a_process_takes_its_share_of_the_cores(monkeypatch, told, n):
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert n_threads(Compute()) == (n or len(os.sched_getaffinity(0)))
    assert n_threads(Compute(threads=5)) == 5
