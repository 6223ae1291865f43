"""Text that comes from anywhere, fit for a page: hostile until it has been here."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from experiments.describing.names import shortened
from experiments.describing.texts import TOKEN

NAME, TEXT = 80, 600  # letters of a name, of a text
DIGITS = 5  # significant ones of a number
# what no text needs and some terminals and browsers obey: controls but tab and newline, and halves of letters
UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_MARKS = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c) in ("Mn", "Me"))
PILED = re.compile(
    f"([{_MARKS}]{{4}})[{_MARKS}]+"
)  # marks on one letter, more than any language has: they cover others


class Piece(NamedTuple):
    """A part of a text, and whether it is marked."""

    text: str
    marked: bool


def written(value: Any) -> Any:
    r"""What a template writes: text without what cannot be written, or covers what others wrote; the rest as it is.

    Examples
    --------
    >>> written("a\x00b")
    'a\ufffdb'
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return PILED.sub(r"\1", UNWRITABLE.sub("\ufffd", value))


def name_of(value: Any) -> str:
    """A class, an id, the value of an attribute: in one line, and short; a dash where there is none."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "–"
    text = _of_float(value) if isinstance(value, float) else str(value)
    return shortened(" ".join(text.split()), NAME) or "–"


def _of_float(value: float) -> str:
    """With a few significant digits, and all that stand before the point."""
    return f"{value:.0f}" if 10**DIGITS <= abs(value) < 10**15 else f"{value:.{DIGITS}g}"


def pieces(text: str, tokens: frozenset[str]) -> list[Piece]:
    """The beginning of a text, cut where marked words begin and end.

    Examples
    --------
    >>> [tuple(piece) for piece in pieces("A dull, dull film", frozenset({"dull"}))]
    [('A ', False), ('dull', True), (', ', False), ('dull', True), (' film', False)]
    """
    shown, cut, found = shortened("\n".join(text.splitlines()), TEXT), 0, []
    for word in re.finditer(TOKEN, shown):
        if word.group().lower() in tokens:
            found += [Piece(shown[cut : word.start()], False), Piece(word.group(), True)]
            cut = word.end()
    return [piece for piece in (*found, Piece(shown[cut:], False)) if piece.text]
