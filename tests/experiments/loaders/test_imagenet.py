"""On fixtures in both publishers' layouts, and on the real files where there are some."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.loaders.imagenet import ImageNet
from experiments.reading.imagenet import INDICES, category_names
from experiments.reading.sources import Absent, Partial
from methods.contract import InvalidInput

GUENON, YAWL = "n02484975", "n04612504"
HEADER = "ImageId,URL,x1,y1,x2,y2,TrueLabel,TargetClass,OriginalLandingURL,License,Author,AuthorProfileURL\n"
COMPETITION = [("00ff", "914"), ("00aa", "371"), ("00bb", "1")]


def all_wnids():
    """1,000 WordNet ids, those that the code knows at their places, made-up ones between."""
    wnids, number = [], 0
    known = {index: wnid for wnid, index in INDICES.items()}
    for index in range(1000):
        number = int(known[index][1:]) if index in known else number + 1
        wnids.append(f"n{number:08d}")
    return wnids


def publish(root, wnids=(GUENON, YAWL), n=2, index=True):
    """ImageNet's validation images, sorted into folders, and the class index."""
    picture = root / "picture"
    root.mkdir(exist_ok=True)
    Image.new("RGB", (6, 4), (90, 10, 10)).save(picture, "JPEG")
    for place, wnid in enumerate(wnids):
        folder = root / "imagenet/val" / wnid
        folder.mkdir(parents=True)
        for number in range(n):
            (folder / f"ILSVRC2012_val_{place * n + number:08d}.JPEG").write_bytes(picture.read_bytes())
    if index:
        (root / "imagenet_meta").mkdir(exist_ok=True)
        entries = {str(number): [wnid, "any"] for number, wnid in enumerate(all_wnids())}
        (root / "imagenet_meta/imagenet_class_index.json").write_text(json.dumps(entries))
    return root


def compete(root, rows=COMPETITION, images=("00ff.png", "00aa.jpg", "00bb.png")):
    """The NIPS 2017 competition's table and images."""
    folder = root / "nips2017"
    (folder / "images").mkdir(parents=True)
    lines = [
        f"{name},https://c1/{name}_o.jpg,0.0,0.25,0.871838111298,1.0,{label},779,https://f/{name},https://cc/by/2.0/,"
        rf'"Caf\303\251, Inc.",https://p/{name}'
        for name, label in rows
    ]
    (folder / "dev_dataset.csv").write_text(HEADER + "\n".join(lines) + "\n")
    for name in images:
        Image.new("RGB", (6, 4)).save(folder / "images" / name)
    return root


def test_a_folder_s_place_among_all_thousand_is_its_label(tmp_path):
    split = ImageNet().load(publish(tmp_path, all_wnids(), n=1, index=False), seed=0).split("test")
    assert split.labels.tolist() == list(range(1000))
    assert split.paths[370] == f"imagenet/val/{GUENON}/ILSVRC2012_val_00000370.JPEG"
    assert split.attributes.iloc[370].to_dict() == {"wnid": GUENON, "subclass": "guenon"}
    assert split.examples[370].size == (6, 4)


def test_some_of_the_folders_are_numbered_after_the_class_index(tmp_path):
    dataset = ImageNet().load(publish(tmp_path), seed=0)
    assert dataset.split("test").labels.tolist() == [370, 370, 914, 914]
    assert dataset.split("test").example_ids[0] == f"val/{GUENON}/ILSVRC2012_val_00000000.JPEG"
    assert dataset.class_names == category_names()
    assert dataset.notes == ("4 of the 50,000 validation images are here",)


def test_the_names_of_the_classes_are_distinct_although_there_are_two_cranes():
    names = category_names()
    assert len(set(names)) == 1000
    assert [names[134], names[517]] == ["crane bird", "crane"]


def test_some_of_the_folders_without_a_class_index_are_refused(tmp_path):
    with pytest.raises(Absent, match=r"imagenet_class_index.json is missing: without all 1,000 folders.*https://"):
        ImageNet().load(publish(tmp_path, index=False), seed=0)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"0": ["n01440764", "tench"]}', '{"a": 1}', '{"0": []}', b"\xff\xfe"]
)
def test_a_class_index_that_is_none_is_refused(tmp_path, content):
    file = publish(tmp_path) / "imagenet_meta/imagenet_class_index.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput, match=r"is not the index of ImageNet's 1,000 classes.*get it again from"):
        ImageNet().load(tmp_path, seed=0)


@pytest.mark.parametrize("name", ["yawl", "n00000000", "n9"])
def test_a_folder_that_is_no_class_is_refused_by_name(tmp_path, name):
    with pytest.raises(InvalidInput, match=f"val/{name} is no class of ImageNet, expected .* WordNet ids"):
        ImageNet().load(publish(tmp_path, [GUENON, name]), seed=0)


def test_a_thousand_folders_of_another_set_are_refused(tmp_path):
    wnids = [f"n{number:08d}" for number in range(1000)]
    with pytest.raises(InvalidInput, match="1,000 folders, but not ImageNet's: n02085620 is number None of them"):
        ImageNet().load(publish(tmp_path, wnids, n=1), seed=0)


def test_a_class_without_images_is_refused(tmp_path):
    for file in (publish(tmp_path) / f"imagenet/val/{YAWL}").iterdir():
        file.unlink()
    with pytest.raises(InvalidInput, match=f"{YAWL} holds no images"):
        ImageNet().load(tmp_path, seed=0)


def test_images_that_were_not_sorted_into_folders_are_refused(tmp_path):
    (tmp_path / "imagenet/val").mkdir(parents=True)
    (tmp_path / "imagenet/val/ILSVRC2012_val_00000001.JPEG").write_bytes(b"any")
    with pytest.raises(InvalidInput, match="val holds no folders: expected one for each class"):
        ImageNet().load(tmp_path, seed=0)


def test_an_image_that_was_cut_off_is_named_when_it_is_read(tmp_path):
    file = publish(tmp_path) / f"imagenet/val/{GUENON}/ILSVRC2012_val_00000001.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    split = ImageNet().load(tmp_path, seed=0).split("test")
    with pytest.raises(InvalidInput, match=r"ILSVRC2012_val_00000001.JPEG cannot be read"):
        split.examples[1]


def test_a_smaller_number_is_drawn_evenly_from_the_classes(tmp_path):
    publish(tmp_path, [GUENON, YAWL, "n02085620"], n=5)
    first, again, other = (ImageNet(n=7).load(tmp_path, seed=seed) for seed in (0, 0, 1))
    counts = np.unique(first.split("test").labels.numpy(), return_counts=True)[1]
    assert sorted(counts) == [2, 2, 3]
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert ImageNet(n=100).load(tmp_path, seed=0).split("test").n_examples == 15


def test_a_competition_s_labels_count_from_one(tmp_path):
    dataset = ImageNet(layout="nips2017").load(compete(tmp_path), seed=0)
    split = dataset.split("test")
    assert split.example_ids == ("00aa", "00bb", "00ff")
    assert split.labels.tolist() == [370, 0, 913]
    assert split.attributes["subclass"].tolist() == ["guenon", "tench", "wreck"]
    assert split.paths == ("nips2017/images/00aa.jpg", "nips2017/images/00bb.png", "nips2017/images/00ff.png")
    assert split.examples[0].size == (6, 4)


@pytest.mark.parametrize("label", ["0", "1001", "2.5", "", "tench"])
def test_a_label_outside_the_thousand_is_refused_with_its_line(tmp_path, label):
    rows = [COMPETITION[0], ("00aa", label), COMPETITION[2]]
    with pytest.raises(InvalidInput, match=f"dev_dataset.csv line 3: TrueLabel is '{label}', expected a"):
        ImageNet(layout="nips2017").load(compete(tmp_path, rows), seed=0)


def test_an_image_that_is_listed_twice_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="ImageId '00ff' stands in the lines 2 and 5"):
        ImageNet(layout="nips2017").load(compete(tmp_path, [*COMPETITION, COMPETITION[0]]), seed=0)


def test_images_that_flickr_no_longer_gives_must_be_agreed_to(tmp_path):
    compete(tmp_path, images=("00ff.png", "00bb.png"))
    with pytest.raises(Partial, match=r"1 of the 3 files .* missing \(the first: .*images/00aa.png\)"):
        ImageNet(layout="nips2017").load(tmp_path, seed=0)
    dataset = ImageNet(layout="nips2017", partial=True).load(tmp_path, seed=0)
    assert dataset.split("test").labels.tolist() == [0, 913]
    assert dataset.notes == ("1 of 3 rows of dev_dataset.csv name a file that is missing: left out",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as a table"),
        (HEADER.encode(), "has no rows"),
        (b"ImageId,URL\n00aa,x\n", "has no column 'TrueLabel'"),
        (b"ImageId,TrueLabel\n00aa,1,2,3\n00bb,1,2,3,4\n", "cannot be read as a table"),
        (b"ImageId,TrueLabel\n\xff\xfe,1\n", "cannot be read as a table"),
    ],
)
def test_a_table_that_was_damaged_is_refused(tmp_path, content, said):
    (compete(tmp_path) / "nips2017/dev_dataset.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=f"dev_dataset.csv {said}"):
        ImageNet(layout="nips2017").load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("imagefolder", r"imagenet/val is missing. Get ILSVRC2012_img_val.tar .* Put it into .*/imagenet\."),
        ("nips2017", r"nips2017/dev_dataset.csv is missing. Get dev_dataset.csv .* Put it into .*/nips2017\."),
    ],
)
def test_without_the_data_it_is_said_what_to_get(tmp_path, layout, said):
    with pytest.raises(Absent, match=said):
        ImageNet(layout=layout).load(tmp_path, seed=0)


def test_the_data_may_lie_in_another_folder(tmp_path):
    publish(tmp_path).joinpath("imagenet").rename(tmp_path / "ilsvrc")
    assert ImageNet(folder="ilsvrc").load(tmp_path, seed=0).split("test").paths[0].startswith("ilsvrc/val/")


def test_the_real_files(data):
    dataset = ImageNet(layout="nips2017").load(data("nips2017"), seed=0)
    split = dataset.split("test")
    assert split.n_examples == 1000
    assert split.labels.unique().numel() == split.attributes["subclass"].nunique() == 430
    assert split.examples[0].mode == "RGB"
    assert dataset.notes == ()


def test_the_real_class_index_agrees_with_what_is_known_here(data):
    index = json.loads((data("imagenet_meta") / "imagenet_meta/imagenet_class_index.json").read_text())
    numbers = {wnid: int(number) for number, (wnid, _) in index.items()}
    assert {wnid: numbers[wnid] for wnid in INDICES} == INDICES
    assert sorted(numbers, key=numbers.get) == sorted(numbers)
