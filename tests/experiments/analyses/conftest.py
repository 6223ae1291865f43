"""Where analyses under test write, and what they draw."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.analysing import Output


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
