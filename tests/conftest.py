"""One thread, no network, and nothing written outside the test's own folder."""

from __future__ import annotations

import os
import tempfile

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "offline",
    "HF_HUB_OFFLINE": "1",
    "SLICEBENCH_CACHE": tempfile.mkdtemp(prefix="slicebench-cache-"),  # shared: a model is trained once for all tests
}

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _cache() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["SLICEBENCH_CACHE"], ignore_errors=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; the cache is shared between tests, unless a test sets its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that no other test has written to."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SLICEBENCH_CACHE", str(folder))
    return folder
