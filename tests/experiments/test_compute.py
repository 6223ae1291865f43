import subprocess
import sys

import pytest

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
