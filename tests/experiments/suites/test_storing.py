"""What is written in dcbench's layout is what our reader of it reads."""

import numpy as np
import pytest
import torch

from experiments.reading.dcbench import INDEX, ProblemEntry, read_index, read_problem
from experiments.reading.panels import read_panel
from experiments.suites.storing import prediction_columns, write_index, write_panel

FOLDER = "slice_discovery/problem/artifacts/p"
# what YAML would take for something else, or for the end of a text
ODD = (
    "yes",
    "null",
    "1.0",
    "1e3",
    "~",
    "",
    "- a",
    "a: b",
    "#no",
    "'\"",
    "&a",
    "*a",
    "!b",
    "a\nb",
    "née 猫",
    "%",
    "0x1f",
)


def entry(**changed):
    names = ("val_predictions", "test_predictions", "train_predictions", "test_slices", "activations")
    values = {
        "container_id": "p",
        "kind": "rare",
        "target_name": "cat",
        "dataset": "pets",
        "alpha": 0.01,
        "slice_names": ("cat age=old",),
        "n_pred_slices": 5,
        "artifacts": {name: f"{FOLDER}/{name}" for name in names},
        "class_names": ("cat", "dog"),
    }
    return ProblemEntry(**{**values, **changed})


def probabilities(n, seed=0):
    logits = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(dim=1).numpy()


def write_problem(root):
    """Splits of 5, 4 and 6 examples, and one true slice."""
    ids = {"val": ["a", "b", "c", "d", "e"], "test": ["f", "g", "h", "i"], "train": ["k", "l", "m", "n", "o", "p"]}
    for name, of_split in ids.items():
        paths = [f"pets/{one}.jpg" for one in of_split] if name != "val" else None
        columns = prediction_columns(of_split, np.arange(len(of_split)) % 3, probabilities(len(of_split)), paths)
        write_panel(root / FOLDER / f"{name}_predictions.mk", columns)
    everything = np.array([one for of_split in ids.values() for one in of_split], dtype=object)
    vectors = np.arange(30, dtype=np.float32).reshape(15, 2)
    write_panel(root / FOLDER / "activations.mk", {"id": everything, "act": vectors})
    slices = np.array([[1], [0], [0], [1]], dtype=np.uint8)
    write_panel(root / FOLDER / "test_slices.mk", {"id": np.array(ids["test"], dtype=object), "slices": slices})
    write_index(root / INDEX, [entry(class_names=("cat", "dog", "hen"))])


def test_an_index_is_read_as_it_was_written(tmp_path):
    entries = [entry(), entry(container_id="q", kind="correlation", alpha=0.9, slice_names=("one", "other"))]
    write_index(tmp_path / INDEX, entries)
    assert read_index(tmp_path / INDEX) == entries


@pytest.mark.parametrize("odd", ODD)
def test_any_name_survives_the_index(tmp_path, odd):
    odd_one = entry(target_name=odd, dataset=odd, slice_names=(odd, f"not {odd}"), class_names=(odd, f"{odd}."))
    write_index(tmp_path / INDEX, [odd_one])
    assert read_index(tmp_path / INDEX) == [odd_one]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1e-7, 0.1 + 0.2])
def test_any_strength_survives_the_index(tmp_path, alpha):
    write_index(tmp_path / INDEX, [entry(alpha=alpha)])
    assert read_index(tmp_path / INDEX)[0].alpha == alpha


def test_an_entry_without_class_names_survives_the_index(tmp_path):
    """As those of dcbench are."""
    write_index(tmp_path / INDEX, [entry(class_names=None)])
    assert read_index(tmp_path / INDEX) == [entry(class_names=None)]


def test_an_index_has_dcbench_s_tags(tmp_path):
    write_index(tmp_path / INDEX, [entry()])
    text = (tmp_path / INDEX).read_text()
    assert text.startswith("- !ArtifactContainer\n")
    assert text.count("!Artifact\n") == 5
    assert "!!python/name:dcbench.tasks.slice_discovery.problem.SliceDiscoveryProblem ''" in text


def test_an_index_is_replaced_as_a_whole(tmp_path):
    write_index(tmp_path / INDEX, [entry(), entry(container_id="q")])
    write_index(tmp_path / INDEX, [entry(container_id="q")])
    assert [one.container_id for one in read_index(tmp_path / INDEX)] == ["q"]
    assert [path.name for path in (tmp_path / INDEX).parent.iterdir()] == ["problems.yaml"]


def test_a_problem_is_read_as_it_was_written(tmp_path):
    write_problem(tmp_path)
    content = read_problem(tmp_path, read_index(tmp_path / INDEX)[0])
    assert content.validation.ids == ("a", "b", "c", "d", "e")
    assert content.train.ids == ("k", "l", "m", "n", "o", "p")
    assert content.test.labels.tolist() == [0, 1, 2, 0]
    assert content.true_slices.tolist() == [[True], [False], [False], [True]]
    assert content.test.stored.embeddings.tolist() == [[10, 11], [12, 13], [14, 15], [16, 17]]
    assert content.test.paths == ("pets/f.jpg", "pets/g.jpg", "pets/h.jpg", "pets/i.jpg")
    assert content.validation.paths is None
    expected = torch.from_numpy(probabilities(6)).log().float()
    torch.testing.assert_close(content.train.stored.logits, expected)
    assert content.notes == ()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2)])
def test_columns_keep_their_values_and_types(tmp_path, dtype, shape):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    write_panel(tmp_path / "x.mk", {"id": np.array(["a", "b", "c"], dtype=object), "values": values})
    found = read_panel(tmp_path / "x.mk").columns["values"]
    assert found.dtype == values.dtype
    assert found.tolist() == values.tolist()


@pytest.mark.parametrize("make", [list, np.array, lambda ids: np.array(ids, dtype=object)], ids=["list", "U", "O"])
def test_ids_are_texts_however_they_look(tmp_path, make):
    ids = ["0001", "1e3", "née 猫", "a/b.jpg", "nan", " x"]
    write_panel(tmp_path / "x.mk", prediction_columns(make(ids), np.zeros(6, dtype=np.int64), probabilities(6), None))
    panel = read_panel(tmp_path / "x.mk")
    assert panel.columns["id"].tolist() == ids
    assert list(panel.columns) == ["id", "target", "probs"]


def test_columns_are_there_in_their_order(tmp_path):
    columns = {"id": np.array(["a"], dtype=object), "b": np.zeros(1), "a": np.zeros(1), "path": np.array(["p"])}
    write_panel(tmp_path / "x.mk", columns)
    assert list(read_panel(tmp_path / "x.mk").columns) == ["id", "b", "a", "path"]


def test_no_panel_has_a_pickle(tmp_path):
    write_problem(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".yaml", ".npy", ".feather"}
    assert all(np.load(path, allow_pickle=False).ndim == 2 for path in files if path.suffix == ".npy")
