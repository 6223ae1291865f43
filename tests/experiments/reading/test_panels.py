import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from experiments.reading.panels import read_panel, read_yaml
from experiments.reading.sources import Absent
from methods.errors import InvalidInput

ORDER = ["b", "a", "c"]
NUMPY = "!!python/name:meerkat.columns.numpy_column.NumpyArrayColumn ''"


class Plant:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def blocks(tmp_path):
    """A panel as meerkat 0.2.5 writes it: two columns share a block, one has several columns of a block."""
    folder = tmp_path / "panel.mk"
    for number in range(3):
        (folder / f"mgr/blocks/{number}").mkdir(parents=True)
    pd.DataFrame({"id": ORDER, "word": ["x", "y", "z"]}).to_feather(folder / "mgr/blocks/0/data.feather")
    np.save(folder / "mgr/blocks/1/data.npy", np.array([[7, 0, 1], [8, 2, 3], [9, 4, 5]]))
    torch.save(torch.arange(12, dtype=torch.float64).reshape(3, 4), folder / "mgr/blocks/2/data.pt")
    (folder / "meta.yaml").write_text("dtype: !!python/name:meerkat.datapanel.DataPanel ''\nlen: 3\n")
    places = {
        "id": (0, "id"),
        "word": (0, "word"),
        "target": (1, 0),
        "wide": (1, {"start": 1, "stop": 3, "step": 1}),
        "act": (2, {"start": 0, "stop": 4, "step": 2}),
    }
    write_manager(folder, places)
    return folder


def write_manager(folder, places, order=None):
    columns = {
        name: {"block": {"block_dir": f"blocks/{block}", "block_index": index, "mmap": False}, "len": 3}
        for name, (block, index) in places.items()
    }
    meta = yaml.safe_dump({"_column_order": order or list(places), "columns": columns})
    (folder / "mgr/meta.yaml").write_text(f"{meta}dtype: !!python/name:meerkat.block.manager.BlockManager ''\n")


@pytest.fixture
def older(tmp_path):
    """A panel from before there were blocks: a folder for each column."""
    folder = tmp_path / "older.mk"
    for name in ("id", "target", "act"):
        (folder / "columns" / name).mkdir(parents=True)
        (folder / "columns" / name / "meta.yaml").write_text(f"dtype: {NUMPY}\nlen: 3\n")
    np.save(folder / "columns/id/data.npy", np.array(ORDER))
    pd.DataFrame({"0": [7, 8, 9]}).to_feather(folder / "columns/target/data.feather")
    torch.save(torch.ones(3, 2), folder / "columns/act/data.pt")
    (folder / "meta.yaml").write_text(
        f"column_dtypes:\n  id: &numpy {NUMPY}\n  target: *numpy\n  act: *numpy\nlen: 3\n"
    )
    return folder


def test_each_column_is_its_part_of_a_block(blocks):
    panel = read_panel(blocks)
    assert list(panel.columns) == ["id", "word", "target", "wide", "act"]
    assert panel.ids.tolist() == ORDER
    assert panel.columns["word"].tolist() == ["x", "y", "z"]
    assert panel.columns["target"].tolist() == [7, 8, 9]
    assert panel.columns["wide"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert panel.columns["act"].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert panel.columns["act"].dtype == np.float64


def test_the_older_layout_is_read_as_well(older):
    panel = read_panel(older)
    assert list(panel.columns) == ["id", "target", "act"]
    assert panel.ids.tolist() == ORDER
    assert panel.columns["target"].tolist() == [7, 8, 9]
    assert panel.columns["act"].shape == (3, 2)


def test_a_column_without_a_block_has_its_own_folder(blocks):
    meta = yaml.safe_load((blocks / "mgr/meta.yaml").read_text().rpartition("dtype")[0])
    del meta["columns"]["target"]["block"]
    (blocks / "mgr/meta.yaml").write_text(yaml.safe_dump(meta))
    (blocks / "mgr/columns/target").mkdir(parents=True)
    np.save(blocks / "mgr/columns/target/data.npy", np.array([1, 2, 3]))
    assert read_panel(blocks).columns["target"].tolist() == [1, 2, 3]


def test_ids_become_strings(older):
    np.save(older / "columns/id/data.npy", np.array([30, 4, 5]))
    assert read_panel(older).ids.tolist() == ["30", "4", "5"]


def test_columns_that_are_not_asked_for_are_not_opened(older):
    (older / "columns/act/data.pt").rename(older / "columns/act/data.dill")
    assert list(read_panel(older, ["id", "target"]).columns) == ["id", "target"]


def test_nothing_in_a_panel_is_run(blocks, older, tmp_path):
    planted = tmp_path / "planted"
    code = pickle.dumps(Plant(planted))
    for state in (blocks / "state.dill", older / "state.dill", older / "columns/id/state.dill"):
        state.write_bytes(code)
    read_panel(blocks), read_panel(older)
    torch.save({"x": Plant(planted)}, blocks / "mgr/blocks/2/data.pt")
    with pytest.raises(InvalidInput, match=r"2/data\.pt .*could run any program.*save a tensor"):
        read_panel(blocks)
    np.save(blocks / "mgr/blocks/1/data.npy", np.array([[Plant(planted)]], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"1/data\.npy .*could run any program.*save numbers"):
        read_panel(blocks)
    for data in (b"no array", code):
        (blocks / "mgr/blocks/1/data.npy").write_bytes(data)
        with pytest.raises(InvalidInput, match=r"1/data\.npy"):
            read_panel(blocks)
    (older / "columns/act/data.pt").write_bytes(code)
    with pytest.raises(InvalidInput, match=r"act/data\.pt"):
        read_panel(older)
    assert not planted.exists()
    pickle.loads(code)  # the plant works
    assert planted.exists()


@pytest.mark.parametrize("name", ["data.pd", "data.dill"])
def test_a_pickled_column_is_refused_by_name(older, tmp_path, name):
    (older / "columns/id/data.npy").unlink()
    (older / "columns/id" / name).write_bytes(pickle.dumps(Plant(tmp_path / "planted")))
    with pytest.raises(InvalidInput, match=rf"id/{name} holds pickled Python objects, which are not read"):
        read_panel(older)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{}]",
        "!!python/object/new:os.mkdir [{}]",
        "!!python/module:os ''",
        "!Other {{}}",
    ],
)
def test_other_tags_are_refused_with_their_line(tmp_path, tag):
    planted = tmp_path / "planted"
    path = tmp_path / "meta.yaml"
    path.write_text(f"len: 3\nrows: {tag.format(planted)}\n")
    with pytest.raises(InvalidInput, match=rf"meta\.yaml line 2 has the tag '.*{tag.strip('!').split()[0]}"):
        read_yaml(path)
    assert not planted.exists()


def test_classes_are_the_strings_of_their_names(tmp_path):
    path = tmp_path / "index.yaml"
    path.write_text("- !ArtifactContainer {a: !Artifact {class: &x !!python/name:os.mkdir ''}, b: *x}\n")
    assert read_yaml(path) == [{"a": {"class": "os.mkdir"}, "b": "os.mkdir"}]


@pytest.mark.parametrize("text", ["a: [1", "\x00", "[" * 20_000, "&a !Artifact {b: *a}", "a: 2020-99-99"])
def test_what_is_no_yaml_is_said_in_one_line(tmp_path, text):
    path = tmp_path / "meta.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"meta\.yaml cannot be read as YAML: .") as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("away", ["../outside", "blocks/../../outside", "/outside", "", 5, "a\0b", "x" * 5000])
def test_a_block_elsewhere_is_refused(blocks, away):
    text = (blocks / "mgr/meta.yaml").read_text()
    (blocks / "mgr/meta.yaml").write_text(text.replace("blocks/2", yaml.safe_dump(away, default_style='"').strip()))
    with pytest.raises(InvalidInput, match=r"mgr/meta\.yaml: block_dir of 'act' is "):
        read_panel(blocks)


def test_a_column_elsewhere_is_refused(older):
    text = (older / "meta.yaml").read_text()
    (older / "meta.yaml").write_text(text.replace("  act:", "  ../../act:"))
    with pytest.raises(InvalidInput, match=r"is 'columns/\.\./\.\./act', expected a path that stays below"):
        read_panel(older)


@pytest.mark.parametrize("link", ["mgr/blocks/2", "mgr/blocks/2/data.pt", "mgr", "meta.yaml", "mgr/meta.yaml"])
def test_a_link_out_of_the_panel_is_refused(blocks, link):
    (blocks / link).rename(blocks.parent / "outside")
    (blocks / link).symlink_to(blocks.parent / "outside")
    with pytest.raises(InvalidInput, match="a link out of"):
        read_panel(blocks)


def test_a_link_within_the_panel_is_none_of_our_business(blocks):
    (blocks / "mgr/blocks/2").rename(blocks / "mgr/blocks/two")
    (blocks / "mgr/blocks/2").symlink_to("two")
    assert read_panel(blocks).columns["act"].shape == (3, 2)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("mgr/blocks/2/data.pt", r"blocks/2 has none of data\.npy, .* for the column 'act'"),
        ("mgr/meta.yaml", r"mgr/meta\.yaml is missing: get this panel again"),
        ("meta.yaml", r"meta\.yaml is missing: get this panel again"),
    ],
)
def test_a_missing_file_is_named(blocks, gone, said):
    (blocks / gone).unlink()
    with pytest.raises(Absent, match=said):
        read_panel(blocks)


def test_a_missing_block_is_named(blocks):
    (blocks / "mgr/blocks/2").rename(blocks / "mgr/blocks/other")
    with pytest.raises(Absent, match=r"blocks/2 is missing, where .*mgr/meta\.yaml has the column 'act'"):
        read_panel(blocks)


def test_a_missing_panel_is_named(tmp_path):
    with pytest.raises(Absent, match=r"clip\.mk is missing: download it as clip\.mk\.tar\.gz and unpack"):
        read_panel(tmp_path / "clip.mk")


def test_a_missing_column_is_named_with_those_there_are(blocks):
    with pytest.raises(InvalidInput, match=r"panel\.mk has no column 'probs', it has id, word, target"):
        read_panel(blocks, ["id", "probs"])


def test_a_column_in_the_order_only_is_named(blocks):
    write_manager(blocks, {"id": (0, "id")}, order=["id", "probs"])
    with pytest.raises(InvalidInput, match=r"mgr/meta\.yaml: columns has no 'probs', it has id"):
        read_panel(blocks)


def test_a_block_of_another_length_is_named(blocks):
    torch.save(torch.ones(4, 4), blocks / "mgr/blocks/2/data.pt")
    with pytest.raises(InvalidInput, match=r"2/data\.pt has 4 rows, the panel .*panel\.mk has 3"):
        read_panel(blocks)


@pytest.mark.parametrize(
    ("block", "index"),
    [
        (1, 3),
        (1, -1),
        (1, True),
        (1, "target"),
        (1, {"start": 0, "stop": 4, "step": 1}),
        (1, {"start": 2, "stop": 2, "step": 1}),
        (1, {"start": 0, "stop": 2, "step": 0}),
        (1, {"start": 0, "stop": 2}),
        (1, {"start": "0", "stop": 2, "step": 1}),
        (0, "nothing"),
        (0, 0),
    ],
)
def test_an_index_outside_the_block_is_refused(blocks, block, index):
    write_manager(blocks, {"target": (block, index)})
    with pytest.raises(InvalidInput, match=r"block_index of 'target' is .*, expected (a column|columns) of"):
        read_panel(blocks)


def test_an_open_range_is_the_whole_block(blocks):
    write_manager(blocks, {"wide": (1, {"start": None, "stop": None, "step": None})})
    assert read_panel(blocks).columns["wide"].shape == (3, 3)


@pytest.mark.parametrize("length", ["0", "-1", "three", "2.0", "true"])
def test_a_length_that_is_none_is_refused(blocks, length):
    (blocks / "meta.yaml").write_text(f"len: {length}\n")
    with pytest.raises(InvalidInput, match=r"meta\.yaml: len is .*, expected a number of rows"):
        read_panel(blocks)


@pytest.mark.parametrize("file", ["meta.yaml", "mgr/meta.yaml"])
@pytest.mark.parametrize("text", ["- 1\n", "other: 1\n", "", "columns: 5\nlen: x\n"])
def test_other_metadata_are_refused(blocks, file, text):
    (blocks / file).write_text(text)
    with pytest.raises(InvalidInput, match=r"meta\.yaml"):
        read_panel(blocks)


def test_an_id_that_is_there_twice_is_named(blocks):
    pd.DataFrame({"id": ["a", "b", "a"], "word": ORDER}).to_feather(blocks / "mgr/blocks/0/data.feather")
    with pytest.raises(InvalidInput, match=r"panel\.mk: id 'a' stands in the rows 0 and 2, expected once"):
        read_panel(blocks)


@pytest.mark.parametrize("ids", [["a", None, "b"], ["a", " ", "b"]])
def test_a_missing_id_is_named_by_its_row(blocks, ids):
    pd.DataFrame({"id": ids, "word": ORDER}).to_feather(blocks / "mgr/blocks/0/data.feather")
    with pytest.raises(InvalidInput, match=r"panel\.mk: id of row 1 is .*, expected an id"):
        read_panel(blocks)


@pytest.mark.parametrize("file", ["0/data.feather", "1/data.npy", "2/data.pt"])
@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_file_that_is_cut_short_is_named(blocks, file, keep):
    path = blocks / "mgr/blocks" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidInput, match=rf"{file} "):
        read_panel(blocks)


@pytest.mark.parametrize("content", [{"a": torch.ones(3)}, torch.tensor(1.0), torch.eye(3).to_sparse()])
def test_a_tensor_file_holds_one_dense_tensor(blocks, content):
    torch.save(content, blocks / "mgr/blocks/2/data.pt")
    with pytest.raises(InvalidInput, match=r"2/data\.pt holds .*, expected"):
        read_panel(blocks)


def test_a_block_has_rows_and_columns(blocks):
    np.save(blocks / "mgr/blocks/1/data.npy", np.arange(3))
    with pytest.raises(InvalidInput, match=r"1/data\.npy has shape \(3,\), expected rows and columns"):
        read_panel(blocks)
