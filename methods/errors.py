"""What is raised where the input cannot be used; nothing heavy is imported here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMES = 50  # more than that nobody reads


class InvalidInput(ValueError):
    """What the user gave cannot be used; the message says what, where and what was expected."""


class InvalidSetting(InvalidInput):
    """A setting that does not fit the data, which are as they should be."""


class Unsupported(InvalidInput):
    """The method needs something that this problem does not have."""


def unknown_name(problem: str, name: str, allowed: Iterable[str]) -> str:
    """A message with the nearest of the allowed names.

    Examples
    --------
    >>> unknown_name("no method is called 'gmn'", "gmn", ["random", "gmm"])
    "no method is called 'gmn'; the nearest is gmm (all: gmm, random)"
    """
    everything = sorted(allowed)
    near = difflib.get_close_matches(name, everything, n=3)
    nearest = f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""
    everything_said = f"all: {', '.join(everything)}" if everything else "there are none"
    if len(everything) > MOST_NAMES:
        everything_said = f"{len(everything):,} in all, such as {everything[0]}"
    return f"{problem}{nearest} ({everything_said})"
