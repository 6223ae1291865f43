"""On fixtures in the publishers' layouts, and on the real files where there are some."""

import csv

import pytest

from experiments.loaders.ag_news import AGNews
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

WORDS = ("north", "river", "stone", "glass", "paper", "cloud", "timber", "harbour", "lantern", "meadow", "copper")


def article(number, label=None):
    """An invented article: (class, title, description), long enough to be told from the others."""
    told = " ".join(f"{word}{number}" for word in WORDS)
    return [str(number % 4 + 1 if label is None else label), f"Title {number}", f"It is said that {told}"]


ARTICLES = [article(number) for number in range(8)]


def write_csv(path, rows, header=None, quoting=csv.QUOTE_ALL, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end)
        writer.writerows([*([header] if header else []), *rows])


def annotated(number, noisy, true):
    _, title, description = article(number)
    return [str(noisy), str(true), f"{title} . {description}", "6" if noisy == true else "0"]


NOISY = [annotated(100 + number, number % 4 if number % 3 else (number + 1) % 4, number % 4) for number in range(24)]


def publish(root, test=ARTICLES, train=None, noisy=None):
    """AG News as its publishers lay it out: no header there, a header and Windows' line ends here."""
    write_csv(root / "ag_news/test.csv", test)
    if train is not None:
        write_csv(root / "ag_news/train.csv", train)
    if noisy is not None:
        header = ["label", "gt", "text", "group"]
        write_csv(root / "ag_news/noisyag_val10000.csv", noisy, header, csv.QUOTE_MINIMAL, "\r\n")
    return root


def test_texts_are_title_and_description_and_classes_count_from_one(tmp_path):
    dataset = AGNews().load(publish(tmp_path), seed=0)
    test = dataset.split("test")
    assert dataset.class_names == ("World", "Sports", "Business", "Sci/Tech")
    assert list(dataset.splits) == ["test"]
    assert test.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert test.example_ids[0] == "test-000001"
    assert test.examples[1] == f"Title 1 {ARTICLES[1][2]}"
    assert test.attributes.loc["test-000002"].tolist() == ["Title 1", 17, len(test.examples[1])]


def test_the_official_training_file_is_the_train_split_where_it_is_there(tmp_path):
    publish(tmp_path, train=[article(number) for number in range(50, 70)])
    dataset = AGNews(validation_share=0.25, n_train=10).load(tmp_path, seed=0)
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {
        "test": 8,
        "validation": 5,
        "train": 10,
    }


def test_a_model_is_trained_on_no_text_of_the_test_split(tmp_path):
    version = annotated(3, 0, 3)  # an official text, its title followed by a full stop
    named = ["2", "2", f"Another title . {ARTICLES[5][2]}", "6"]  # an official description below another title
    publish(tmp_path, noisy=[*NOISY, version, named])
    dataset = AGNews(layout="noisy_train").load(tmp_path, seed=0)
    assert dataset.split("train").n_examples == 25
    assert dataset.notes == ("1 of 26 training texts begin like a text of the test split: left out",)
    dataset = AGNews(layout="noisy_train", drop_descriptions=True).load(tmp_path, seed=0)
    assert dataset.split("train").n_examples == 24
    assert dataset.notes[1] == "1 of 26 training texts hold a description of the test split: left out"


def test_a_model_is_trained_on_the_true_labels_unless_the_noisy_ones_are_asked_for(tmp_path):
    publish(tmp_path, noisy=NOISY)
    true = AGNews(layout="noisy_train").load(tmp_path, seed=0).split("train")
    noisy = AGNews(layout="noisy_train", train_labels="noisy").load(tmp_path, seed=0).split("train")
    assert true.labels.tolist() == [int(row[1]) for row in NOISY]
    assert noisy.labels.tolist() == [int(row[0]) for row in NOISY]


def test_noisy_labels_are_audited_on_texts_that_nothing_was_trained_on(tmp_path):
    dataset = AGNews(layout="noisy").load(publish(tmp_path, noisy=NOISY), seed=0)
    train, test = dataset.split("train"), dataset.split("test")
    assert (train.n_examples, test.n_examples) == (12, 12)
    assert not set(train.examples) & set(test.examples)
    lines = {f"noisyag-{line:06d}": row for line, row in enumerate(NOISY, start=2)}
    assert test.labels.tolist() == [int(lines[name][0]) for name in test.example_ids]
    assert train.labels.tolist() == [int(lines[name][1]) for name in train.example_ids]
    wrong = [("no", "yes")[lines[name][0] != lines[name][1]] for name in test.example_ids]
    assert test.attributes["wrong"].tolist() == wrong
    assert test.attributes["title"].tolist()[0] == lines[test.example_ids[0]][2].split(" . ")[0]
    assert set(test.attributes["group"]) == {"6", "0"}
    assert set(test.attributes["true_class"]) <= set(dataset.class_names)


def test_another_seed_makes_other_halves(tmp_path):
    publish(tmp_path, noisy=NOISY)
    first, second = (AGNews(layout="noisy").load(tmp_path, seed).split("test").example_ids for seed in (0, 1))
    assert first != second
    assert AGNews(layout="noisy").load(tmp_path, 0).split("test").example_ids == first


def test_versions_of_one_text_stay_in_one_half(tmp_path):
    twins = [[*row[:2], row[2].upper(), row[3]] for row in NOISY]
    dataset = AGNews(layout="noisy").load(publish(tmp_path, noisy=NOISY + twins), seed=0)
    halves = [{text.lower() for text in split.examples} for split in dataset.splits.values()]
    assert not halves[0] & halves[1]


@pytest.mark.parametrize("layout", ["noisy_train", "noisy"])
def test_versions_of_one_text_are_not_in_train_and_validation(tmp_path, layout):
    twins = [[*row[:2], row[2].upper(), row[3]] for row in NOISY]
    publish(tmp_path, noisy=NOISY + twins)
    dataset = AGNews(layout=layout, validation_share=0.4).load(tmp_path, seed=0)
    train, validation = ({text.lower() for text in dataset.split(name).examples} for name in ("train", "validation"))
    assert validation
    assert not train & validation


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train_labels": "noisy"}, "dataset.train_labels is for layout=noisy_train or noisy only, layout is official"),
        ({"audit_share": 0.1}, "dataset.audit_share is for layout=noisy only, layout is official: leave it out"),
        ({"drop_descriptions": True}, "dataset.drop_descriptions is for layout=noisy_train only"),
        (
            {"layout": "noisy", "drop_descriptions": True},
            "drop_descriptions is for layout=noisy_train only, layout is n",
        ),
        ({"validation_share": 0.2}, "dataset.validation_share is set, but there is no ag_news/train.csv: Get test.csv"),
        ({"n_train": 5}, "dataset.n_train is set, but there is no ag_news/train.csv: Get test.csv, and train.csv to"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(tmp_path, settings, said):
    publish(tmp_path, noisy=NOISY)
    with pytest.raises(InvalidInput, match=said):
        AGNews(**settings).load(tmp_path, seed=0)


def test_it_is_said_what_is_missing_to_train_on(tmp_path):
    assert AGNews().load(publish(tmp_path), seed=0).notes == ("no training split, for want of ag_news/train.csv",)


def test_lost_signs_come_back_only_where_they_are_asked_for(tmp_path):
    odd = ["1", "Peace #39;s price", r"Some say  quot;\$5 quot; is\enough for AT amp;T &lt;b&gt;...&lt;/b&gt;"]
    publish(tmp_path, test=[odd, *ARTICLES])
    plain, spelled = AGNews().load(tmp_path, 0), AGNews(unescape=True).load(tmp_path, 0)
    assert plain.split("test").examples[0] == f"{odd[1]} {odd[2]}"
    assert spelled.split("test").examples[0] == 'Peace\'s price Some say "$5" is enough for AT&T <b>...</b>'
    assert spelled.split("test").attributes["title"].iloc[0] == "Peace's price"
    assert plain.fingerprint != spelled.fingerprint


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("official", "test.csv is missing. Get test.csv, and train.csv to train on, from"),
        ("noisy", "noisyag_val10000.csv is missing. Get dataset/samples10000valMed.csv from"),
    ],
)
def test_without_the_data_it_is_said_what_to_get(tmp_path, layout, said):
    with pytest.raises(Absent, match=said):
        AGNews(layout=layout).load(tmp_path, seed=0)


def test_what_may_be_downloaded_depends_on_the_layout():
    files = {layout: [d.to for d in AGNews(layout=layout).source.downloads] for layout in ("official", "noisy_train")}
    assert files == {"official": ["test.csv", "train.csv"], "noisy_train": ["test.csv", "noisyag_val10000.csv"]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([article(0, label=0), *ARTICLES], "line 1: class is '0', expected one of 1, 2, 3, 4"),
        ([["Class Index", "Title", "Description"], *ARTICLES], "line 1: class is 'Class Index', expected one of 1"),
        ([["1", "Title"], *ARTICLES], "line 1: description is '', expected a text"),
        ([*ARTICLES, ["1", "Title"]], "line 9: description is '', expected a text"),
        ([*ARTICLES, [*ARTICLES[0], "more"]], "cannot be read as a table"),
        (ARTICLES[:3], "has no example of the class 'Sci/Tech'"),
    ],
)
def test_a_file_that_is_not_the_official_one_is_refused(tmp_path, rows, said):
    with pytest.raises(InvalidInput, match=rf"test\.csv {said}"):
        AGNews().load(publish(tmp_path, test=rows), seed=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no rows"),
        (b'"1","Title","It was cut', "cannot be read as a table"),
        ("1,Zürich,Genève\n".encode("latin-1"), "cannot be read as a table"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, said):
    publish(tmp_path)
    (tmp_path / "ag_news/test.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"test\.csv {said}"):
        AGNews().load(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["4", "0", "Any text", "6"], "line 26: label is '4', expected one of 0, 1, 2, 3"),
        (["0", "x", "Any text", "6"], "line 26: gt is 'x'"),
        (["0", "0", " ", "6"], "line 26: text is ' ', expected a text"),
        (["0", "0", "Any text", "six"], "line 26: group is 'six'"),
        (["0", "0"], "line 26: text is ''"),
    ],
)
def test_a_noisy_row_that_cannot_be_read_is_named(tmp_path, row, said):
    with pytest.raises(InvalidInput, match=f"noisyag_val10000.csv {said}"):
        AGNews(layout="noisy").load(publish(tmp_path, noisy=[*NOISY, row]), seed=0)


def test_a_missing_column_is_named(tmp_path):
    publish(tmp_path)
    write_csv(tmp_path / "ag_news/noisyag_val10000.csv", [["0", "text", "6"]], ["label", "text", "group"])
    with pytest.raises(InvalidInput, match=r"noisyag_val10000\.csv has no column 'gt'"):
        AGNews(layout="noisy").load(tmp_path, seed=0)


def test_the_real_files(data):
    root = data("ag_news/test.csv", "ag_news/noisyag_val10000.csv")
    official = AGNews().load(root, seed=0).split("test")
    assert official.labels.bincount().tolist() == [1_900] * 4
    crossed = AGNews(layout="noisy_train", drop_descriptions=True).load(root, seed=0)
    assert crossed.split("train").n_examples == 10_000 - 21 - 49
    assert crossed.notes[0].startswith("21 of 10,000")
    noisy = AGNews(layout="noisy").load(root, seed=0)
    labels = [split.attributes["wrong"] for split in noisy.splits.values()]
    assert sum(len(wrong) for wrong in labels) == 10_000
    assert sum((wrong == "yes").sum() for wrong in labels) == 1_975
