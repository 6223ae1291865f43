"""The examples of a slice as people look at them: pictures, texts or rows, or ids where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pandas as pd
from PIL import Image

from experiments.describing.data import examples_of, picture_reader
from experiments.describing.makeup import PREFIX, Trait
from experiments.describing.problems import FoundIn
from experiments.describing.texts import texts_in
from experiments.describing.tokens import token_ratios
from experiments.finished import FinishedRun
from experiments.report.assets import Assets
from experiments.report.words import Piece, name_of, pieces
from methods.errors import InvalidInput, Unsupported

PICTURES, TEXTS, ROWS = 9, 3, 6  # of a slice: its strongest members, and as many others of the largest losses
TOKENS, IN_TEXTS = 8, 5  # words of a slice, and in how many of its texts one must be at least
COLUMNS = 6  # of a table of rows
OPPONENTS = 6  # of each sign


@dataclass(frozen=True)
class Shown:
    """One example.

    Parameters
    ----------
    id, label, prediction : str
    correct : bool
    number : float
        The loss in nats, or the influence of a training example.
    picture : str, optional
        Its address.
    text : list of Piece
    values : tuple of str
        Of the columns of a table.
    """

    id: str
    label: str
    prediction: str
    correct: bool
    number: float
    picture: str | None = None
    text: list[Piece] = field(default_factory=list)
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """The tokens that are more frequent in a slice, with their ratios."""

    tokens: list[tuple[str, float, int]]

    @property
    def marked(self) -> frozenset[str]:
        return frozenset(token for token, _, _ in self.tokens)


class Gallery:
    """What can be shown of a run's examples.

    Parameters
    ----------
    run : FinishedRun
    assets : Assets
    """

    def __init__(self, run: FinishedRun, assets: Assets) -> None:
        self.run, self.assets = run, assets
        self._readers: dict[str, Callable[[str], Image.Image] | None] = {}
        self._made: dict[str, dict[str, str | None]] = {}
        self.reasons: dict[str, str] = {}  # why pictures of a split are missing

    @cached_property
    def opponents(self) -> pd.DataFrame:
        """As `FinishedRun.opponents`, read once."""
        return self.run.opponents

    def pictures(self, split: str, ids: Sequence[str]) -> dict[str, str]:
        """The addresses of thumbnails, by id, of those that can be read."""
        reader = self._reader(split)
        if reader is None:
            return {}
        data = self.run.definition["fingerprint"]
        made = self._made.setdefault(split, {})
        made |= {i: self.assets.thumbnail((data, split, i), partial(reader, i)) for i in ids}
        unread = [i for i, address in made.items() if address is None]
        if unread:
            first = name_of(unread[0])
            self.reasons[split] = f"{len(unread)} of {len(made)} pictures cannot be read, {first} among them"
        return {i: address for i in ids if (address := made[i]) is not None}

    def _reader(self, split: str) -> Callable[[str], Image.Image] | None:
        if split not in self._readers:
            try:
                self._readers[split] = picture_reader(self.run, split)
            except Unsupported:
                self._readers[split] = None
            except (InvalidInput, OSError) as error:
                self._readers[split], self.reasons[split] = None, str(error).rstrip(".")
        return self._readers[split]

    def of_slice(
        self, found: FoundIn, index: int, words: Words, told: Sequence[Trait]
    ) -> tuple[list[Shown], list[Shown]]:
        """The strongest members of a slice, and those of the largest losses among the other wrong ones."""
        ranked = found.ranked(index)
        has_pictures, has_texts = self._reader(found.split) is not None, bool(found.texts)
        n = PICTURES if has_pictures else TEXTS if has_texts else ROWS
        others = ranked.iloc[n:]
        worst = others[~others["correct"].astype(bool)].sort_values("loss", ascending=False, kind="stable").head(n)
        columns = [] if has_pictures or has_texts else columns_of(found.examples, told)
        strongest, more = (
            shown_rows(
                part,
                self.pictures(found.split, list(part["id"])),
                [found.texts[row] for row in part.index] if has_texts else (),
                words.marked,
                columns,
            )
            for part in (ranked.head(n), worst)
        )
        return strongest, more

    def of_training(self, problem: str, split: str, influences: pd.Series) -> list[Shown]:
        """Training examples of a problem with their influence, which is indexed by their ids."""
        images = self.pictures(split, list(influences.index))
        try:
            known = examples_of(self.run, split, problem).reindex(influences.index)
        except (InvalidInput, OSError):
            known = pd.DataFrame({"label": None}, index=influences.index)
        texts = texts_in(known) or ("",) * len(known)
        rows = zip(known.index, known["label"], texts, influences, strict=True)
        return [
            Shown(
                id=name_of(i),
                label=name_of(label),
                prediction="",
                correct=True,
                number=float(influence),
                picture=images.get(i),
                text=pieces(text, frozenset()),
            )
            for i, label, text, influence in rows
        ]


def shown_rows(
    examples: pd.DataFrame,
    pictures: Mapping[str, str] | None = None,
    texts: Sequence[str] = (),
    marked: frozenset[str] = frozenset(),
    columns: Sequence[str] = (),
) -> list[Shown]:
    """Rows of `examples.parquet` with what can be shown of them."""
    texts = texts or [""] * len(examples)
    table = examples[[f"{PREFIX}{name}" for name in columns]].map(name_of)
    values = list(table.itertuples(index=False, name=None)) if columns else [()] * len(examples)
    rows = examples[["id", "label", "prediction", "correct", "loss"]].itertuples(index=False)
    return [
        Shown(
            id=name_of(row.id),
            label=name_of(row.label),
            prediction=name_of(row.prediction),
            correct=bool(row.correct),
            number=float(row.loss),
            picture=(pictures or {}).get(row.id),
            text=pieces(text, marked) if text else [],
            values=of_row,
        )
        for row, text, of_row in zip(rows, texts, values, strict=True)
    ]


def columns_of(examples: pd.DataFrame, told: Sequence[Trait]) -> list[str]:
    """The attributes that tell most of a slice, then the others, as many as a table has room for."""
    there = [name.removeprefix(PREFIX) for name in examples if name.startswith(PREFIX)]
    first = dict.fromkeys(trait.attribute for trait in told)
    return list(dict.fromkeys([*first, *there]))[:COLUMNS]


def words_of(found: FoundIn, index: int) -> Words:
    """The words that a slice has more often than the whole split; none where examples have no texts."""
    texts, member = found.texts, found.members[:, index - 1]
    if not texts or not member.any():
        return Words([])
    ratios = token_ratios(texts, member, member.astype(np.float64), smoothing=1.0)
    over = ratios[(ratios["n"] >= min(IN_TEXTS, int(member.sum()))) & (ratios["value"] > 1) & (ratios["rank"] > 1)]
    top = over.head(TOKENS)
    return Words(list(zip(top["group"], top["value"].astype(float), top["n"].astype(int), strict=True)))
