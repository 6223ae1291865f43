"""Spotlight on ten million examples, 20 GB in a file: as much disk must be free, and it takes about half an hour."""

from __future__ import annotations

import torch
from benchmarks.mapped import DIMENSIONS, mapped_outputs
from benchmarks.measuring import Row, Section, measured

from methods.spotlight import Spotlight

THREADS = 2
N, SAMPLE, STEPS = 10_000_000, 200_000, 1_000


def section() -> Section:
    """One fit and one prediction."""
    torch.set_num_threads(THREADS)
    with mapped_outputs(N) as outputs:
        method = Spotlight(n_slices=1, size=10_000, steps=STEPS, sample=SAMPLE)
        fit = measured(lambda: method.fit(outputs), runs=1, warm_up=False)
        predict = measured(lambda: method.predict(outputs), runs=1, warm_up=False)
    found = method.diagnostics_[0]
    note = f"objective {found['objective']:.4f}, total weight {found['size_ratio']:.2f} of the size"
    return Section(
        f"{N:,} examples of {DIMENSIONS} dimensions, mapped from a file of 20 GB, more than memory can cache beside "
        f"the rest; one spotlight of 10,000 examples from a sample of {SAMPLE:,}, {STEPS:,} steps.",
        [Row("Spotlight, fit", fit, note=note), Row("Spotlight, predict", predict)],
    )
