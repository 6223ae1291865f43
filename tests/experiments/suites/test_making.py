"""One problem: made whole or not at all, fit or unfit with the reason, and known again by what it depends on."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import training
from experiments.contract import Dataset, Split
from experiments.keys import key_of
from experiments.loading import load_dataset
from experiments.reading.dcbench import read_problem
from experiments.reading.images import ImageFiles
from experiments.schema import construct
from experiments.suites import making
from experiments.suites.making import ARTIFACTS, Workshop, by_manipulation, entry_of, make_problem, read_report
from experiments.suites.recipes import Block, Recipe

RECIPE = Recipe("b", "rare", "4 or 9", "subclass", "9", 0.01, 0)


@pytest.fixture
def workshop(settings_of, a_block):
    """A workshop on digits with these settings of the block, and these overrides."""

    def made(*overrides, **changed):
        block = construct(Block, a_block(**changed), "b")
        settings = settings_of("evaluation=stored", *block.overrides, *overrides)
        return Workshop(block, settings, load_dataset(settings))

    return made


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(training, "_one_epoch", lambda *_: pytest.fail("trained"))


def folder_of(root, recipe=RECIPE):
    return root / ARTIFACTS / recipe.name


def files(root):
    """What is below a folder, beside the seconds that it took."""
    content = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    reports = {name: json.loads(text) | {"seconds": 0} for name, text in content.items() if name.endswith(".json")}
    return content | reports


def test_a_fit_problem_is_stored_with_its_report(workshop, tmp_path):
    report = make_problem(workshop(), RECIPE, tmp_path)
    assert report["fit"]
    assert "reason" not in report
    assert read_report(tmp_path, RECIPE.name) == json.loads(json.dumps(report))
    assert report["test_inside"][0] <= report["test_outside"] - 0.1
    assert report["n_train"] == 718 - 72 + 1  # of 72 nines one is left
    assert report["slice_names"] == ["4 or 9 subclass=9"]
    assert sorted(path.name for path in folder_of(tmp_path).iterdir()) == [
        "activations.mk",
        "model.safetensors",
        "problem.json",
        "test_predictions.mk",
        "test_slices.mk",
        "train_predictions.mk",
        "val_predictions.mk",
    ]
    content = read_problem(tmp_path, entry_of(report))
    assert len(content.train.ids) == report["n_train"]
    assert [path.name for path in folder_of(tmp_path).parent.iterdir()] == [RECIPE.name]


def test_a_problem_is_the_same_when_it_is_made_again(workshop, tmp_path, own_cache):
    make_problem(workshop(), RECIPE, tmp_path / "one")
    again = workshop()
    elsewhere = replace(again.settings, paths=replace(again.settings.paths, cache=own_cache / "other"))
    make_problem(replace(again, settings=elsewhere), RECIPE, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_control_is_the_model_on_as_many_examples_without_the_manipulation(workshop, tmp_path, monkeypatch):
    trained, train = [], making.train_or_load
    monkeypatch.setattr(making, "train_or_load", lambda s, data: trained.append(data.split("train")) or train(s, data))
    one, other = (make_problem(workshop(), replace(RECIPE, strength=s), tmp_path) for s in (0.01, 0.5))
    assert [split.n_examples for split in trained] == [one["n_train"]] * 2 + [718] * 2
    control, manipulated = trained[:2]
    of_slice = ((control.labels == 3) & torch.tensor(control.attributes["subclass"].to_numpy() == "9")).sum()
    assert of_slice > 50  # about as many as there are
    assert control.example_ids != manipulated.example_ids
    assert one["control_sizes"] == one["test_sizes"]
    # a share of one half is what the class has anyway
    assert other["n_train"] == 718
    assert other["test_inside"] == other["control_inside"]


@pytest.mark.parametrize(
    ("kind", "strength", "says"),
    [
        ("rare", 0.9, r"has 72 training examples, 648 are needed for a share of 0\.9: expected a strength of at most"),
        ("rare", 1.0, "strength is 1, expected a share of the class"),
        ("rare", -0.1, r"strength is -0\.1, expected a share of the class"),
        ("noisy_label", 0.0, "strength is 0, expected a probability above 0"),
        ("noisy_label", 1.5, r"strength is 1\.5, expected a probability above 0"),
    ],
)
def test_a_strength_that_the_data_do_not_allow_is_unfit_and_costs_no_training(
    workshop, tmp_path, no_training, kind, strength, says
):
    report = make_problem(workshop(), replace(RECIPE, kind=kind, strength=strength), tmp_path)
    assert not report["fit"]
    assert re.search(says, report["reason"])
    assert [path.name for path in next((tmp_path / ARTIFACTS).iterdir()).iterdir()] == ["problem.json"]


def test_a_correlation_of_what_does_not_vary_is_unfit(workshop, tmp_path, no_training):
    """Every nine is in the class, so that the slice outside of it has no members."""
    report = make_problem(workshop(), replace(RECIPE, kind="correlation", strength=0.5), tmp_path)
    assert not report["fit"]
    assert report["reason"].startswith("a slice has 0 members in the validation split")


@pytest.mark.parametrize(("least", "fits"), [(54, True), (55, False)])
def test_a_slice_must_have_so_many_members(workshop, tmp_path, least, fits):
    report = make_problem(workshop(least=least), RECIPE, tmp_path)
    assert report["fit"] == fits
    if not fits:
        assert report["reason"] == "a slice has 54 members in the validation split, expected at least 55"


def test_a_model_that_does_not_fail_is_unfit_with_the_numbers(workshop, tmp_path):
    report = make_problem(workshop(), replace(RECIPE, strength=0.5), tmp_path)
    assert not report["fit"]
    assert "points below the rest, expected 10" in report["reason"]
    assert {"test_inside", "test_outside", "test_sizes", "validation_inside", "control_inside"} <= set(report)
    assert [path.name for path in folder_of(tmp_path, replace(RECIPE, strength=0.5)).iterdir()] == ["problem.json"]


def test_what_was_fit_before_leaves_no_panels_when_it_is_unfit(workshop, tmp_path):
    make_problem(workshop(), RECIPE, tmp_path)
    make_problem(workshop(least=500), RECIPE, tmp_path)
    assert [path.name for path in folder_of(tmp_path).iterdir()] == ["problem.json"]


@pytest.mark.parametrize(("strength", "same_examples"), [(0.01, False), (0.0, True)], ids=["some", "none"])
def test_the_seed_of_a_problem_draws_the_examples_and_the_weights(workshop, tmp_path, strength, same_examples):
    """Where nothing of the slice is left there is nothing to draw, but for the weights."""
    ids, weights = [], []
    for seed in (0, 1):
        recipe = replace(RECIPE, strength=strength, seed=seed)
        ids.append(read_problem(tmp_path, entry_of(make_problem(workshop(), recipe, tmp_path))).train.ids)
        weights.append((folder_of(tmp_path, recipe) / "model.safetensors").read_bytes())
    assert (ids[0] == ids[1]) == same_examples
    assert weights[0] != weights[1]


CHANGES = {
    "epochs": ("model.training.epochs=3",),
    "model": ("model.channels=4",),
    "split": ("seeds.split=1",),
    "share": ("dataset.train_share=0.3",),
}


@pytest.mark.parametrize("overrides", CHANGES.values(), ids=CHANGES)
def test_what_a_problem_depends_on_changes_its_key(workshop, overrides):
    assert key_of(workshop(*overrides).definition(RECIPE)) != key_of(workshop().definition(RECIPE))


@pytest.mark.parametrize("field", ["kind", "class_name", "value", "strength", "seed"])
def test_every_part_of_the_recipe_changes_the_key(workshop, field):
    other = {"kind": "noisy_label", "class_name": "2 or 3", "value": "4", "strength": 0.02, "seed": 1}
    made = workshop()
    assert key_of(made.definition(replace(RECIPE, **{field: other[field]}))) != key_of(made.definition(RECIPE))


def test_the_least_members_change_the_key(workshop):
    assert key_of(workshop(least=3).definition(RECIPE)) != key_of(workshop().definition(RECIPE))


def test_an_artefact_changes_the_key(workshop):
    made = workshop()
    planted = Workshop(made.block, made.settings, construct(Block, PLANTED, "b").planted.plant(made.dataset, 0))
    assert key_of(planted.definition(RECIPE)) != key_of(made.definition(RECIPE))


PLANTED = {
    "overrides": [],
    "slices": [{"attribute": "planted"}],
    "kinds": {"rare": [0.1]},
    "planted": {"artefact": "stripe"},
}


@pytest.mark.parametrize("override", ["compute.batch_size=7", "compute.threads=2", "method=gmm", "seeds.method=3"])
def test_how_it_is_computed_does_not_change_the_key(workshop, override):
    assert key_of(workshop(override).definition(RECIPE)) == key_of(workshop().definition(RECIPE))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"key": "x"}', "\x00"])
def test_a_damaged_report_is_as_good_as_none(tmp_path, text):
    folder_of(tmp_path).mkdir(parents=True)
    (folder_of(tmp_path) / "problem.json").write_text(text)
    assert read_report(tmp_path, RECIPE.name) is None


def test_a_report_that_is_no_text_is_as_good_as_none(tmp_path):
    folder_of(tmp_path).mkdir(parents=True)
    (folder_of(tmp_path) / "problem.json").write_bytes(b"\xff\xfe")
    assert read_report(tmp_path, RECIPE.name) is None


def test_what_a_killed_process_left_is_replaced(workshop, tmp_path):
    rest = folder_of(tmp_path).with_name(f".{RECIPE.name}.making")
    (rest / "val_predictions.mk" / "mgr").mkdir(parents=True)
    (rest / "junk").write_text("half")
    make_problem(workshop(), RECIPE, tmp_path)
    assert [path.name for path in folder_of(tmp_path).parent.iterdir()] == [RECIPE.name]
    assert not (folder_of(tmp_path) / "junk").exists()


def test_a_make_that_fails_leaves_what_was_there(workshop, tmp_path, monkeypatch):
    make_problem(workshop(), RECIPE, tmp_path)
    before = files(folder_of(tmp_path))
    monkeypatch.setattr(making, "write_panel", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_problem(workshop("model.training.epochs=4"), RECIPE, tmp_path)
    assert files(folder_of(tmp_path)) == before


def test_every_file_is_on_disk_before_the_problem_gets_its_name(workshop, tmp_path, monkeypatch):
    """A power cut must not leave a problem that is named and empty."""
    written, synced = set(), set()
    rename, fsync = making.os.rename, making.os.fsync

    def look(source, target):
        written.update(path.stat().st_ino for path in source.rglob("*") if path.is_file())
        rename(source, target)

    def note(descriptor):
        synced.add(making.os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(making.os, "rename", look)
    monkeypatch.setattr(making.os, "fsync", note)
    make_problem(workshop(), RECIPE, tmp_path)
    assert written
    assert written <= synced


def manipulated(dataset, rows):
    labels = dataset.split("train").labels[torch.from_numpy(rows)]
    return making._with_training(dataset, {"manipulated": 1}, making.Manipulated(rows, labels)).split("train")


def test_pictures_are_read_when_they_are_needed(tmp_path, monkeypatch):
    """All training pictures at once would not fit into memory: the chest x-rays are 7 gigabytes."""
    ids = ("a.png", "b.png", "c.png")
    read = []
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda _, row: read.append(row))
    split = Split(ids, ImageFiles(tmp_path, ids), torch.tensor([0, 1, 0]), pd.DataFrame(index=pd.Index(ids)))
    train = manipulated(Dataset("x", "image", ("p", "q"), {"train": split}, "f"), np.array([0, 2]))
    assert not read
    train.examples[1]
    assert read == [2]


def test_all_that_is_known_of_the_examples_that_stay_is_kept():
    ids = ("a", "b", "c")
    attributes = pd.DataFrame({"age": [1, 2, 3]}, index=pd.Index(ids))
    split = Split(ids, torch.eye(3), torch.tensor([0, 1, 0]), attributes, paths=("1.jpg", "2.jpg", "3.jpg"))
    train = manipulated(Dataset("x", "table", ("p", "q"), {"train": split}, "f"), np.array([0, 2]))
    assert train.example_ids == ("a", "c")
    assert train.examples.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert train.attributes["age"].tolist() == [1, 3]
    assert train.paths == ("1.jpg", "3.jpg")


def test_a_model_is_trained_anew_for_every_manipulation_and_never_for_the_same(workshop, tmp_path, own_cache):
    for strength in (0.01, 0.02):
        make_problem(workshop(), replace(RECIPE, strength=strength), tmp_path)
    assert len(list((own_cache / "model").glob("*/done.json"))) == 3  # two, and their control
    make_problem(workshop(), RECIPE, tmp_path)
    assert len(list((own_cache / "model").glob("*/done.json"))) == 3


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0.9], [0.5], True),
        ([0.9, 0.9], [0.5, 0.85], False),
        ([0.5], [0.6], False),
        ([0.9], [0.8], True),
    ],
)
def test_a_problem_is_by_manipulation_where_every_slice_became_ten_points_worse(before, after, expected):
    assert by_manipulation({"control_inside": before, "test_inside": after}) == expected
