"""On a fixture in GLUE's layout, and on the real files where there are some."""

import pytest

from experiments.loaders.sst2 import SST2
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

HEADER = "sentence\tlabel\n"
TRAIN = ['a "quoted" joy \t1', "it 's dull \t0", "it 's dull \t0", "warm and wise \t1", "no plot , no point \t0"]
DEV = ["a fine film . \t1", "null \t0"]


def publish(root, train=TRAIN, dev=DEV, below=""):
    """SST-2 as GLUE lays it out: a header, tabs, a space before the tab, and quotes that stand for themselves."""
    folder = root / "sst2" / below
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text(HEADER + "\n".join(train) + "\n")
    (folder / "dev.tsv").write_text(HEADER + "\n".join(dev) + "\n")
    return root


def test_sentences_labels_and_lengths_belong_together(tmp_path):
    dataset = SST2().load(publish(tmp_path), seed=0)
    train, test = dataset.split("train"), dataset.split("test")
    assert dataset.class_names == ("negative", "positive")
    assert train.examples[0] == 'a "quoted" joy'
    assert train.labels.tolist() == [1, 0, 0, 1, 0]
    assert train.attributes["n_words"].tolist() == [3, 3, 3, 3, 5]
    assert test.examples == ["a fine film .", "null"]
    assert test.example_ids == ("dev-00002", "dev-00003")


def test_sentences_that_repeat_are_kept_apart_by_their_line(tmp_path):
    train = SST2().load(publish(tmp_path), seed=0).split("train")
    assert train.examples[1] == train.examples[2]
    assert train.example_ids[1:3] == ("train-00003", "train-00004")


def test_the_archive_may_lie_as_it_unpacks(tmp_path):
    dataset = SST2().load(publish(tmp_path, below="SST-2"), seed=0)
    assert dataset.split("test").example_ids == ("dev-00002", "dev-00003")


def test_some_of_the_training_sentences_are_enough(tmp_path):
    root = publish(tmp_path, train=[f"sentence {number} \t{number % 2}" for number in range(20)])
    dataset = SST2(n_train=8, validation_share=0.25).load(root, seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "validation": 5,
        "train": 8,
        "test": 2,
    }
    assert not set(dataset.split("train").examples) & set(dataset.split("validation").examples)
    assert SST2(n_train=8).load(root, seed=1).split("train").example_ids != dataset.split("train").example_ids


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"train\.tsv is missing. Get https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"):
        SST2().load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["good \t1", "bad \t2"], "line 3: label is '2', expected one of 0, 1"),
        (["good \t1", "bad \tx"], "line 3: label is 'x', expected one of 0, 1"),
        (["good \t1", "bad"], "line 3: label is ''"),
        (["good \t1", " \t0"], "line 3: sentence is '', expected a sentence"),
        (["good \t1", "bad \t0\t0"], "cannot be read as a table"),
        (["good \t1", "fine \t1"], "has no example of the class 'negative'"),
        ([], "has no rows"),
    ],
)
def test_what_is_no_such_row_is_refused_with_its_line(tmp_path, rows, said):
    with pytest.raises(InvalidInput, match=rf"dev\.tsv {said}"):
        SST2().load(publish(tmp_path, dev=rows), seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a table"),
        (b"index\tsentence\n0\tgood\n", "has no column 'label'"),
        (HEADER.encode() + "Amélie \t1\n".encode("latin-1"), "cannot be read as a table"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, said):
    publish(tmp_path)
    (tmp_path / "sst2/train.tsv").write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"train\.tsv {said}"):
        SST2().load(tmp_path, seed=0)


def test_the_real_files(data):
    dataset = SST2().load(data("sst2"), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"train": 67_349, "test": 872}
    assert dataset.split("test").labels.bincount().tolist() == [428, 444]
    assert dataset.split("test").attributes["n_words"].max() == 47
