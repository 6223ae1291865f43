"""`slicebench list problems`: dcbench's and those of suites, with numbers that can be counted."""

import json
import os
import shutil

import numpy as np
import pytest

from experiments.reading.dcbench import INDEX, ProblemEntry, read_index
from experiments.suites.storing import prediction_columns, write_index, write_panel
from tests.experiments.reading import test_dcbench as writing
from tests.experiments.reading import test_problem_sets as sets

KEYS = {"set", "problem", "kind", "dataset", "strength", "slices", "members", "accuracy_in", "accuracy_out"}


@pytest.fixture
def empty(workspace, monkeypatch):
    """An empty data root."""
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))
    return workspace / "data"


@pytest.fixture
def listed(slicebench, empty):
    """What is listed as json, and what was said."""

    def call():
        done = slicebench("list", "problems", "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout, parse_constant=pytest.fail), done.stderr

    return call


def suite_entry(name, **changed):
    folder = f"slice_discovery/problem/artifacts/{name}"
    values = {
        "container_id": name,
        "kind": "rare",
        "target_name": "cat",
        "dataset": "pets",
        "alpha": 0.01,
        "slice_names": ("cat age=old", "cat age=young"),
        "n_pred_slices": 5,
        "artifacts": {panel: f"{folder}/{panel}" for panel in ("test_predictions", "test_slices")},
        "class_names": ("cat", "dog"),
    }
    return ProblemEntry(**values | changed)


def write_outcomes(root, entry, correct, slices):
    """The test split: whether the model is right on each example, and the true slices of which each is a member."""
    ids = [f"{row:03d}" for row in range(len(correct))]
    labels = np.arange(len(correct)) % 2
    sure = np.where(np.array(correct, dtype=bool), labels, 1 - labels)
    probabilities = np.where(np.arange(2) == sure[:, None], 0.9, 0.1)
    members = np.array([[number in one for number in range(len(entry.slice_names))] for one in slices], dtype=np.uint8)
    folder = root / entry.artifacts["test_slices"]
    write_panel(folder.with_suffix(".mk"), {"id": np.array(ids, dtype=object), "slices": members})
    write_panel(folder.with_name("test_predictions.mk"), prediction_columns(ids, labels, probabilities, None))


# ten examples: of the first slice one of four is right, of the second one of two, of the rest four of five
CORRECT = (1, 0, 0, 0, 1, 0, 1, 1, 1, 0)
SLICES = ((0,), (0,), (0,), (0, 1), (1,), (), (), (), (), ())


def write_suite(data, *names, suite="pets", **changed):
    root = data / "suites" / suite
    entries = [suite_entry(name, **changed) for name in names]
    for entry in entries:
        write_outcomes(root, entry, CORRECT, SLICES)
    write_index(root / INDEX, entries)
    return root


def test_a_problem_of_a_suite_has_its_accuracies_in_and_out_of_each_slice(listed, empty):
    write_suite(empty, "a")
    ((row,), said) = listed()
    assert row == {
        "set": "pets",
        "problem": "a",
        "kind": "rare",
        "dataset": "pets",
        "strength": 0.01,
        "slices": ["cat age=old", "cat age=young"],
        "members": [4, 2],
        "accuracy_in": [0.25, 0.5],
        "accuracy_out": 0.6,
    }
    assert said == ""


@pytest.mark.parametrize("older", [False, True], ids=["blocks", "older"])
def test_problems_of_dcbench_are_listed_from_what_is_stored(listed, empty, older):
    sets.write_problems(empty / "dcbench", older=older)
    rows, _ = listed()
    assert [(row["set"], row["problem"], row["kind"], row["dataset"]) for row in rows] == [
        ("dcbench", "p_1", "correlation", "celeba"),
        ("dcbench", "p_2", "rare", "imagenet"),
        ("dcbench", "p_3", "rare", "celeba"),
    ]
    columns = writing.made_columns()["test_predictions"]
    right = dict(zip(columns["id"], columns["probs"].argmax(axis=1) == columns["target"], strict=True))
    ids = [f"t{row:02d}" for row in range(writing.N_TEST)]
    fourths, fifths = ids[::4], ids[::5]
    rest = [one for one in ids if one not in {*fourths, *fifths}]
    for row in rows:
        assert set(row) == KEYS
        assert row["members"] == [10, 8]
        assert row["accuracy_in"] == pytest.approx([np.mean([right[one] for one in of]) for of in (fourths, fifths)])
        assert row["accuracy_out"] == pytest.approx(np.mean([right[one] for one in rest]))


def test_dcbench_comes_first_then_suites_by_name(listed, empty):
    write_suite(empty, "a", suite="zebras")
    write_suite(empty, "a", "b", suite="ants")
    sets.write_problems(empty / "dcbench", problems={"p_1": ("rare", "celeba")})
    rows, _ = listed()
    assert [(row["set"], row["problem"]) for row in rows] == [
        ("dcbench", "p_1"),
        ("ants", "a"),
        ("ants", "b"),
        ("zebras", "a"),
    ]


def test_a_table_has_a_line_for_each_true_slice(slicebench, empty):
    write_suite(empty, "first", "second", kind="correlation", alpha=0.5)
    done = slicebench("list", "problems")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines() if "%" in line]
    common = ["pets", "first", "correlation", "pets", "0.5"]
    assert lines[0] == [*common, "cat", "age=old", "4", "25.0%", "60.0%"]
    assert lines[1] == ["cat", "age=young", "2", "50.0%", "60.0%"]
    assert [line[1] for line in lines if line[0] == "pets"] == ["first", "second"]
    assert len(lines) == 4


def test_names_are_shown_as_they_are(slicebench, empty):
    write_suite(empty, "a", slice_names=("[red]cat[/red]", "[/]"), suite="my [bold]suite")
    done = slicebench("list", "problems")
    assert done.exit_code == 0, done.output
    assert "[red]cat[/red]" in done.stdout
    assert "my [bold]suite" in done.stdout


def test_problems_that_are_in_the_index_only_are_left_out(listed, empty):
    """As most of dcbench's 1,235 are, once a few are fetched."""
    root = write_suite(empty, "a", "b", "c")
    shutil.rmtree(root / "slice_discovery/problem/artifacts/b")
    rows, said = listed()
    assert [row["problem"] for row in rows] == ["a", "c"]
    assert said == ""


def cut(path):
    os.truncate(path, 60)


def no_numbers(path):
    np.save(path, np.array([["much"]]))


def not_whole(path):
    np.save(path, np.load(path) * 0.5)


@pytest.mark.parametrize("spoil", [cut, no_numbers, not_whole], ids=["cut off", "no numbers", "no zeros and ones"])
def test_a_broken_problem_is_said_in_one_line_and_the_others_are_listed(listed, empty, spoil):
    root = write_suite(empty, "a", "b", "c")
    spoil(next((root / "slice_discovery/problem/artifacts/b/test_slices.mk").rglob("data.npy")))
    rows, said = listed()
    assert [row["problem"] for row in rows] == ["a", "c"]
    (line,) = said.splitlines()
    assert line.startswith("pets: b cannot be read: ")
    assert "test_slices.mk" in line


def test_a_problem_whose_panels_are_elsewhere_is_said(listed, empty):
    root = write_suite(empty, "a")
    (inside,) = read_index(root / INDEX)
    write_index(root / INDEX, [inside, suite_entry("b", artifacts={name: f"../{name}" for name in inside.artifacts})])
    rows, said = listed()
    assert [row["problem"] for row in rows] == ["a"]
    assert "pets: b cannot be read: " in said
    assert "expected a path that stays below" in said


@pytest.mark.parametrize("text", ["", "- [", "- !!python/object/apply:os.getcwd []\n"], ids=["empty", "cut", "hostile"])
def test_a_set_whose_index_is_broken_is_said_and_the_others_are_listed(listed, empty, text):
    (write_suite(empty, "a", suite="ants") / INDEX).write_text(text)
    write_suite(empty, "a", suite="bees")
    rows, said = listed()
    assert [(row["set"], row["problem"]) for row in rows] == [("bees", "a")]
    (line,) = said.splitlines()
    assert str(empty / "suites" / "ants" / INDEX) in line


def test_a_true_slice_without_members_has_no_accuracy(listed, empty):
    """And NaN is no json."""
    root = write_suite(empty, "a")
    folder = root / "slice_discovery/problem/artifacts/a"
    shutil.rmtree(folder)
    write_outcomes(root, suite_entry("a"), CORRECT, [(0,), *[()] * 9])
    ((row,), _) = listed()
    assert row["accuracy_in"] == [1.0, None]


@pytest.mark.parametrize("there", [(), ("suites",), ("suites/empty", "dcbench")], ids=str)
def test_where_there_are_none_it_is_said_what_to_do(slicebench, empty, there):
    for folder in there:
        (empty / folder).mkdir(parents=True)
    done = slicebench("list", "problems")
    assert done.exit_code == 0
    assert str(empty) in done.stdout
    assert "slicebench make NAME" in done.stdout
    assert "slicebench fetch dcbench" in done.stdout


def test_where_there_are_none_the_json_is_an_empty_list(listed):
    assert listed() == ([], "")


def test_files_beside_suites_are_none(listed, empty):
    write_suite(empty, "a")
    (empty / "suites" / "notes.txt").write_text("mine")
    (empty / "suites" / "half").mkdir()
    assert len(listed()[0]) == 1


def test_a_suite_that_was_made_is_listed_with_the_numbers_of_its_reports(slicebench, write_suite, empty):
    assert slicebench("make", write_suite(kinds={"rare": [0.01], "noisy_label": [0.6]})).exit_code == 0
    rows = json.loads(slicebench("list", "problems", "--json").stdout)
    assert [row["kind"] for row in rows] == ["noisy_label", "rare"]
    for row in rows:
        (path,) = empty.rglob(f"{row['problem']}/problem.json")
        report = json.loads(path.read_text())
        assert row["set"] == "small"
        assert row["members"] == report["test_sizes"]
        assert row["accuracy_in"] == pytest.approx(report["test_inside"])
        assert row["accuracy_out"] == pytest.approx(report["test_outside"])


def test_of_stored_outputs_only_the_test_split_is_needed(listed, empty):
    """Accuracies of 1,235 problems must not take as long as reading their embeddings would."""
    root = write_suite(empty, "a")
    assert not list(root.rglob("activations.mk"))
    assert len(listed()[0]) == 1


def test_the_real_problems_of_dcbench_are_listed(slicebench, data):
    expected = json.loads((data("dcbench") / "dcbench" / "expected.json").read_text())
    done = slicebench("list", "problems", "--json")
    assert done.exit_code == 0, done.output
    rows = {row["problem"]: row for row in json.loads(done.stdout) if row["set"] == "dcbench"}
    assert list(rows) == list(expected)
    for name, row in rows.items():
        assert row["members"] == expected[name]["slice_sizes"]
        assert row["kind"] == expected[name]["attributes"]["slice_category"]
        worst, best = min([*row["accuracy_in"], row["accuracy_out"]]), max([*row["accuracy_in"], row["accuracy_out"]])
        assert worst <= expected[name]["test_accuracy"] <= best
