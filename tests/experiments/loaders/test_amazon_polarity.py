"""On fixtures in the publishers' layouts, and on the real files where there are some."""

import os
import subprocess
import sys
import tracemalloc

import pandas as pd
import pytest

from experiments.loaders.amazon_polarity import AmazonPolarity
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

REVIEW = """<review>
<unique_id>
{number}:odd:somebody
</unique_id>
<asin>
{number}
</asin>
<helpful>

</helpful>
<rating>
{rating}
</rating>
<title>
{title}
</title>
<reviewer_location>

</reviewer_location>
<review_text>
{text}
</review_text>
</review>
"""


def reviews(n, split):
    return pd.DataFrame(
        {
            "label": [row % 2 for row in range(n)],
            "title": [f"Title {row}" for row in range(n)],
            "content": [f"What {split} review {row} says" for row in range(n)],
        }
    )


def publish(root, test=None, shards=1, train=0):
    """Amazon polarity as Hugging Face lays it out: the training split in several files."""
    folder = root / "amazon_polarity/amazon_polarity"
    folder.mkdir(parents=True)
    test = reviews(40, "test") if test is None else test
    tables = {"test-00000-of-00001": test}
    for index in range(shards if train else 0):
        tables[f"train-{index:05d}-of-{shards:05d}"] = reviews(train, f"train {index}")
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    return root


def review(number, rating, title="Title", text="Text."):
    return REVIEW.format(number=number, rating=rating, title=title, text=text)


def publish_blitzer(root, domains=("books", "dvd"), n=6, below="", **changed):
    """Blitzer's reviews as they are published: no xml, one file for each domain and class."""
    for domain in domains:
        folder = root / "amazon_reviews" / below / domain
        folder.mkdir(parents=True)
        for sentiment, rating in (("negative", "1.0"), ("positive", "5.0")):
            texts = [review(f"{number}", rating, text=f"{domain} & <b> {sentiment} {number}") for number in range(n)]
            (folder / f"{sentiment}.review").write_text("".join(texts))
    for name, content in changed.items():
        path = root / "amazon_reviews" / below / domains[0] / f"{name}.review"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def blitzer(root, seed=0, **settings):
    return AmazonPolarity(layout="blitzer", **settings).load(root, seed)


def test_a_text_is_the_title_and_the_review(tmp_path):
    test = reviews(4, "test")
    test["title"] = ["Good", "Why?", "", None]
    split = AmazonPolarity().load(publish(tmp_path, test), seed=0).split("test")
    said = [f"What test review {row} says" for row in range(4)]
    assert split.examples == [f"Good. {said[0]}", f"Why? {said[1]}", said[2], said[3]]
    assert split.labels.tolist() == [0, 1, 0, 1]
    assert split.example_ids[0] == "test-0000000"
    assert split.attributes.loc["test-0000000"].tolist() == ["Good", 6, len(split.examples[0])]


def test_the_title_may_be_left_out(tmp_path):
    publish(tmp_path)
    alone = AmazonPolarity(with_title=False).load(tmp_path, seed=0)
    assert alone.split("test").examples[0] == "What test review 0 says"
    assert alone.fingerprint != AmazonPolarity().load(tmp_path, seed=0).fingerprint


def test_held_out_reviews_are_drawn_by_seed(tmp_path):
    publish(tmp_path)
    first, again, other = (AmazonPolarity(n_test=10).load(tmp_path, seed).split("test") for seed in (0, 0, 1))
    assert first.example_ids == again.example_ids
    assert first.example_ids != other.example_ids
    rows = [int(name.removeprefix("test-")) for name in first.example_ids]
    assert first.examples == [f"Title {row}. What test review {row} says" for row in rows]
    assert AmazonPolarity(n_test=None).load(tmp_path, 0).split("test").n_examples == 40


def test_training_reviews_come_from_all_files_of_their_split(tmp_path):
    publish(tmp_path, shards=2, train=20)
    assert list(AmazonPolarity().load(tmp_path, seed=0).splits) == ["test"]
    dataset = AmazonPolarity(n_train=None, validation_share=0.25).load(tmp_path, seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "test": 40,
        "train": 30,
        "validation": 10,
    }
    assert any("train 1 review" in text for text in dataset.split("train").examples)
    assert AmazonPolarity(n_train=8).load(tmp_path, seed=0).split("train").n_examples == 8


def test_a_changed_file_is_read_anew(tmp_path):
    publish(tmp_path / "root")
    before = AmazonPolarity().load(tmp_path / "root", seed=0)
    changed = reviews(40, "another")
    changed.to_parquet(tmp_path / "root/amazon_polarity/amazon_polarity/test-00000-of-00001.parquet", index=False)
    after = AmazonPolarity().load(tmp_path / "root", seed=0)
    assert after.split("test").examples[0] == "Title 0. What another review 0 says"
    assert after.fingerprint != before.fingerprint


def test_reading_parquet_is_silent_and_needs_no_network(tmp_path):
    publish(tmp_path)
    code = (
        "import pathlib, socket\n"
        "socket.socket.connect = None\n"
        "from experiments.loaders.amazon_polarity import AmazonPolarity\n"
        f"AmazonPolarity().load(pathlib.Path({str(tmp_path)!r}), seed=0)"
    )
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert (done.stdout, done.stderr) == ("", "")


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(
        Absent, match=r"amazon_polarity is missing\. Get the parquet files from https://huggingface\.co"
    ):
        AmazonPolarity().load(tmp_path, seed=0)
    with pytest.raises(Absent, match=r"domain_sentiment_data\.tar\.gz"):
        blitzer(tmp_path)


def test_a_file_of_a_split_that_is_missing_is_named(tmp_path):
    publish(tmp_path, shards=2, train=20)
    (tmp_path / "amazon_polarity/amazon_polarity/train-00001-of-00002.parquet").unlink()
    with pytest.raises(Absent, match=r"train-00001-of-00002\.parquet is missing"):
        AmazonPolarity(n_train=5).load(tmp_path, seed=0)
    assert AmazonPolarity().load(tmp_path, seed=0).split("test").n_examples == 40


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", [0, 1, 2, 1], "line 3: label is '2', expected one of 0, 1"),
        ("label", [0, 0, 0, 0], "has no example of the class 'positive'"),
        ("label", ["a", "b", "a", "b"], "label has the type .*string, expected whole numbers"),
        ("content", [1, 2, 3, 4], "content has the type int64, expected texts"),
        ("content", None, "has no column 'content', expected label, title, content; it has label, title"),
    ],
)
def test_parquet_that_holds_something_else_is_refused(tmp_path, column, values, said):
    table = reviews(4, "test").drop(columns=column)
    publish(tmp_path, table if values is None else table.assign(**{column: values}))
    with pytest.raises(InvalidInput, match=rf"test-00000-of-00001\.parquet:? {said}"):
        AmazonPolarity().load(tmp_path, seed=0)


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2]])
def test_a_damaged_parquet_file_is_refused(tmp_path, damage):
    path = publish(tmp_path) / "amazon_polarity/amazon_polarity/test-00000-of-00001.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidInput, match=r"test-00000-of-00001\.parquet cannot be read as parquet"):
        AmazonPolarity().load(tmp_path, seed=0)


def test_parquet_whose_pages_are_mangled_is_refused(tmp_path):
    path = publish(tmp_path) / "amazon_polarity/amazon_polarity/test-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="amazon_polarity cannot be read"):
        AmazonPolarity().load(tmp_path, seed=0)


def test_reviews_of_all_domains_are_audited_where_none_are_trained_on(tmp_path):
    dataset = blitzer(publish_blitzer(tmp_path))
    test = dataset.split("test")
    assert list(dataset.splits) == ["test"]
    assert test.n_examples == 24
    assert test.example_ids[0] == "books/negative-00000"
    assert test.examples[0] == "Title. books & <b> negative 0"
    assert test.attributes.loc["dvd/positive-00000"].tolist() == ["dvd", 5, "Title", 6, 27]
    assert test.labels[list(test.example_ids).index("dvd/positive-00000")] == 1


def test_the_archive_may_lie_as_it_unpacks(tmp_path):
    dataset = blitzer(publish_blitzer(tmp_path, below="sorted_data_acl"))
    assert dataset.split("test").example_ids[0] == "books/negative-00000"


def test_a_share_is_trained_on_of_each_domain_and_class(tmp_path):
    dataset = blitzer(publish_blitzer(tmp_path), train_share=0.5)
    train = dataset.split("train")
    assert train.n_examples == 12
    assert train.attributes["domain"].value_counts().to_dict() == {"books": 6, "dvd": 6}
    assert train.labels.bincount().tolist() == [6, 6]


def test_a_review_that_stands_there_twice_is_not_in_two_splits(tmp_path):
    twins = "".join(review(number, "1.0", text=f"the same {number // 2}") for number in range(40))
    publish_blitzer(tmp_path, domains=("books",), n=40, negative=twins)
    dataset = blitzer(tmp_path, train_share=0.5)
    texts = [set(split.examples) for split in dataset.splits.values()]
    assert not texts[0] & texts[1]


@pytest.mark.parametrize("how", [{"train_share": 0.5}, {"train_domains": ("books",)}])
def test_a_review_that_stands_there_twice_is_not_in_train_and_validation(tmp_path, how):
    twins = "".join(review(number, "1.0", text=f"the same {number // 2}") for number in range(80))
    publish_blitzer(tmp_path, n=80, negative=twins)
    dataset = blitzer(tmp_path, validation_share=0.4, **how)
    train, validation = (set(dataset.split(name).examples) for name in ("train", "validation"))
    assert validation
    assert not train & validation


def test_a_validation_split_of_no_training_reviews_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"validation_share is 0.2 of no training reviews: set train_share or"):
        blitzer(publish_blitzer(tmp_path), validation_share=0.2)
    with pytest.raises(InvalidInput, match=r"validation_share is 0.2 of no training reviews: set n_train too"):
        AmazonPolarity(validation_share=0.2).load(publish(tmp_path), seed=0)


def test_the_words_of_all_reviews_are_not_held_at_once(tmp_path):
    test = reviews(200, "test").assign(content=" ".join(["word"] * 5_000))
    publish(tmp_path, test)
    AmazonPolarity().load(tmp_path, seed=0)  # what is read once is cached
    tracemalloc.start()
    AmazonPolarity().load(tmp_path, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # the words alone would take 50 MB


def test_some_domains_are_trained_on_and_the_others_audited(tmp_path):
    dataset = blitzer(publish_blitzer(tmp_path), train_domains=("dvd",), n_test=5)
    assert set(dataset.split("train").attributes["domain"]) == {"dvd"}
    assert set(dataset.split("test").attributes["domain"]) == {"books"}
    assert dataset.split("test").n_examples == 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train_domains": ("book",)}, "there is no domain 'book'.*books"),
        ({"train_domains": ("books", "dvd")}, "names every domain"),
        ({"train_domains": ("books",), "train_share": 0.5}, "both set"),
        ({"n_train": 5}, "n_train is 5, expected 0 with layout=blitzer"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(tmp_path, settings, said):
    with pytest.raises(InvalidInput, match=said):
        blitzer(publish_blitzer(tmp_path), **settings)


def test_settings_of_the_other_layout_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="train_share and train_domains are for layout=blitzer only"):
        AmazonPolarity(train_share=0.5).load(publish(tmp_path), seed=0)


def test_the_files_own_quirks_are_no_errors(tmp_path):
    odd = "<data>\r\n" + review("1", "2.0", text="one\r\n<title>\r\nx\n</title>\n\n \x1a two & three") + "\n</data>\n"
    twice = review("2", "4.0").replace("<asin>", "<unique_id>\n17\n</unique_id>\n<asin>")
    content = {"negative": odd, "positive": twice.encode() + review("3", "5.0", text="Guzmán").encode("latin-1")}
    dataset = blitzer(publish_blitzer(tmp_path, domains=("books",), **content))
    test = dataset.split("test")
    assert test.examples[0] == "Title. one\n<title>\nx\n</title>\n\n \x1a two & three"
    assert test.examples[2] == "Title. Guzm\ufffdn"
    assert dataset.notes == ("amazon_reviews/books/positive.review: 1 place is no UTF-8, shown as \ufffd",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (review("1", "1.0") + review("2", "1.0")[:-20], "line 24: this review has no end, the file is cut off"),
        (review("1", "1.0")[:-10] + review("2", "1.0"), "line 23: the review of line 1 has no end"),
        (review("1", "1.0").replace("</rating>\n", ""), "line 1: this review has no whole <rating>"),
        (review("1", "3.0"), "line 1: rating is '3.0', expected one of 1.0, 2.0"),
        (review("1", "5.0"), "line 1: rating is '5.0'"),
        (review("1", "many"), "line 1: rating is 'many'"),
        ("label,text\n", "line 1: 'label,text' is in no review"),
        ("", "holds no <review>"),
    ],
)
def test_a_file_that_is_damaged_is_refused_with_its_line(tmp_path, content, said):
    with pytest.raises(InvalidInput, match=rf"books/negative\.review {said}"):
        blitzer(publish_blitzer(tmp_path, negative=content))


def test_a_domain_without_one_of_its_classes_is_incomplete(tmp_path):
    publish_blitzer(tmp_path)
    (tmp_path / "amazon_reviews/dvd/positive.review").unlink()
    with pytest.raises(Absent, match=r"dvd/positive\.review is missing"):
        blitzer(tmp_path)


def publish_sst2(root):
    (root / "sst2").mkdir()
    rows = "".join(f"film {row} \t{row % 2}\n" for row in range(8))
    for name in ("train", "dev"):
        (root / f"sst2/{name}.tsv").write_text(f"sentence\tlabel\n{rows}")


def test_a_model_may_be_trained_on_film_reviews_instead(tmp_path):
    publish_sst2(publish_blitzer(tmp_path))
    settings = {"layout": "blitzer", "train_on": "sst2"}
    dataset = AmazonPolarity(n_train=6, **settings).load(tmp_path, seed=0)
    assert dataset.split("train").n_examples == 6
    assert set(dataset.split("train").examples) <= {f"film {row}" for row in range(8)}
    assert dataset.split("train").labels.tolist() == [int(text[-1]) % 2 for text in dataset.split("train").examples]
    everything = AmazonPolarity(n_train=None, **settings).load(tmp_path, seed=0)
    assert everything.split("train").n_examples == 8
    assert everything.fingerprint != dataset.fingerprint
    plain = AmazonPolarity(layout="blitzer").load(tmp_path, seed=0)
    assert dataset.split("test").example_ids == plain.split("test").example_ids


@pytest.mark.parametrize("settings", [{}, {"n_train": 3, "train_share": 0.5}, {"n_train": 3, "validation_share": 0.5}])
def test_film_reviews_are_not_mixed_with_others(tmp_path, settings):
    with pytest.raises(InvalidInput, match="train_on is sst2, expected n_train above 0"):
        AmazonPolarity(layout="blitzer", train_on="sst2", **settings).load(publish_blitzer(tmp_path), seed=0)


def test_the_real_files(data):
    root = data("amazon_reviews")
    dataset = blitzer(root, train_share=0.25)
    test, train = dataset.split("test"), dataset.split("train")
    assert test.n_examples + train.n_examples == 8_000
    assert set(test.attributes["domain"]) == {"books", "dvd", "electronics", "kitchen"}
    assert not set(test.examples) & set(train.examples)
    ratings = pd.concat([test.attributes["rating"], train.attributes["rating"]]).value_counts().to_dict()
    assert sum(ratings.values()) == 8_000
    assert set(ratings) == {1, 2, 4, 5}
