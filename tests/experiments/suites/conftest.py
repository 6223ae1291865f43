"""A small suite on digits, for tests to change."""

import pytest
import yaml

SMALL = {
    "overrides": [
        "dataset=digits",
        "dataset.validation_share=0.3",
        "model=small_cnn",
        "model.channels=8",
        "model.hidden=16",
        "model.training.epochs=8",
        "compute.threads=1",
    ],
    "slices": [{"attribute": "subclass", "classes": ["4 or 9"], "values": ["9"]}],
    "kinds": {"rare": [0.01]},
}


@pytest.fixture(scope="session")
def a_block():
    """A block with one problem, which is made in a second; with other settings where a test gives them."""

    def changed(**settings):
        return {**SMALL, **settings}

    return changed


@pytest.fixture
def write_suite(workspace, a_block):
    """Write a suite with this block into the workspace; gives its path, as the command line takes it."""

    def write(name="small", **settings):
        path = workspace / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"b": a_block(**settings)}))
        return str(path)

    return write


@pytest.fixture
def suites(workspace, monkeypatch):
    """The folder of suites, below an empty data root."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))
    return workspace / "data" / "suites"
