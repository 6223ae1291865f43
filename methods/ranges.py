"""The allowed range of a setting stands in its dataclass field; this reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from methods.contract import InvalidInput

# metadata key -> (words for the message, whether a value is allowed)
RULES: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "min": ("at least", lambda value, bound: value >= bound),
    "max": ("at most", lambda value, bound: value <= bound),
    "above": ("above", lambda value, bound: value > bound),
    "below": ("below", lambda value, bound: value < bound),
}


def check_ranges(settings: Any) -> None:
    """Raise `InvalidInput` for the first field whose number is outside the range in its metadata.

    Parameters
    ----------
    settings : dataclass instance
        Fields like `size: int = field(default=50, metadata={"min": 1})`; of a list or tuple each entry is checked,
        and its length against `min_items`; what is no number (None, a name) is passed over. No number is infinite.

    Examples
    --------
    >>> from dataclasses import dataclass, field
    >>> @dataclass
    ... class Settings:
    ...     share: float = field(default=0.5, metadata={"above": 0, "max": 1})
    >>> check_ranges(Settings(0.0))
    Traceback (most recent call last):
    ...
    methods.errors.InvalidInput: share is 0.0, expected above 0 and at most 1
    """
    for field in fields(settings):
        _check_length(field.name, getattr(settings, field.name), field.metadata.get("min_items", 0))
        rules = {key: bound for key, bound in field.metadata.items() if key in RULES}
        value = getattr(settings, field.name)
        for entry in value if isinstance(value, list | tuple) else [value]:
            # `not (... )` and not `or`, so that a NaN is refused too
            if _is_number(entry) and math.isinf(entry):
                raise InvalidInput(f"{field.name} is {entry}, expected a finite number")
            if _is_number(entry) and not all(RULES[key][1](entry, bound) for key, bound in rules.items()):
                allowed = " and ".join(f"{RULES[key][0]} {bound}" for key, bound in rules.items())
                raise InvalidInput(f"{field.name} is {entry}, expected {allowed}")


def _check_length(name: str, value: Any, min_items: int) -> None:
    if isinstance(value, list | tuple) and len(value) < min_items:
        raise InvalidInput(f"{name} is empty, expected at least {min_items} of them")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
