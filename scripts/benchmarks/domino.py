"""Domino's mixture, against the same mixture out of scikit-learn's parts as its authors' release has it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.measuring import Row, Section, measured
from scipy.special import logsumexp, softmax
from sklearn.mixture import _gaussian_mixture as parts

from methods.contract import ModelOutputs
from methods.domino import Domino
from methods.products import products

THREADS = 2
N_EXAMPLES, D, N_CLASSES, N_COMPONENTS = 50_000, 512, 5, 25
SIZES = (10_000, 100_000, 1_000_000)
LARGE_STEPS = 5  # iterations at these sizes: what grows is the time that one takes
TINY = np.finfo(np.float64).eps


def section() -> Section:
    """Check that both fits are the same, time them, and see how ours grows."""
    rates = _rates()
    outputs = _outputs(N_EXAMPLES)
    rows = [_to_convergence(outputs, rates), _to_convergence(_with_silent_units(outputs), rates, silent=True)]
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            rows += _rows_of_size(n, Path(folder, f"{n}.npy"), rates)
    head = (
        f"Domino with {N_COMPONENTS} components on {D} dimensions (pca=None) of {N_CLASSES} classes; the peer is in "
        "float64 with the functions of scikit-learn's GaussianMixture, labels and predictions added as the paper has "
        "them, from the same start, with the same tolerance."
    )
    notes = [
        f"Measured rates: {rates['single'] / 1e9:.0f} and {rates['double'] / 1e9:.0f} GFLOP/s for products in single "
        f"and double precision, {rates['bytes'] / 1e9:.0f} GB/s to read.",
        "Floor: the embeddings read once and 8 N k d operations in single precision in each iteration; and read thrice "
        "more, with as many operations as one, for their mean, the start, and the components' sizes. Fewer than 16,384 "
        "examples are fitted in double precision.",
        "Memory counts what fit and predict hold beside ids, labels, logits and losses of the outputs; the embeddings "
        "are a memory-mapped file.",
    ]
    return Section(head, rows, notes)


def _outputs(n: int, embeddings: np.ndarray | None = None) -> ModelOutputs:
    """40 blobs, of which one fails always and the others now and then."""
    random = np.random.default_rng(0)
    blobs = _blobs_of(n)
    labels = blobs % N_CLASSES
    wrong = (blobs == 3) | (random.random(n) < 0.1)
    predictions = np.where(wrong, (labels + 1) % N_CLASSES, labels)
    logits = 3 * np.eye(N_CLASSES, dtype=np.float32)[predictions] + random.standard_normal((n, N_CLASSES), np.float32)
    if embeddings is None:
        embeddings = np.concatenate([block for _, block in _blocks(n)])
    return ModelOutputs.from_arrays(embeddings=embeddings, labels=labels, logits=logits)


def _blobs_of(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(40, size=n)


def _blocks(n: int) -> Iterator[tuple[slice, np.ndarray]]:
    random, blobs = np.random.default_rng(2), _blobs_of(n)
    centers = random.standard_normal((40, D), np.float32)
    for start in range(0, n, 10_000):
        rows = slice(start, min(start + 10_000, n))
        yield rows, centers[blobs[rows]] + random.standard_normal((rows.stop - start, D), np.float32)


def _with_silent_units(outputs: ModelOutputs) -> ModelOutputs:
    """The same with embeddings as of a rectifier whose units are silent in whole blobs: their variances are 0."""
    silent = np.random.default_rng(3).random((40, D)) < 0.2
    embeddings = (outputs.embeddings + 2).relu() * torch.from_numpy(~silent[_blobs_of(outputs.n_examples)])
    return ModelOutputs.from_arrays(embeddings=embeddings, labels=outputs.labels, logits=outputs.logits)


def _to_convergence(outputs: ModelOutputs, rates: dict[str, float], silent: bool = False) -> Row:
    ours, theirs = Domino(pca=None).fit(outputs), Peer(outputs).fit()
    final, expected = ours.log_likelihood_[-1], theirs.log_likelihoods[-1]
    assert abs(final - expected) <= 1e-6 * abs(expected), (final, expected)
    n_ours, n_theirs = len(ours.log_likelihood_), len(theirs.log_likelihoods)
    measured_ours = measured(lambda: Domino(pca=None).fit(outputs), runs=5, warm_up=False)
    measured_theirs = measured(lambda: Peer(outputs).fit(), runs=3, warm_up=False)
    ratio = measured_theirs.seconds / measured_ours.seconds
    note = f"{n_ours} iterations, the peer {n_theirs}; log-likelihoods of {final:.5f} and {expected:.5f} nats. "
    if silent:
        note += "Single precision would err by more than the tolerance here, so ours is in double precision."
    kind = "units silent in whole blobs" if silent else "to convergence"
    return Row(
        f"{outputs.n_examples:,} examples, {kind}",
        measured_ours,
        "mixture of scikit-learn's parts",
        measured_theirs,
        _floor(outputs.n_examples, n_ours, rates),
        "" if silent else "5 times",
        None if silent else ratio >= 5,
        note,
    )


def _floor(n: int, n_iterations: int, rates: dict[str, float]) -> float:
    reading, operations = n * D * 4 / rates["bytes"], 8 * n * N_COMPONENTS * D / rates["single"]
    return (n_iterations + 3) * reading + (n_iterations + 1) * operations


def _rows_of_size(n: int, path: Path, rates: dict[str, float]) -> list[Row]:
    file = np.lib.format.open_memmap(path, "w+", np.float32, (n, D))
    for rows, block in _blocks(n):
        file[rows] = block
    file.flush()
    del file
    outputs = _outputs(n, np.load(path, mmap_mode="r"))
    domino = Domino(pca=None, max_iter=LARGE_STEPS, tol=1e-4)
    ours = measured(lambda: domino.fit(outputs), runs=1, warm_up=n < SIZES[-1])
    assert len(domino.log_likelihood_) == LARGE_STEPS
    predicted = measured(lambda: domino.predict(outputs), runs=1, warm_up=False)
    limit = {"target": "under 1.5 GB", "reached": max(ours.peak_bytes, predicted.peak_bytes) < 1.5e9}
    rows = [
        Row(f"{n:,} examples, {LARGE_STEPS} iterations", ours, floor=_floor(n, LARGE_STEPS, rates)),
        Row(f"{n:,} examples, predict", predicted),
    ]
    if n < SIZES[-1]:
        return rows
    path.unlink()
    return [replace(row, **limit) for row in rows]


def _rates() -> dict[str, float]:
    """Operations of products in single and double precision, and bytes read, a second."""
    rates = {}
    for name, dtype in {"single": torch.float32, "double": torch.float64}.items():
        x, w = torch.ones(4_096, D, dtype=dtype), torch.ones(32, D, dtype=dtype)
        act = partial(products, x, w)
        rates[name] = 2 * x.numel() * len(w) / measured(act, runs=51).seconds
    many = torch.ones(1 << 27)  # 512 MB, far beyond any cache
    rates["bytes"] = 4 * len(many) / measured(many.sum, runs=5).seconds
    return rates


class Peer:
    """Expectation-maximisation of the error-aware mixture on whole arrays of doubles, after the paper's description."""

    def __init__(self, outputs: ModelOutputs) -> None:
        self.x = outputs.embeddings.numpy().astype(np.float64)
        self.labels = np.eye(N_CLASSES)[outputs.labels.numpy()]  # (n, c)
        self.predictions = softmax(outputs.logits.numpy().astype(np.float64), axis=1)  # (n, c)
        self.log_likelihoods: list[float] = []

    def fit(self) -> Peer:
        parameters = self._maximised(self._start())
        held = parameters[4]
        for _ in range(100):
            log_likelihood, responsibilities = self._expected(parameters)
            before = self.log_likelihoods[-1] if self.log_likelihoods else -np.inf
            if log_likelihood < before:  # as ours: predictions' distributions stay where they would lower it
                parameters = (*parameters[:4], held)
                log_likelihood, responsibilities = self._expected(parameters)
            self.log_likelihoods.append(log_likelihood)
            held, parameters = parameters[4], self._maximised(responsibilities)
            if log_likelihood - before < 1e-3:
                break
        return self

    def _start(self) -> np.ndarray:
        cells = (self.labels[:, :, None] * self.predictions[:, None, :]).reshape(len(self.x), -1)  # (n, k)
        noise = torch.rand(cells.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
        cells = cells / cells.sum(axis=1, keepdims=True) + 1e-3 * noise
        return cells / cells.sum(axis=1, keepdims=True)

    def _maximised(self, responsibilities: np.ndarray) -> tuple[np.ndarray, ...]:
        sizes, means, variances = parts._estimate_gaussian_parameters(self.x, responsibilities, 1e-6, "diag")
        labels, predictions = (responsibilities.T @ q / sizes[:, None] for q in (self.labels, self.predictions))
        return sizes / sizes.sum(), means, variances, labels, predictions

    def _expected(self, parameters: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
        weights, means, variances, labels, predictions = parameters
        scales = parts._compute_precision_cholesky(variances, "diag")
        log_joint = parts._estimate_log_gaussian_prob(self.x, means, scales, "diag") + np.log(weights)
        log_joint += 10 * np.log(self.labels @ labels.T + TINY) + 10 * np.log(self.predictions @ predictions.T + TINY)
        log_likelihoods = logsumexp(log_joint, axis=1)
        return float(log_likelihoods.mean()), np.exp(log_joint - log_likelihoods[:, None])
