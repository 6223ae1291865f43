"""Finished runs and analysed experiments with contents that a test chooses, as the pipeline would have left them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.analysing import COLUMNS
from experiments.files import write_json, write_parquet
from experiments.finished import FinishedRun
from tests.experiments.run_folders import write_run


@pytest.fixture
def finished_run(tmp_path: Path) -> Callable[..., FinishedRun]:
    """Make a finished run, see `tests.experiments.run_folders.write_run`; no two of a test have the same seed."""
    numbers = count()

    def make(*contents: Any, definition: Mapping[str, Any] | None = None, **options: Any) -> FinishedRun:
        given = dict(definition or {})
        seeds = {"method": next(numbers), **given.pop("seeds", {})}
        return write_run(tmp_path / "runs", *contents, definition={**given, "seeds": seeds}, **options)

    return make


@pytest.fixture
def analysed_experiment(tmp_path: Path) -> Callable[..., Path]:
    """Make the folder of an analysed experiment: its path.

    `rows` are numbers, of a spotlight on FairFace unless they say otherwise; `pictures` the sides of square pictures
    of noise by file name, each with the data set whose examples can be seen in it. Whatever else there is goes into
    the record and the summary.
    """

    def make(
        name: str,
        rows: Sequence[Mapping[str, Any]] = (),
        pictures: Mapping[str, tuple[int, str | None]] | None = None,
        scale: str = "here",
        **others: Any,
    ) -> Path:
        folder = tmp_path / "outputs" / "experiments" / f"{name}-{scale}"
        about = {
            "experiment": name,
            "scale": scale,
            "command": f"slicebench run experiment={name} scale={scale}",
            "stand_ins": [],
            "notes": [],
            "refused": [],
            **others,
        }
        write_json(folder / "experiment.json", {**about, "analyses": [], "runs": ["fairface/a-0"], "missing": []})
        shown = [_drawn(folder / "analysis" / file, *what) for file, what in (pictures or {}).items()]
        seconds = {"train": 90.0, "train: waiting for data": 30.0}
        stamp = {"commits": ["abc"], "devices": ["cpu"], "threads": [2], "seconds": seconds, "runs": 1}
        summary = {"stamp": stamp, "pictures": shown, "tables": [], "sentences": {}, **about}
        write_json(folder / "analysis" / "summary.json", summary)
        write_parquet(folder / "analysis" / "numbers.parquet", _numbers(rows))
        return folder

    return make


def _numbers(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    own = {"analysis": "slices", "dataset": "fairface slice_size=100", "method": "spotlight", "split": "test"}
    table = pd.DataFrame([{**own, **row} for row in rows], columns=list(COLUMNS))
    return table.astype({"slice": "Int64", "n": "Int64", "value": "float64", "low": "float64", "high": "float64"})


def _drawn(path: Path, side: int, shows: str | None) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(f"{path}.png")
    Path(f"{path}.svg").write_text("<svg/>")
    return {"file": path.name, "caption": f"What {path.name} shows.", "shows": shows}
