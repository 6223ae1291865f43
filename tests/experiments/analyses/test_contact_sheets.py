"""Which examples are drawn, what stands below them, and what is said where they cannot be drawn."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from experiments.analyses.contact_sheets import analyse
from experiments.contract import Dataset, ProblemSet, Split
from experiments.describing import data
from experiments.describing.names import file_names
from experiments.drawing import LABEL
from experiments.loaders.digits import Digits
from methods.errors import InvalidInput
from tests.experiments.analyses import reading

DIGITS = Digits().load(Path(), seed=0)
IDS = list(DIGITS.split("test").example_ids)


def examples(**columns):
    """The digits' test split as a run has it: nobody errs, and losses rise with the ids."""
    n = len(IDS)
    same = {"id": IDS, "label": ["0 or 6"] * n, "prediction": ["0 or 6"] * n, "correct": [True] * n, "path": [None] * n}
    return pd.DataFrame({**same, "loss": np.arange(n) / n, **columns})


def definition(target="experiments.loaders.digits.Digits", fingerprint=DIGITS.fingerprint, **settings):
    numbers = {"slice_size": 50, "n_components": 10}
    return {"dataset": {"_target_": target, **settings, **numbers}, "seeds": {"split": 0}, "fingerprint": fingerprint}


def members(*slices):
    return reading.members(len(IDS), *slices)


@pytest.fixture
def digits_run(finished_run):
    def make(*slices, columns=None, **options):
        table = examples(**(columns or {}))
        return finished_run(table, members(*slices), definition=definition(), **{"dataset": "digits", **options})

    return make


@pytest.fixture
def drawn(out, monkeypatch):
    """What is in each picture: its images, and its texts with their colours; no files, which take time."""
    pictures = []

    def record(self, figure, *names):
        (axes,) = figure.axes
        texts = [(text.get_text(), to_hex(text.get_color())) for text in axes.texts]
        boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in axes.texts]
        pictures.append(SimpleNamespace(images=[i.get_array() for i in axes.images], texts=texts, boxes=boxes))

    monkeypatch.setattr(type(out), "picture", record)
    return pictures


@pytest.fixture
def own_loader(monkeypatch):
    """Make a data set loadable as `own_data.Loader`; its definition."""

    def make(dataset):
        class Loader:
            def __init__(self):
                pass

            def load(self, root, seed):
                return dataset

        module = ModuleType("own_data")
        module.Loader = Loader
        monkeypatch.setitem(sys.modules, "own_data", module)
        data._loaded.cache_clear()  # another test had another one of this name
        return definition("own_data.Loader", dataset.fingerprint)

    return make


def shown(out, slice_):
    """The ids in one row of the picture."""
    table = pd.read_csv(out.folder / "tested-examples.csv", dtype=str)
    return table.loc[table["slice"] == slice_, "id"].tolist()


def dataset_of(examples, name="own", modality="image"):
    ids = tuple(f"{i:04d}" for i in range(len(examples)))
    attributes = pd.DataFrame(index=pd.Index(ids, name="id"))
    split = Split(ids, examples, torch.zeros(len(ids), dtype=torch.int64), attributes)
    return Dataset(name, modality, ("a", "b"), {"test": split}, f"fingerprint of {name} {modality}")


def test_the_strongest_members_come_first_and_of_equal_ones_the_worst(digits_run, out):
    strength = members([0, 1, 2, 3]) * 0.5
    strength[1], strength[9] = 0.9, 1.0  # the last is no member
    analyse([digits_run([0, 1, 2, 3], membership=strength)], out, n=3)
    assert shown(out, "1") == [IDS[1], IDS[3], IDS[2]]


def test_each_row_says_what_it_shows(digits_run, out, drawn):
    analyse([digits_run([0, 450])], out)
    titles = [text for text, _ in drawn[0].texts if "mean loss" in text]
    assert titles == [
        f"random examples of the split: mean loss {np.mean(np.arange(900) / 900):.2f}, n=900",
        "spotlight 1: mean loss 0.25, n=2",
    ]


def test_slices_of_other_methods_are_no_spotlights(digits_run, out, drawn):
    analyse([digits_run([0], method="gmm")], out, random_sample=False)
    assert drawn[0].texts[0][0] == "gmm, slice 1: mean loss 0.00, n=1"


def test_label_prediction_and_loss_stand_below_and_errors_are_red(digits_run, out, drawn):
    predictions = ["0 or 6", "1 or 7", *["0 or 6"] * 898]
    wrong = digits_run([0, 1], columns={"prediction": predictions, "correct": [True, False, *[True] * 898]})
    analyse([wrong], out, random_sample=False)
    assert drawn[0].texts[1:] == [
        ("0 or 6", "#000000"),
        ("1 or 7, 0.00", LABEL),
        ("0 or 6", "#000000"),
        ("0 or 6, 0.00", "#000000"),
    ]


def test_the_pictures_are_those_of_the_examples(digits_run, out, drawn):
    analyse([digits_run([5])], out, random_sample=False)
    (picture,) = drawn[0].images
    expected = np.asarray(DIGITS.split("test").examples[5].convert("RGB"))
    assert picture.shape == (8, 8, 3)
    assert np.abs(picture.astype(int) - expected).max() < 20  # a few greys less
    assert (picture[..., 0] == picture[..., 1]).all()


def test_random_examples_are_the_same_beside_all_runs_of_a_data_set(digits_run, out):
    analyse([digits_run([0]), digits_run([7], method="gmm")], out, n=4)
    table = pd.read_csv(out.folder / "tested-examples.csv", dtype=str)
    first, second = (rows["id"].tolist() for _, rows in table[table["slice"] == "random"].groupby("run"))
    assert first == second
    assert len(set(first)) == 4


def test_each_run_has_a_picture_that_says_whose_examples_it_shows(digits_run, out):
    analyse([digits_run([0]), digits_run([7], method="gmm")], out)
    assert [picture["file"] for picture in out.pictures] == ["tested-spotlight", "tested-gmm"]
    assert {picture["shows"] for picture in out.pictures} == {"digits"}
    assert {path.name for path in out.folder.glob("*.png")} == {"tested-spotlight.png", "tested-gmm.png"}
    assert len(list(out.folder.glob("*.svg"))) == 2


def test_only_the_first_slices_are_drawn(digits_run, out, drawn):
    numbers = analyse([digits_run([0], [1], [2], [3])], out, n=2, most=3, random_sample=False)
    assert len(drawn[0].images) == 3
    assert numbers.empty


def test_a_slice_without_members_has_a_title_alone(digits_run, out, drawn):
    analyse([digits_run([], [1])], out, random_sample=False)
    assert drawn[0].texts[0][0] == "spotlight 1: n=0"
    assert len(drawn[0].images) == 1


def test_a_run_without_slices_shows_the_split(digits_run, out, drawn):
    analyse([digits_run()], out)
    assert len(drawn[0].images) == 8


def test_nothing_to_draw_is_said(digits_run, out):
    analyse([digits_run()], out, random_sample=False)
    assert out.sentences == ["spotlight: there is no slice to draw."]
    assert not out.pictures
    assert not out.tables


def test_long_names_neither_meet_nor_leave_the_picture(digits_run, out, drawn):
    names = {"label": ["American Staffordshire terrier"] * 900, "prediction": ["WWWWWWWWWWWWWWWWWWWWW"] * 900}
    analyse([digits_run([0, 1, 2], columns=names)], out, n=3)
    assert any(text.startswith("American") and text.endswith("…") for text, _ in drawn[0].texts)
    boxes = drawn[0].boxes
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= 400 for box in boxes)  # 4 inches


def test_names_that_look_like_markup_are_drawn_as_they_are(digits_run, out, drawn):
    analyse([digits_run([0], columns={"label": [r"$\frac{"] * 900})], out, random_sample=False)
    assert drawn[0].texts[1][0] == r"$\frac{"


def test_examples_without_label_or_prediction_have_a_loss(digits_run, out, drawn):
    nothing = [None] * 900
    analyse([digits_run([450], columns={"label": nothing, "prediction": nothing})], out, random_sample=False)
    assert [text for text, _ in drawn[0].texts[1:]] == ["", "0.50"]


def test_pictures_are_small_whatever_the_files_hold_and_keep_their_shape(finished_run, own_loader, out, drawn):
    wide = Image.new("RGB", (400, 200))
    run = finished_run(
        {"id": ["0000"], "loss": [1.0], "correct": [True]}, [[1]], definition=own_loader(dataset_of([wide]))
    )
    analyse([run], out, random_sample=False)
    assert drawn[0].images[0].shape == (46, 91, 3)
    assert wide.size == (400, 200)


def test_data_that_are_not_here_are_said_once(finished_run, out, tmp_path, monkeypatch):
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path / "nowhere"))
    of_fairface = definition("experiments.loaders.fairface.FairFace", "", folder="fairface", partial=True)
    table = {"loss": [1.0], "correct": [False], "path": ["fairface/val/1.jpg"]}
    runs = [finished_run(table, [[1]], definition=of_fairface, method=method) for method in ("spotlight", "gmm")]
    analyse(runs, out)
    (sentence,) = out.sentences
    assert sentence.startswith(f"Pictures of fairface are not drawn: {tmp_path}/nowhere/fairface")
    assert "is missing" in sentence
    assert not out.pictures


def test_data_that_have_changed_since_are_not_drawn(finished_run, out):
    run = finished_run(examples(), members([0]), definition=definition(fingerprint="another"))
    analyse([run], out)
    assert "is not what the run saw" in out.sentences[0]
    assert not out.pictures


def test_texts_are_not_drawn_and_not_loaded(finished_run, out):
    table = {"loss": [1.0], "correct": [False], "text": ["a review"]}
    analyse([finished_run(table, [[1]], dataset="sst2", definition={})], out)
    assert out.sentences == ["Pictures of sst2 are not drawn: sst2 has texts."]


def test_tables_are_not_drawn(finished_run, own_loader, out):
    found = own_loader(dataset_of(torch.zeros(1, 3), modality="table"))
    analyse([finished_run({"loss": [1.0], "correct": [False]}, [[1]], dataset="wine", definition=found)], out)
    assert out.sentences == ["Pictures of wine are not drawn: wine has tables."]


def test_outputs_of_models_that_ran_elsewhere_are_not_drawn(finished_run, own_loader, out):
    found = own_loader(ProblemSet("dcbench", (), ("test",), "x"))
    analyse([finished_run({"loss": [1.0], "correct": [False]}, [[1]], dataset="dcbench", definition=found)], out)
    assert "dcbench has outputs of models that ran elsewhere" in out.sentences[0]


def test_a_loader_that_cannot_be_found_is_said(finished_run, out):
    run = finished_run({"loss": [1.0], "correct": [False]}, [[1]], definition=definition("nowhere.Loader"))
    analyse([run], out)
    assert "'nowhere.Loader' cannot be imported" in out.sentences[0]


@pytest.mark.parametrize("options", [{"n": 0}, {"most": -1}])
def test_numbers_that_make_no_sense_are_refused(digits_run, out, options):
    with pytest.raises(InvalidInput, match="expected at least 1 picture"):
        analyse([digits_run([0])], out, **options)


def test_files_of_different_runs_have_different_names():
    assert file_names(["gmm n=5", "gmm/n=5", "spotlight"]) == ["gmm-n=5", "gmm-n=5-2", "spotlight"]
