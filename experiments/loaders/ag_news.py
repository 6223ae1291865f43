"""AG News: news in four classes, and what people took their classes for."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.assembly import assembled
from experiments.reading.division import divide_groups, draw
from experiments.reading.sources import Download, Source
from experiments.reading.tables import by_id, check_values, codes, read_table, refuse_empty_classes, refuse_rows
from methods.errors import InvalidSetting

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
FROM_ONE = {str(index + 1): index for index in range(len(CLASSES))}  # the official files'
FROM_ZERO = {str(index): index for index in range(len(CLASSES))}  # NoisyAG-News's
COLUMNS = ("class", "title", "description")
NOISY_COLUMNS = ("label", "gt", "text", "group")
NOISY_FILE = "noisyag_val10000.csv"
SHARED = 60  # letters and digits in which two versions of a text agree
# where the publishers' ampersand was lost: "AT amp;T", "Earth #39;s"
LOST_AMPERSAND = r" ?(?<!&)\b(quot|amp|lt|gt|nbsp|hellip);| (#\d{2,4});"
OFFICIAL_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/555590db4219b1243abb1918effd6a7425a2d75f/data/ag_news_csv"
NOISY_URL = "https://raw.githubusercontent.com/hhf-hd/NoisyAG-News/ec6fcb77d51960a63936e985ea5a98aa79f7d08e/dataset"
HOW_OFFICIAL = (
    "Get test.csv, and train.csv to train on, from "
    "https://github.com/mhjabreel/CharCnn_Keras/tree/master/data/ag_news_csv, without changing them."
)
LAYOUTS_OF = {  # settings, and the layouts that know them
    "train_labels": ("noisy_train", "noisy"),
    "audit_share": ("noisy",),
    "drop_descriptions": ("noisy_train",),
}
SHA256 = {"test.csv": "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699", "train.csv": None}


@dataclass(frozen=True)
class AGNews:
    """News of four classes: title and description (Zhang et al. 2015), also with labels by people (NoisyAG-News).

    Attributes: the title, and the text's length in words and characters; where people labelled it, the true class,
    whether theirs is wrong ("yes", "no"), and the publisher's group of how far they agreed.

    Parameters
    ----------
    layout : {"official", "noisy_train", "noisy"}
        official: `test.csv`, and `train.csv` to train on where it lies beside it. noisy_train: the official test split,
        and NoisyAG-News to train on, without the texts that are in the test split too. noisy: NoisyAG-News in two
        disjoint parts, the labels by people audited on one, the model trained on the other.
    folder : str
        Below the data root: `test.csv`, `train.csv`, `noisyag_val10000.csv`.
    n_train : int, optional
        Training texts, drawn by seed; all where it is left out.
    validation_share : float
        Of the training texts, drawn by seed; in [0, 1).
    audit_share : float
        Of NoisyAG-News that is audited in the layout noisy, drawn by seed; in (0, 1).
    train_labels : {"correct", "noisy"}
        Of NoisyAG-News: the true classes, or those by people.
    drop_descriptions : bool
        In the layout noisy_train, train on no text either that holds a whole description of the test split.
    unescape : bool
        Write signs that the publishers lost on their way as they were: an apostrophe for " #39;", a space for a
        backslash.

    Notes
    -----
    The data set of the InfEmbed paper, section 4.3 and appendix F. Texts are the title, a space and the description,
    as the paper's model was trained on them; NoisyAG-News has " . " between the two.
    """

    version: ClassVar[int] = 1

    layout: Literal["official", "noisy_train", "noisy"] = "official"
    folder: str = "ag_news"
    n_train: int | None = field(default=None, metadata={"min": 1})
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    audit_share: float = field(default=0.5, metadata={"above": 0, "below": 1})
    train_labels: Literal["correct", "noisy"] = "correct"
    drop_descriptions: bool = False
    unescape: bool = False

    @property
    def source(self) -> Source:
        official = tuple(Download(f"{OFFICIAL_URL}/{name}", name, sha256) for name, sha256 in SHA256.items())
        noisy = Download(f"{NOISY_URL}/samples10000valMed.csv", NOISY_FILE)
        how_noisy = (
            f"Get dataset/samples10000valMed.csv from https://github.com/hhf-hd/NoisyAG-News, and call it {NOISY_FILE}."
        )
        instruction, downloads = {
            "official": (HOW_OFFICIAL, official),
            "noisy_train": (f"{HOW_OFFICIAL} {how_noisy}", (official[0], noisy)),
            "noisy": (how_noisy, (noisy,)),
        }[self.layout]
        return Source(self.folder, instruction, "research, not commercial; the labels by people MIT", downloads)

    def load(self, root: Path, seed: int) -> Dataset:
        layouts = {"official": self._official, "noisy_train": self._noisy_train, "noisy": self._noisy}
        self._check_settings()
        tables, notes = layouts[self.layout](root, seed)
        tables = {**tables, **self._training(tables["train"], seed)} if "train" in tables else self._untrained(tables)
        return assembled(
            name="ag_news",
            modality="text",
            class_names=CLASSES,
            splits={name: _split(self._spelled(table)) for name, table in tables.items()},
            root=root,
            files=[f"{self.folder}/{name}" for name in self._files(root)],
            also={"unescape": self.unescape},
            notes=notes,
        )

    def _files(self, root: Path) -> list[str]:
        if self.layout == "noisy":
            return [NOISY_FILE]
        beside = {"official": "train.csv", "noisy_train": NOISY_FILE}[self.layout]
        return ["test.csv", *([beside] if (root / self.folder / beside).exists() else [])]

    def _official(self, root: Path, seed: int) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
        tables = {name.removesuffix(".csv"): self._articles(root, name) for name in self._files(root)}
        return tables, () if "train" in tables else (f"no training split, for want of {self.folder}/train.csv",)

    def _noisy_train(self, root: Path, seed: int) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
        test = self._articles(root, "test.csv")
        train, notes = self._apart_from(test, self._annotated(root))
        return {"train": train.assign(label=train[self.train_labels]), "test": test}, notes

    def _noisy(self, root: Path, seed: int) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
        table = self._annotated(root)
        strata = table["correct"].to_numpy()
        rows = divide_groups(_versions(table), {"test": self.audit_share}, "train", seed, strata)
        train, test = table.iloc[rows["train"]], table.iloc[rows["test"]]
        return {"train": train.assign(label=train[self.train_labels]), "test": test.assign(label=test["noisy"])}, ()

    def _training(self, table: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
        rows = divide_groups(_versions(table), {"validation": self.validation_share}, "train", seed)
        rows["train"] = draw(rows["train"], self.n_train, seed)
        return {name: table.iloc[chosen] for name, chosen in rows.items()}

    def _untrained(self, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        for name, is_set in (("validation_share", self.validation_share), ("n_train", self.n_train)):
            if is_set:
                raise InvalidSetting(f"dataset.{name} is set, but there is no {self.folder}/train.csv: {HOW_OFFICIAL}")
        return tables

    def _check_settings(self) -> None:
        """What only other layouts know would be passed over in silence."""
        for name, layouts in LAYOUTS_OF.items():
            if self.layout not in layouts and getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InvalidSetting(
                    f"dataset.{name} is for layout={' or '.join(layouts)} only, layout is {self.layout}: leave it out"
                )

    def _articles(self, root: Path, name: str) -> pd.DataFrame:
        """An official file."""
        path = self.source.path(root, name)
        table = read_table(path, COLUMNS, names=COLUMNS)
        _refuse_blanks(table, path, ("title", "description"))
        labels = codes(table, "class", path, FROM_ONE)
        refuse_empty_classes(labels, CLASSES, path)
        table["label"] = labels.numpy()
        table["text"] = table["title"] + " " + table["description"]
        table["id"] = [f"{path.stem}-{line:06d}" for line in table.index]
        return by_id(table, "id", path)

    def _annotated(self, root: Path) -> pd.DataFrame:
        """NoisyAG-News."""
        path = self.source.path(root, NOISY_FILE)
        table = read_table(path, NOISY_COLUMNS)
        _refuse_blanks(table, path, ("text", "group"))
        check_values(table, "group", path, [str(group) for group in range(10)])
        labels = {"correct": codes(table, "gt", path, FROM_ZERO), "noisy": codes(table, "label", path, FROM_ZERO)}
        refuse_empty_classes(labels["correct"], CLASSES, path)
        table["correct"], table["noisy"] = labels["correct"].numpy(), labels["noisy"].numpy()
        table["true_class"] = np.array(CLASSES)[table["correct"]]
        table["wrong"] = np.where(table["correct"] == table["noisy"], "no", "yes")
        table["title"] = table["text"].str.split(" . ", n=1, regex=False).str[0]
        table["id"] = [f"noisyag-{line:06d}" for line in table.index]
        return by_id(table, "id", path)

    def _apart_from(self, test: pd.DataFrame, train: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The training texts that are not in the test split, and notes on how many are."""
        texts, total = _letters(train["text"]), len(train)
        shared = texts.str[:SHARED].isin(set(_letters(test["text"]).str[:SHARED])).to_numpy()
        held = np.zeros(total, dtype=bool)
        if self.drop_descriptions:
            held = _hold_one_of(texts, _letters(test["description"])) & ~shared
        said = {"begin like a text of the test split": shared, "hold a description of the test split": held}
        notes = [
            f"{rows.sum():,} of {total:,} training texts {words}: left out"
            for words, rows in said.items()
            if rows.any()
        ]
        return train[~(shared | held)], tuple(notes)

    def _spelled(self, table: pd.DataFrame) -> pd.DataFrame:
        if not self.unescape:
            return table
        return table.assign(text=unescaped(table["text"]), title=unescaped(table["title"]))


def unescaped(texts: pd.Series) -> pd.Series:
    r"""Texts with the signs that the publishers' files lost.

    Examples
    --------
    >>> lost = [r"A firm #39;s  quot;pod quot; for \$99", r"a second\team &lt;b&gt;...&lt;/b&gt;"]
    >>> unescaped(pd.Series(lost)).tolist()
    ['A firm\'s "pod" for $99', 'a second team <b>...</b>']
    """
    whole = texts.str.replace(LOST_AMPERSAND, lambda found: f"&{found[1] or found[2]};", regex=True).map(html.unescape)
    return whole.str.replace(r"\$", "$", regex=False).str.replace(r"\\+", " ", regex=True)


def _split(table: pd.DataFrame) -> Split:
    known = [column for column in ("title", "true_class", "wrong", "group") if column in table]
    lengths = {"n_words": [len(text.split()) for text in table["text"]], "n_characters": table["text"].str.len()}
    return Split(
        example_ids=tuple(table.index),
        examples=table["text"].tolist(),
        labels=torch.tensor(table["label"].to_numpy(copy=True)),
        attributes=table[known].assign(**lengths),
    )


def _refuse_blanks(table: pd.DataFrame, path: Path, columns: Iterable[str]) -> None:
    """A row that was cut off lacks its last columns."""
    for column in columns:
        refuse_rows(table, column, path, (table[column].str.strip() == "").to_numpy(), "a text: get this file again")


def _versions(table: pd.DataFrame) -> np.ndarray:
    """Of each text, what its versions share."""
    return _letters(table["text"]).str[:SHARED].to_numpy()


def _letters(texts: pd.Series) -> pd.Series:
    """Letters and digits only: versions of a text differ in all else."""
    return texts.str.lower().str.replace(r"[^a-z0-9]", "", regex=True)


def _hold_one_of(texts: Sequence[str] | pd.Series, pieces: Iterable[str]) -> np.ndarray:
    """Of each text, whether it holds one of these pieces; those shorter than 60 letters tell nothing."""
    by_start: dict[str, list[str]] = {}
    for piece in pieces:
        if len(piece) >= SHARED:
            by_start.setdefault(piece[:SHARED], []).append(piece)
    return np.array([_holds(text, by_start) for text in texts])


def _holds(text: str, by_start: dict[str, list[str]]) -> bool:
    places = range(len(text) - SHARED + 1)
    return any(text.startswith(piece, at) for at in places for piece in by_start.get(text[at : at + SHARED], ()))
