"""Whatever a method draws, it draws the same again, and disturbs nobody else's draws."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context the global generators of Python, numpy and torch start from this seed, in [0, 2**32)."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def with_seed(method: Any, seed: int) -> Any:
    """A copy of an unfitted method that draws from this seed, if it draws at all."""
    seeded_copy = copy.copy(method)
    if hasattr(seeded_copy, "seed"):
        object.__setattr__(seeded_copy, "seed", seed)  # a frozen dataclass is a method too
    return seeded_copy
