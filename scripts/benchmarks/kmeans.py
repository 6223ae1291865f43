"""k-means, which on influence embeddings is InfEmbed: by blocks, against scikit-learn's, and how it grows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.measuring import Row, Section, measured
from sklearn.cluster import KMeans

from methods.contract import ModelOutputs
from methods.kmeans import KMeansSlices
from methods.lloyd import BLOCK_ROWS, Points, moved, started
from methods.products import products, sums

THREADS = 2
D, N_CLUSTERS = 512, 50
SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = 5
PEER_LIMIT = 100_000  # scikit-learn's copies of a million in float32 and their norms are not what this is about


def section() -> Section:
    """Check that the rounds are scikit-learn's, time both, and see how all of fit and predict grow."""
    rates = _rates()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for n in SIZES for row in _rows_of_size(n, Path(folder, f"{n}.npy"), rates)]
    head = (
        f"{N_CLUSTERS} clusters of {D} dimensions in a memory-mapped file, {ROUNDS} rounds (max_iter={ROUNDS}). A "
        "round is one of k-means by blocks and of scikit-learn's in float32, from the same start."
    )
    notes = [
        f"Measured rates: {rates['operations'] / 1e9:.0f} GFLOP/s for single-precision products, "
        f"{rates['bytes'] / 1e9:.0f} GB/s to read. Floor of a round: the embeddings read once and 4 N k d operations.",
        "fit and predict as `methods.kmeans` does them: scikit-learn in float64 to 131,072 examples, blocks beyond; "
        "with the assignment in double precision, losses and spreads. Their floor has one reading more than rounds.",
        "Memory counts what is held beside ids, losses and `correct` of the outputs.",
    ]
    return Section(head, rows, notes)


def _rates() -> dict[str, float]:
    x, w, weights = torch.ones(BLOCK_ROWS, D), torch.ones(N_CLUSTERS, D), torch.ones(BLOCK_ROWS, N_CLUSTERS)
    seconds = sum(measured(act, runs=51).seconds for act in (partial(products, x, w), partial(sums, weights, x)))
    many = torch.ones(1 << 27)  # 512 MB, far beyond any cache
    reading = measured(many.sum, runs=5).seconds
    return {"operations": 4 * x.numel() * N_CLUSTERS / seconds, "bytes": 4 * len(many) / reading}


def _rows_of_size(n: int, path: Path, rates: dict[str, float]) -> list[Row]:
    outputs = _outputs(n, path)
    floor = n * D * 4 / rates["bytes"] + 4 * n * N_CLUSTERS * D / rates["operations"]
    rows = [_round(outputs, floor), _fit(outputs, floor, False), _fit(outputs, floor, True)]
    path.unlink()
    return rows


def _outputs(n: int, path: Path) -> ModelOutputs:
    """60 blobs that overlap."""
    random = np.random.default_rng(0)
    centers, blobs = 0.3 * random.standard_normal((60, D), np.float32), random.integers(60, size=n)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (n, D))
    for start in range(0, n, 10_000):
        rows = slice(start, min(start + 10_000, n))
        file[rows] = centers[blobs[rows]] + random.standard_normal((rows.stop - start, D), np.float32)
    file.flush()
    losses, correct = random.random(n, np.float32), blobs % 7 != 0
    return ModelOutputs.from_arrays(embeddings=np.load(path, mmap_mode="r"), losses=losses, correct=correct)


def _round(outputs: ModelOutputs, floor: float) -> Row:
    points = Points.of(outputs.embeddings, unit=False)
    start = started(points, N_CLUSTERS, np.random.RandomState(0))
    runs = 3 if outputs.n_examples <= PEER_LIMIT else 1
    ours = measured(partial(moved, points, start, ROUNDS), runs, warm_up=runs > 1).scaled(1 / ROUNDS)
    row = Row(f"{outputs.n_examples:,} examples, a round", ours, floor=floor)
    if outputs.n_examples > PEER_LIMIT:
        return row
    x, begin = outputs.embeddings.numpy(), (start + points.origin).float().numpy()

    def peer(max_iter: int = ROUNDS) -> KMeans:
        return KMeans(N_CLUSTERS, init=begin, n_init=1, max_iter=max_iter, tol=0, copy_x=True).fit(x)

    expected, inertia = peer().inertia_, points.assigned(moved(points, start, ROUNDS)).inertia
    assert abs(inertia - expected) <= 1e-5 * expected, (inertia, expected)
    peers = measured(peer, runs=3).scaled(1 / ROUNDS)
    note = f"inertia {inertia:.8g}, the peer's {expected:.8g}"
    return replace(row, peer="scikit-learn KMeans", peers=peers, note=note)


def _fit(outputs: ModelOutputs, floor: float, normalise: bool) -> Row:
    method = KMeansSlices(n_clusters=N_CLUSTERS, max_iter=ROUNDS, normalise=normalise)

    def fit_and_predict() -> None:
        assert method.fit(outputs).predict(outputs).n_slices == method.n_slices

    kind = "spherical, " if normalise else ""
    work = f"{outputs.n_examples:,} examples, {kind}fit and predict"
    ours = measured(fit_and_predict, runs=1, warm_up=False)
    row = Row(work, ours, floor=(ROUNDS + 1) * floor)
    if outputs.n_examples < SIZES[-1]:
        return row
    return replace(row, target="under 1.0 GB", reached=ours.peak_bytes < 1e9)
