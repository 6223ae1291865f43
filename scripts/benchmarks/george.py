"""GEORGE and the Gaussian mixture, against the same out of umap-learn and scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from benchmarks.measuring import Row, Section, measured
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_samples
from sklearn.mixture import GaussianMixture

from methods.contract import ModelOutputs
from methods.george import GEORGE
from methods.gmm import GMM

THREADS = 2
N_EXAMPLES, D = 3_000, 512
MAX_K = 10
CLASSES = (2, 10)
SHARED = (
    "Reduction and mixtures are the libraries' own in both; most of it is UMAP's loop in Python over pairs of examples."
)


def section() -> Section:
    """Check that clusters are the same, and time both."""
    warnings.simplefilter("ignore", UserWarning)  # UMAP's
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = [_george(n_classes) for n_classes in CLASSES] + [_mixture(kind) for kind in ("full", "diag")]
    head = (
        f"{N_EXAMPLES:,} examples of {D} dimensions, fit and predict. GEORGE's peer is the paper, one class after the "
        f"other: UMAP of unit rows, mixtures of 2 to {MAX_K}, the silhouettes of each."
    )
    return Section(head, rows)


def _outputs(n_classes: int) -> ModelOutputs:
    """Three blobs a class, one of which fails."""
    random = np.random.default_rng(0)
    blobs = random.integers(3 * n_classes, size=N_EXAMPLES)
    centers = random.standard_normal((3 * n_classes, D))
    labels, wrong = blobs // 3, blobs % 3 == 0
    predictions = np.where(wrong, (labels + 1) % n_classes, labels)
    logits = 3 * np.eye(n_classes)[predictions] + random.standard_normal((N_EXAMPLES, n_classes))
    embeddings = (centers[blobs] + random.standard_normal((N_EXAMPLES, D))).astype(np.float32)
    return ModelOutputs.from_arrays(embeddings=embeddings, labels=labels, logits=logits)


def _george(n_classes: int) -> Row:
    outputs = _outputs(n_classes)
    method = GEORGE(n_slices=MAX_K * n_classes, max_k=MAX_K)
    slices = method.fit(outputs).predict(outputs)
    clusters = _peer(outputs)
    expected = {frozenset(np.flatnonzero(clusters == cluster).tolist()) for cluster in np.unique(clusters)}
    found = {frozenset(members.nonzero().flatten().tolist()) for members in slices.members.T}
    assert found == expected, "other clusters"
    ours = measured(lambda: method.fit(outputs).predict(outputs), runs=3, warm_up=False)
    peers = measured(lambda: _peer(outputs), runs=3, warm_up=False)
    row = Row(f"GEORGE, {n_classes} classes", ours, "umap-learn and scikit-learn", peers, note=SHARED)
    return replace(row, target="as fast, within 10%", reached=peers.seconds >= 0.9 * ours.seconds)


def _peer(outputs: ModelOutputs) -> np.ndarray:
    """The cluster of each example, numbered over all classes."""
    from umap import UMAP

    x, labels = outputs.embeddings.numpy(), outputs.labels.numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    clusters = np.zeros(len(x), dtype=int)
    for label in np.unique(labels):
        rows = labels == label
        umap = UMAP(n_components=2, n_neighbors=10, min_dist=0.0, random_state=0, n_jobs=1)
        plane = umap.fit_transform(x[rows]).astype(np.float64)
        mixtures = [GaussianMixture(k, n_init=3, random_state=0).fit(plane) for k in range(2, MAX_K + 1)]
        candidates = [mixture.predict(plane) for mixture in mixtures]
        scores = [_separation(plane, candidate) for candidate in candidates]
        best = max(range(len(scores)), key=lambda index: (scores[index], index))
        clusters[rows] = candidates[best] + MAX_K * label
    return clusters


def _separation(plane: np.ndarray, clusters: np.ndarray) -> float:
    """The mean over clusters of their mean silhouette."""
    values = silhouette_samples(plane, clusters)
    return float(np.mean([values[clusters == cluster].mean() for cluster in np.unique(clusters)]))


def _mixture(kind: str) -> Row:
    outputs = _outputs(n_classes=2)
    method = GMM(n_components=20, covariance_type=kind)

    def peer() -> np.ndarray:
        x = outputs.embeddings.numpy().astype(np.float64)
        return GaussianMixture(20, covariance_type=kind, random_state=0).fit(x).predict_proba(x).argmax(axis=1)

    method.fit(outputs)
    assert np.array_equal(method.clusters_, peer()), "other components"
    ours = measured(lambda: method.fit(outputs).predict(outputs), runs=3, warm_up=False)
    peers = measured(peer, runs=3, warm_up=False)
    note = "Ours also makes the k-means start again, to tell how many examples left it."
    return Row(f"mixture of 20, {kind}", ours, "scikit-learn GaussianMixture", peers, note=note)
