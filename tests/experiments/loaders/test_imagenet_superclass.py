"""On fixtures in both layouts, and on the real files where there are some."""

import json

import pytest
from PIL import Image

from experiments.loaders.imagenet_superclass import ImageNetSuperclass
from experiments.reading.imagenet import INDICES, MIXED_10, TINY_IMAGENET
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

CHIHUAHUA, COCK, SOCK = "n02085620", "n01514668", "n04254777"
LISTED = {"dog": [[CHIHUAHUA, "Chihuahua"]], "wear": [[SOCK, "sock"], ["n02963159", "cardigan, any"]]}


def put(folder, n, mode="RGB"):
    folder.mkdir(parents=True)
    for number in range(n):
        Image.new(mode, (4, 4), 90).save(folder / f"{folder.parts[-3]}_{number}.JPEG")


def publish(root, n=1):
    """ImageNet's validation images of the 60 classes, and of one that is in no superclass."""
    for wnid in [*(wnid for part in MIXED_10.values() for wnid in part), "n01440764"]:
        put(root / "imagenet/val" / wnid, n)
    return root


def publish_tiny(root, listed=LISTED, n=2):
    folder = root / "tiny-imagenet-superclasses"
    for superclass, subclasses in LISTED.items():
        for wnid, _ in subclasses:
            put(folder / "train" / superclass / wnid, 4)
            put(folder / "val" / superclass / wnid, n, mode="L")
    (folder / "superclasses.json").write_text(listed if isinstance(listed, str) else json.dumps(listed))
    return root


def test_ten_superclasses_of_six_subclasses_are_taken_from_imagenet(tmp_path):
    dataset = ImageNetSuperclass().load(publish(tmp_path), seed=0)
    split = dataset.split("test")
    assert dataset.class_names[:2] == ("dog", "bird")
    assert split.n_examples == 60
    assert split.labels.bincount().tolist() == [6] * 10
    row = split.attributes["wnid"].tolist().index(COCK)
    assert split.attributes["subclass"].iloc[row] == "cock"
    assert dataset.class_names[split.labels[row]] == "bird"
    assert COCK in split.example_ids[row]
    assert dataset.notes == ("60 images, where mixed_10 has 3,000",)


def test_a_superclass_knows_the_imagenet_classes_that_it_is_made_of(tmp_path):
    classes = ImageNetSuperclass().load(publish(tmp_path), seed=0).imagenet_classes
    assert classes[0] == (151, 152, 153, 154, 155, 156)
    assert len({index for part in classes for index in part}) == 60


def test_a_subclass_that_is_missing_is_named(tmp_path):
    (publish(tmp_path) / "imagenet/val" / COCK).rename(tmp_path / "elsewhere")
    with pytest.raises(Absent, match=f"imagenet/val/{COCK} is missing. Get ILSVRC2012_img_val.tar"):
        ImageNetSuperclass().load(tmp_path, seed=0)


def test_a_subclass_without_images_is_named(tmp_path):
    for file in (publish(tmp_path) / "imagenet/val" / COCK).iterdir():
        file.unlink()
    with pytest.raises(InvalidInput, match=f"{COCK} holds no images"):
        ImageNetSuperclass().load(tmp_path, seed=0)


def test_there_are_no_training_images_to_take_a_validation_split_from(tmp_path):
    with pytest.raises(InvalidInput, match=r"validation_share is 0.1, but mixed_10 has no training images"):
        ImageNetSuperclass(validation_share=0.1).load(publish(tmp_path), seed=0)


def test_tiny_imagenet_has_training_images_too(tmp_path):
    dataset = ImageNetSuperclass(layout="tiny").load(publish_tiny(tmp_path), seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"train": 12, "test": 6}
    split = dataset.split("test")
    assert dataset.class_names == ("dog", "wear")
    assert dataset.imagenet_classes == ((151,), (806, 474))
    assert split.example_ids[:2] == (f"val/dog/{CHIHUAHUA}/val_0.JPEG", f"val/dog/{CHIHUAHUA}/val_1.JPEG")
    assert split.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert split.attributes["subclass"].tolist() == ["Chihuahua"] * 2 + ["cardigan"] * 2 + ["sock"] * 2
    assert split.attributes["wnid"].iloc[-1] == SOCK
    assert split.examples[0].mode == "RGB"  # the files are grey


def test_each_subclass_gives_its_share_to_the_validation_split(tmp_path):
    dataset = ImageNetSuperclass(layout="tiny", validation_share=0.25).load(publish_tiny(tmp_path), seed=0)
    assert dataset.split("validation").attributes["subclass"].tolist() == ["Chihuahua", "cardigan", "sock"]
    assert dataset.split("train").n_examples == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read, expected superclasses with subclasses"),
        ("{}", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"dog": [], "wear": [["n04254777", "sock"]]}', "cannot be read"),
        ('{"dog": ["n02085620"]}', "cannot be read"),
        ({**LISTED, "cat": [["n00000001", "made up"]]}, "'n00000001' is no subclass that is known here"),
        ({**LISTED, "cat": [[SOCK, "sock"]]}, f"{SOCK} is listed 2 times, expected once"),
    ],
)
def test_a_list_of_superclasses_that_cannot_be_used_is_refused(tmp_path, content, said):
    with pytest.raises(InvalidInput, match=rf"superclasses.json:? {said}"):
        ImageNetSuperclass(layout="tiny").load(publish_tiny(tmp_path, content), seed=0)


def test_a_listed_subclass_without_a_folder_is_named(tmp_path):
    listed = {**LISTED, "dog": [*LISTED["dog"], ["n02113799", "standard poodle"]]}
    with pytest.raises(Absent, match=r"train/dog/n02113799 is missing. Get http"):
        ImageNetSuperclass(layout="tiny").load(publish_tiny(tmp_path, listed), seed=0)


@pytest.mark.parametrize(
    ("layout", "said"),
    [("mixed_10", r"imagenet/val/\w+ is missing. Get ILSVRC"), ("tiny", "superclasses.json is missing. Get http")],
)
def test_without_the_data_it_is_said_what_to_get(tmp_path, layout, said):
    with pytest.raises(Absent, match=said):
        ImageNetSuperclass(layout=layout).load(tmp_path, seed=0)


def test_the_real_files(data):
    root = data("tiny-imagenet-superclasses")
    dataset = ImageNetSuperclass(layout="tiny").load(root, seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"train": 7650, "test": 2550}
    assert len(dataset.class_names) == 9
    assert set(dataset.split("test").attributes["subclass"].value_counts()) == {50}
    grey = [i for i, file in enumerate(dataset.split("test").paths) if _is_grey(root / file)]
    assert 10 < len(grey) < 50
    assert dataset.split("test").examples[grey[0]].mode == "RGB"


def _is_grey(file):
    with Image.open(file) as image:
        return image.mode == "L"


def test_what_is_known_of_tiny_imagenet_is_what_the_real_list_says(data):
    listed = json.loads(
        (data("tiny-imagenet-superclasses") / "tiny-imagenet-superclasses/superclasses.json").read_text()
    )
    assert {name: [wnid for wnid, _ in part] for name, part in listed.items()} == {
        name: list(part) for name, part in TINY_IMAGENET.items()
    }


def test_what_is_known_of_mixed_10_is_what_the_real_list_says(data):
    listed = json.loads((data("imagenet_meta") / "imagenet_meta/mixed_10_balanced.json").read_text())
    assert {name: {wnid: index for index, wnid, _ in part["balanced"]} for name, part in listed.items()} == MIXED_10
    assert len(INDICES) == len(
        {wnid for table in (MIXED_10, TINY_IMAGENET) for part in table.values() for wnid in part}
    )
