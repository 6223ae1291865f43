"""Texts of examples as words are counted in them."""

from __future__ import annotations

import re
from ast import literal_eval
from typing import Literal

import pandas as pd

from experiments.finished import FinishedRun

TOKEN = r"(?u)\b\w\w+\b"  # scikit-learn's: two or more letters or digits
PAIR = ("('", '("')  # how a pair of texts begins in a run's examples

Pairs = Literal["first", "both"]


def texts_of(run: FinishedRun, pairs: Pairs = "both") -> tuple[str, ...]:
    """The text of each example, of a pair the first or both after each other; none where no text holds a word."""
    return texts_in(run.examples, pairs)


def texts_in(examples: pd.DataFrame, pairs: Pairs = "both") -> tuple[str, ...]:
    """The same of rows of `examples.parquet`."""
    if "text" not in examples:
        return ()
    texts = examples["text"].fillna("").astype(str)
    if texts.str.startswith(PAIR).all():
        texts = texts.map(lambda text: _of_pair(text, pairs))
    return tuple(texts) if any(re.search(TOKEN, text) for text in texts) else ()


def _of_pair(text: str, pairs: Pairs) -> str:
    try:
        first, second = literal_eval(text)
    except (ValueError, SyntaxError):  # a text that only begins like one
        return text
    return str(first) if pairs == "first" else f"{first}\n{second}"
