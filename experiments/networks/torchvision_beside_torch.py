"""Import this before torchvision: it makes torchvision importable beside a torch that it was not built for.

The package index has torchvision for CUDA builds of torch only. Beside a CPU build its compiled operators cannot be
loaded, and `import torchvision`, which registers shapes for two of them, fails with "operator torchvision::nms does not
exist"; most of transformers fails with it. Declaring the two operators is enough for models, transforms and data sets;
calling them, or `torchvision.io`, still fails. Where the builds match, nothing is done.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

DECLARED = ("nms", "qnms")

_kept_alive: list[torch.library.Library] = []  # the declarations last as long as this object


def declare_missing_operators() -> bool:
    """Declare torchvision's operators where its compiled ones cannot be loaded.

    Returns
    -------
    bool
        Whether they had to be declared.
    """
    if _kept_alive:
        return True
    compiled = _compiled_operators()
    if compiled is None:
        return False
    try:
        torch.ops.load_library(compiled)
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in DECLARED:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)
        return True
    return False


def _compiled_operators() -> Path | None:
    """The file of compiled operators, found without importing torchvision."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("_C*.so"))), None)


declare_missing_operators()
