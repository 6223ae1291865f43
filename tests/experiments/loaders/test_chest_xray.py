"""On a fixture with names like the publisher's, and on the real files where there are some."""

import numpy as np
import pytest
from PIL import Image

from experiments.loaders.chest_xray import ChestXray
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

TRAIN = {
    "NORMAL": ("IM-0115-0001", "IM-0117-0001", "NORMAL2-IM-0383-0001", "NORMAL2-IM-0383-0001-0002"),
    "PNEUMONIA": (
        "person1_bacteria_1",
        "person1_bacteria_2",
        "person2_bacteria_3",
        "person1_virus_6",
        "person9_virus_7",
    ),
}
TEST = {"NORMAL": ("IM-0001-0001",), "PNEUMONIA": ("person3_virus_15", "person4_bacteria_14")}


def publish(root, train=TRAIN, test=TEST):
    """The x-rays as their publisher lays them out; some are stored in colour."""
    for split, folders in (("train", train), ("val", {"NORMAL": ("NORMAL2-IM-1427-0001",)}), ("test", test)):
        for label, names in folders.items():
            folder = root / "chest_xray" / split / label
            folder.mkdir(parents=True)
            for i, name in enumerate(names):
                grey = Image.fromarray(np.full((4, 5), 20 + i, dtype=np.uint8))
                (grey.convert("RGB") if i % 2 else grey).save(folder / f"{name}.jpeg")
    return root


def test_labels_come_from_folders_and_causes_from_names(tmp_path):
    dataset = ChestXray().load(publish(tmp_path), seed=0)
    train = dataset.split("train")
    assert dataset.class_names == ("NORMAL", "PNEUMONIA")
    assert train.labels.tolist() == [0] * 4 + [1] * 5
    assert train.attributes["cause"].tolist() == ["normal"] * 4 + ["bacteria"] * 2 + ["virus", "bacteria", "virus"]
    assert train.example_ids[4] == "train/PNEUMONIA/person1_bacteria_1.jpeg"
    assert train.paths[4] == "chest_xray/train/PNEUMONIA/person1_bacteria_1.jpeg"


def test_images_are_grey_however_they_are_stored(tmp_path):
    train = ChestXray().load(publish(tmp_path), seed=0).split("train")
    assert {(image.mode, image.size) for image in train.examples} == {("L", (5, 4))}


def test_a_number_is_another_patient_s_with_another_cause(tmp_path):
    patients = ChestXray().load(publish(tmp_path), seed=0).split("train").attributes["patient"]
    assert patients.iloc[2:7].tolist() == [
        "NORMAL2-IM-0383",
        "NORMAL2-IM-0383",
        "person1_bacteria",
        "person1_bacteria",
        "person1_virus",
    ]


def test_names_of_the_publisher_s_later_version_are_understood(tmp_path):
    names = {"NORMAL": ("NORMAL-100-0001",), "PNEUMONIA": ("BACTERIA-7-0001", "BACTERIA-7-0002", "VIRUS-8-0001")}
    test = ChestXray().load(publish(tmp_path, test=names), seed=0).split("test")
    assert test.attributes["cause"].tolist() == ["normal", "bacteria", "bacteria", "virus"]
    assert test.attributes["patient"].tolist() == ["NORMAL-100", "BACTERIA-7", "BACTERIA-7", "VIRUS-8"]


def test_a_name_that_tells_nothing_is_unknown_and_a_patient_of_its_own(tmp_path):
    names = {"NORMAL": ("a",), "PNEUMONIA": ("b", "c")}
    test = ChestXray().load(publish(tmp_path, test=names), seed=0).split("test")
    assert test.attributes["cause"].tolist() == ["normal", "unknown", "unknown"]
    assert test.attributes["patient"].nunique() == 3


def test_the_publisher_s_validation_images_are_left_alone(tmp_path):
    dataset = ChestXray().load(publish(tmp_path), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"train": 9, "test": 3}


def test_validation_images_are_of_other_patients_than_the_training_images(tmp_path):
    names = {
        "NORMAL": [f"IM-{i:04d}-{j:04d}" for i in range(10) for j in (1, 2)],
        "PNEUMONIA": [f"person{i}_{cause}_{j}" for i in range(10) for cause in ("bacteria", "virus") for j in (1, 2)],
    }
    dataset = ChestXray(validation_share=0.2).load(publish(tmp_path, train=names), seed=0)
    train, validation = (dataset.split(name).attributes for name in ("train", "validation"))
    assert not set(train["patient"]) & set(validation["patient"])
    assert validation["cause"].value_counts().to_dict() == {"normal": 4, "bacteria": 4, "virus": 4}
    assert len(train) == 48


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"chest_xray/train/NORMAL is missing. Get ChestXRay2017.zip"):
        ChestXray().load(tmp_path, seed=0)


def test_a_class_without_images_is_refused(tmp_path):
    publish(tmp_path, test={"NORMAL": (), "PNEUMONIA": TEST["PNEUMONIA"]})
    with pytest.raises(InvalidInput, match=r"test/NORMAL holds no images"):
        ChestXray().load(tmp_path, seed=0)


def test_a_file_that_is_cut_off_is_named_when_it_is_read(tmp_path):
    publish(tmp_path)
    file = tmp_path / "chest_xray/test/NORMAL/IM-0001-0001.jpeg"
    file.write_bytes(file.read_bytes()[:40])
    test = ChestXray().load(tmp_path, seed=0).split("test")
    with pytest.raises(InvalidInput, match=r"IM-0001-0001.jpeg cannot be read as an image"):
        test.examples[0]


def test_what_is_no_image_is_passed_over(tmp_path):
    publish(tmp_path)
    (tmp_path / "chest_xray/test/NORMAL/.DS_Store").write_bytes(b"\0")
    (tmp_path / "chest_xray/test/NORMAL/readme.txt").write_text("x")
    assert ChestXray().load(tmp_path, seed=0).split("test").n_examples == 3


def test_the_real_files(data):
    dataset = ChestXray(validation_share=0.1).load(data("chest_xray"), seed=0)
    train, validation, test = (dataset.split(name) for name in ("train", "validation", "test"))
    assert train.n_examples + validation.n_examples == 5_216
    assert (train.labels.bincount() + validation.labels.bincount()).tolist() == [1_341, 3_875]
    assert test.labels.bincount().tolist() == [234, 390]
    assert test.attributes["cause"].value_counts().to_dict() == {"bacteria": 242, "normal": 234, "virus": 148}
    assert not set(test.attributes["patient"]) & {*train.attributes["patient"], *validation.attributes["patient"]}
    assert (test.examples[0].mode, test.examples[0].size) == ("L", (224, 224))
