"""Tables that are put together from parts."""

import os

import pandas as pd
import pyarrow as pa
import pytest

from experiments.files import write_joined, write_parquet


@pytest.fixture
def joined(tmp_path):
    """The tables written one by one, then put together."""

    def write(*frames):
        paths = [tmp_path / f"{number}.part" for number in range(len(frames))]
        for path, frame in zip(paths, frames, strict=True):
            write_parquet(path, frame)
        write_joined(tmp_path / "joined.parquet", paths)
        return pd.read_parquet(tmp_path / "joined.parquet")

    return write


def examples(ids, **columns):
    return pd.DataFrame({"id": list(ids), "loss": pd.Series([0.5] * len(ids), dtype="float32"), **columns})


def test_tables_come_below_each_other(joined):
    frames = [examples("ab"), examples("c"), examples("de")]
    pd.testing.assert_frame_equal(joined(*frames), pd.concat(frames, ignore_index=True), check_exact=True)


def test_it_does_not_matter_how_the_rows_were_cut(joined):
    whole = examples("abcd", label=["x", "y", "x", "y"], path=None, correct=[True, False, True, True])
    pd.testing.assert_frame_equal(joined(whole[:1], whole[1:3], whole[3:]), joined(whole), check_exact=True)


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [0, 0, 1]])
def test_a_column_may_be_empty_in_some_of_them(joined, order):
    """Of some problems it is known where the examples lie."""
    frames = [examples("ab", path=None), examples("cd", path=["c.jpg", "d.jpg"])]
    found = joined(*(frames[number] for number in order))
    known = found[found["id"].isin(["c", "d"])]
    assert known["path"].tolist() == ["c.jpg", "d.jpg"]
    assert found["path"].isna().sum() == len(found) - 2
    whole = pd.concat([frames[number] for number in order], ignore_index=True)
    assert found["path"].dtype == joined(whole)["path"].dtype


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_column_that_one_of_them_lacks_is_empty_there(joined, order):
    frames = [examples("ab"), examples("cd", attribute_age=["old", "young"])]
    found = joined(*(frames[number] for number in order)).set_index("id")["attribute_age"]
    assert found[["c", "d"]].tolist() == ["old", "young"]
    assert found[["a", "b"]].isna().all()


def test_columns_may_be_in_another_order(joined):
    found = joined(examples("a", label="x"), examples("b", label="y")[["label", "loss", "id"]])
    assert found[["id", "label"]].to_numpy().tolist() == [["a", "x"], ["b", "y"]]


def test_numbers_of_two_kinds_become_the_wider_one(joined):
    found = joined(examples("a", k=[1]), examples("b", k=[1.5]))
    assert found["k"].tolist() == [1.0, 1.5]


def test_a_part_that_is_cut_off_leaves_what_there_was(tmp_path, joined):
    before = joined(examples("ab"), examples("c"))
    os.truncate(tmp_path / "1.part", 20)
    with pytest.raises(pa.ArrowInvalid):
        write_joined(tmp_path / "joined.parquet", [tmp_path / "0.part", tmp_path / "1.part"])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "joined.parquet"), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.part", "1.part", "joined.parquet"]
