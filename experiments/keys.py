"""Keys made from content: the same content gives the same key on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ABSENT = "(absent)"  # stands for an entry that one of two mappings lacks
KEY_LENGTH = 16  # hexadecimal digits: 64 bits


def key_of(content: Mapping[str, Any]) -> str:
    """The key of json-like content; the order of its entries does not matter.

    Examples
    --------
    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def derive(seed: int, *names: str) -> int:
    """A seed for one purpose, in [0, 2**32), from a seed for all purposes.

    Examples
    --------
    >>> derive(0, "problem a") != derive(0, "problem b")
    True
    """
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def first_difference(stored: Any, expected: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Where two nested mappings differ first: (dotted path, stored value, expected value), or None.

    Examples
    --------
    >>> first_difference({"method": {"size": 10}}, {"method": {"size": 50}})
    ('method.size', 10, 50)
    """
    if isinstance(stored, Mapping) and isinstance(expected, Mapping):
        for name in sorted({*stored, *expected}, key=repr):  # yaml has names that are no text, too
            dotted = f"{path}.{name}" if path else str(name)
            difference = first_difference(stored.get(name, ABSENT), expected.get(name, ABSENT), dotted)
            if difference:
                return difference
        return None
    return None if stored == expected else (path, stored, expected)
