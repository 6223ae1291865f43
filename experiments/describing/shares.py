"""Shares of examples with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest


def share(outcomes: np.ndarray | pd.Series) -> dict[str, float]:
    """The share of true ones with its 95% interval (Wilson's), and of how many; `n` alone where there are none."""
    if not len(outcomes):
        return {"n": 0}
    test = binomtest(int(outcomes.sum()), len(outcomes))
    low, high = test.proportion_ci(0.95, "wilson")
    return {"value": test.statistic, "low": low, "high": high, "n": len(outcomes)}
