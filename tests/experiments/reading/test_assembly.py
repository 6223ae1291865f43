import os
from dataclasses import replace

import pandas as pd
import pytest
import torch
from PIL import Image

from experiments.contract import Split
from experiments.reading import assembly
from experiments.reading.assembly import assembled, digest_of_files
from experiments.reading.images import ImageFiles
from experiments.reading.signals import WithSignal, signal_of


@pytest.fixture
def root(tmp_path, own_cache):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def split(labels=(0, 1), colours=("red", "blue"), ids=("1", "2")):
    attributes = pd.DataFrame({"colour": colours}, index=pd.Index(ids, name="id"))
    return Split(tuple(ids), ["x", "y"], torch.tensor(labels), attributes)


def fingerprint(root, files=("a.txt", "b.txt"), name="test", class_names=("no", "yes"), **of_split):
    splits = {name: split(**of_split)}
    return assembled("pairs", "text", class_names, splits, root=root, files=files).fingerprint


def test_the_fingerprint_follows_whatever_defines_the_data(root):
    others = [
        fingerprint(root, labels=(1, 0)),
        fingerprint(root, colours=("red", "green")),
        fingerprint(root, ids=("1", "3")),
        fingerprint(root, name="train"),
        fingerprint(root, class_names=("no", "maybe")),
        fingerprint(root, files=("a.txt",)),
    ]
    assert len({fingerprint(root), *others}) == 7


def test_neither_the_place_nor_the_order_of_files_matters(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    for name in ("a.txt", "b.txt"):
        (other / name).write_text(name)
    assert fingerprint(other, files=("b.txt", "a.txt")) == fingerprint(root)


def test_a_file_is_hashed_again_only_after_it_was_changed(root, monkeypatch):
    hashed = []
    read = assembly.sha256_of
    monkeypatch.setattr(assembly, "sha256_of", lambda path: hashed.append(path.name) or read(path))
    first = digest_of_files(root, ["a.txt", "b.txt"])
    assert digest_of_files(root, ["a.txt", "b.txt"]) == first
    assert hashed == ["a.txt", "b.txt"]
    (root / "b.txt").write_text("B.txt")
    assert digest_of_files(root, ["a.txt", "b.txt"]) != first
    assert hashed == ["a.txt", "b.txt", "b.txt"]


def test_a_memory_that_cannot_be_written_costs_time_only(root, monkeypatch):
    first = digest_of_files(root, ["a.txt"])
    monkeypatch.setenv("SLICEBENCH_CACHE", str(root / "a.txt" / "no folder"))
    assert digest_of_files(root, ["a.txt"]) == first


def test_a_memory_that_was_damaged_is_made_again(root, own_cache):
    first = digest_of_files(root, ["a.txt"])
    (memo,) = (own_cache / "fingerprints").iterdir()
    os.truncate(memo, 3)
    assert digest_of_files(root, ["a.txt"]) == first


def trained(root, train="xy", test="vw", **of_train):
    splits = {
        "train": replace(split(**of_train), examples=list(train)),
        "test": replace(split(ids=("3", "4")), examples=list(test)),
    }
    return assembled("pairs", "text", ("no", "yes"), splits, root=root, files=["a.txt"])


def test_what_changes_the_test_split_only_trains_no_model_again(root):
    first, other = trained(root), trained(root, test="vu")
    assert first.fingerprint != other.fingerprint
    assert first.train_fingerprint == other.train_fingerprint


def test_what_changes_the_train_split_trains_another_model(root):
    others = [trained(root, train="xz"), trained(root, labels=(1, 0))]
    assert len({dataset.train_fingerprint for dataset in [trained(root), *others]}) == 3


def test_without_a_train_split_there_is_nothing_to_train_on(root):
    dataset = assembled("pairs", "text", ("no", "yes"), {"test": split()}, root=root, files=["a.txt"])
    assert dataset.train_fingerprint is None


def pictures(folder, colour, mode="RGB", marked=None):
    folder.mkdir(exist_ok=True)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (4, 4), colour).save(folder / name)
    images = ImageFiles(folder, ["1.png", "2.png"], mode)
    return images if marked is None else WithSignal(images, marked, signal_of("tag", None, None, 1.0))


def test_images_count_by_their_files_mode_and_signal(root):
    several = [
        pictures(root / "a", "red"),
        pictures(root / "b", "blue"),
        pictures(root / "a", "red", mode="L"),
        pictures(root / "a", "red", marked=[True, False]),
        pictures(root / "a", "red", marked=[True, True]),
        [Image.new("RGB", (4, 4), "red")] * 2,
        [Image.new("RGB", (4, 4), "blue")] * 2,
    ]
    splits = [{"train": replace(split(), examples=examples)} for examples in several]
    found = {assembled("p", "image", ("no", "yes"), s, root=root, files=["a.txt"]).train_fingerprint for s in splits}
    assert len(found) == len(several)
