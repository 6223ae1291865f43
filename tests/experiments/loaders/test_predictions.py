import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from experiments.loaders.predictions import Predictions
from experiments.reading.outputs_file import EXAMPLES
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

N = 6
EMBEDDINGS = np.arange(2.0 * N).reshape(N, 2)
LOGITS = np.log([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
LABELS = np.array([0, 1, 2, 1, 2, 0])
IDS = np.array(["f", "e", "d", "c", "b", "a"])
ALL = {"embeddings": EMBEDDINGS, "labels": LABELS, "logits": LOGITS, "ids": IDS}


def npz(folder, name="outputs.npz", **arrays):
    np.savez(folder / name, **arrays)
    return folder / name


def frame(**columns):
    numbered = {f"embedding_{i}": EMBEDDINGS[:, i] for i in range(2)}
    return pd.DataFrame({**numbered, **columns})


def csv(folder, table):
    table.to_csv(folder / "outputs.csv", index=False)
    return folder / "outputs.csv"


def loaded(path, **settings):
    return Predictions(path, **settings).load(path.parent, seed=0)


def without(*names):
    return {name: values for name, values in ALL.items() if name not in names}


def test_rows_are_sorted_by_id_and_belong_together(tmp_path):
    dataset = loaded(npz(tmp_path, **ALL, age=np.arange(N), town=np.array(["x", "y"] * 3)))
    test = dataset.split("test")
    assert test.example_ids == tuple("abcdef")
    assert test.labels.tolist() == LABELS[::-1].tolist()
    assert np.allclose(test.examples.embeddings, EMBEDDINGS[::-1])
    assert np.allclose(test.examples.logits, LOGITS[::-1], atol=1e-6)
    assert test.attributes.loc["a"].tolist() == [5, "y"]
    assert dataset.class_names == ("0", "1", "2")


def test_all_formats_and_spellings_give_the_same(tmp_path):
    expected = loaded(npz(tmp_path, **ALL)).fingerprint
    singular = {"embedding": EMBEDDINGS, "label": LABELS.astype(float), "logit": LOGITS, "id": IDS.astype("S1")}
    assert loaded(npz(tmp_path, "b.npz", **singular)).fingerprint == expected
    wide = frame(**{f"logit_{c}": LOGITS[:, c] for c in range(3)}, label=LABELS, id=IDS)
    assert loaded(csv(tmp_path, wide)).fingerprint == expected
    wide.set_index("id").to_parquet(tmp_path / "a.parquet")
    assert loaded(tmp_path / "a.parquet").fingerprint == expected
    lists = pd.DataFrame({"embedding": list(EMBEDDINGS), "logits": list(LOGITS), "labels": LABELS, "ids": IDS})
    lists.to_parquet(tmp_path / "b.parquet")
    assert loaded(tmp_path / "b.parquet").fingerprint == expected
    texts = lists.assign(
        **{name: lists[name].map(lambda row: json.dumps(list(row))) for name in ("embedding", "logits")}
    )
    assert loaded(csv(tmp_path, texts)).fingerprint == expected


def test_embeddings_and_logits_change_the_fingerprint_and_the_path_does_not(tmp_path):
    before = loaded(npz(tmp_path, **ALL)).fingerprint
    for name in ("embeddings", "logits"):
        assert loaded(npz(tmp_path, f"{name}.npz", **{**ALL, name: ALL[name] + 1})).fingerprint != before
    assert Predictions(tmp_path / "a.npz").identity() == Predictions(tmp_path / "b.npz").identity()


def test_probabilities_become_logits(tmp_path):
    probabilities = np.exp(LOGITS)
    probabilities[0] = [1, 0, 0]
    stored = loaded(npz(tmp_path, **without("logits"), probabilities=probabilities)).split("test").examples
    assert np.allclose(stored.logits.exp(), probabilities[::-1])
    assert torch.isfinite(stored.logits).all()


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_a_single_column_is_that_of_class_1(tmp_path, shape):
    single, labels = np.linspace(0.1, 0.9, N), np.array([0, 0, 0, 1, 1, 1])
    given = {"embeddings": EMBEDDINGS, "labels": labels}
    by_probability = loaded(npz(tmp_path, "p.npz", **given, probabilities=single.reshape(shape)))
    by_logit = loaded(npz(tmp_path, "l.npz", **given, logits=np.log(single / (1 - single)).reshape(shape)))
    a, b = (dataset.split("test").examples.logits for dataset in (by_probability, by_logit))
    assert a.shape == b.shape == (N, 2)
    targets = torch.tensor(labels)
    assert torch.allclose(cross_entropy(a, targets), cross_entropy(b, targets))


def test_names_of_labels_are_classes_in_alphabetical_order_unless_said_otherwise(tmp_path):
    dataset = loaded(npz(tmp_path, **without("labels"), labels=np.array(["ant", "bee", "cat"])[LABELS]))
    assert dataset.class_names == ("ant", "bee", "cat")
    assert "columns of logits were taken for the classes in alphabetical order" in dataset.notes[0]
    path = npz(tmp_path, **without("labels"), labels=np.array(["cat", "ant", "bee"])[LABELS])
    said = loaded(path, class_names=("cat", "ant", "bee"))
    assert said.split("test").labels.tolist() == LABELS[::-1].tolist()
    assert said.notes == ()


def test_an_order_by_which_the_model_were_worse_than_by_another_is_not_taken_for_granted(tmp_path):
    path = npz(tmp_path, **without("labels"), labels=np.array(["cat", "ant", "bee"])[LABELS])
    with pytest.raises(InvalidInput, match=r"accuracy is 0\.17; with cat, ant, bee it is 0\.83: .*=\[cat,ant,bee\]"):
        loaded(path)
    assert loaded(path, class_names=("ant", "bee", "cat")).notes == ()  # said is said


def test_columns_called_by_the_classes_are_theirs_in_any_order(tmp_path):
    names, order = np.array(["cat", "ant", "bee"]), [2, 0, 1]
    columns = {f"probability_{names[c]}": np.exp(LOGITS[:, c]) for c in order}
    dataset = loaded(csv(tmp_path, frame(label=names[LABELS], **columns, other=1)))
    assert dataset.class_names == ("bee", "cat", "ant")
    assert dataset.notes == ()
    test = dataset.split("test")
    assert np.allclose(test.examples.logits, LOGITS[:, order], atol=1e-6)
    assert [dataset.class_names[label] for label in test.labels] == names[LABELS].tolist()
    assert list(test.attributes) == ["other"]
    few = {name: values for name, values in columns.items() if name != "probability_bee"}
    with pytest.raises(InvalidInput, match="has no logits"):  # attributes may be called so, too
        loaded(csv(tmp_path, frame(label=names[LABELS], **few)))


def test_losses_alone_will_do_and_say_what_was_taken_for_right(tmp_path):
    dataset = loaded(npz(tmp_path, embeddings=EMBEDDINGS, losses=np.array([0.1, 0.6, 0.7, 3.0, 0.0, 9.0])))
    test = dataset.split("test")
    assert dataset.class_names == ()
    assert test.labels is None
    assert test.examples.correct.tolist() == [True, True, False, False, True, False]
    assert "below log 2" in dataset.notes[0]


def test_what_is_stored_of_correctness_counts(tmp_path):
    table = frame(loss=np.ones(N), correct=[True, False] * 3)
    assert loaded(csv(tmp_path, table)).split("test").examples.correct.tolist() == [True, False] * 3
    assert loaded(csv(tmp_path, table)).notes == ()


def test_a_column_of_splits_is_followed(tmp_path):
    splits = np.array(["validation", "test"] * 3)
    dataset = loaded(npz(tmp_path, **ALL, split=splits))
    assert dataset.split("validation").example_ids == ("b", "d", "f")
    assert dataset.split("validation").examples.embeddings[:, 0].tolist() == [8.0, 4.0, 0.0]
    assert dataset.split("test").labels.tolist() == [0, 1, 1]


def test_a_share_is_held_out_by_seed_where_the_file_does_not_say_which(tmp_path):
    path = npz(tmp_path, **ALL)
    dataset = loaded(path, held_out=0.5)
    halves = {name: set(split.example_ids) for name, split in dataset.splits.items()}
    assert {name: len(ids) for name, ids in halves.items()} == {"validation": 3, "test": 3}
    assert halves["validation"] | halves["test"] == set(IDS)
    assert loaded(path, held_out=0.5).fingerprint == dataset.fingerprint
    others = [Predictions(path, held_out=0.5).load(tmp_path, seed).fingerprint for seed in range(1, 4)]
    assert set(others) != {dataset.fingerprint}
    for split in dataset.splits.values():  # rows belong together
        rows = [IDS.tolist().index(one) for one in split.example_ids]
        assert np.allclose(split.examples.embeddings, EMBEDDINGS[rows])
        assert split.labels.tolist() == LABELS[rows].tolist()


def test_a_column_of_splits_counts_more_than_a_share(tmp_path):
    dataset = loaded(npz(tmp_path, **ALL, split=np.array(["train", "test"] * 3)), held_out=0.5)
    assert {name: split.example_ids for name, split in dataset.splits.items()} == {
        "train": ("b", "d", "f"),
        "test": ("a", "c", "e"),
    }


def test_pictures_and_texts_are_shown_and_no_attributes(tmp_path):
    for row in range(N - 1):
        Image.new("RGB", (2, 2), (row, 0, 0)).save(tmp_path / f"{row}.png")
    texts = [f"text {row}" for row in range(N)]
    table = frame(loss=1.0, id=IDS, image=[f"{row}.png" for row in range(N)], text=texts, age=7)
    dataset = loaded(csv(tmp_path, table), held_out=0.5)
    shown = {}
    for split in dataset.splits.values():
        assert list(split.attributes) == ["age"]
        shown |= dict(zip(split.example_ids, zip(split.paths, split.texts, strict=True), strict=True))
    assert shown == {i: (f"{row}.png", f"text {row}") for row, i in enumerate(IDS)}
    last = dataset.split("test" if "b" in dataset.split("test").example_ids else "validation")
    assert last.pictures[last.example_ids.index("b")].getpixel((0, 0)) == (4, 0, 0)
    missing = tmp_path / "5.png"
    assert f"1 of 6 images are not there (the first: {missing})" in dataset.notes


def test_what_is_shown_may_be_missing_in_some_rows_and_changes_the_fingerprint(tmp_path):
    texts = [{"text": ["a", "", "c", "d", "e", "f"]}, {"text": ["a", "b", "c", "d", "e", "f"]}, {}]
    made = [loaded(csv(tmp_path, frame(loss=1.0, **columns))) for columns in texts]
    assert made[0].split("test").texts == ("a", "", "c", "d", "e", "f")
    assert made[2].split("test").texts is None
    assert len({dataset.fingerprint for dataset in made}) == 3
    nothing = loaded(csv(tmp_path, frame(loss=1.0, image="")))
    assert not [note for note in nothing.notes if "images" in note]


def test_an_index_without_a_name_is_no_attribute(tmp_path):
    frame(loss=1.0, age=7).to_csv(tmp_path / "outputs.csv")  # as pandas writes it unless it is told not to
    assert list(loaded(tmp_path / "outputs.csv").split("test").attributes) == ["age"]


def test_what_is_no_attribute_is_said_to_be_left_out(tmp_path):
    assert loaded(npz(tmp_path, **ALL, extra=np.zeros((2, 2)))).notes[0].endswith("extra (2, 2)")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("labels", "logits"), "has no embeddings, expected in an npz an array `embeddings`.*it has labels, logits"),
        (("embeddings",), "has no labels, expected `labels`.* or at least `losses`"),
        (("embeddings", "logits"), "has no labels, expected `labels`"),
        (("embeddings", "labels"), "has no logits, expected `logits` or `probabilities`.*or `losses`"),
    ],
)
def test_what_is_missing_is_said(tmp_path, names, said):
    rows = {name: ALL[name] for name in sorted(names, key=lambda name: name != "labels")}
    with pytest.raises(InvalidInput, match=said):
        loaded(npz(tmp_path, **rows))


def changed(name, row, value):
    values = ALL[name].astype(type(value) if isinstance(value, str) else float)
    values[row] = value
    return {**ALL, name: values}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (changed("embeddings", 3, np.nan), "row 3: embeddings hold what is no finite number"),
        (changed("logits", 2, np.inf), "row 2: logits hold what is no finite number"),
        (changed("embeddings", 4, 1e300), "row 4: embeddings hold"),
        (changed("labels", 1, 3), "row 1: labels is 3.0, expected a class: 0 to 2, counted from 0"),
        (changed("labels", 1, -1), "row 1: labels is -1.0"),
        (changed("labels", 5, 0.5), "row 5: labels is 0.5"),
        ({**ALL, "labels": LABELS[:-1]}, r"labels has shape \(5,\), expected \(6,\)"),
        ({**ALL, "logits": LOGITS[:-1]}, r"logits has shape \(5, 3\), expected \(6, columns\)"),
        ({**ALL, "embeddings": EMBEDDINGS[:, 0]}, r"embeddings has shape \(6,\), expected \(6, columns\)"),
        ({**ALL, "embeddings": EMBEDDINGS.astype(str)}, "embeddings has the type <U32, expected numbers"),
        ({**ALL, "ids": np.array(list("aabcde"))}, "ids 'a' stands in the rows 0 and 1"),
        ({**ALL, "split": np.array(["test"] * 5 + ["exam"])}, "row 5: split is 'exam', expected one of train, val"),
        ({**ALL, "correct": np.arange(N)}, "row 2: correct is 2, expected true or false"),
        ({**ALL, "losses": np.array([1, np.nan, 1, 1, 1, 1])}, "row 1: losses is nan, expected a finite number"),
        ({**ALL, "losses": [1, 1, -0.1, 1, 1, 1]}, "row 2: losses is -0.1, expected a loss of at least 0"),
        ({**ALL, "losses": [1, 1, 1, 1e300, 1, 1]}, r"row 3: losses is 1e\+300, expected a finite number"),
        ({**ALL, "labels": np.zeros(N, dtype=[("a", int)])}, "labels has the type .*, expected numbers or texts"),
        ({**ALL, "age": np.ones(N) + 1j}, "age has the type complex128, expected numbers or texts"),
        ({**ALL, "when": np.datetime64("2020-01-01") + LABELS}, "when has the type datetime64.*, expected numbers or"),
        ({**ALL, "town": np.array([b"\xff"] * N)}, "town holds bytes that are no UTF-8: save texts"),
        ({**ALL, "label": LABELS}, "has both label and labels: remove one"),
        ({**ALL, "labels": np.array(["a", "b"] * 3)}, "3 columns of logits, but 2 names among the labels"),
        ({**ALL, "ids": IDS.astype(object)}, r"ids holds pickled Python objects.*with ids.astype\(str\)"),
    ],
)
def test_a_bad_row_or_array_is_refused_by_name(tmp_path, arrays, said):
    with pytest.raises(InvalidInput, match=rf"outputs\.npz.*{said}"):
        loaded(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("row", "shown"), [([0.5, 0.5, 0.5], "0.5, 0.5, 0.5"), ([1.1, -0.1, 0.0], "1.1, -0.1, 0"), ([0, 0, 0], "0, 0, 0")]
)
def test_what_is_no_probability_is_refused_with_its_row(tmp_path, row, shown):
    probabilities = np.exp(LOGITS)
    probabilities[2] = row
    with pytest.raises(InvalidInput, match=f"row 2: probabilities hold {shown}, expected none below 0 and a sum of 1"):
        loaded(npz(tmp_path, **without("logits"), probabilities=probabilities))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": LABELS, "loss": ["1", "1", "much", "1", "1", "1"]}, "line 4: losses is 'much', expected a finite"),
        ({"label": LABELS, "logit_0": 1.0, "logit_2": 1.0}, "no column logit_1, but logit_2"),
        ({"loss": 1.0, "embedding": "[1]"}, "embeddings in one column and in numbered ones"),
        ({"label": LABELS, "logits": ["[1, 2]"] * 5 + ["[1]"]}, r"line 7: logits is '\[1\]', expected a list of 2"),
        (
            {"loss": 1.0, "probabilities": "[0.5 0.5]", "label": 0},
            r"is '\[0.5 0.5\]', .*x.tolist\(\) makes",
        ),
        ({"label": [*LABELS[:5], ""], "loss": 1.0}, "line 7: labels is ''"),
        ({"loss": 1.0, "embedding_01": 7.0}, "has both embedding_1 and embedding_01, which have one number"),
        ({"label": LABELS, "logits": "[" * 100_000}, r"line 2: logits is '\[{60}', expected a list of numbers, as"),
        ({"loss": 1.0, "embedding_1": ["1", "x", "1", "1", "1", "1"]}, "line 3: embedding_1 is 'x'"),
    ],
)
def test_a_bad_line_of_a_table_is_refused(tmp_path, columns, said):
    with pytest.raises(InvalidInput, match=rf"outputs\.csv.*{said}"):
        loaded(csv(tmp_path, frame(**columns)))


def test_a_name_that_stands_twice_in_the_header_is_refused(tmp_path):
    path = csv(tmp_path, frame(loss=1.0, label=0, other=9))
    path.write_text(path.read_text().replace("other", "label"))
    with pytest.raises(InvalidInput, match=r"outputs\.csv has the column 'label' twice, expected once"):
        loaded(path)


@pytest.mark.parametrize("empty", [None, []])
def test_a_row_without_a_list_is_the_one_that_is_named(tmp_path, empty):
    pd.DataFrame({"embedding": [empty, *EMBEDDINGS[1:]], "loss": 1.0}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"row 0: embeddings is '.*', expected a list of 2 numbers, as"):
        loaded(tmp_path / "a.parquet")


def test_dates_are_no_labels(tmp_path):
    frame(label=pd.date_range("2020", periods=N), loss=1.0).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"row 0: labels is Timestamp.*, expected a class"):
        loaded(tmp_path / "a.parquet")


def test_labels_alone_cannot_ask_for_more_classes_than_rows(tmp_path):
    given = {"embeddings": EMBEDDINGS, "losses": np.ones(N)}
    path = npz(tmp_path, **given, labels=np.array([0, 1, 2, 0, 1_000_000, 1]))
    with pytest.raises(InvalidInput, match="row 4: labels is 1000000, expected a number below that of the rows"):
        loaded(path)
    few = npz(tmp_path, **given, labels=np.array([0, 1, 2, 0, 7, 1]))
    assert loaded(few, class_names=tuple("abcdefgh")).split("test").labels.max() == 7


def test_an_attribute_may_be_called_anything(tmp_path):
    dataset = loaded(npz(tmp_path, **ALL, position=np.arange(N), row=np.arange(N) + 10))
    assert dataset.split("test").attributes["position"].tolist() == [5, 4, 3, 2, 1, 0]
    assert dataset.split("test").labels.tolist() == LABELS[::-1].tolist()


@pytest.mark.parametrize("dtype", [">f8", ">i4", np.longdouble, np.float16])
def test_attributes_can_be_written_whatever_numbers_they_were(tmp_path, dtype):
    attributes = loaded(npz(tmp_path, **ALL, age=np.arange(N).astype(dtype))).split("test").attributes
    attributes.to_parquet(tmp_path / "a.parquet")
    assert pd.read_parquet(tmp_path / "a.parquet")["age"].tolist() == [5, 4, 3, 2, 1, 0]


def test_a_loss_that_rounding_put_below_zero_is_one(tmp_path):
    losses = np.array([-1e-7, 1, 1, 1, 1, 1])
    assert loaded(npz(tmp_path, embeddings=EMBEDDINGS, losses=losses)).split("test").n_examples == N


def test_names_that_do_not_fit_the_logits_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="3 columns of logits, class_names has 2 names"):
        loaded(npz(tmp_path, **ALL), class_names=("a", "b"))


def test_a_name_that_is_not_among_the_class_names_is_refused(tmp_path):
    names = np.array(["cat", "ant", "bee"])[LABELS]
    with pytest.raises(InvalidInput, match="row 1: labels is 'ant', expected one of cat, dog, bee"):
        loaded(npz(tmp_path, **without("labels"), labels=names), class_names=("cat", "dog", "bee"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npz", b"", "is no npz file"),
        ("a.npz", b"\x80\x04K\x01.", "is no npz file"),
        ("a.PKL", b"", "should end in .npz, .parquet or .csv"),
        ("a.csv", b"", "cannot be read as a table"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read as a table"),
        ("a.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        loaded(tmp_path / name)


@pytest.mark.parametrize("part", [0.5, 0.98])
def test_a_file_that_was_cut_off_is_refused(tmp_path, part):
    path = npz(tmp_path, **ALL)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InvalidInput, match=r"outputs\.npz is (no npz file|damaged)"):
        loaded(path)


def test_a_file_with_other_bytes_inside_is_refused(tmp_path):
    path = npz(tmp_path, **ALL)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidInput, match=r"outputs\.npz"):
        loaded(path)


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("a.npz", 'numpy.savez("FILE.npz", id=ids, embeddings=x'),
        ("a.csv", "a file that begins with these two lines:\n  id,label,embedding_0"),
        ("a.parquet", 'pandas.DataFrame({"id": ids, "label": y'),
    ],
)
def test_what_is_missing_is_said_with_an_example_and_without_a_thousand_names(tmp_path, name, example):
    table = pd.DataFrame({f"e{column}": np.ones(2) for column in range(512)})
    path = tmp_path / name
    write = {".npz": lambda: np.savez(path, **table), ".csv": lambda: table.to_csv(path, index=False)}
    write.get(path.suffix, lambda: table.to_parquet(path))()
    with pytest.raises(InvalidInput) as told:
        loaded(path)
    assert "has no embeddings" in str(told.value)
    assert "it has e0, e1, " in str(told.value)
    assert "e19 and 492 others\nfor example: " in str(told.value)
    assert example in str(told.value)


def test_the_example_is_one(tmp_path):
    lines = [line.strip() for line in EXAMPLES[".csv"].splitlines()[1:]]
    (tmp_path / "a.csv").write_text("\n".join([*lines, lines[1].replace("cat.png", "b")]))
    assert loaded(tmp_path / "a.csv").split("test").example_ids == ("b", "cat.png")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InvalidInput, match=r"a\.csv is a folder: give the path of a file"):
        loaded(tmp_path / "a.csv")


def test_a_file_that_is_not_there_is_absent(tmp_path):
    with pytest.raises(Absent, match=r"none\.npz is missing"):
        loaded(tmp_path / "none.npz")
