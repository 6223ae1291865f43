"""One thread, no network, and nothing written outside the test's own folder."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner, Result

from experiments import settings
from experiments.cli import app
from experiments.settings import Settings

torch.set_num_threads(1)
threadpool_limits(1)
os.environ |= {
    "OMP_NUM_THREADS": "1",  # of the processes that tests start
    "WANDB_MODE": "offline",
    "HF_HUB_OFFLINE": "1",
    "SLICEBENCH_CACHE": tempfile.mkdtemp(prefix="slicebench-cache-"),  # shared: a model is trained once for all tests
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for a cluster most of the time comes first, beside all the others."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


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


@pytest.fixture
def settings_of(workspace: Path) -> Callable[..., Settings]:
    """The checked settings of a run with these overrides, its results in the workspace."""

    return lambda *overrides: settings.settings_of(["tracking=none", *overrides])


@pytest.fixture
def slicebench(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command line in the workspace; runs have one thread and no tracking unless they say otherwise."""
    monkeypatch.setattr("sys.argv", ["slicebench"])
    monkeypatch.setattr("sys.path", sys.path[:])  # --import-path adds to it
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def call(verb: str, *arguments: str) -> Result:
        before = ("tracking=none", "compute.threads=1") if verb == "run" else ()
        return CliRunner().invoke(app, [verb, *before, *arguments])

    return call


@pytest.fixture
def data() -> Callable[[str], Path]:
    """The root of real data, where it holds these files or folders; the test is skipped elsewhere."""

    def root_with(*names: str) -> Path:
        root = os.environ.get("SLICEBENCH_DATA")
        missing = [name for name in names if root is None or not (Path(root) / name).exists()]
        if root is None or missing:
            pytest.skip(f"SLICEBENCH_DATA has no {', '.join(missing)}: real data is needed")
        return Path(root)

    return root_with
