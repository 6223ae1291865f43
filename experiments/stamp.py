"""What a number was measured with: versions, code, machine."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments.compute import device_of, n_threads
from experiments.settings import Settings

PACKAGES = ("slicebench", "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "hydra-core", "omegaconf")


def stamp(settings: Settings) -> dict[str, Any]:
    """Seeds, versions, code, device and threads of this process, as json values."""
    device = device_of(settings.compute)
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": n_threads(settings.compute),
    }


@cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that this code lies in; None where it is not in one."""
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": None if commit is None else bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
