"""Attributes of examples, label and prediction among them, as text that can be counted and sorted."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

from experiments.finished import FinishedRun

COLUMNS = ("label", "prediction")  # of examples, that count as attributes
BELOW, ABOVE = "below|under|less than|up to", "above|over|more than"  # that a range may begin with
NO_VALUE = "none"


def attributes_of(run: FinishedRun) -> tuple[str, ...]:
    """All attributes of a run; questions have no label and no prediction."""
    return (*(name for name in COLUMNS if run.examples[name].notna().any()), *run.attributes())


def attribute_of(run: FinishedRun, attribute: str) -> pd.Series:
    """One attribute of each example, as the data have it."""
    return run.examples[attribute] if attribute in COLUMNS else run.attribute(attribute)


def values_of(run: FinishedRun, attribute: str) -> pd.Series:
    """One attribute of each example, as text."""
    return attribute_of(run, attribute).map(as_text).astype(object)


def as_text(value: Any) -> str:
    """A value as people write it."""
    if pd.isna(value) or value == "":
        return NO_VALUE
    if isinstance(value, float) and value.is_integer():  # whole numbers become floats where some are missing
        return str(int(value))
    return str(value)


def natural(text: str) -> tuple[bool, float, str]:
    """Sorts 3-9 before 10-19, below 25 before 25-34, and what does not begin with a number after what does."""
    found = re.match(rf"(?:{BELOW}|{ABOVE}|[^\w\s-])*\s*(-?\d+(?:\.\d+)?)", text, re.IGNORECASE)
    below = 0.5 if re.match(f"{BELOW}|<", text, re.IGNORECASE) else 0
    return found is None, float(found.group(1)) - below if found else math.inf, text
