import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from experiments.loaders.table import Table
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

CSV = """name,age,job,town,sick,part
Zoe,30,cook,Rome,no,train
Ann,50,"cook, baker",Rome,yes,train
Bob,70,,Oslo,no,test
Ida,40,cook,Paris,yes,test
"""


def written(folder, text=CSV, name="people.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(path, seed=0, **settings):
    settings = {"label": "sick", "id": "name", "attributes": ("town",), "split": "part", **settings}
    return Table(path=path, **settings).load(path.parent, seed)


def test_columns_become_ids_labels_attributes_and_features(tmp_path):
    dataset = loaded(written(tmp_path))
    train, test = dataset.split("train"), dataset.split("test")
    assert dataset.class_names == ("no", "yes")
    assert train.example_ids == ("Ann", "Zoe")
    assert train.labels.tolist() == [1, 0]
    assert test.attributes["town"].tolist() == ["Oslo", "Paris"]
    assert train.examples.tolist() == [[1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]]  # age, cook, "cook, baker"
    assert test.examples.tolist() == [[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_parquet_gives_the_same(tmp_path):
    path = written(tmp_path)
    frame = pd.read_csv(path)
    frame["town"] = frame["town"].astype("category")
    frame.set_index("name").to_parquet(tmp_path / "people.parquet")
    assert loaded(tmp_path / "people.parquet").fingerprint == loaded(path).fingerprint


def test_neither_path_nor_order_of_rows_matters(tmp_path):
    head, *rows = CSV.splitlines()
    other = written(tmp_path, "\n".join([head, *rows[::-1]]), name="other.csv")
    assert loaded(other).fingerprint == loaded(written(tmp_path)).fingerprint
    assert Table(other, "sick").identity() == Table(tmp_path / "b.csv", "sick").identity()


def test_what_is_chosen_as_a_feature_changes_the_fingerprint(tmp_path):
    path = written(tmp_path)
    assert loaded(path, features=("age",)).fingerprint != loaded(path).fingerprint
    assert loaded(path, features=("town",)).split("test").attributes.columns.tolist() == ["town"]


def test_without_a_column_of_splits_all_is_for_the_test(tmp_path):
    dataset = loaded(written(tmp_path), split=None, id=None, attributes=("part", "name"))
    assert set(dataset.splits) == {"test"}
    assert dataset.split("test").example_ids == ("0", "1", "2", "3")
    assert torch.allclose(dataset.split("test").examples[:, 0].mean(), torch.tensor(0.0), atol=1e-6)


def test_shares_divide_by_seed_whatever_the_order_of_rows(tmp_path):
    rows = [f"p{n},{n},cook,Rome,{n % 2},train" for n in range(40)]
    head = CSV.splitlines()[0]
    path, other = (written(tmp_path, "\n".join([head, *r]), f"{len(r[0])}.csv") for r in (rows, rows[::-1]))
    shares = {"split": None, "attributes": ("part",), "train_share": 0.5, "validation_share": 0.25}
    dataset = loaded(path, **shares)
    assert [split.n_examples for split in dataset.splits.values()] == [20, 10, 10]
    assert loaded(other, **shares).fingerprint == dataset.fingerprint != loaded(path, seed=1, **shares).fingerprint


@pytest.mark.parametrize("shares", [{}, {"train_share": 0.5}])
def test_sums_are_rounded_alike_whatever_the_order_of_rows(tmp_path, shares):
    drawn = np.random.default_rng(0)
    rows = pd.DataFrame({"id": [f"p{n:04d}" for n in range(1000)], "x": drawn.normal(1e3, 1, 1000), "y": [0, 1] * 500})
    fingerprints = set()
    for seed in range(4):
        rows.sample(frac=1, random_state=seed).to_csv(tmp_path / "rows.csv", index=False)
        fingerprints.add(Table(tmp_path / "rows.csv", "y", id="id", **shares).load(tmp_path, 0).fingerprint)
    assert len(fingerprints) == 1


def test_classes_come_in_one_order_whatever_the_order_of_rows(tmp_path):
    rows = [f"{n},{('1', '01', 'x')[n % 3]}" for n in range(9)]
    for given in (rows, rows[::-1]):
        path = written(tmp_path, "\n".join(["age,sick", *given]))
        assert Table(path, "sick").load(tmp_path, 0).class_names == ("01", "1", "x")


@pytest.mark.parametrize("name", ["position", "split", "row"])
def test_the_column_of_ids_may_be_called_anything(tmp_path, name):
    dataset = loaded(written(tmp_path, CSV.replace("name,", f"{name},")), id=name)
    assert dataset.split("train").example_ids == ("Ann", "Zoe")
    assert dataset.split("train").examples.tolist() == [[1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]]


@pytest.mark.parametrize(("kind", "column"), [("label", "when"), ("feature", "when"), ("feature", "lasted")])
def test_dates_are_neither_classes_nor_quantities(tmp_path, kind, column):
    frame = pd.DataFrame({"x": range(4), "y": [0, 1, 0, 1]})
    when = pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-01", "2021-01-01"]))
    frame[column] = when if column == "when" else when - when[0]
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=rf"a\.parquet: {column} holds dates or times, expected numbers or texts"):
        Table(tmp_path / "a.parquet", column if kind == "label" else "y").load(tmp_path, 0)
    kept = Table(tmp_path / "a.parquet", "y", attributes=(column,)).load(tmp_path, 0).split("test")
    assert kept.attributes[column].isna().tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("largest", "said"), [("1e308", r"age reaches 1e\+308, which is too large"), ("1e200", "age re")]
)
def test_a_number_that_is_too_large_to_be_scaled_is_refused_by_name(tmp_path, largest, said):
    with pytest.raises(InvalidInput, match=rf"people\.csv: {said}"):
        loaded(written(tmp_path, CSV.replace("50", largest)))


def test_labels_too_large_to_be_told_apart_as_numbers_are_names(tmp_path):
    classes = (str(2**53), str(2**53 + 1))
    text = CSV.replace(",no,", f",{classes[0]},").replace(",yes,", f",{classes[1]},")
    assert loaded(written(tmp_path, text)).class_names == classes


def test_a_label_that_numbers_the_rows_is_refused(tmp_path):
    path = written(tmp_path, "\n".join(["x,y", *(f"{n % 7},{n}" for n in range(50))]))
    with pytest.raises(InvalidInput, match="y has 50 different values in 50 rows, expected at most half as many: name"):
        Table(path, "y").load(tmp_path, 0)


def test_columns_without_a_name_are_no_columns_of_one_name(tmp_path):
    path = written(tmp_path, "x,y,,\n1,a,3,4\n2,b,5,6\n")
    assert Table(path, "y", features=("x",)).load(tmp_path, 0).split("test").n_examples == 2


def test_parquet_that_holds_bytes_or_a_name_twice_is_refused_in_one_line(tmp_path):
    for name, values, said in (
        ("z", pa.array([b"\xff", b"b"]), "z has the type binary, expected numbers or texts"),
        ("x", pa.array([1, 2]), "has the column 'x' twice, expected once"),
        (
            "z",
            pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"b"]).buffers()),
            "cannot be read as parquet: .*UTF8",
        ),
    ):
        pq.write_table(
            pa.table([pa.array([1, 2]), pa.array(["a", "b"]), values], ["x", "y", name]), tmp_path / "a.parquet"
        )
        with pytest.raises(InvalidInput, match=rf"a\.parquet:? {said}[^\n]*$"):
            Table(tmp_path / "a.parquet", "y").load(tmp_path, 0)


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    text = CSV.replace(",no,", ",10,").replace(",yes,", ",9,")
    assert loaded(written(tmp_path, text)).class_names == ("9", "10")


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("70", "old", "line 4: age is 'old', expected a number as in other rows"),
        ("70", "", "line 4: age is '', expected a number as in other rows: fill it in, remove the row, or leave"),
        ("70", "inf", "line 4: age is 'inf'"),
        ("Oslo,no", "Oslo,", "line 4: sick is '', expected a class: fill it in"),
        ("Paris,yes,test", "Paris,yes,exam", "line 5: part is 'exam', expected one of train, validation, test"),
        ("Ida", "Ann", "name 'Ann' stands in the lines 3 and 5"),
        ("Rome,no,train", "Rome,no,train,more", "more fields than its 6 columns"),
        ("town,", "sick,", "has the column 'sick' twice, expected once"),
        ("sick,", "ill,", "has no column 'sick'; it has name, age"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path, was, becomes, said):
    with pytest.raises(InvalidInput, match=rf"people\.csv.*{said}"):
        loaded(written(tmp_path, CSV.replace(was, becomes)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attributes": ("city",)}, "has no column 'city'"),
        ({"id": None, "max_categories": 3}, "name has 4 different texts, expected at most dataset.max_categories=3"),
        ({"train_share": 0.5}, "dataset.split=part says the splits: leave out train_share"),
        ({"attributes": ("town", "age", "job")}, "no column left for features"),
        ({"attributes": ("town", "town")}, "dataset.attributes names 'town' twice"),
        ({"features": ("age", "age")}, "dataset.features names 'age' twice"),
        ({"features": ("age", "sick")}, "dataset.features names 'sick', which is dataset.label"),
        ({"features": ("age", "name")}, "dataset.features names 'name', which is dataset.id"),
        ({"features": ("age", "part")}, "dataset.features names 'part', which is dataset.split"),
        ({"split": None, "train_share": 0.6, "validation_share": 0.5}, "of 4 examples leave none for test"),
    ],
)
def test_settings_that_do_not_fit_the_table_are_refused(tmp_path, settings, said):
    with pytest.raises(InvalidInput, match=said):
        loaded(written(tmp_path), **settings)


@pytest.mark.parametrize(("becomes", "said"), [("no", "sick is 'no' everywhere"), ("0.5", "sick is '0.5', expected a")])
def test_a_label_that_is_no_class_is_refused(tmp_path, becomes, said):
    text = CSV.replace(",yes,", f",{becomes},").replace(",no,", ",1," if becomes == "0.5" else ",no,")
    with pytest.raises(InvalidInput, match=said):
        loaded(written(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "cannot be read as a table"),
        ("a.csv", b"name,age\n\xff,1\n", "cannot be read as a table"),
        ("a.csv", b"name,age\n", "has no rows"),
        ("a.parquet", b"", "cannot be read as parquet"),
        ("a.parquet", b"PAR1 and no more PAR1", "cannot be read as parquet"),
        ("a.xlsx", b"", "should end in .csv or .parquet"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, said):
    with pytest.raises(InvalidInput, match=said):
        loaded(written(tmp_path, content, name))


def test_a_file_that_is_not_there_is_absent(tmp_path):
    with pytest.raises(Absent, match=r"none\.csv is missing: give the path"):
        loaded(tmp_path / "none.csv")
