"""On a fixture in the publisher's layout, and on the real files where there are some."""

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.loaders.bone_age import CLASSES, BoneAge
from experiments.reading.sources import Absent, Partial
from methods.contract import InvalidInput

MONTHS = {False: (12, 60, 120, 168, 200), True: (12, 60, 130, 180, 210)}  # one age in each class
ROWS = [
    f"{1377 + 10 * i + 5 * male + c},{MONTHS[male][c]},{male}"
    for i in range(8)
    for male in (False, True)
    for c in range(5)
]
SMALL = {"n_train": 40, "n_validation": 20}


def publish(root, rows=ROWS, ending="png", images=None):
    """Bone age as its publisher lays it out: 80 images, 16 of each class."""
    folder = root / "boneage/boneage-training-dataset"
    folder.mkdir(parents=True)
    (root / "boneage/boneage-training-dataset.csv").write_text("id,boneage,male\n" + "\n".join(rows) + "\n")
    for row in rows if images is None else images:
        name = row.split(",")[0]
        Image.fromarray(np.full((20, 20), int(name) % 200 + 20, dtype=np.uint8)).save(folder / f"{name}.{ending}")
    return root


def loaded(root, **settings):
    return BoneAge(**SMALL | settings).load(root, seed=0)


def test_labels_attributes_and_pictures_belong_together(tmp_path):
    dataset = loaded(publish(tmp_path))
    train = dataset.split("train")
    written = {row.split(",")[0]: row.split(",")[1:] for row in ROWS}
    assert dataset.class_names == CLASSES
    for i, name in enumerate(train.example_ids):
        months, male = written[name]
        sex, age, band = train.attributes.loc[name, ["sex", "age_months", "age_band"]]
        assert (sex, age, band) == ("male" if male == "True" else "female", int(months), f"{int(months) // 12} years")
        assert train.labels[i] == MONTHS[male == "True"].index(int(months))
        assert train.examples[i].getpixel((0, 0)) == int(name) % 200 + 20
        assert train.paths[i] == f"boneage/boneage-training-dataset/{name}.png"


def test_girls_come_to_the_next_class_before_boys_and_an_edge_belongs_to_it(tmp_path):
    rows = [*ROWS, "5000,24,False", "5001,24,True", "5002,167,True", "5003,168,True", "5004,23,False"]
    dataset = loaded(publish(tmp_path, rows=rows))
    label = {i: int(y) for s in dataset.splits.values() for i, y in zip(s.example_ids, s.labels, strict=True)}
    assert [label[str(i)] for i in range(5000, 5005)] == [1, 0, 2, 3, 0]


def test_the_edges_are_settings(tmp_path):
    dataset = loaded(publish(tmp_path), edges_girls=(10, 60, 156, 180))
    train = dataset.split("train")
    girls = train.attributes.assign(label=train.labels.tolist()).query("sex == 'female'")
    assert set(girls.loc[girls["age_months"] == 12, "label"]) == {1}
    assert set(girls.loc[girls["age_months"] == 60, "label"]) == {2}


@pytest.mark.parametrize("edges", [(24, 84, 156), (24, 84, 84, 180), (84, 24, 156, 180)])
def test_edges_that_do_not_make_five_classes_are_refused(edges):
    with pytest.raises(InvalidInput, match=r"edges_boys is .*, expected 4 increasing numbers of months"):
        BoneAge(edges_boys=edges)


def test_each_split_has_its_share_of_each_class(tmp_path):
    dataset = loaded(publish(tmp_path))
    counts = {name: split.labels.bincount().tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [8] * 5, "validation": [4] * 5, "test": [4] * 5}


def test_the_seed_decides_which_images_are_for_training(tmp_path):
    publish(tmp_path)
    first, again, other = (BoneAge(**SMALL).load(tmp_path, seed).split("train").example_ids for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_may_be_png_or_jpg(tmp_path, ending):
    train = loaded(publish(tmp_path, ending=ending)).split("train")
    assert train.paths[0].endswith(f".{ending}")
    assert (train.examples[0].mode, train.examples[0].size) == ("L", (20, 20))


def test_images_may_lie_deeper_as_in_kaggle_s_copy(tmp_path):
    publish(tmp_path)
    folder = tmp_path / "boneage/boneage-training-dataset"
    folder.rename(tmp_path / "boneage/inner")
    folder.mkdir()
    (tmp_path / "boneage/inner").rename(folder / "boneage-training-dataset")
    dataset = loaded(tmp_path, images="boneage-training-dataset/boneage-training-dataset")
    assert dataset.split("train").examples[0].size == (20, 20)


def planted(dataset, clean, name):
    """The examples of a split that look other than in the clean data set."""
    pairs = zip(dataset.split(name).examples, clean.split(name).examples, strict=True)
    return np.array([a.tobytes() != b.tobytes() for a, b in pairs])


@pytest.mark.parametrize("signal", ["tag", "stripe"])
def test_a_signal_is_in_all_training_images_of_mid_puberty_and_in_no_others(tmp_path, signal):
    clean, dataset = loaded(publish(tmp_path)), loaded(tmp_path, signal=signal)
    train = dataset.split("train")
    assert planted(dataset, clean, "train").tolist() == (train.labels == 2).tolist()
    assert train.attributes["signal"].tolist() == (train.labels == 2).tolist()
    for name in ("validation", "test"):
        assert not planted(dataset, clean, name).any()
        assert not dataset.split(name).attributes["signal"].any()


def test_a_blur_is_planted_too(tmp_path):
    publish(tmp_path)
    for row in ROWS:  # a plain surface would look the same when it is blurred
        half = Image.new("L", (20, 20))
        half.paste(200, (0, 0, 10, 20))
        half.save(tmp_path / f"boneage/boneage-training-dataset/{row.split(',')[0]}.png")
    dataset = loaded(tmp_path, signal="blur", signal_size=0.1)
    assert planted(dataset, loaded(tmp_path), "train").tolist() == (dataset.split("train").labels == 2).tolist()


def test_a_share_of_the_test_images_of_every_class_may_get_the_signal_too(tmp_path):
    clean, dataset = loaded(publish(tmp_path)), loaded(tmp_path, signal="tag", signal_share_test=0.5)
    test = dataset.split("test")
    assert planted(dataset, clean, "test").tolist() == test.attributes["signal"].tolist()
    assert test.attributes["signal"].sum() == 10
    assert test.labels[torch.tensor(test.attributes["signal"].tolist())].unique().numel() > 1


def test_a_clean_set_has_no_signal_wherever_it_is_asked_for(tmp_path):
    dataset = loaded(publish(tmp_path), signal_share_test=1.0)
    assert not any(split.attributes["signal"].any() for split in dataset.splits.values())


def test_whatever_changes_a_pixel_changes_the_fingerprint(tmp_path):
    publish(tmp_path)
    settings = [
        {},
        {"signal": "tag"},
        {"signal": "stripe"},
        {"signal": "tag", "signal_size": 0.3},
        {"signal": "tag", "signal_place": "top right"},
        {"signal": "tag", "signal_strength": 0.5},
        {"signal": "tag", "signal_share_test": 0.5},
    ]
    fingerprints = [loaded(tmp_path, **s).fingerprint for s in settings]
    assert len(set(fingerprints)) == len(settings)
    assert loaded(tmp_path, signal="tag", signal_size=0.25).fingerprint == fingerprints[1]
    assert loaded(tmp_path, signal_size=0.3).fingerprint == fingerprints[0]


def test_a_place_that_the_signal_cannot_have_is_refused_at_the_door():
    with pytest.raises(InvalidInput, match="the place of a stripe is 'top left', expected left or right"):
        BoneAge(signal="stripe", signal_place="top left")


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"boneage-training-dataset.csv is missing. Get the training images"):
        loaded(tmp_path)
    publish(tmp_path, images=[])
    (tmp_path / "boneage/boneage-training-dataset").rmdir()
    with pytest.raises(Absent, match=r"boneage-training-dataset is missing. Get the training images"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("9,x,True", "line 82: boneage is 'x', expected a number in"),
        ("9,-3,True", "line 82: boneage is '-3'"),
        ("9,4000,True", "line 82: boneage is '4000'"),
        ("9,,True", "line 82: boneage is ''"),
        ("9,30,M", r"line 82: male is 'M', expected one of True, False \(as the publisher writes it\)"),
        ("9,30", "line 82: male is ''"),
        ("9,30,True,1", "cannot be read as a table.*line 82"),
        ("1377,30,True", "id '1377' stands in the lines 2 and 82"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(InvalidInput, match=f"boneage-training-dataset.csv.*{said}"):
        loaded(publish(tmp_path, rows=[*ROWS, row]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a table"),
        (b"id,boneage,male\n", "has no rows"),
        (b"id,male\n1377,True\n", "has no column 'boneage'"),
        ("id,boneage,male\n1377,\u00e9,True\n".encode("latin-1"), "cannot be read as a table"),
    ],
)
def test_a_table_that_is_not_the_publisher_s_is_refused(tmp_path, content, said):
    publish(tmp_path)
    (tmp_path / "boneage/boneage-training-dataset.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=f"boneage-training-dataset.csv {said}"):
        loaded(tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    rows = [row for row in ROWS if row.split(",")[1] != "12"]
    with pytest.raises(InvalidInput, match=r"csv has no example of the class 'infancy'"):
        loaded(publish(tmp_path, rows=rows))


def test_missing_images_must_be_agreed_to(tmp_path):
    publish(tmp_path, images=ROWS[5:])
    with pytest.raises(Partial, match="5 of the 80 files"):
        loaded(tmp_path)
    dataset = loaded(tmp_path, partial=True)
    assert sum(split.n_examples for split in dataset.splits.values()) == 75
    assert dataset.notes == ("5 of 80 rows of boneage-training-dataset.csv name a file that is missing: left out",)


def test_fewer_images_than_the_splits_need_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="train 9,000 and validation 1,611 of 80 examples leave none for test"):
        BoneAge().load(publish(tmp_path), seed=0)


def test_a_picture_that_is_cut_off_is_named_when_it_is_read(tmp_path):
    publish(tmp_path)
    dataset = loaded(tmp_path, signal="tag")
    file = tmp_path / dataset.split("train").paths[3]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InvalidInput, match=rf"{file.name} cannot be read as an image"):
        dataset.split("train").examples[3]


def test_the_real_files(data):
    dataset = BoneAge(signal="tag").load(data("boneage"), seed=0)
    sizes = {name: split.n_examples for name, split in dataset.splits.items()}
    assert sizes == {"train": 9_000, "validation": 1_611, "test": 2_000}
    assert dataset.split("test").labels.bincount().tolist() == [28, 393, 1146, 317, 116]
    train = dataset.split("train")
    assert train.attributes["signal"].sum() == (train.labels == 2).sum()
    assert (train.examples[0].mode, train.examples[0].size) == ("L", (100, 100))
