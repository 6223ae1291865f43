import json
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from experiments.reading.dcbench import (
    INDEX,
    artifacts_of,
    chosen_entries,
    read_index,
    read_outcomes,
    read_problem,
)
from experiments.reading.panels import read_panel
from experiments.reading.sources import Absent
from methods.contract import ModelOutputs
from methods.errors import MOST_NAMES, InvalidInput, InvalidSetting

N_VAL, N_TEST = 30, 40
ATTRIBUTES = {
    "alpha": 0.6,
    "dataset": "celeba",
    "n_pred_slices": 5,
    "slice_category": "correlation",
    "slice_names": ["smiling=0_male=1", "smiling=1_male=0"],
    "target_name": "smiling",
}
FOLDER = "slice_discovery/problem/artifacts/p_1"
NAMES = ("val_predictions", "test_predictions", "test_slices", "activations", "clip")


class Plant:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def index_text(attributes=ATTRIBUTES, container_id="p_1", number=1):
    """A problem in the index, as dcbench writes it: the class of the first artifact is an anchor for the others."""
    panel = f"&id{number} !!python/name:dcbench.common.artifact.DataPanelArtifact ''"
    classes = [panel, *[f"*id{number}"] * (len(NAMES) - 1)]
    artifacts = "".join(
        f"    {name}: !Artifact\n      artifact_id: {FOLDER}/{name}\n      class: {kind}\n"
        for name, kind in zip(NAMES, classes, strict=True)
    )
    said = "".join(f"    {line}\n" for line in yaml.safe_dump(attributes).splitlines())
    return (
        f"- !ArtifactContainer\n  artifacts:\n{artifacts}  attributes:\n{said}"
        "  class: !!python/name:dcbench.tasks.slice_discovery.problem.SliceDiscoveryProblem ''\n"
        f"  container_id: {container_id}\n"
    )


def made_columns():
    """The panels' columns, in different orders of rows."""
    generator = np.random.default_rng(0)
    ids = {"val": [f"v{i:02d}" for i in range(N_VAL)], "test": [f"t{i:02d}" for i in range(N_TEST)]}
    everything = generator.permutation(ids["val"] + ids["test"])
    columns = {
        "activations": {"id": everything, "act": generator.normal(size=(70, 4)).astype(np.float32)},
        "clip": {"id": everything[::-1], "emb": generator.normal(size=(70, 3))},
    }
    for split, names in ids.items():
        class_1 = generator.uniform(size=len(names))
        columns[f"{split}_predictions"] = {
            "id": np.array(names[::-1]),
            "target": generator.integers(2, size=len(names)),
            "probs": np.stack([1 - class_1, class_1], axis=1).astype(np.float32),
        }
    slices = np.array([[i % 4 == 0, i % 5 == 0] for i in range(N_TEST)])
    order = generator.permutation(N_TEST)
    columns["test_slices"] = {"id": np.array(ids["test"])[order], "slices": slices[order].astype(np.float64)}
    return columns


def write_panel(folder, columns, older):
    """A panel of these columns: strings in feather, `probs` and embeddings as tensors, the others in npy."""
    shutil.rmtree(folder, ignore_errors=True)
    places = {}
    for number, (name, values) in enumerate(columns.items()):
        place = folder / (f"columns/{name}" if older else f"mgr/blocks/{number}")
        place.mkdir(parents=True)
        wide = values.ndim > 1
        if values.dtype.kind in "UO":
            pd.DataFrame({name: values.tolist()}).to_feather(place / "data.feather")
        elif name in ("probs", "act", "emb"):
            torch.save(torch.tensor(values if wide or older else values[:, None]), place / "data.pt")
        else:
            np.save(place / "data.npy", values if wide or older else values[:, None])
        columns_of = {"start": 0, "stop": values.shape[-1], "step": 1} if wide else 0
        index = name if values.dtype.kind in "UO" else columns_of
        places[name] = {"block": {"block_dir": f"blocks/{number}", "block_index": index, "mmap": False}}
    dtypes = "".join(f"  {name}: !!python/name:meerkat.columns.Any ''\n" for name in columns)
    n_rows = len(next(iter(columns.values())))
    (folder / "meta.yaml").write_text(f"column_dtypes:\n{dtypes}len: {n_rows}\n")
    if not older:
        (folder / "mgr/meta.yaml").write_text(yaml.safe_dump({"_column_order": list(columns), "columns": places}))


@pytest.fixture(params=["blocks", "older"])
def stored(request, tmp_path):
    """Write the problem below a root, with other columns where a test gives them; gives the root and its entry."""

    def write(**changed):
        columns = made_columns()
        for name, values in changed.items():
            columns[name] = columns.get(name, {}) | values
        for name, values in columns.items():
            write_panel(tmp_path / FOLDER / f"{name}.mk", values, older=request.param == "older")
        index = tmp_path / INDEX
        index.write_text(index_text())
        return tmp_path, read_index(index)[0]

    return write


@pytest.fixture
def index(tmp_path):
    def write(text):
        path = tmp_path / "problems.yaml"
        path.write_text(text)
        return path

    return write


def test_the_index_says_what_each_problem_is(index):
    rare = {**ATTRIBUTES, "slice_category": "rare", "slice_names": ["hay.n.01"], "alpha": 1}
    first, second = read_index(index(index_text() + index_text(rare, "p_2", 2)))
    assert (first.container_id, first.kind, first.target_name, first.dataset) == (
        "p_1",
        "correlation",
        "smiling",
        "celeba",
    )
    assert (first.alpha, first.n_pred_slices) == (0.6, 5)
    assert first.slice_names == ("smiling=0_male=1", "smiling=1_male=0")
    assert first.artifacts == second.artifacts == {name: f"{FOLDER}/{name}" for name in NAMES}
    assert (second.container_id, second.kind, second.slice_names, second.alpha) == ("p_2", "rare", ("hay.n.01",), 1.0)


def test_panels_are_joined_on_their_ids(stored):
    root, entry = stored()
    columns = made_columns()
    problem = read_problem(root, entry)
    assert problem.validation.ids == tuple(f"v{i:02d}" for i in range(N_VAL))
    assert problem.test.ids == tuple(f"t{i:02d}" for i in range(N_TEST))
    assert problem.notes == ()
    assert problem.test.labels.tolist() == columns["test_predictions"]["target"][::-1].tolist()  # written backwards
    probabilities = torch.tensor(columns["test_predictions"]["probs"][::-1].copy())
    assert torch.equal(problem.test.stored.logits, probabilities.log())
    rows = {one: row for row, one in enumerate(columns["activations"]["id"])}
    expected = columns["activations"]["act"][[rows[one] for one in problem.validation.ids]]
    assert torch.equal(problem.validation.stored.embeddings, torch.tensor(expected))
    assert problem.true_slices.dtype == torch.bool
    assert problem.true_slices.tolist() == [[i % 4 == 0, i % 5 == 0] for i in range(N_TEST)]


def test_either_embedding_may_be_asked_for(stored):
    root, entry = stored()
    vectors = made_columns()["clip"]
    embeddings = read_problem(root, entry, "clip").test.stored.embeddings
    assert embeddings.dtype == torch.float32
    row = vectors["id"].tolist().index("t07")
    assert torch.equal(embeddings[7], torch.tensor(vectors["emb"][row], dtype=torch.float32))
    with pytest.raises(InvalidInput, match="no embedding of a problem is called 'clop'; the nearest is clip"):
        read_problem(root, entry, "clop")


def test_a_probability_of_zero_has_a_finite_logit(stored):
    probs = np.tile([1.0, 0.0], (N_TEST, 1))
    logits = read_problem(*stored(test_predictions={"probs": probs})).test.stored.logits
    assert logits.dtype == torch.float32
    assert logits[0].tolist() == pytest.approx([0, -87.3365], abs=1e-4)


def test_what_is_read_is_what_methods_take(stored):
    test = read_problem(*stored()).test
    outputs = ModelOutputs.from_arrays(
        test.ids, embeddings=test.stored.embeddings, logits=test.stored.logits, labels=test.labels
    )
    assert outputs.example_ids == test.ids


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_])
def test_slices_may_be_of_any_type(stored, dtype):
    slices = made_columns()["test_slices"]["slices"].astype(dtype)
    assert read_problem(*stored(test_slices={"slices": slices})).true_slices.sum(dim=0).tolist() == [10, 8]


def test_a_single_slice_may_be_a_plain_column(stored):
    root, entry = stored(test_slices={"slices": np.arange(N_TEST) % 2})
    problem = read_problem(root, replace(entry, slice_names=("hay.n.01",)))
    assert problem.true_slices.shape == (N_TEST, 1)


def renamed(name, n):
    """The ids of a panel, n of those of the test split called otherwise."""
    ids = made_columns()[name]["id"].astype("<U9")
    ids[[row for row, one in enumerate(ids) if one.startswith("t")][:n]] = [f"other{i}" for i in range(n)]
    return {"id": ids}


def test_few_ids_that_do_not_join_are_left_out_with_a_note(stored):
    problem = read_problem(*stored(activations=renamed("activations", 2)))
    assert len(problem.test.ids) == len(problem.test.stored) == len(problem.true_slices) == N_TEST - 2
    assert len(problem.test.labels) == N_TEST - 2
    (note,) = problem.notes
    assert note.startswith("2 of the 40 ids of ")
    assert "do not join and are left out (the first, 't" in note
    assert note.endswith("activations.mk)")


def test_the_rows_that_stay_keep_what_is_theirs(stored):
    whole = read_problem(*stored())
    part = read_problem(*stored(test_slices=renamed("test_slices", 1)))
    rows = [whole.test.ids.index(one) for one in part.test.ids]
    assert len(rows) == N_TEST - 1
    assert torch.equal(part.true_slices, whole.true_slices[rows])
    assert torch.equal(part.test.stored.logits, whole.test.stored.logits[rows])
    assert torch.equal(part.test.stored.embeddings, whole.test.stored.embeddings[rows])


@pytest.mark.parametrize("name", ["activations", "test_slices", "test_predictions"])
def test_many_ids_that_do_not_join_are_an_error(stored, name):
    with pytest.raises(InvalidInput, match=r"ids of .* do not join .*is not in .*\.mk; rows: .*expected at most 5%"):
        read_problem(*stored(**{name: renamed(name, 3)}))


def test_slices_of_another_length_are_an_error(stored):
    slices = made_columns()["test_slices"]
    fewer = {name: values[:20] for name, values in slices.items()}
    with pytest.raises(InvalidInput, match=r"20 of the 40 ids .*test_predictions\.mk 40, .*test_slices\.mk 20"):
        read_problem(*stored(test_slices=fewer))


def changed(name, column, row, value):
    """A column of a panel with another value in one row, and that row's id."""
    values = made_columns()[name][column].astype(np.float64)
    values[row] = value
    return {name: {column: values}}, made_columns()[name]["id"][row]


@pytest.mark.parametrize(
    ("name", "column", "value", "said"),
    [
        ("val_predictions", "probs", [np.nan, 1], r"is \[nan, 1\], expected finite numbers"),
        ("test_predictions", "probs", [np.inf, 1], r"is \[inf, 1\], expected finite numbers"),
        ("test_predictions", "probs", [-0.1, 1.1], r"is \[-0\.1, 1\.1\], expected none below 0"),
        ("test_predictions", "probs", [0.5, 0.502], r"is \[0\.5, 0\.502\], expected a sum of 1"),
        ("test_predictions", "target", 2, r"is 2\.0, expected a column of probs: 0 to 1"),
        ("val_predictions", "target", -1, "expected a column of probs"),
        ("val_predictions", "target", 0.5, "expected a column of probs"),
        ("val_predictions", "target", np.nan, "expected a column of probs"),
        ("test_slices", "slices", [0, 0.5], r"is \[0, 0\.5\], expected 0 or 1"),
        ("test_slices", "slices", [np.nan, 0], "expected 0 or 1"),
        ("activations", "act", np.nan, "expected finite float32 numbers"),
        ("activations", "act", 1e300, "expected finite float32 numbers"),
    ],
)
def test_a_bad_value_is_named_by_its_id(stored, name, column, value, said):
    columns, example_id = changed(name, column, 6, value)
    with pytest.raises(InvalidInput, match=rf"{name}\.mk: {column} of '{example_id}' \(row 6\) .*{said}") as error:
        read_problem(*stored(**columns))
    assert "\n" not in str(error.value)


def test_probabilities_may_be_off_by_what_rounding_does(stored):
    columns, _ = changed("test_predictions", "probs", 3, [0.5, 0.5005])
    assert len(read_problem(*stored(**columns)).test.ids) == N_TEST


@pytest.mark.parametrize(
    ("name", "column", "values", "said"),
    [
        ("test_predictions", "probs", np.ones((N_TEST, 1)), "probs has 1 column, expected one a class"),
        ("test_predictions", "probs", np.ones(N_TEST), r"probs has shape \(40,\)"),
        (
            "test_predictions",
            "probs",
            np.full((N_TEST, 4), 0.25),
            "so many classes: val_predictions 2, test_predictions 4",
        ),
        ("test_predictions", "target", np.array(["a"] * N_TEST), "target has shape .*expected a number a row"),
        ("test_slices", "slices", np.ones((N_TEST, 3)), "slices has 3 columns, the index names 2 slices"),
        ("activations", "act", np.ones(70), r"act has shape \(70,\)"),
        ("test_slices", "id", np.array(["a"] * N_TEST), "id 'a' stands in the rows 0 and 1"),
    ],
)
def test_a_column_of_another_form_is_refused(stored, name, column, values, said):
    with pytest.raises(InvalidInput, match=said):
        read_problem(*stored(**{name: {column: values}}))


def test_a_missing_panel_is_named(stored):
    root, entry = stored()
    shutil.rmtree(root / FOLDER / "clip.mk")
    assert read_problem(root, entry).test.ids
    with pytest.raises(Absent, match=r"clip\.mk is missing: download it"):
        read_problem(root, entry, "clip")


def test_an_artifact_that_the_index_lacks_is_named(stored):
    root, entry = stored()
    with pytest.raises(InvalidInput, match="p_1 has no artifact 'test_slices' in the index, it has clip"):
        read_problem(root, replace(entry, artifacts={"clip": "c", "activations": entry.artifacts["activations"]}))


@pytest.mark.parametrize("away", ["../elsewhere", "/elsewhere", "a/../../b"])
def test_an_artifact_elsewhere_is_refused(stored, away):
    root, entry = stored()
    with pytest.raises(InvalidInput, match=r"p_1: artifact_id of activations is .*, expected a path that stays below"):
        read_problem(root, replace(entry, artifacts={**entry.artifacts, "activations": away}))


def test_a_link_to_a_panel_elsewhere_is_refused(stored, tmp_path_factory):
    root, entry = stored()
    outside = tmp_path_factory.mktemp("outside") / "clip.mk"
    shutil.move(root / FOLDER / "clip.mk", outside)
    (root / FOLDER / "clip.mk").symlink_to(outside)
    with pytest.raises(InvalidInput, match=r"artifact_id of clip is .*, a link out of .*: put the file itself there"):
        read_problem(root, entry, "clip")


def test_nothing_in_a_problem_is_run(stored, tmp_path):
    root, entry = stored()
    planted = tmp_path / "planted"
    code = pickle.dumps(Plant(planted))
    for name in NAMES:
        (root / FOLDER / f"{name}.mk" / "state.dill").write_bytes(code)
    (root / FOLDER / "model.pt").write_bytes(code)
    read_problem(root, entry)
    tensor = next((root / FOLDER / "activations.mk").rglob("data.pt"))
    torch.save(Plant(planted), tensor)
    with pytest.raises(InvalidInput, match=r"activations\.mk.*data\.pt .*could run any program"):
        read_problem(root, entry)
    array = next((root / FOLDER / "test_slices.mk").rglob("data.npy"))
    np.save(array, np.array([Plant(planted)], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"test_slices\.mk.*data\.npy .*could run any program"):
        read_problem(root, entry, "clip")
    assert not planted.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir ['{}']", "!Other {{}}"])
def test_a_hostile_index_is_refused(index, tmp_path, tag):
    planted = tmp_path / "planted"
    with pytest.raises(InvalidInput, match=r"problems\.yaml line \d+ has the tag '.*, which is not read"):
        read_index(index(index_text() + f"- {tag.format(planted)}\n"))
    assert not planted.exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("slice_category", "rear", r"problem 1 \(p_1\): no kind of problem is called 'rear'; the nearest is rare"),
        ("n_pred_slices", 0, "n_pred_slices is 0, expected at least 1"),
        ("n_pred_slices", True, "n_pred_slices is True, expected int"),
        ("alpha", "much", "alpha is 'much', expected float or int"),
        ("alpha", float("nan"), "alpha is nan, expected a finite number"),
        ("slice_names", [], "expected different names"),
        ("slice_names", ["a", "a"], "expected different names"),
        ("slice_names", "a", "slice_names is 'a', expected list"),
        ("dataset", None, "dataset is None, expected str"),
    ],
)
def test_an_attribute_of_another_kind_is_named(index, key, value, said):
    with pytest.raises(InvalidInput, match=said):
        read_index(index(index_text({**ATTRIBUTES, key: value})))


@pytest.mark.parametrize("key", sorted(ATTRIBUTES))
def test_a_missing_attribute_is_named(index, key):
    attributes = {name: value for name, value in ATTRIBUTES.items() if name != key}
    with pytest.raises(InvalidInput, match=rf"problem 1 \(p_1\) has no '{key}', it has "):
        read_index(index(index_text(attributes)))


@pytest.mark.parametrize("key", ["container_id", "attributes", "artifacts", "artifact_id"])
def test_a_missing_key_is_named(index, key):
    with pytest.raises(InvalidInput, match=rf"problems\.yaml: problem 1.* has no '{key}', it has"):
        read_index(index(index_text().replace(f"{key}:", "other:")))


def test_a_value_that_aliases_blow_up_is_refused_in_short(index):
    layers = "".join(f"      - &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12))
    text = index_text().replace("    slice_names:\n", f"    slice_names:\n      - &l0 [a]\n{layers}")
    text = text.replace("    - smiling=0_male=1\n    - smiling=1_male=0\n", "")
    with pytest.raises(InvalidInput, match=r"slice_names is .*, expected different names") as error:
        read_index(index(text))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", ["", "[]", "a: 1", "- 1", "- [", "- !Artifact {}"])
def test_what_is_no_list_of_problems_is_refused(index, text):
    with pytest.raises(InvalidInput, match=r"problems\.yaml"):
        read_index(index(text))


def test_a_problem_that_is_there_twice_is_refused(index):
    with pytest.raises(InvalidInput, match="problems 1 and 2 both have the container_id 'p_1'"):
        read_index(index(index_text() + index_text(number=2)))


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(Absent, match=r"problems\.yaml is missing: download slice_discovery/problems\.yaml from"):
        read_index(tmp_path / "problems.yaml")


@pytest.fixture
def several(index):
    """An index of three problems: a correlation and two rare ones, the first two of the same data."""
    rare = {**ATTRIBUTES, "slice_category": "rare"}
    texts = (index_text(), index_text(rare, "p_2", 2), index_text({**rare, "dataset": "imagenet"}, "p_3", 3))
    return index("".join(texts))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ["p_1", "p_2", "p_3"]),
        ({"problem": None, "kind": None, "dataset": None}, ["p_1", "p_2", "p_3"]),
        ({"problem": ("p_3", "p_1")}, ["p_1", "p_3"]),
        ({"kind": "rare"}, ["p_2", "p_3"]),
        ({"kind": ("rare", "correlation"), "dataset": "celeba"}, ["p_1", "p_2"]),
        ({"problem": "p_2", "kind": "rare", "dataset": ("celeba", "imagenet")}, ["p_2"]),
    ],
)
def test_problems_are_chosen_by_id_kind_and_data_and_stay_in_order(several, chosen, expected):
    assert [entry.container_id for entry in chosen_entries(several, chosen)] == expected


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"problem": "p_4"}, r"problems\.yaml.* 'p_4'; the nearest are .*p_1"),
        ({"problem": ("p_2", "p_20")}, "'p_20'; the nearest"),
        ({"kind": "noisy_label"}, r"'noisy_label' \(all: correlation, rare\)"),
        ({"dataset": "imagnet"}, r"'imagnet'; the nearest is imagenet \(all: celeba, imagenet\)"),
    ],
)
def test_a_choice_that_nothing_meets_is_answered_with_what_there_is(several, chosen, says):
    with pytest.raises(InvalidSetting, match=says):
        chosen_entries(several, chosen)


def test_of_many_problems_only_the_nearest_are_named(index):
    """dcbench has 1,235: nobody reads a line with all of them."""
    path = index("".join(index_text(container_id=f"p_{i}", number=i) for i in range(1, MOST_NAMES + 2)))
    with pytest.raises(InvalidSetting, match=rf"'p_99'; the nearest are p_9, .*{MOST_NAMES + 1} in all") as error:
        chosen_entries(path, {"problem": "p_99"})
    assert len(str(error.value).replace(str(path), "")) < 150


@pytest.mark.parametrize("embedding", ["activations", "clip"])
def test_the_artifacts_of_a_problem_are_those_that_are_read(stored, embedding):
    root, entry = stored()
    artifacts = artifacts_of(entry, embedding)
    assert artifacts == {
        name: f"{FOLDER}/{name}" for name in NAMES if name not in {"activations", "clip"} - {embedding}
    }
    for folder in (root / FOLDER).glob("*.mk"):
        if folder.stem not in artifacts:
            shutil.rmtree(folder)
    read_problem(root, entry, embedding)
    model = replace(entry, artifacts={**entry.artifacts, "model": "m", "base_dataset": "b"})
    assert artifacts_of(model, embedding) == artifacts


def test_outcomes_are_those_of_the_test_predictions(stored):
    root, entry = stored()
    columns = made_columns()["test_predictions"]
    correct, true_slices = read_outcomes(root, entry)
    expected = (columns["probs"].argmax(axis=1) == columns["target"])[::-1]  # written backwards
    assert correct.tolist() == expected.tolist()
    assert (correct.dtype, true_slices.dtype) == (torch.bool, torch.bool)
    assert true_slices.tolist() == [[i % 4 == 0, i % 5 == 0] for i in range(N_TEST)]


def test_outcomes_need_no_embeddings(stored):
    root, entry = stored()
    whole = read_problem(root, entry)
    for name in ("activations", "clip", "val_predictions"):
        shutil.rmtree(root / FOLDER / f"{name}.mk")
    correct, true_slices = read_outcomes(root, entry)
    assert correct.tolist() == (whole.test.stored.logits.argmax(dim=1) == whole.test.labels).tolist()
    assert torch.equal(true_slices, whole.true_slices)


@pytest.mark.parametrize("name", ["test_slices", "test_predictions"])
def test_outcomes_of_few_rows_that_do_not_join_are_left_out(stored, name):
    correct, true_slices = read_outcomes(*stored(**{name: renamed(name, 1)}))
    assert len(correct) == len(true_slices) == N_TEST - 1


@pytest.mark.parametrize("name", ["test_slices", "test_predictions"])
def test_outcomes_of_many_rows_that_do_not_join_are_an_error(stored, name):
    with pytest.raises(InvalidInput, match=r"6 of the 43 ids .* do not join"):
        read_outcomes(*stored(**{name: renamed(name, 3)}))


def train_columns():
    """Predictions on a train split, written backwards, and activations with its rows."""
    class_1, ids = np.linspace(0.1, 0.9, 50), np.array([f"n{i:02d}" for i in range(50)])
    activations, act = made_columns()["activations"], np.arange(200, dtype=np.float32).reshape(50, 4)
    probs = np.stack([1 - class_1, class_1], axis=1)
    return {
        "activations": {
            "id": np.array([*activations["id"], *ids]),
            "act": np.concatenate([activations["act"], act]),
        },
        "train_predictions": {"id": ids[::-1], "target": np.arange(50)[::-1] % 2, "probs": probs[::-1].copy()},
    }


def with_train(stored, **changed):
    """The problem with a train split, as ours have it."""
    columns = train_columns()
    columns["train_predictions"] |= changed
    root, entry = stored(**columns)
    return root, replace(entry, artifacts={**entry.artifacts, "train_predictions": f"{FOLDER}/train_predictions"})


def test_ours_have_what_the_model_was_trained_on(stored):
    root, entry = with_train(stored)
    assert list(artifacts_of(entry)) == [
        "val_predictions",
        "test_predictions",
        "train_predictions",
        "test_slices",
        "activations",
    ]
    train = read_problem(root, entry).train
    assert train.ids == tuple(f"n{i:02d}" for i in range(50))
    assert train.labels.tolist() == [0, 1] * 25
    assert torch.equal(train.stored.embeddings, torch.arange(200.0).reshape(50, 4))
    assert train.stored.logits[0].tolist() == pytest.approx(np.log([0.9, 0.1]).tolist())


def test_dcbench_has_no_train_split(stored):
    assert read_problem(*stored()).train is None


def test_a_train_split_is_checked_as_the_others_are(stored):
    few = np.array([*(f"n{i:02d}" for i in range(2, 50)), "x0", "x1"])
    (note,) = read_problem(*with_train(stored, id=few)).notes
    assert note.startswith("2 of the 50 ids of ")
    assert "train_predictions.mk do not join and are left out" in note
    many = np.array([f"x{i:02d}" for i in range(50)])
    with pytest.raises(InvalidInput, match=r"50 of the 50 ids .*train_predictions\.mk do not join"):
        read_problem(*with_train(stored, id=many))
    with pytest.raises(InvalidInput, match=r"so many classes: val_predictions 2, test_predictions 2, train_pred.* 3"):
        read_problem(*with_train(stored, probs=np.full((50, 3), 1 / 3)))


def test_paths_are_read_where_there_are_some(stored):
    paths = np.array([f"photos/{i}.jpg" for i in range(N_TEST)])
    problem = read_problem(*stored(test_predictions={"path": paths}))
    assert problem.test.paths == tuple(paths[::-1])  # written backwards
    assert problem.validation.paths is None


def test_paths_stay_with_their_rows(stored):
    paths = {"path": np.array([f"photos/{one}.jpg" for one in made_columns()["test_predictions"]["id"]])}
    problem = read_problem(*stored(test_predictions=paths, test_slices=renamed("test_slices", 1)))
    assert len(problem.test.ids) == N_TEST - 1
    assert problem.test.paths == tuple(f"photos/{one}.jpg" for one in problem.test.ids)


def test_the_index_may_name_the_classes(stored):
    root, entry = stored()
    assert entry.class_names is None
    (root / INDEX).write_text(index_text({**ATTRIBUTES, "class_names": ["frowning", "smiling"]}))
    (entry,) = read_index(root / INDEX)
    assert entry.class_names == ("frowning", "smiling")
    read_problem(root, entry)
    with pytest.raises(InvalidInput, match=r"p_1 has so many classes: .*test_predictions 2, class_names 3"):
        read_problem(root, replace(entry, class_names=("a", "b", "c")))


@pytest.mark.parametrize("names", [[], ["a", "a"], "smiling", [0, 1], None])
def test_names_of_classes_are_different_texts(index, names):
    with pytest.raises(InvalidInput, match=r"problem 1 \(p_1\).*class_names is "):
        read_index(index(index_text({**ATTRIBUTES, "class_names": names})))


@pytest.fixture(params=["p_101001", "p_101002", "p_101003"])
def real(request, data):
    """A problem that dcbench and meerkat wrote: the root, its entry, and what a right reader finds."""
    root = data("dcbench") / "dcbench"
    entries = {entry.container_id: entry for entry in read_index(root / INDEX)}
    expected = json.loads((root / "expected.json").read_text())
    assert list(entries) == list(expected)
    return root, entries[request.param], expected[request.param]


def accuracy(split):
    return (split.stored.logits.argmax(dim=1) == split.labels).double().mean().item()


def test_the_real_index_is_read_exactly(real):
    _, entry, expected = real
    names = {"kind": "slice_category"}
    for name in ("n_pred_slices", "kind", "target_name", "dataset", "alpha"):
        assert getattr(entry, name) == expected["attributes"][names.get(name, name)]
    assert list(entry.slice_names) == expected["attributes"]["slice_names"]


def test_the_real_problems_are_read_exactly(real):
    root, entry, expected = real
    problem, clip = read_problem(root, entry), read_problem(root, entry, "clip")
    test, validation = problem.test, problem.validation
    assert (len(validation.ids), len(test.ids), problem.notes) == (expected["n_val"], expected["n_test"], ())
    assert accuracy(validation) == pytest.approx(expected["val_accuracy"], abs=1e-12)
    assert accuracy(test) == pytest.approx(expected["test_accuracy"], abs=1e-12)
    assert problem.true_slices.sum(dim=0).tolist() == expected["slice_sizes"]
    assert (test.ids[0], test.labels[0].item()) == (expected["first_test_id"], expected["first_test_target"])
    assert problem.true_slices[0].int().tolist() == expected["first_test_slices"]
    assert torch.equal(test.stored.logits[0], torch.tensor(expected["first_test_probs"]).log())
    assert torch.equal(test.stored.embeddings[0], torch.tensor(expected["first_test_activation"]))
    assert torch.equal(clip.test.stored.embeddings[0], torch.tensor(expected["first_test_clip"]))
    assert clip.test.ids == test.ids
    sums = clip.test.stored.embeddings.double().sum(), validation.stored.embeddings.double().sum()
    wanted = (expected["sum_of_clip_on_test"], expected["sum_of_activations_on_validation"])
    assert [value.item() for value in sums] == pytest.approx(wanted, rel=1e-6)


def test_the_real_panels_keep_their_types(real):
    root, entry, expected = real
    panel = read_panel(root / f"{entry.artifacts['clip']}.mk")
    assert panel.columns["emb"].dtype == np.float64
    row = panel.ids.get_loc(expected["first_test_id"])
    assert panel.columns["emb"][row].tolist() == expected["first_test_clip"]
