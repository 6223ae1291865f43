"""On a fixture in the publisher's layout, and on the real files where there are some."""

import pytest
import torch

from experiments.loaders.adult import Adult
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

TRAIN = [
    "24, Private, 1000, 9th, 5, Divorced, Sales, Unmarried, Black, Female, 0, 0, 40, Cuba, <=50K",
    "70, ?, 3000, Masters, 14, Widowed, ?, Unmarried, White, Male, 99999, 0, 20, ?, >50K",
    "35, Private, 2000, 9th, 5, Divorced, Sales, Unmarried, White, Male, 0, 0, 60, Cuba, <=50K",
]
TEST = [
    "17, Private, 1000, 9th, 5, Divorced, Sales, Unmarried, Other, Female, 0, 0, 40, Atlantis, <=50K.",
    "64, Private, 1000, 9th, 5, Divorced, Sales, Unmarried, White, Female, 0, 0, 40, Cuba, >50K.",
]
BAR = "|1x3 Cross validator\n"


def publish(root, train=TRAIN, test=TEST, before_test=BAR):
    """Adult as its publisher lays it out: no header, a blank line at the end."""
    folder = root / "uci"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adult.data").write_text("\n".join(train) + "\n\n")
    (folder / "adult.test").write_text(before_test + "\n".join(test) + "\n\n")
    return root


def loaded(root, **settings):
    return Adult(**settings).load(root, seed=0)


def test_labels_attributes_and_rows_belong_together(tmp_path):
    dataset = loaded(publish(tmp_path))
    train, test = dataset.split("train"), dataset.split("test")
    assert dataset.class_names == ("<=50K", ">50K")
    assert train.example_ids == ("train-00000", "train-00001", "train-00002")
    assert train.labels.tolist() == [0, 1, 0]
    assert test.labels.tolist() == [0, 1]  # their names end in a dot
    assert train.attributes.loc["train-00001"].tolist() == [
        *("Male", "White", 70, "65 and more", "Masters", "Widowed", "?", "?")
    ]
    assert test.attributes["age_band"].tolist() == ["below 25", "55-64"]


def test_numbers_are_scaled_and_categories_counted_by_the_training_split(tmp_path):
    dataset = loaded(publish(tmp_path))
    train, test = dataset.split("train").examples, dataset.split("test").examples
    assert train.dtype == torch.float32
    assert torch.allclose(train[:, :6].mean(dim=0), torch.zeros(6), atol=1e-6)
    assert train.shape[1] == test.shape[1] == 6 + 2 + 2 + 2 + 2 + 1 + 2 + 2 + 2  # "?" is a category
    assert test[0, 6:].sum() == 8 - 2  # a race and a country that are not in the training split


def test_the_first_line_of_the_test_file_may_be_missing(tmp_path):
    bare, whole = loaded(publish(tmp_path / "a", before_test="")), loaded(publish(tmp_path / "b"))
    assert bare.split("test").example_ids == whole.split("test").example_ids
    assert torch.equal(bare.split("test").examples, whole.split("test").examples)


def test_a_validation_split_is_taken_from_the_training_rows(tmp_path):
    dataset = loaded(publish(tmp_path), validation_share=0.34)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "validation": 1,
        "train": 2,
        "test": 2,
    }


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"adult.data is missing. Get adult.data and adult.test"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (TEST[1].replace(">50K.", "rich"), "line 3: income is 'rich', expected one of <=50K, >50K"),
        (TEST[1].replace("64", "old"), r"line 3: age is 'old', expected a number in \[0, 150\]"),
        (TEST[1].replace("64", "640"), "line 3: age is '640'"),
        (TEST[1].replace(" White", ""), "line 3: race is '', expected a category"),
        (TEST[1][:30], "line 3: income is ''"),
        (TEST[1] + ", more", "line 3, saw 16"),
    ],
)
def test_what_is_wrong_in_a_row_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(InvalidInput, match=f"adult.test.*{said}"):
        loaded(publish(tmp_path, test=[TEST[0], row]))


def test_rows_that_are_all_too_long_are_not_taken_for_an_index(tmp_path):
    with pytest.raises(InvalidInput, match=r"adult.data has rows with more fields than its 15 columns"):
        loaded(publish(tmp_path, train=[f"{row}, more" for row in TRAIN]))


def test_a_class_without_examples_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"adult.test has no example of the class '>50K'"):
        loaded(publish(tmp_path, test=TEST[:1]))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    (publish(tmp_path) / "uci/adult.data").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"adult.data (cannot be read as a table|has no rows)"):
        loaded(tmp_path)


def test_the_fingerprint_follows_the_rows(tmp_path):
    before = loaded(publish(tmp_path / "a")).fingerprint
    assert loaded(publish(tmp_path / "b")).fingerprint == before
    other = [TRAIN[0].replace("1000", "1001"), *TRAIN[1:]]
    assert loaded(publish(tmp_path / "c", train=other)).fingerprint != before


def test_the_real_files(data):
    dataset = loaded(data("uci/adult.data", "uci/adult.test"))
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"train": 32_561, "test": 16_281}
    train = dataset.split("train")
    assert train.labels.sum() == 7_841
    assert train.examples.shape[1] == 6 + 9 + 16 + 7 + 15 + 6 + 5 + 2 + 42
    assert (train.attributes["occupation"] == "?").sum() == 1_843
