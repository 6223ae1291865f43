"""What runs are called, and names that fit into a line, a picture, the name of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.describing.grouping import grouped
from experiments.finished import FinishedRun, titles


def short_titles(runs: Sequence[FinishedRun]) -> list[str]:
    """A name for each run: its method alone where no other has it, else also what tells it from those."""
    of_methods = grouped(runs, lambda run: run.method).values()
    names = {run: title for alike in of_methods for run, title in zip(alike, titles(alike), strict=True)}
    return [names[run] for run in runs]


def file_names(names: Sequence[str]) -> list[str]:
    """What files of runs with these titles are called, each differently."""
    short = [re.sub(r"[^\w.=]+", "-", name).strip("-")[:60] for name in names]
    return [f"{name}-{short[:at].count(name) + 1}" if name in short[:at] else name for at, name in enumerate(short)]


def file_name(name: str) -> str:
    """What the file about an attribute, or of a run, is called: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def in_a_line(value: Any) -> str:
    """A class name, or another value, in one line; nothing where there is none."""
    return "" if value is None or pd.isna(value) else " ".join(str(value).split())


def shortened(text: str, longest: int) -> str:
    """At most so many letters, the last an ellipsis where there were more."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def plain(text: str) -> str:
    """For pictures, where two dollar signs would make a formula."""
    return text.replace("$", r"\$")
