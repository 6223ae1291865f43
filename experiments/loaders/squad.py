"""SQuAD: questions about Wikipedia, answered by a piece of the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.networks.checkpoints import identity_of
from experiments.networks.pretrained import load_tokenizer, located
from experiments.reading.assembly import assembled
from experiments.reading.division import divide_groups
from experiments.reading.sources import Download, Source
from experiments.reading.tables import LINE, by_id
from methods.contract import InvalidInput
from methods.errors import InvalidSetting

FILES = {"squad": "dev-v1.1.json", "xquad": "xquad.en.json", "routerlens": "routerlens_dev_4330.json"}
HOW = {
    "dev-v1.1.json": "Get dev-v1.1.json from https://rajpurkar.github.io/SQuAD-explorer.",
    "xquad.en.json": "Get xquad.en.json from https://github.com/google-deepmind/xquad.",
    "routerlens_dev_4330.json": (
        "Get data/squad/dev.json from https://github.com/bigai-nlco/RouterLens, and call it routerlens_dev_4330.json."
    ),
}
GITHUB = "https://raw.githubusercontent.com"
DOWNLOADS = {
    "dev-v1.1.json": Download("https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v1.1.json", "dev-v1.1.json"),
    "xquad.en.json": Download(
        f"{GITHUB}/google-deepmind/xquad/7d30520c717524000f0d9d2f9c10a069acd9d285/xquad.en.json",
        "xquad.en.json",
        "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
    ),
    "routerlens_dev_4330.json": Download(
        f"{GITHUB}/bigai-nlco/RouterLens/c3fa2857b2a0462e21cf9d26b9f2fb053de256e4/data/squad/dev.json",
        "routerlens_dev_4330.json",
    ),
}
WORDS = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how")
UNKNOWN = "unknown"
MAX_TOKENS = 384  # the Spotlight paper's
MOST_MISPLACED = 0.05  # of the answers; with more of them, the file is another one than was published


@dataclass(frozen=True)
class SQuAD:
    """Questions about Wikipedia, answered by a piece of the text (Rajpurkar et al. 2016); pairs (question, context).

    There are no labels: a split's `spans` say where the first answer stands. Attributes: the article's title, the
    question word (the first of what, which, who ... in the question, else "other"), and the numbers of words.

    Parameters
    ----------
    layout : {"squad", "xquad", "routerlens"}
        Which file is the test split: SQuAD v1.1's `dev-v1.1.json`; the 1,190 questions of it that are XQuAD's English
        part, `xquad.en.json`; or 4,330 questions of SQuAD without titles and places of the answers,
        `routerlens_dev_4330.json`.
    folder : str
        Below the data root.
    file : str, optional
        In the folder, instead of the layout's: a json file in one of the two formats.
    train_file : str, optional
        In the folder, to train on, in one of the two formats; what has a context of the test split is left out.
    train_share : float
        Of the test file's articles that are trained on instead, drawn by seed; in [0, 1), 0 for no training split.
    tokenizer : str, optional
        Of a Hugging Face model, or a folder with one: pairs that are longer than `max_tokens` are left out.
    max_tokens : int
        Of question and context together, with those that the tokenizer adds.

    Notes
    -----
    The data set of the Spotlight paper, section 4.5, which leaves out what is longer than 384 tokens: 10,386 of 10,570
    questions remain. It measured "context and answer"; the model reads question and context.
    """

    version: ClassVar[int] = 1

    layout: Literal["squad", "xquad", "routerlens"] = "squad"
    folder: str = "squad"
    file: str | None = None
    train_file: str | None = None
    train_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    tokenizer: str | None = None
    max_tokens: int = field(default=MAX_TOKENS, metadata={"min": 1})

    @property
    def source(self) -> Source:
        names = [name for name in self._files() if name in HOW]
        own = "It is a file of your own, in SQuAD's format."
        return Source(
            folder=self.folder,
            instruction=" ".join(HOW[name] for name in names) or own,
            licence="CC BY-SA 4.0",
            downloads=tuple(DOWNLOADS[name] for name in names),
        )

    def identity(self) -> dict[str, str]:
        """Not where the tokenizer lies defines a run, but what it is."""
        if self.tokenizer is None:
            return {}
        return {"tokenizer": identity_of(located(self.tokenizer), "dataset.tokenizer", "a tokenizer")}

    def load(self, root: Path, seed: int) -> Dataset:
        if self.tokenizer is None and self.max_tokens != MAX_TOKENS:
            raise InvalidSetting(
                f"max_tokens is {self.max_tokens}, but nothing counts tokens: set dataset.tokenizer too"
            )
        if self.train_file and self.train_share:
            raise InvalidInput("train_file and train_share are both set, expected one of them")
        read = [self._table(self.source.path(root, name)) for name in self._files()]
        tables, notes = {"test": read[0][0]}, [note for _, of_one in read for note in of_one]
        if self.train_file:
            tables["train"], more = _apart_from(tables["test"], read[1][0], Path(self.train_file))
            notes += more
        if self.train_share:
            tables = self._by_article(tables["test"], seed)
        return assembled(
            name="squad",
            modality="text_pair",
            class_names=(),
            splits={name: _split(table) for name, table in tables.items()},
            root=root,
            files=[f"{self.folder}/{name}" for name in self._files()],
            notes=tuple(notes),
        )

    def _files(self) -> list[str]:
        """Of the test split, then of what is trained on."""
        return [self.file or FILES[self.layout], *([self.train_file] if self.train_file else [])]

    def _table(self, path: Path) -> tuple[pd.DataFrame, list[str]]:
        """The questions of a file that can be used, and notes on the others."""
        table = pd.DataFrame(_questions(path))
        if table.empty:
            raise InvalidInput(f"{path} holds no questions, expected some: get this file again")
        again = table["id"].duplicated()
        if again.any():
            name = table["id"][again].iloc[0]
            raise InvalidInput(f"{path}: question {name!r} is there twice, expected once: remove one of them")
        table.index = pd.RangeIndex(1, len(table) + 1, name=LINE)
        table, notes = _with_answers(by_id(table, "id", path), path)
        if self.tokenizer is None:
            return table, notes
        return self._short(table, path, notes)

    def _short(self, table: pd.DataFrame, path: Path, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
        tokenizer = load_tokenizer(self.tokenizer, "dataset.tokenizer")
        pairs = zip(table["question"], table["context"], strict=True)
        lengths = np.array([len(tokenizer(*pair, verbose=False)["input_ids"]) for pair in pairs])
        short = lengths <= self.max_tokens
        if not short.any():
            raise InvalidInput(f"{path}: every question is longer than {self.max_tokens} tokens: raise max_tokens")
        words = f"are longer than {self.max_tokens} tokens: left out"
        return table[short], notes if short.all() else [*notes, _note(table, path, ~short, words)]

    def _by_article(self, table: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
        articles = table["title"].where(table["title"] != UNKNOWN, table["context"]).to_numpy()
        rows = divide_groups(articles, {"train": self.train_share}, "test", seed)
        return {name: table.iloc[chosen] for name, chosen in rows.items()}


def _questions(path: Path) -> list[dict[str, Any]]:
    """The questions of a file, whichever of the two formats it has: id, title, question, context, answer, start."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # both kinds: no text, no json
        raise InvalidInput(f"{path} cannot be read as json ({error}): get this file again") from None
    if isinstance(content, list):
        return [_row(path, row, number) for number, row in enumerate(content)]
    articles = _entry(path, "this", content, "data", list)
    return [
        question for number, article in enumerate(articles, start=1) for question in _article(path, article, number)
    ]


def _row(path: Path, row: Any, number: int) -> dict[str, Any]:
    where = f"row {number + 1}"
    context, question, answer = (_entry(path, where, row, key, str) for key in ("context", "question", "answer"))
    return {
        "id": f"{path.stem}-{number:05d}",
        "title": UNKNOWN,
        "question": question,
        "context": context,
        "answer": answer,
        "start": context.find(answer),
        "placed": False,
    }


def _article(path: Path, article: Any, number: int) -> Iterator[dict[str, Any]]:
    title = _entry(path, f"article {number}", article, "title", str)
    for paragraph in _entry(path, f"article {title!r}", article, "paragraphs", list):
        context = _entry(path, f"a paragraph of {title!r}", paragraph, "context", str)
        for asked in _entry(path, f"a paragraph of {title!r}", paragraph, "qas", list):
            name = _entry(path, f"a question of {title!r}", asked, "id", str)
            question = _entry(path, f"question {name!r}", asked, "question", str)
            yield {"id": name, "title": title, "question": question, "context": context, **_answer(path, name, asked)}


def _answer(path: Path, name: str, asked: Any) -> dict[str, Any]:
    """The first answer; SQuAD v2 has questions without."""
    answers = _entry(path, f"question {name!r}", asked, "answers", list)
    if not answers:
        return {"answer": "", "start": -1, "placed": True}
    where = f"an answer to question {name!r}"
    text = _entry(path, where, answers[0], "text", str)
    return {"answer": text, "start": _entry(path, where, answers[0], "answer_start", int), "placed": True}


def _entry(path: Path, where: str, holder: Any, key: str, kind: type) -> Any:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        words = {list: "a list", str: "a text", int: "a whole number"}[kind]
        raise InvalidInput(
            f"{path}: {where} has {key} {str(value)[:40]!r}, expected {words}, as in SQuAD v1.1: get this file again"
        )
    return value


def _with_answers(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The questions whose answer stands where it should, and notes on the others."""
    rows = list(zip(table["context"], table["answer"], table["start"], table["placed"], strict=True))
    there = np.array(
        [answer != "" and start >= 0 and text.startswith(answer, start) for text, answer, start, _ in rows]
    )
    unanswered = (table["answer"] == "").to_numpy()
    misplaced = ~there & ~unanswered
    if misplaced.sum() > MOST_MISPLACED * len(table) or not there.any():
        raise InvalidInput(
            f"{path}: {misplaced.sum():,} of {len(table):,} answers do not stand in their context where they should "
            f"(the first: of question {table.index[~there][0]!r}): get this file again"
        )
    several = there & np.array([not placed and text.count(answer) > 1 for text, answer, _, placed in rows])
    said = {
        "have no answer: left out": unanswered,
        "have an answer that does not stand where it should: left out": misplaced,
        "have an answer that stands in the context more than once: its first place counts": several,
    }
    return table[there], [_note(table, path, which, words) for words, which in said.items() if which.any()]


def _note(table: pd.DataFrame, path: Path, which: np.ndarray, words: str) -> str:
    first = table.index[which][0]
    return f"{which.sum():,} of {len(table):,} questions of {path.name} (the first: {first!r}) {words}"


def _apart_from(test: pd.DataFrame, train: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """What may be trained on, and a note on what may not."""
    contexts = _letters(train["context"]).isin(set(_letters(test["context"])))
    shared = (contexts | train.index.isin(test.index)).to_numpy()
    if shared.all():
        raise InvalidInput(f"{path}: every context is one of the test split: choose another train_file")
    words = "have a context of the test split: left out"
    return train[~shared], [_note(train, path, shared, words)] if shared.any() else []


def _letters(texts: pd.Series) -> pd.Series:
    """Letters and digits only: versions of a text differ in all else."""
    return texts.str.lower().str.replace(r"[\W_]", "", regex=True)


def _split(table: pd.DataFrame) -> Split:
    starts, lengths = table["start"].to_numpy(dtype=np.int64), table["answer"].str.len().to_numpy(dtype=np.int64)
    counted = {f"n_words_{column}": _n_words(table[column]) for column in ("question", "context", "answer")}
    return Split(
        example_ids=tuple(table.index),
        examples=list(zip(table["question"], table["context"], strict=True)),
        labels=None,
        attributes=table[["title"]].assign(question_word=table["question"].map(question_word), **counted),
        spans=torch.from_numpy(np.stack([starts, starts + lengths], axis=1)),  # (n, 2)
    )


def _n_words(texts: pd.Series) -> list[int]:
    return [len(text.split()) for text in texts]


def question_word(question: str) -> str:
    """The first question word, wherever it stands.

    Examples
    --------
    >>> question_word("In what year was the Rhine measured?"), question_word("Name a river.")
    ('what', 'other')
    """
    return next((word for word in re.findall(r"[a-z]+", question.lower()) if word in WORDS), "other")
