"""On folders as users have them."""

import shutil

import pytest
from PIL import Image

from experiments.loaders.image_folder import ImageFolder
from experiments.reading.sources import Absent, Partial
from methods.contract import InvalidInput


def picture(file, mode="RGB", value=90):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4), value).save(file)


def classes(path, n=4):
    """One folder a class."""
    for name in ("cat", "dog"):
        for number in range(n):
            picture(path / name / f"{number}.png", value=number)
    return path


def divided(path, *splits):
    """One folder a split, in it one a class."""
    for name in splits:
        classes(path / name, n=2)
    return path


def table(path, text):
    file = path.parent / "attributes.csv"
    file.write_text(text)
    return str(file)


def load(path, seed=0, **settings):
    return ImageFolder(path=str(path), **settings).load(path.parent / "data", seed)


def sizes(dataset):
    return {name: split.n_examples for name, split in dataset.splits.items()}


def test_all_pictures_are_the_test_split_because_a_model_is_audited(tmp_path):
    dataset = load(classes(tmp_path / "mine"))
    split = dataset.split("test")
    assert sizes(dataset) == {"test": 8}
    assert dataset.class_names == ("cat", "dog")
    assert split.example_ids[3:5] == ("cat/3.png", "dog/0.png")
    assert split.labels.tolist() == [0] * 4 + [1] * 4
    assert split.examples[3].getpixel((0, 0)) == (3, 0, 0)


def test_shares_are_drawn_by_seed_from_each_class(tmp_path):
    settings = {"train_share": 0.5, "validation_share": 0.25}
    path = classes(tmp_path / "mine")
    dataset = load(path, **settings)
    assert sizes(dataset) == {"train": 4, "validation": 2, "test": 2}
    assert all(split.labels.bincount().unique().numel() == 1 for split in dataset.splits.values())
    assert load(path, **settings).fingerprint == dataset.fingerprint != load(path, seed=1, **settings).fingerprint


def test_shares_that_leave_nothing_to_test_on_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="leave none for test"):
        load(classes(tmp_path / "mine"), train_share=0.5, validation_share=0.5)


def test_a_class_that_is_too_small_to_be_divided_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="2 examples cannot be divided"):
        load(classes(tmp_path / "mine", n=1), train_share=0.5)


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_folders_may_be_the_splits(tmp_path, validation):
    dataset = load(divided(tmp_path / "mine", "train", validation, "test"))
    assert sizes(dataset) == {"test": 4, "train": 4, "validation": 4}
    assert dataset.split("validation").example_ids[0] == f"{validation}/cat/0.png"
    assert dataset.split("train").labels.tolist() == [0, 0, 1, 1]


def test_what_is_divided_already_is_not_divided_again(tmp_path):
    with pytest.raises(InvalidInput, match="is divided already, by its folders train, test: leave train_share"):
        load(divided(tmp_path / "mine", "train", "test"), train_share=0.5)


def test_two_names_for_the_validation_split_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="holds val and validation, which would be one split"):
        load(divided(tmp_path / "mine", "val", "validation"))


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    path = divided(tmp_path / "mine", "train", "test")
    picture(path / "train/bird/0.png")
    with pytest.raises(InvalidInput, match=r"mine/test has no folder 'bird', which .*mine/train has"):
        load(path)


def test_a_class_without_pictures_is_named(tmp_path):
    path = classes(tmp_path / "mine")
    (path / "bird").mkdir()
    (path / "bird/readme.txt").write_text("soon")
    with pytest.raises(InvalidInput, match="mine/bird holds no images"):
        load(path)


def test_one_class_is_none(tmp_path):
    picture(tmp_path / "mine/cat/0.png")
    with pytest.raises(InvalidInput, match="holds one folder only, cat: expected at least two"):
        load(tmp_path / "mine")


def test_pictures_without_a_folder_of_their_class_are_refused(tmp_path):
    picture(tmp_path / "mine/0.png")
    with pytest.raises(InvalidInput, match="mine holds no folders: expected one for each class"):
        load(tmp_path / "mine")


def test_pictures_are_not_passed_over_because_they_lie_deeper(tmp_path):
    path = divided(tmp_path / "mine", "train", "test", "unsorted")
    with pytest.raises(
        InvalidInput, match=r"mine/test/(cat|dog) is too deep, pictures are looked for in PATH/<class>/"
    ):
        load(path)


def test_hidden_folders_are_no_classes(tmp_path):
    path = classes(tmp_path / "mine")
    picture(path / ".thumbnails/0.png")
    (path / "cat/.thumbnails").mkdir()
    assert load(path).class_names == ("cat", "dog")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Absent, match=r"dataset.path is .*/mine, expected a folder with pictures in PATH/<class>/"):
        load(tmp_path / "mine")


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_the_working_directory(workspace, path):
    classes(workspace)
    with pytest.raises(InvalidInput, match=r"dataset.path is empty, expected a folder with pictures in PATH/<class>/"):
        ImageFolder(path=path).load(workspace / "data", seed=0)


def test_pictures_that_cannot_be_read_are_counted(tmp_path):
    path = classes(tmp_path / "mine")
    for number in range(3):
        (path / f"cat/{number}.heic").touch()
    dataset = load(path)
    assert sizes(dataset) == {"test": 8}
    assert dataset.notes == ("3 files beside the pictures are of kinds that are not read (.heic 3): left out",)


def test_a_picture_whose_content_was_never_fetched_is_named(tmp_path):
    path = classes(tmp_path / "mine")
    (path / "dog/9.jpg").symlink_to("../.git/annex/objects/SHA256E-s9.jpg")
    with pytest.raises(InvalidInput, match=r"mine/dog/9.jpg is a link to a file that is not here: fetch the files"):
        load(path)


def test_a_path_is_relative_to_the_working_directory(workspace):
    classes(workspace / "mine")
    assert sizes(ImageFolder(path="mine").load(workspace / "data", seed=0)) == {"test": 8}


@pytest.mark.parametrize(("mode", "expected"), [("RGB", (90, 90, 90)), ("L", 90)])
def test_grey_pictures_among_transparent_ones_come_in_one_mode(tmp_path, mode, expected):
    path = tmp_path / "mine"
    picture(path / "cat/grey.png", "L")
    picture(path / "dog/clear.png", "RGBA", (0, 0, 0, 0))
    examples = load(path, mode=mode).split("test").examples
    assert [example.mode for example in examples] == [mode, mode]
    assert examples[0].getpixel((0, 0)) == expected


def test_another_mode_is_other_data(tmp_path):
    """Else a model that was loaded with its weights would find the other mode's outputs in the cache."""
    path = classes(tmp_path / "mine")
    assert load(path, mode="L").fingerprint != load(path).fingerprint


@pytest.mark.parametrize("spoil", [lambda content: content[:40], lambda content: b"no picture at all"])
def test_a_file_that_is_no_whole_picture_is_named_when_it_is_read(tmp_path, spoil):
    path = classes(tmp_path / "mine")
    file = path / "cat/1.png"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InvalidInput, match=r"mine/cat/1.png cannot be read as an image"):
        load(path).split("test").examples[1]


ROWS = [f"{name}/{number}.png,{number},{size}" for name in ("cat", "dog") for number, size in enumerate("ssmm")]
TABLE = "file,age,size\n" + "\n".join(ROWS) + "\n"


def test_attributes_belong_to_their_pictures(tmp_path):
    path = classes(tmp_path / "mine")
    text = "\n".join(["file,age,size", *reversed(ROWS)])
    split = load(path, attributes=table(path, text)).split("test")
    assert split.attributes["age"].tolist() == [0, 1, 2, 3] * 2
    assert split.attributes["age"].dtype == "int64"
    assert split.attributes["size"].tolist() == list("ssmm" * 2)


def test_a_number_that_is_missing_makes_no_number_of_the_others(tmp_path):
    path = classes(tmp_path / "mine")
    split = load(path, attributes=table(path, TABLE.replace("cat/1.png,1", "cat/1.png,"))).split("test")
    assert split.attributes["age"].tolist()[:3] == ["0", "", "2"]


def test_attributes_of_splits_are_found_by_the_whole_path(tmp_path):
    path = divided(tmp_path / "mine", "train", "test")
    text = "file,where\n" + "".join(
        f"{s}/{c}/{n}.png,{s}\n" for s in ("train", "test") for c in ("cat", "dog") for n in (0, 1)
    )
    dataset = load(path, attributes=table(path, text))
    assert set(dataset.split("train").attributes["where"]) == {"train"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "attributes.csv cannot be read as a table"),
        ("file,age\n", "attributes.csv has no rows"),
        (TABLE.replace("file", "name"), "attributes.csv has no column 'file'"),
        (TABLE + "cat/0.png,1,s\n", "attributes.csv: file 'cat/0.png' stands in the lines 2 and 10"),
        (TABLE + "cat/0.png,1,s,t\n", "attributes.csv cannot be read as a table"),
        (TABLE.replace(ROWS[5] + "\n", ""), r"attributes.csv has no row for dog/1.png \(1 of the 8 pictures"),
        (TABLE.replace("cat/1.png", "./cat/1.png"), "line 3: file is './cat/1.png', expected a picture like cat/0.png"),
    ],
)
def test_a_table_that_does_not_fit_the_pictures_is_refused(tmp_path, text, said):
    path = classes(tmp_path / "mine")
    with pytest.raises(InvalidInput, match=said):
        load(path, attributes=table(path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path):
    path = classes(tmp_path / "mine")
    (tmp_path / "latin.csv").write_bytes(TABLE.replace("age", "né").encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"latin.csv cannot be read as a table.*: save it as UTF-8"):
        load(path, attributes=str(tmp_path / "latin.csv"))


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Absent, match=r"nowhere.csv is missing"):
        load(classes(tmp_path / "mine"), attributes="nowhere.csv")


def test_rows_without_a_picture_must_be_agreed_to(tmp_path):
    path = classes(tmp_path / "mine")
    attributes = table(path, TABLE + "dog/9.png,1,s\n")
    with pytest.raises(Partial, match=r"1 of the 9 files .*attributes.csv names are missing .*mine/dog/9.png"):
        load(path, attributes=attributes)
    dataset = load(path, attributes=attributes, partial=True)
    assert sizes(dataset) == {"test": 8}
    assert dataset.notes == ("1 of 9 rows of attributes.csv name a file that is missing: left out",)


def test_a_run_s_key_follows_the_content_and_not_the_place(tmp_path, settings_of):
    path = classes(tmp_path / "here")
    attributes = table(path, TABLE)
    moved = tmp_path / "there"
    shutil.copytree(path, moved)
    here, there = (
        settings_of("dataset=image_folder", f"dataset.path={place}", f"dataset.attributes={attributes}")
        for place in (path, moved)
    )
    assert here.defining() == there.defining()
    assert load(path).fingerprint == load(moved).fingerprint != load(path, attributes=attributes).fingerprint
    picture(moved / "cat/0.png", value=200)
    assert load(path).fingerprint != load(moved).fingerprint


def test_a_run_s_tables_find_the_pictures(tmp_path):
    path = classes(tmp_path / "mine")
    assert load(path).split("test").paths[0] == f"{path.resolve()}/cat/0.png"
    below = ImageFolder(path=str(path)).load(tmp_path, seed=0)
    assert below.split("test").paths[0] == "mine/cat/0.png"


def test_the_real_files(data):
    path = data("chest_xray") / "chest_xray"
    dataset = ImageFolder(path=str(path), mode="L").load(path.parent, seed=0)
    assert sizes(dataset) == {"test": 624, "train": 5216}
    assert dataset.class_names == ("NORMAL", "PNEUMONIA")
    assert dataset.split("test").paths[0].startswith("chest_xray/test/NORMAL/")
    assert dataset.split("test").examples[0].size == (224, 224)
