"""Shares of opponents against hand computation, and members beside their opponents."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.analyses.opponents import analyse
from experiments.loaders.bone_age import BoneAge
from experiments.loaders.digits import Digits
from methods.errors import InvalidInput
from tests.experiments.analyses.reading import the_one, value

# five training examples, of which a and b carry the signal; two test examples
EXAMPLES = {
    "id": ["a", "b", "c", "d", "e", "y", "z"],
    "split": [*["train"] * 5, "test", "test"],
    "label": ["cat", "cat", "dog", "dog", "dog", "cat", "dog"],
    "loss": [0.1, 0.1, 0.1, 0.1, 0.1, 4.0, 2.0],
    "correct": [True, True, True, True, True, False, False],
    "attribute_signal": [True, True, False, False, False, False, False],
    "attribute_race": ["Black", "White", None, "Black", "Asian", "White", "White"],
    "text": [f"text of {name}" for name in "abcdeyz"],
}


def table(*rows):
    """Of (slice, sign, ids), the strongest first."""
    return pd.DataFrame(
        [
            {
                "problem": "all",
                "slice": s,
                "rank": rank,
                "sign": sign,
                "example_id": i,
                "influence": sign * (9.0 - rank),
            }
            for s, sign, ids in rows
            for rank, i in enumerate(ids, start=1)
        ]
    )


@pytest.fixture
def run(finished_run):
    def make(*rows, examples=EXAMPLES, members=((1, 0), (0, 1)), **options):
        return finished_run(examples, members, **{"opponents": table(*rows), **options})

    return make


def test_the_share_that_carries_a_signal_stands_beside_that_of_the_whole_split(run, unsaved):
    numbers = analyse([run((0, -1, "abcd"), (0, 1, "de"))], unsaved, attribute="signal")
    assert value(numbers, "share_of_opponents", slice=1) == 0.5
    assert value(numbers, "share_of_proponents", slice=1) == 0.0
    assert value(numbers, "share_of_split", group="base") == 0.4
    assert the_one(numbers, "share_of_split")["n"] == 5
    assert the_one(numbers, "share_of_opponents", slice=1)["n"] == 4
    assert the_one(numbers, "share_of_opponents", slice=1)["group"] == "signal"


def test_the_interval_is_wilsons(run, unsaved):
    numbers = analyse([run((0, -1, "abc"))], unsaved, attribute="signal")
    p, n, z = 2 / 3, 3, 1.959964
    centre, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    for side, expected in (("low", centre - half), ("high", centre + half)):
        found = the_one(numbers, "share_of_opponents", slice=1)[side]
        np.testing.assert_allclose(found, expected / (1 + z**2 / n), rtol=1e-5)


def test_only_the_strongest_count(run, unsaved):
    numbers = analyse([run((0, -1, "acdb"))], unsaved, attribute="signal", k=1)
    assert value(numbers, "share_of_opponents", slice=1) == 1.0
    assert the_one(numbers, "share_of_opponents", slice=1)["n"] == 1


def test_several_values_may_count_and_a_missing_one_does_not(run, unsaved):
    numbers = analyse([run((0, -1, "abcde"))], unsaved, attribute="race", values=["Black", "Asian"])
    assert value(numbers, "share_of_opponents", slice=1, group="race=Black or Asian") == 0.6


def test_a_signal_that_nobody_carries_is_no_mistake(run, unsaved):
    examples = {**EXAMPLES, "attribute_signal": [False] * 7}
    numbers = analyse([run((0, -1, "abc"), examples=examples)], unsaved, attribute="signal", values=[True])
    assert value(numbers, "share_of_opponents", slice=1) == value(numbers, "share_of_split") == 0


def test_labels_of_opponents(run, unsaved):
    numbers = analyse([run((0, -1, "abcd"), (1, -1, "e"))], unsaved)
    assert value(numbers, "label_of_opponents", slice=1, group="cat") == 0.5
    assert value(numbers, "label_of_opponents", slice=2, group="dog") == 1.0
    assert set(numbers["measure"]) == {"label_of_opponents"}


def test_a_sentence_says_each_share(run, unsaved):
    analyse([run((0, -1, "abd"), (1, -1, "cd"))], unsaved, attribute="signal")
    assert unsaved.sentences == [
        "slice 1: 2 of the 3 strongest opponents (67%) carry signal, against 40% of the training examples.",
        "slice 2: 0 of the 2 strongest opponents (0%) carry signal, against 40% of the training examples.",
    ]


def test_without_an_attribute_a_sentence_says_the_most_frequent_label(run, unsaved):
    analyse([run((0, -1, "acd"))], unsaved)
    assert unsaved.sentences == ["slice 1: 2 of the 3 strongest opponents (67%) have the label dog."]


def test_the_sentences_of_several_runs_name_them(run, unsaved):
    analyse([run((0, -1, "a")), run((0, -1, "c"), method="domino")], unsaved, attribute="signal")
    assert [sentence.split(":")[0] for sentence in unsaved.sentences] == ["spotlight, slice 1", "domino, slice 1"]


def test_bars_of_opponents_and_proponents(run, unsaved, monkeypatch):
    drawn = []
    monkeypatch.setattr(type(unsaved), "picture", lambda _, figure, *names: drawn.append((figure.axes[0], names)))
    analyse([run((0, -1, "abc"), (0, 1, "de"), (1, -1, "a"))], unsaved, attribute="signal")
    ((axes, names),) = drawn
    assert [round(bar.get_width(), 2) for bar in axes.patches] == [0.67, 0.0, 1.0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["slice 1", "slice 2"]
    assert any(list(line.get_xdata()) == [0.4, 0.4] for line in axes.lines)
    assert names[0] == "shares"
    assert len(names) == 2  # no examples can be seen


def test_pictures_are_written_as_png_and_svg(run, out):
    analyse([run((0, -1, "abc"))], out, attribute="signal")
    assert {path.name for path in out.folder.glob("*.*g")} == {"tested-shares.png", "tested-shares.svg"}


def test_texts_are_in_a_table(run, unsaved):
    analyse([run((0, -1, "abcde"), (1, -1, "c"))], unsaved, most=1, n=2, attribute="signal")
    shown = pd.read_csv(unsaved.folder / "tested-examples.csv")
    assert shown["kind"].tolist() == ["member", "opponent", "opponent"]
    assert shown["text"].tolist() == ["text of y", "text of a", "text of b"]
    assert shown["attribute_signal"].tolist() == [False, True, True]
    assert [picture["file"] for picture in unsaved.pictures] == ["tested-shares"]
    assert len(unsaved.sentences) == 2  # nothing about pictures


def test_a_slice_that_nothing_harms_has_proponents_alone(run, unsaved):
    numbers = analyse([run((0, 1, "ab"))], unsaved, attribute="signal")
    assert value(numbers, "share_of_proponents", slice=1) == 1.0
    assert "share_of_opponents" not in set(numbers["measure"])
    assert unsaved.sentences == []


def test_a_run_without_opponents_is_said_and_the_others_are_counted(run, finished_run, unsaved):
    numbers = analyse(
        [run((0, -1, "a")), finished_run(EXAMPLES, [[1], [0]], method="gmm")], unsaved, attribute="signal"
    )
    assert "gmm: there are no opponents." in unsaved.sentences
    assert set(numbers["method"]) == {"spotlight"}


def test_a_run_that_found_no_slices_is_no_mistake(finished_run, unsaved):
    asked = {"evaluation": {"score_split": "test", "opponents": 50, "opponents_from": "train"}}
    numbers = analyse([finished_run(EXAMPLES, np.zeros((2, 0)), definition=asked)], unsaved, attribute="signal")
    assert numbers.empty
    assert unsaved.sentences == ["spotlight: there are no opponents."]


def test_runs_that_sought_no_opponents_are_refused(finished_run, unsaved):
    with pytest.raises(InvalidInput, match=r"make them with evaluation\.opponents=50"):
        analyse([finished_run(EXAMPLES, [[1], [0]])], unsaved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribute": "colour"}, "no attribute 'colour', expected one of signal, race"),
        ({"attribute": "race"}, "values are missing, expected some of race's: Asian, Black, White"),
        ({"attribute": "race", "values": ["Grey"]}, "values are Grey, expected some of race's: Asian, Black, White"),
        ({"split": "test"}, "split is 'test', but .* has opponents from the train split"),
        ({"k": 0}, "k is 0, .* expected at least 1"),
    ],
)
def test_mistakes_name_what_there_is(run, unsaved, options, message):
    with pytest.raises(InvalidInput, match=message):
        analyse([run((0, -1, "a"))], unsaved, **options)


def test_data_that_are_not_here_are_said(run, unsaved, tmp_path, monkeypatch):
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path / "nowhere"))
    of_bone_age = {
        "dataset": {"_target_": "experiments.loaders.bone_age.BoneAge"},
        "seeds": {"split": 0},
        "fingerprint": "",
    }
    tested = {name: values[5:] for name, values in EXAMPLES.items()}
    numbers = analyse([run((0, -1, "a"), examples=tested, definition=of_bone_age)], unsaved, attribute="signal")
    assert numbers.empty
    assert unsaved.sentences[0].startswith("spotlight: opponents are not counted: ")
    assert "boneage-training-dataset.csv is missing" in unsaved.sentences[0]


@pytest.fixture
def sheets(out, monkeypatch):
    """What is in each picture of examples: images and texts."""
    drawn = []

    def record(self, figure, name, caption, shows=None):
        if shows:
            (axes,) = figure.axes
            drawn.append(([i.get_array() for i in axes.images], [text.get_text() for text in axes.texts], shows))

    monkeypatch.setattr(type(out), "picture", record)
    return drawn


def test_members_stand_beside_their_opponents(finished_run, unsaved, sheets):
    digits = Digits().load(Path(), seed=0)
    ids, harmful = digits.split("test").example_ids, digits.split("train").example_ids
    n = len(ids)
    members = np.zeros((n, 4))
    members[range(4), range(4)] = 1
    run = finished_run(
        {"id": ids, "loss": np.ones(n), "correct": [False] * n, "label": ["0 or 6"] * n, "path": [None] * n},
        members,
        opponents=table(*((s, -1, harmful[:6]) for s in range(4))),
        dataset="digits",
        definition={
            "dataset": {"_target_": "experiments.loaders.digits.Digits", "slice_size": 50, "n_components": 10},
            "seeds": {"split": 0},
            "fingerprint": digits.fingerprint,
        },
    )
    analyse([run], unsaved)
    ((images, texts, shows),) = sheets
    assert len(images) == 3 * (1 + 4)
    assert shows == "digits"
    assert [text for text in texts if "slice" in text or "spotlight" in text] == [
        f"spotlight {s}: mean loss 1.00, n=1" for s in (1, 2, 3)
    ]
    assert texts.count("its strongest opponents (training examples)") == 3
    first = [digits.class_names[int(label)] for label in digits.split("train").labels[:4]]
    assert [texts[4 + 2 * at] for at in range(4)] == first


def test_what_was_planted_into_training_images_is_counted_and_seen(
    finished_run, unsaved, sheets, tmp_path, monkeypatch
):
    folder = tmp_path / "data/boneage/boneage-training-dataset"
    folder.mkdir(parents=True)
    rows = [f"{1000 + i},{(12, 60, 120, 168, 200)[i % 5]},False" for i in range(20)]
    (folder.parent / "boneage-training-dataset.csv").write_text("\n".join(["id,boneage,male", *rows]) + "\n")
    for row in rows:
        Image.new("L", (40, 40)).save(folder / f"{row.split(',')[0]}.png")
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path / "data"))
    settings = {"n_train": 10, "n_validation": 5, "signal": "stripe"}
    dataset = BoneAge(**settings).load(tmp_path / "data", seed=0)
    train, test = dataset.split("train"), dataset.split("test")
    planted = [i for i, has in zip(train.example_ids, train.attributes["signal"], strict=True) if has]
    others = [i for i in train.example_ids if i not in planted]
    run = finished_run(
        {"id": test.example_ids, "loss": [1.0] * 5, "correct": [False] * 5, "label": ["infancy"] * 5},
        [[1]] * 5,
        dataset="bone_age",
        opponents=table((0, -1, [*planted, others[0]])),
        definition={
            "dataset": {"_target_": "experiments.loaders.bone_age.BoneAge", **settings, "slice_size": 25},
            "seeds": {"split": 0},
            "fingerprint": dataset.fingerprint,
        },
    )
    numbers = analyse([run], unsaved, attribute="signal", n=3)
    assert value(numbers, "share_of_opponents", slice=1) == len(planted) / (len(planted) + 1) == 2 / 3
    assert value(numbers, "share_of_split") == 0.2
    assert value(numbers, "label_of_opponents", slice=1, group="early or mid-puberty") == 2 / 3
    ((images, texts, _),) = sheets
    assert [image.max() > 200 for image in images[3:]] == [True, True, False]
    assert texts[-6:] == ["early or mid-…", "signal=True"] * 2 + [texts[-2], "signal=False"]
