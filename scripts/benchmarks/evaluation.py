"""600 relabelling problems and ten methods: what it costs to score slices, beside what it costs to find them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from benchmarks.measuring import Measured, Row, Section, measured
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor
from torch.nn.functional import one_hot

from experiments.contract import Problem
from experiments.corruption import Half, RelabelSubclass
from experiments.discovery import Discovered, discover, score
from experiments.settings import Settings, settings_of
from methods.contract import ModelOutputs

THREADS = 2
# how many of the problems each method works on: a part, as a run has it, or less
METHODS = {
    **dict.fromkeys(
        ("random", "highest_loss", "confusion", "gmm", "kmeans", "ball", "ridge", "domino", "infembed"), 25
    ),
    "spotlight": 5,
}
N_CLASSES, N_SUBCLASSES, SIZE, DIMENSIONS, DRAWS = 5, 60, 50, 512, 10
GRADIENTS = 100
N_PROBLEMS = N_SUBCLASSES * DRAWS
SHARE = 0.01  # of the time of discovery
WHY = (
    "; of the 2.5 ms that a problem with five slices takes, 0.75 are the draws behind the gaps' intervals, and no "
    "other part is above a tenth"
)


def section() -> Section:
    """Score slices that have been checked, of each method in turn."""
    with tempfile.TemporaryDirectory() as folder:
        times = {name: _times(_settings(name, folder), _problems(n, name == "infembed")) for name, n in METHODS.items()}
    rows = [_row(f"{name}, {METHODS[name]} of the problems", *both) for name, both in times.items()]
    scoring, finding = (
        sum(seconds.seconds * N_PROBLEMS / METHODS[name] for name, seconds in zip(times, each, strict=True))
        for each in zip(*times.values(), strict=True)
    )
    whole = f"{N_PROBLEMS} problems x {len(METHODS)} methods, scaled from the rows above"
    return Section(
        f"Evaluation (ours) beside discovery (peer) of the same slices: {N_SUBCLASSES * SIZE:,} examples, "
        f"d = {DIMENSIONS}, true slices of {SIZE}, settings as a run has them, a part of a run at a time. infembed has "
        "gradients by the label, projected at random, as its embeddings.",
        [*rows, _total(whole, Measured(scoring, 0), Measured(finding, 0))],
    )


@dataclass(frozen=True)
class _Gradients:
    """Of the loss by the last layer's weights, projected: like influence embeddings they follow the label."""

    probabilities: Tensor  # (n, c)
    by_class: Tensor  # (n, c, GRADIENTS)

    def relabelled(self, labels: Tensor) -> Tensor:
        residuals = self.probabilities - one_hot(labels, N_CLASSES)
        return torch.einsum("nc,ncd->nd", residuals, self.by_class)


def _problems(n: int, by_label: bool) -> list[Problem]:
    """So many of the problems, each of another subclass."""
    half = _half(by_label)
    problems = RelabelSubclass(n_seeds=DRAWS).problems(half, half, seed=0)
    assert len(problems) == N_PROBLEMS
    made = (problems[DRAWS * at] for at in range(n))
    return [problem for problem in made if isinstance(problem, Problem)]


def _half(by_label: bool) -> Half:
    """What a model that is mostly right might have said of examples in subclasses of its classes."""
    rng = np.random.default_rng(0)
    subclass = np.repeat(np.arange(N_SUBCLASSES), SIZE)  # (n,)
    of_class, of_subclass = rng.normal(size=(N_CLASSES, DIMENSIONS)), rng.normal(size=(N_SUBCLASSES, DIMENSIONS))
    labels = subclass % N_CLASSES
    embeddings = of_class[labels] + 0.5 * of_subclass[subclass] + rng.normal(size=(len(labels), DIMENSIONS))
    logits = embeddings @ of_class.T / 64 + 3 * rng.normal(size=(len(labels), N_CLASSES))  # right for nine in ten
    ids = [f"{row:04d}" for row in range(len(labels))]
    embeddings = np.maximum(embeddings, 0)
    outputs = ModelOutputs.from_arrays(ids, embeddings=embeddings, labels=labels, logits=logits)
    attributes = pd.DataFrame({"subclass": [f"{name:02d}" for name in subclass]}, index=ids)
    return Half(outputs, attributes, _gradients(outputs) if by_label else None)  # type: ignore[arg-type]


def _gradients(outputs: ModelOutputs) -> _Gradients:
    assert outputs.logits is not None
    projection = torch.randn(N_CLASSES, DIMENSIONS, GRADIENTS, generator=torch.Generator().manual_seed(0))
    by_class = torch.einsum("nh,chd->ncd", outputs.embeddings, projection)
    return _Gradients(outputs.logits.softmax(dim=1), by_class)


def _settings(method: str, folder: str) -> Settings:
    paths = [f"paths.{name}={Path(folder, name)}" for name in ("results", "cache")]
    return settings_of([f"method={method}", "dataset=digits", f"dataset.slice_size={SIZE}", "tracking=none", *paths])


def _times(settings: Settings, problems: Sequence[Problem]) -> tuple[Measured, Measured]:
    """Seconds of scoring and of finding slices in these problems."""
    discover(settings, problems[:1])  # imports and compiled code are nobody's
    found, seconds = _timed(lambda: discover(settings, problems))
    _check(problems, found, score(settings, problems, found.found))
    return measured(lambda: score(settings, problems, found.found)), Measured(seconds)


def _timed(act: Callable[[], Discovered]) -> tuple[Discovered, float]:
    start = time.perf_counter()
    found = act()
    return found, time.perf_counter() - start


def _check(problems: Sequence[Problem], found: Discovered, scores: Sequence[dict[str, Any]]) -> None:
    """That scores are scikit-learn's, of the slice that each row names."""
    peers = {"average_precision": average_precision_score, "auroc": roc_auc_score, "f1": f1_score}
    truth = {problem.name: problem.true_slices.numpy()[:, 0] for problem in problems if problem.true_slices is not None}
    rows = [row for row in scores if row["metric"] in peers and row["slice"] is not None]
    assert rows
    for row in rows:
        slices, code = found.found[row["problem"]], row["slice"]
        column = (slices.members if row["metric"] == "f1" else slices.membership).double().numpy()
        values = column[:, code] if code >= 0 else 1 - column[:, -1 - code]
        expected = peers[row["metric"]](truth[row["problem"]], values)
        assert abs(row["value"] - expected) < 1e-4, row  # 1 - m rounds small memberships together


def _row(work: str, scoring: Measured, finding: Measured) -> Row:
    return Row(work, scoring, "discovery", finding)


def _total(work: str, scoring: Measured, finding: Measured) -> Row:
    share = scoring.seconds / finding.seconds
    target, note = (
        f"evaluation at most {SHARE:.0%} of discovery",
        f"evaluation takes {share:.2%} of discovery's time{WHY}",
    )
    return Row(work, scoring, "discovery", finding, target=target, reached=share <= SHARE, note=note)
