"""Runs that reports are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.finished import FinishedRun
from experiments.loaders.image_folder import ImageFolder
from tests.experiments.analyses.reading import members
from tests.experiments.report.browser import Browser, started

STORED = {"_target_": "experiments.models.precomputed.Precomputed"}


@pytest.fixture
def stored_run(finished_run: Callable[..., FinishedRun]) -> Callable[..., FinishedRun]:
    """Make a run of outputs alone: by default one slice, of the first three of eight examples, two of them wrong."""

    def make(
        examples: Any = None, slices: Any = None, definition: dict[str, Any] | None = None, **options: Any
    ) -> FinishedRun:
        table = eight_examples() if examples is None else examples
        chosen = members(len(table["loss"]), range(3)) if slices is None else slices
        return finished_run(table, chosen, definition={"model": STORED, **(definition or {})}, **options)

    return make


def eight_examples(**columns: Any) -> dict[str, Any]:
    return {
        "loss": [4.0, 3.0, 0.5, 0.4, 2.0, 0.3, 0.2, 0.1],
        "correct": [False, False, True, True, False, True, True, True],
        "label": ["cat", "cat", "cat", "dog", "dog", "dog", "dog", "dog"],
        "prediction": ["dog", "dog", "cat", "dog", "cat", "dog", "dog", "dog"],
        **columns,
    }


@pytest.fixture
def pictures_run(finished_run: Callable[..., FinishedRun], tmp_path: Path) -> Callable[..., FinishedRun]:
    """Make a run over pictures of one's own: so many grey ones, all in one slice, and as many to train on."""

    def make(n: int = 4, broken: int = 0, **options: Any) -> FinishedRun:
        folder = tmp_path / "pictures"
        for split in ("test", "train"):
            for name in ("another/00", *(f"thing/{row:02d}" for row in range(n))):
                path = folder / split / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (60, 60), 10 * int(path.stem)).save(path)
        for row in range(broken):
            (folder / "test" / "thing" / f"{row:02d}.png").write_bytes(b"no picture")
        loaded = ImageFolder(str(folder)).load(tmp_path, seed=0)
        ids = [one for one in loaded.split("test").example_ids if "thing" in one]
        named = {"id": ids, "path": ids, "label": "thing", "prediction": "thing"}
        table = {**named, "loss": np.arange(n, 0, -1.0), "correct": [row % 2 == 1 for row in range(n)]}
        definition = {
            "dataset": {"_target_": "experiments.loaders.image_folder.ImageFolder", "path": str(folder)},
            "fingerprint": loaded.fingerprint,
            "evaluation": {"opponents_from": "train"},
        }
        return finished_run(pd.DataFrame(table), members(n, range(n)), definition=definition, **options)

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Started once for all tests of a file."""
    with started() as one:
        yield one
