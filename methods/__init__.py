"""Slice discovery methods: one file each, and the contract that they share.

The names below are imported when they are first used, so that looking at this package costs no torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Ball": "methods.ball",
    "Domino": "methods.domino",
    "GEORGE": "methods.george",
    "InfEmbedRule": "methods.infembed_rule",
    "KMeansSlices": "methods.kmeans",
    "PlaneSpot": "methods.planespot",
    "Ridge": "methods.ridge",
    "Confusion": "methods.confusion",
    "GMM": "methods.gmm",
    "HighestLoss": "methods.highest_loss",
    "InvalidInput": "methods.errors",
    "ModelOutputs": "methods.contract",
    "RandomSlices": "methods.random_slices",
    "SliceDiscoveryMethod": "methods.contract",
    "Slices": "methods.contract",
    "Spotlight": "methods.spotlight",
    "Unsupported": "methods.errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'methods' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
