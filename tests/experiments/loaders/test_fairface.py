"""On a fixture in the publisher's layout, and on the real files where there are some."""

import numpy as np
import pytest
from PIL import Image

from experiments.loaders.fairface import FairFace
from experiments.reading.sources import Absent, Partial
from methods.contract import InvalidInput

HEADER = "file,age,gender,race,service_test\n"
TRAIN = [
    "train/1.jpg,50-59,Male,East Asian,True",
    "train/2.jpg,30-39,Female,Indian,False",
    "train/10.jpg,3-9,Female,Black,False",
]
VAL = ["val/1.jpg,more than 70,Male,White,False"]


def publish(root, train=TRAIN, val=VAL, images=("train/1", "train/2", "train/10", "val/1")):
    """FairFace as its publisher lays it out."""
    folder = root / "fairface"
    for name, rows in (("train", train), ("val", val)):
        (folder / name).mkdir(parents=True)
        (folder / f"fairface_label_{name}.csv").write_text(HEADER + "\n".join(rows) + "\n")
    for name in images:
        Image.fromarray(np.full((4, 4, 3), 90, dtype=np.uint8)).save(folder / f"{name}.jpg")
    return root


def test_labels_attributes_and_pictures_belong_together(tmp_path):
    dataset = FairFace().load(publish(tmp_path), seed=0)
    train = dataset.split("train")
    assert dataset.class_names == ("Female", "Male")
    assert train.example_ids == ("train/1.jpg", "train/10.jpg", "train/2.jpg")
    assert train.labels.tolist() == [1, 0, 0]
    assert train.attributes.loc["train/10.jpg"].tolist() == ["3-9", "Black"]
    assert train.paths[1] == "fairface/train/10.jpg"
    assert train.examples[1].size == (4, 4)
    assert dataset.split("test").example_ids == ("val/1.jpg",)


def test_a_validation_split_is_taken_from_the_training_images(tmp_path):
    dataset = FairFace(validation_share=0.34).load(publish(tmp_path), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "validation": 1,
        "train": 2,
        "test": 1,
    }


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"fairface_label_train\.csv is missing. Get the label files"):
        FairFace().load(tmp_path, seed=0)


def test_ages_that_a_spreadsheet_turned_into_dates_are_refused_by_name(tmp_path):
    rows = [*TRAIN[:2], "train/10.jpg,9-Mar,Female,Black,False"]
    with pytest.raises(InvalidInput, match=r"fairface_label_train.csv line 4: age is '9-Mar'.*a spreadsheet"):
        FairFace().load(publish(tmp_path, train=rows), seed=0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("val/1.jpg,3-9,Unknown,White,False", "gender is 'Unknown', expected one of Female, Male"),
        ("val/1.jpg,3-9,Male,Martian,False", "race is 'Martian'"),
    ],
)
def test_what_is_no_label_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(InvalidInput, match=f"fairface_label_val.csv line 2: {said}"):
        FairFace().load(publish(tmp_path, val=[row]), seed=0)


def test_training_images_of_one_gender_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"fairface_label_train.csv has no example of the class 'Female'"):
        FairFace().load(publish(tmp_path, train=TRAIN[:1]), seed=0)


def test_a_column_that_is_missing_is_named(tmp_path):
    publish(tmp_path)
    (tmp_path / "fairface/fairface_label_val.csv").write_text("file,age,gender\nval/1.jpg,3-9,Male\n")
    with pytest.raises(InvalidInput, match=r"fairface_label_val.csv has no column 'race'"):
        FairFace().load(tmp_path, seed=0)


def test_missing_images_must_be_agreed_to(tmp_path):
    publish(tmp_path, images=("train/1", "train/2", "val/1"))
    with pytest.raises(Partial, match="1 of the 3 files"):
        FairFace().load(tmp_path, seed=0)
    dataset = FairFace(partial=True).load(tmp_path, seed=0)
    assert dataset.split("train").n_examples == 2
    assert dataset.notes == ("1 of 3 rows of fairface_label_train.csv name a file that is missing: left out",)


def test_the_fingerprint_follows_pictures_and_labels(tmp_path):
    publish(tmp_path / "a")
    before = FairFace().load(tmp_path / "a", seed=0).fingerprint
    assert FairFace().load(publish(tmp_path / "b"), seed=0).fingerprint == before
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "b/fairface/train/2.jpg")
    assert FairFace().load(tmp_path / "b", seed=0).fingerprint != before
    other = [TRAIN[0], TRAIN[1].replace("Indian", "White"), TRAIN[2]]
    assert FairFace().load(publish(tmp_path / "c", train=other), seed=0).fingerprint != before


def test_the_real_files(data):
    dataset = FairFace(partial=True).load(data("fairface"), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"train": 25_000, "test": 5_000}
    assert dataset.split("test").examples[0].size == (64, 64)
    assert dataset.split("test").attributes["race"].nunique() == 7
