"""Finished runs with contents that a test chooses, as the pipeline would have left them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from experiments.analysing import Output
from experiments.files import write_npz, write_parquet
from experiments.finished import FinishedRun
from experiments.record import _arrays
from experiments.runs import COLUMNS
from methods.contract import Slices


@pytest.fixture
def out(tmp_path: Path) -> Output:
    """Where an analysis under test writes."""
    return Output(tmp_path / "analysis", "tested")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Whatever is drawn in this test: it is not written, which takes longer than all the rest."""
    drawn: list[Figure] = []
    monkeypatch.setattr("experiments.drawing.save", lambda figure, *rest, **more: drawn.append(figure))
    return drawn


@pytest.fixture
def unsaved(out: Output, figures: list[Figure]) -> Output:
    """The same as `out`, without files of pictures."""
    return out


@pytest.fixture
def finished_run(tmp_path: Path) -> Callable[..., FinishedRun]:
    """Make a finished run.

    `examples` has at least loss and correct, and whatever columns of `examples.parquet` the test needs; `members`
    (n, s) 0/1 are the hard slices, or a mapping from problem to such arrays; `membership`, by default the same.
    `scores` are tidy rows where a test needs any; `opponents` the table of that name.
    """
    made = 0

    def make(
        examples: Mapping[str, Any] | pd.DataFrame,
        members: Any,
        *,
        membership: Any = None,
        method: str = "spotlight",
        dataset: str = "fairface",
        diagnostics: Any = None,
        scores: list[dict[str, Any]] | None = None,
        opponents: Mapping[str, Any] | None = None,
        definition: Mapping[str, Any] | None = None,
        seconds: Mapping[str, float] | None = None,
        **names: str,
    ) -> FinishedRun:
        nonlocal made
        folder = tmp_path / "runs" / dataset.split(" ")[0] / f"{method}-{made:016x}"
        made += 1
        table = pd.DataFrame(examples)
        n = len(table)
        defaults = {"id": [f"{i:05d}" for i in range(n)], "split": "test", "label": None, "prediction": None}
        table = table.assign(**{name: value for name, value in defaults.items() if name not in table})
        ids = tuple(table.loc[table["split"] == "test", "id"])
        write_parquet(folder / "examples.parquet", table)
        of_problems = members if isinstance(members, Mapping) else {"all": members}
        slices = {}
        for problem, of_one in of_problems.items():
            hard = torch.as_tensor(np.asarray(of_one)).bool()
            soft = hard.float() if membership is None else torch.as_tensor(np.asarray(membership)).float()
            slices[problem] = Slices(ids, soft, hard, tuple(diagnostics or ({} for _ in range(hard.shape[1]))))
        write_npz(folder / "parts" / "000.npz", _arrays(slices))
        identity = {
            "dataset": dataset,
            "model": "resnet",
            "embedding": "final_hidden",
            "corruption": "none",
            "method": method,
            "variant": "",
            "kind": "none",
            "run": folder.name,
            "seed": 0,
            **names,
        }
        rows = scores or [
            {"problem": problem, "group": problem, "metric": "n_slices", "value": 1.0} for problem in slices
        ]
        write_parquet(
            folder / "scores.parquet", pd.DataFrame([{**identity, **row} for row in rows], columns=list(COLUMNS))
        )
        if opponents is not None:
            write_parquet(folder / "opponents.parquet", pd.DataFrame(opponents))
        content = {
            "definition": {"evaluation": {"score_split": "test", "fit_split": "test"}, **(definition or {})},
            "seconds": dict(seconds or {"discover": 1.0}),
            "scale": {"name": "here", "stand_ins": []},
            "dataset_notes": [],
            "status": "done",
        }
        return FinishedRun(folder, content)

    return make
