"""torchvision beside a torch that it was not built for, and beside one that it was."""

import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from experiments.networks import torchvision_beside_torch as remedy


def python(code, path=None):
    environment = {"PATH": "/usr/bin:/bin", **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def installed_alone_fails():
    return "operator torchvision::nms does not exist" in python("import torchvision").stderr


@pytest.fixture(scope="module")
def after_the_remedy():
    """Whether it acted, and what a process that uses torchvision and transformers after it says."""
    done = python(
        "from experiments.networks.torchvision_beside_torch import declare_missing_operators\n"
        "print(declare_missing_operators())\n"
        "import torchvision.models, torchvision.transforms.v2\n"
        "from transformers import BertModel\n"
        "print(sum(p.numel() for p in torchvision.models.squeezenet1_1().parameters()))"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_after_the_remedy_torchvision_and_transformers_work(after_the_remedy):
    assert after_the_remedy[1] == "1235496"


def test_the_remedy_acts_where_torchvision_alone_fails(after_the_remedy):
    assert after_the_remedy[0] == str(installed_alone_fails())


def test_nothing_is_done_where_the_builds_match(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    # any library that loads stands for compiled operators that fit
    shutil.copy(find_spec("_ctypes").origin, package / "_C.so")
    done = python(
        "import torch, experiments.networks.torchvision_beside_torch as remedy\n"
        "print(remedy.declare_missing_operators(), hasattr(torch.ops.torchvision, 'nms'))",
        tmp_path,
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_without_torchvision_nothing_is_done(monkeypatch):
    monkeypatch.setattr(remedy, "_kept_alive", [])
    monkeypatch.setattr(remedy, "find_spec", lambda name: None if name == "torchvision" else find_spec(name))
    assert not remedy.declare_missing_operators()
    assert remedy._kept_alive == []
