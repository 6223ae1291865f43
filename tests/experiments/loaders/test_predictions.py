import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments.loaders.predictions import Predictions
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
    names = np.array(["cat", "ant", "bee"])[LABELS]
    path = npz(tmp_path, **without("labels"), labels=names)
    dataset = loaded(path)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert "alphabetical order" in dataset.notes[0]
    said = loaded(path, class_names=("cat", "ant", "bee"))
    assert said.split("test").labels.tolist() == LABELS[::-1].tolist()
    assert said.notes == ()


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
        ({"label": [*LABELS[:5], ""], "loss": 1.0}, "line 7: labels is ''"),
        ({"loss": 1.0, "embedding_01": 7.0}, "has both embedding_1 and embedding_01, which have one number"),
        ({"label": LABELS, "logits": "[" * 100_000}, r"line 2: logits is '\[{60}', expected a list of 1 numbers"),
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
    with pytest.raises(InvalidInput, match=r"row 0: embeddings is '.*', expected a list of 2 numbers$"):
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
        ("a.pkl", b"", "should end in .npz, .parquet or .csv"),
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


def test_a_file_that_is_not_there_is_absent(tmp_path):
    with pytest.raises(Absent, match=r"none\.npz is missing"):
        loaded(tmp_path / "none.npz")
