"""Reviews on Amazon, negative or positive."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from experiments.cache_report import cache_root
from experiments.contract import Dataset, Split
from experiments.loaders.sst2 import SST2
from experiments.reading.assembly import assembled
from experiments.reading.division import divide_groups, draw
from experiments.reading.sources import Absent, Download, Source
from experiments.reading.tables import LINE, by_id, check_values, codes, refuse_empty_classes
from methods.contract import InvalidInput
from methods.errors import InvalidSetting, unknown_name

CLASSES = ("negative", "positive")
LABELS = {"0": 0, "1": 1}
COLUMNS = ("label", "title", "content")
FOLDERS = {"parquet": "amazon_polarity", "blitzer": "amazon_reviews"}
CONFIG = "amazon_polarity"  # the folder of the parquet files in the publisher's repository
REPOSITORY = "https://huggingface.co/datasets/fancyzhx/amazon_polarity"
REVISION = "9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289"
SHARD = re.compile(r"(test|train)-\d{5}-of-(\d{5})\.parquet")  # one of the files of a split
TEST_FILE = f"{CONFIG}/test-00000-of-00001.parquet"
BLITZER = "https://www.cs.jhu.edu/~mdredze/datasets/sentiment"
UNPACKED = "sorted_data_acl"  # the folder in Blitzer's archive
RATINGS = {"negative": ("1.0", "2.0"), "positive": ("4.0", "5.0")}
FIELD = re.compile(r"^<(\w+)>\n(.*?)\n?^</\1>$", re.MULTILINE | re.DOTALL)
NAMES = {"rating": "rating", "title": "title", "review_text": "content"}  # of fields, and ours


@dataclass(frozen=True)
class AmazonPolarity:
    """Reviews on Amazon, negative (1 or 2 stars) or positive (4 or 5).

    A text is the title followed by the review. Attributes: the title, the text's length in words and characters; of
    Blitzer's reviews also the domain and the number of stars.

    Parameters
    ----------
    layout : {"parquet", "blitzer"}
        parquet: Amazon polarity (Zhang et al. 2015) as Hugging Face has it, 3,600,000 reviews to train on and 400,000
        to test on. blitzer: 8,000 reviews of four kinds of products (Blitzer et al. 2007), without splits.
    folder : str, optional
        Below the data root; left out, `amazon_polarity` or, for blitzer, `amazon_reviews`.
    n_test : int, optional
        Reviews of the test split, drawn by seed; all where it is left out.
    n_train : int, optional
        Training reviews of the layout parquet, drawn by seed: 0 for no training split; all where it is left out.
    train_share : float
        Of Blitzer's reviews, the same of each domain and class, drawn by seed; all others are the test split.
        In [0, 1), 0 for no training split.
    train_domains : tuple of str
        Of Blitzer's reviews: train on the reviews of these domains, test on the others'.
    validation_share : float
        Of the training reviews, drawn by seed; in [0, 1).
    train_on : {"reviews", "sst2"}
        sst2: the train split is `n_train` sentences of SST-2's instead (`dataset=sst2`, which must be there too), so
        that a model that is trained here knows film reviews only, like the paper's.
    with_title : bool
        Whether the title is part of the text.

    Notes
    -----
    The data set of the Spotlight paper, section 4.3, which draws 20,000 reviews "from the validation set": there is
    none, so they are drawn from the test split here.
    """

    version: ClassVar[int] = 1

    layout: Literal["parquet", "blitzer"] = "parquet"
    folder: str | None = None
    n_test: int | None = field(default=20_000, metadata={"min": 1})
    n_train: int | None = field(default=0, metadata={"min": 0})
    train_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    train_domains: tuple[str, ...] = ()
    validation_share: float = field(default=0.0, metadata={"min": 0, "below": 1})
    train_on: Literal["reviews", "sst2"] = "reviews"
    with_title: bool = True

    @property
    def source(self) -> Source:
        folder = self.folder or FOLDERS[self.layout]
        if self.layout == "blitzer":
            archive = f"{BLITZER}/domain_sentiment_data.tar.gz"
            return Source(
                folder=folder,
                instruction=(
                    f"Get {archive} (described at {BLITZER}/) and unpack it: for each domain (books, dvd ...) a folder "
                    f"with positive.review and negative.review, there or in {UNPACKED}/."
                ),
                licence="research",
                downloads=(Download(archive, ".", unpack=True),),
            )
        return Source(
            folder=folder,
            instruction=(
                f"Get the parquet files from {REPOSITORY}/tree/{REVISION}, so that {TEST_FILE} lies in the folder; "
                f"{CONFIG}/train-*.parquet are needed for training only."
            ),
            licence="Apache 2.0",
            downloads=(Download(f"{REPOSITORY}/resolve/{REVISION}/{TEST_FILE}", TEST_FILE),),
        )

    def load(self, root: Path, seed: int) -> Dataset:
        self._check_settings()
        tables, files, notes = (self._parquet if self.layout == "parquet" else self._blitzer)(root, seed)
        tables["test"] = tables["test"].iloc[draw(np.arange(len(tables["test"])), self.n_test, seed)]
        if self.validation_share:
            tables |= self._validation(tables, seed)
        splits = {name: self._split(table) for name, table in tables.items()}
        sst2 = self._sst2(root, seed)
        if sst2 is not None:
            splits["train"] = sst2.split("train")
        return assembled(
            name="amazon_polarity",
            modality="text",
            class_names=CLASSES,
            splits=splits,
            root=root,
            files=[str(file.relative_to(root)) for file in files],
            also={"with_title": self.with_title, "sst2": sst2 and sst2.fingerprint},
            notes=notes,
        )

    def _check_settings(self) -> None:
        """What only the other layout knows would be passed over in silence."""
        if self.train_on == "sst2":
            if self.n_train == 0 or self.train_share or self.train_domains or self.validation_share:
                raise InvalidInput(
                    "train_on is sst2, expected n_train above 0 (null: all sentences), and no train_share, "
                    "train_domains or validation_share"
                )
            return
        if self.layout == "blitzer" and self.n_train:
            raise InvalidInput(f"n_train is {self.n_train}, expected 0 with layout=blitzer: set train_share")
        if self.layout == "parquet" and (self.train_share or self.train_domains):
            raise InvalidInput("train_share and train_domains are for layout=blitzer only: set n_train")
        if self.train_share and self.train_domains:
            raise InvalidInput("train_share and train_domains are both set, expected one of them")

    def _sst2(self, root: Path, seed: int) -> Dataset | None:
        return SST2(n_train=self.n_train).load(root, seed) if self.train_on == "sst2" else None

    def _split(self, table: pd.DataFrame) -> Split:
        texts = _joined(table["title"], table["content"]) if self.with_title else table["content"]
        known = [column for column in ("domain", "rating", "title") if column in table]
        # one after the other: a column of lists would hold all words of 3,600,000 reviews at once
        lengths = {"n_words": [len(text.split()) for text in texts], "n_characters": texts.str.len()}
        return Split(
            example_ids=tuple(table.index),
            examples=texts.tolist(),
            labels=torch.tensor(table["label"].to_numpy(copy=True)),
            attributes=table[known].assign(**lengths),
        )

    def _parquet(self, root: Path, seed: int) -> tuple[dict[str, pd.DataFrame], list[Path], tuple[str, ...]]:
        trained = self.train_on == "reviews" and self.n_train != 0
        wanted = {"test": self.n_test} | ({"train": self.n_train} if trained else {})
        shards = {name: self._shards(root, name) for name in wanted}
        tables = {name: _drawn(shards[name], name, n, seed) for name, n in wanted.items()}
        return tables, [shard for of_one in shards.values() for shard in of_one], ()

    def _shards(self, root: Path, split: str) -> list[Path]:
        """The files of a split, not one of them missing."""
        folder = self.source.path(root, CONFIG)
        found = {path.name: SHARD.fullmatch(path.name) for path in folder.glob(f"{split}-*.parquet")}
        count = next((int(match[2]) for match in found.values() if match), 1)
        names = [f"{split}-{index:05d}-of-{count:05d}.parquet" for index in range(count)]
        return [self.source.path(root, f"{CONFIG}/{name}") for name in names]

    def _blitzer(self, root: Path, seed: int) -> tuple[dict[str, pd.DataFrame], list[Path], tuple[str, ...]]:
        files = self._review_files(root)
        read = {path: _reviews(path) for path in files}
        table = pd.concat([table for table, _ in read.values()])
        notes = tuple(f"{path.relative_to(root)}: {_places(n)}" for path, (_, n) in read.items() if n)
        return self._divided(by_id(table, "id", root / self.source.folder), seed), files, notes

    def _review_files(self, root: Path) -> list[Path]:
        folder = self.source.path(root)
        unpacked = folder / UNPACKED if (folder / UNPACKED).is_dir() else folder
        domains = sorted({path.parent.relative_to(folder) for path in unpacked.glob("*/*.review")})
        if not domains:
            raise Absent(f"{folder} holds no reviews. {self.source.instruction}")
        return [self.source.path(root, f"{domain}/{sentiment}.review") for domain in domains for sentiment in RATINGS]

    def _divided(self, table: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
        if self.train_domains:
            return self._by_domain(table)
        if not self.train_share:
            return {"test": table}
        strata = (table["domain"] + " " + table["label"].astype(str)).to_numpy()
        rows = divide_groups(_versions(table), {"train": self.train_share}, "test", seed, strata)
        return {name: table.iloc[chosen] for name, chosen in rows.items()}

    def _validation(self, tables: Mapping[str, pd.DataFrame], seed: int) -> dict[str, pd.DataFrame]:
        if "train" not in tables:
            how = "n_train" if self.layout == "parquet" else "train_share or train_domains"
            raise InvalidSetting(f"validation_share is {self.validation_share:g} of no training reviews: set {how} too")
        rows = divide_groups(_versions(tables["train"]), {"validation": self.validation_share}, "train", seed)
        return {name: tables["train"].iloc[chosen] for name, chosen in rows.items()}

    def _by_domain(self, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        domains = set(table["domain"])
        unknown = next((domain for domain in self.train_domains if domain not in domains), None)
        if unknown is not None:
            raise InvalidInput(unknown_name(f"train_domains: there is no domain {unknown!r}", unknown, domains))
        if domains == set(self.train_domains):
            raise InvalidInput("train_domains names every domain, expected one that is left to test on")
        train = table["domain"].isin(self.train_domains)
        return {"train": table[train], "test": table[~train]}


def _versions(table: pd.DataFrame) -> np.ndarray:
    """Of each review, its letters and digits: some stand there once for each edition of a book."""
    return table["content"].str.lower().str.replace(r"[\W_]", "", regex=True).to_numpy()


def _joined(titles: pd.Series, contents: pd.Series) -> pd.Series:
    """Title and review as one text, the title a sentence."""
    ends = titles.str.endswith((".", "!", "?", ":", ","))
    between = np.where(titles == "", "", np.where(ends, " ", ". "))
    return titles + between + contents


def _drawn(shards: list[Path], split: str, n: int | None, seed: int) -> pd.DataFrame:
    """At most n reviews of a split that lies in parquet files."""
    for shard in shards:
        _check_columns(shard)
    reviews = _loaded(shards, split)
    rows = draw(np.arange(len(reviews)), n, seed)
    table = reviews.select(rows).to_pandas()
    table.index = pd.Index(rows + 1, name=LINE)
    table["id"] = [f"{split}-{row:07d}" for row in rows]
    path = shards[0] if len(shards) == 1 else shards[0].with_name(f"{split}-*.parquet")
    labels = codes(table.astype({"label": str}), "label", path, LABELS)
    refuse_empty_classes(labels, CLASSES, path)
    texts = {column: table[column].fillna("").astype("str").str.strip() for column in ("title", "content")}
    return by_id(table.assign(label=labels.numpy(), **texts), "id", path)


def _check_columns(path: Path) -> None:
    from pyarrow import ArrowException, parquet, types

    try:
        schema = parquet.read_schema(path)
    except (ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as parquet ({_first_line(error)}): get this file again") from None
    for column in COLUMNS:
        if column not in schema.names:
            have = ", ".join(schema.names)
            raise InvalidInput(f"{path} has no column {column!r}, expected {', '.join(COLUMNS)}; it has {have}")
        kind = schema.field(column).type
        expected = "whole numbers" if column == "label" else "texts"
        if not (types.is_integer(kind) if column == "label" else types.is_string(kind) or types.is_large_string(kind)):
            raise InvalidInput(f"{path}: {column} has the type {kind}, expected {expected}: get this file again")


def _loaded(shards: list[Path], split: str) -> Any:
    """A data set of Hugging Face, mapped from a file of its cache."""
    import datasets

    files = {split: [glob.escape(str(shard)) for shard in shards]}
    try:
        with _without_bars():
            return datasets.load_dataset(
                "parquet", data_files=files, split=split, cache_dir=str(cache_root() / "datasets")
            )
    except datasets.exceptions.DatasetGenerationError as error:
        reason = _first_line(error.__cause__ or error)
        raise InvalidInput(f"{shards[0].parent} cannot be read ({reason}): get its files again") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def _without_bars() -> Iterator[None]:
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()


def _reviews(path: Path) -> tuple[pd.DataFrame, int]:
    """The reviews of a file of Blitzer's, and how many places in it are no UTF-8.

    The files look like xml and are none: signs stand for themselves, and some begin or end with a tag of their own.
    """
    content = path.read_bytes()
    text = content.decode("utf-8", errors="replace").replace("\r\n", "\n")
    table = pd.DataFrame([{LINE: line, **_fields(path, line, block)} for line, block in _blocks(path, text)])
    if table.empty:
        raise InvalidInput(f"{path} holds no <review>, expected some: get this file again")
    table = table.set_index(LINE)
    domain, sentiment = path.parent.name, path.stem
    check_values(table, "rating", path, RATINGS[sentiment])
    table["rating"] = table["rating"].astype(float).astype(int)
    table["label"], table["domain"] = CLASSES.index(sentiment), domain
    table["id"] = [f"{domain}/{sentiment}-{number:05d}" for number in range(len(table))]
    return table, text.count("\ufffd") - content.count("\ufffd".encode())


def _places(n: int) -> str:
    return f"{n} {'place is' if n == 1 else 'places are'} no UTF-8, shown as \ufffd"


def _blocks(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Of each review, the line at which it begins and what it holds."""
    start, block = 0, []  # 0: in no review
    for number, line in enumerate(text.split("\n"), start=1):
        tag = line.strip()
        if tag == "<review>" and not start:
            start, block = number, []
        elif tag == "</review>" and start:
            yield start, "\n".join(block)
            start = 0
        elif start and tag != "<review>":
            block.append(line)
        elif start or tag not in ("", "<data>", "</data>"):
            what = f"the review of line {start} has no end" if start else f"{tag[:40]!r} is in no review"
            raise InvalidInput(f"{path} line {number}: {what}: get this file again")
    if start:
        raise InvalidInput(f"{path} line {start}: this review has no end, the file is cut off: get it again")


def _fields(path: Path, line: int, block: str) -> Mapping[str, str]:
    found = {match[1]: match[2].strip() for match in reversed(list(FIELD.finditer(block)))}  # the first one counts
    missing = next((name for name in NAMES if name not in found), None)
    if missing is not None:
        raise InvalidInput(f"{path} line {line}: this review has no whole <{missing}>: get this file again")
    return {ours: found[name] for name, ours in NAMES.items()}
