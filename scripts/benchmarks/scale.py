"""How Spotlight grows with the number of examples, up to a million that are mapped from a file."""

from __future__ import annotations

import torch
from benchmarks.mapped import DIMENSIONS, mapped_outputs
from benchmarks.measuring import Row, Section, measured

from methods.contract import ModelOutputs
from methods.spotlight import Spotlight

THREADS = 2
STEPS, MILLION, SAMPLE = 1_000, 1_000_000, 100_000
LIMIT = 1e9  # bytes


def section() -> Section:
    """A step at several sizes, then whole fits of a million."""
    torch.set_num_threads(THREADS)
    rows = []
    for n in (10_000, 100_000):
        with mapped_outputs(n) as outputs:
            rows.append(_fit(outputs, f"Spotlight, N = {n:,}, {STEPS:,} steps")[0])
    with mapped_outputs(MILLION) as outputs:
        full, expected = _fit(outputs, f"Spotlight, N = {MILLION:,}, {STEPS:,} steps")
        sampled, found = _fit(outputs, f"the same from a sample of {SAMPLE:,}", sample=SAMPLE)
    share = found / expected
    rows += [full, _with_share(sampled, share)]
    return Section(
        f"One spotlight on embeddings of {DIMENSIONS} dimensions in 50 groups, S = 1%; fit and predict. Up to 512 MB a "
        "centred copy is held; larger embeddings stay in their file, and blocks of them are centred whenever they are "
        "read.",
        rows,
    )


def _fit(outputs: ModelOutputs, work: str, **settings: int) -> tuple[Row, float]:
    objectives = []

    def act() -> None:
        method = Spotlight(n_slices=1, size=outputs.n_examples // 100, steps=STEPS, **settings).fit(outputs)
        assert method.predict(outputs).members.any()
        objectives.append(method.diagnostics_[0]["objective"])

    ours = measured(act, runs=1, warm_up=outputs.n_examples <= 10_000)
    note = f"objective {objectives[0]:.4f}, {ours.seconds / STEPS * 1e3:.1f} ms for each step of a full fit"
    row = Row(work, ours, target=f"under {LIMIT / 1e9:g} GB", reached=ours.peak_bytes < LIMIT, note=note)
    return row, objectives[0]


def _with_share(row: Row, share: float) -> Row:
    note = f"{100 * share:.2f}% of the objective of the full fit"
    return Row(row.work, row.ours, target="98% of the objective", reached=share >= 0.98, note=note)
