"""Which stored problems a run gets, what each is as a data set, and what makes them others."""

import pickle
import shutil

import numpy as np
import pytest
import torch

from experiments.models.precomputed import Precomputed
from experiments.reading.dcbench import INDEX
from experiments.reading.problem_sets import problem_set
from experiments.reading.sources import Absent, Partial
from experiments.reading.stored import Stored
from methods.errors import InvalidInput, InvalidSetting
from tests.experiments.reading import test_dcbench as writing

ARTIFACTS = "slice_discovery/problem/artifacts"
READ = ("activations", "test_predictions", "test_slices", "val_predictions")
PROBLEMS = {"p_1": ("correlation", "celeba"), "p_2": ("rare", "imagenet"), "p_3": ("rare", "celeba")}


def entry(problem, kind, dataset, panels=None, **attributes):
    """A problem in the index; its panels may be those of another one."""
    said = {**writing.ATTRIBUTES, "slice_category": kind, "dataset": dataset, **attributes}
    text = writing.index_text(said, problem, number=int(problem[2:]))
    return text.replace(f"{writing.FOLDER}/", f"{ARTIFACTS}/{panels or problem}/")


def write_panels(root, problem, older=False, **changed):
    """The panels of a problem, with other columns where a test gives them."""
    columns = writing.made_columns()
    for name, values in changed.items():
        columns[name] = columns.get(name, {}) | values
    for name, values in columns.items():
        writing.write_panel(panel(root, problem, name), values, older)


def panel(root, problem, name):
    return root / ARTIFACTS / problem / f"{name}.mk"


def write_index(root, *entries):
    (root / INDEX).parent.mkdir(parents=True, exist_ok=True)
    (root / INDEX).write_text("".join(entries))


def write_problems(root, older=False, problems=PROBLEMS):
    for problem in problems:
        write_panels(root, problem, older)
    write_index(root, *(entry(problem, *of) for problem, of in problems.items()))


def write_many(root, n, n_missing):
    """Problems that share one set of panels, but for some that have none."""
    write_panels(root, "p_1")
    there = ["p_1"] * (n - n_missing) + ["nowhere"] * n_missing
    write_index(root, *(entry(f"p_{i}", "rare", "celeba", panels) for i, panels in enumerate(there, start=1)))


@pytest.fixture(params=["blocks", "older"])
def root(request, tmp_path):
    write_problems(tmp_path, older=request.param == "older")
    return tmp_path


@pytest.fixture
def one_layout(tmp_path):
    write_problems(tmp_path)
    return tmp_path


def chosen(root, embedding="activations", partial=False, **choice):
    return problem_set("dcbench", root, choice, embedding, partial)


def names(problems):
    return [problem.name for problem in problems.problems]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, ["p_1", "p_2", "p_3"]),
        ({"problem": None, "kind": None, "dataset": None}, ["p_1", "p_2", "p_3"]),
        ({"problem": "p_2"}, ["p_2"]),
        ({"problem": ("p_3", "p_1")}, ["p_1", "p_3"]),
        ({"kind": "rare"}, ["p_2", "p_3"]),
        ({"kind": ("rare", "correlation")}, ["p_1", "p_2", "p_3"]),
        ({"dataset": "celeba"}, ["p_1", "p_3"]),
        ({"dataset": "celeba", "kind": "rare"}, ["p_3"]),
    ],
)
def test_the_problems_of_a_choice_are_in_the_order_of_the_index(one_layout, choice, expected):
    assert names(chosen(one_layout, **choice)) == expected


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"problem": "p_11"}, "'p_11'; the nearest is p_1"),
        ({"problem": ("p_1", "q_2")}, "'q_2'; the nearest is p_2"),
        ({"kind": "rear"}, "'rear'; the nearest is rare"),
        ({"kind": "noisy_label"}, r"'noisy_label'.*\(all: correlation, rare\)"),
        ({"dataset": "celebs"}, r"'celebs'; the nearest is celeba \(all: celeba, imagenet\)"),
        ({"problem": ("rare", "p_2")}, "'rare'"),
    ],
)
def test_what_nothing_is_called_is_answered_with_the_nearest(one_layout, choice, says):
    with pytest.raises(InvalidSetting, match=says) as error:
        chosen(one_layout, **choice)
    assert "\n" not in str(error.value)


def test_a_choice_of_nothing_is_refused(one_layout):
    with pytest.raises(InvalidInput):
        chosen(one_layout, kind=())


def test_choices_that_have_no_problem_in_common_are_said_to(one_layout):
    """There is a rare problem, but it is not p_1: to say that there is none would be wrong."""
    with pytest.raises(InvalidSetting) as error:
        chosen(one_layout, problem="p_1", kind="rare")
    assert "p_1" in str(error.value)


def test_a_problem_has_its_name_and_kind_and_the_group_of_its_slices(root):
    first, second, third = chosen(root).problems
    assert [(problem.name, problem.kind) for problem in (first, second, third)] == [
        ("p_1", "correlation"),
        ("p_2", "rare"),
        ("p_3", "rare"),
    ]
    assert first.group == third.group == "celeba smiling=0_male=1, smiling=1_male=0"
    assert second.group == "imagenet smiling=0_male=1, smiling=1_male=0"


def test_the_splits_are_those_that_every_problem_has(one_layout):
    assert chosen(one_layout).splits == ("validation", "test")
    text = (one_layout / INDEX).read_text()
    (one_layout / INDEX).write_text(text.replace("val_predictions:", "validation:", 1))
    assert chosen(one_layout).splits == ("test",)
    assert chosen(one_layout, kind="rare").splits == ("validation", "test")


def test_a_problem_is_a_data_set_of_stored_outputs(root):
    dataset, true_slices = chosen(root).problems[1].read(("train",))
    assert (dataset.name, dataset.modality, dataset.class_names) == ("p_2", "table", ("not smiling", "smiling"))
    assert {name: split.n_examples for name, split in dataset.splits.items()} == {"validation": 30, "test": 40}
    assert dataset.split("test").example_ids == tuple(f"t{i:02d}" for i in range(40))
    assert all(isinstance(split.examples, Stored) for split in dataset.splits.values())
    assert dataset.split("test").paths is None
    assert true_slices.tolist() == [[i % 4 == 0, i % 5 == 0] for i in range(40)]
    assert Precomputed().build(dataset).embedding_layer == "embedding"


def test_each_example_says_in_words_which_true_slices_it_is_in(root):
    dataset, _ = chosen(root).problems[0].read(("train",))
    said = dataset.split("test").attributes["true_slice"]
    assert said["t00"] == "smiling=0_male=1; smiling=1_male=0"
    assert said["t04"] == "smiling=0_male=1"
    assert said["t05"] == "smiling=1_male=0"
    assert said["t01"] == ""
    assert set(dataset.split("validation").attributes["true_slice"]) == {""}


@pytest.mark.parametrize(("n_classes", "expected"), [(2, ("not smiling", "smiling")), (3, ("0", "1", "2"))])
def test_classes_have_names_where_the_index_has_none(tmp_path, n_classes, expected):
    even = {f"{split}_predictions": {"probs": np.full((n, n_classes), 1 / n_classes)} for split, n in SIZES.items()}
    write_panels(tmp_path, "p_1", **even)
    write_index(tmp_path, entry("p_1", "rare", "celeba"))
    assert chosen(tmp_path).problems[0].read(("train",))[0].class_names == expected


SIZES = {"val": writing.N_VAL, "test": writing.N_TEST}


def test_the_index_may_name_the_classes(tmp_path):
    write_panels(tmp_path, "p_1")
    write_index(tmp_path, entry("p_1", "rare", "celeba", class_names=["frowning", "smiling"]))
    assert chosen(tmp_path).problems[0].read(("train",))[0].class_names == ("frowning", "smiling")


def test_either_embedding_may_be_asked_for(root):
    clip = writing.made_columns()["clip"]
    dataset, _ = chosen(root, embedding="clip").problems[0].read(("train",))
    row = clip["id"].tolist().index("t07")
    assert dataset.split("test").examples.embeddings[7].tolist() == clip["emb"][row].astype(np.float32).tolist()


def test_what_did_not_join_is_a_note_of_its_problem_only(tmp_path):
    write_problems(tmp_path)
    write_panels(tmp_path, "p_2", activations=writing.renamed("activations", 1))
    problems = chosen(tmp_path)
    assert problems.notes == ()
    (note,) = problems.problems[1].read(("train",))[0].notes
    assert note.startswith("1 of the 40 ids of ")
    assert "p_2" in note
    assert problems.problems[0].read(("train",))[0].notes == ()


def test_nothing_is_read_before_it_is_needed(one_layout):
    for path in one_layout.rglob("data.*"):
        path.write_bytes(b"broken")
    problems = chosen(one_layout)
    assert names(problems) == ["p_1", "p_2", "p_3"]
    with pytest.raises(InvalidInput, match="p_3"):
        problems.problems[2].read(("train",))


def test_few_missing_problems_are_left_out_with_a_note(tmp_path):
    write_many(tmp_path, 20, 1)
    problems = chosen(tmp_path)
    assert len(problems.problems) == 19
    (note,) = problems.notes
    assert note.startswith("1 of 20 problems of dcbench are missing below ")
    assert note.endswith("p_20 the first: left out")


def test_many_missing_problems_must_be_asked_for(tmp_path):
    write_many(tmp_path, 19, 1)
    with pytest.raises(Partial, match=r"1 of 19 problems of dcbench .*p_19 the first: .*dataset\.partial=true"):
        chosen(tmp_path)
    problems = chosen(tmp_path, partial=True)
    assert len(problems.problems) == 18
    assert problems.notes[0].endswith("p_19 the first: left out")


def test_what_is_missing_is_counted_among_those_that_are_chosen(tmp_path):
    write_many(tmp_path, 19, 1)
    assert chosen(tmp_path, problem=("p_1", "p_2")).notes == ()
    with pytest.raises(Partial, match="1 of 2 problems"):
        chosen(tmp_path, problem=("p_1", "p_19"))


@pytest.mark.parametrize("partial", [False, True])
def test_where_all_are_missing_nothing_is_there(tmp_path, partial):
    write_many(tmp_path, 3, 3)
    with pytest.raises(Absent, match=r"3 of 3 problems of dcbench are missing below .*, p_1 the first"):
        chosen(tmp_path, partial=partial)


@pytest.mark.parametrize("name", READ)
def test_a_problem_without_one_of_its_panels_is_missing(one_layout, name):
    shutil.rmtree(panel(one_layout, "p_2", name))
    with pytest.raises(Partial, match=r"1 of 3 problems of dcbench are missing .*p_2 the first"):
        chosen(one_layout)
    assert names(chosen(one_layout, partial=True)) == ["p_1", "p_3"]


def test_a_panel_that_is_not_read_may_be_missing(one_layout):
    shutil.rmtree(panel(one_layout, "p_2", "clip"))
    assert names(chosen(one_layout)) == ["p_1", "p_2", "p_3"]
    with pytest.raises(Partial, match="p_2 the first"):
        chosen(one_layout, embedding="clip")


def test_a_missing_index_is_said(tmp_path):
    with pytest.raises(Absent, match=r"problems\.yaml is missing"):
        chosen(tmp_path)


def test_an_artifact_elsewhere_is_refused_and_not_taken_for_missing(one_layout):
    text = (one_layout / INDEX).read_text()
    (one_layout / INDEX).write_text(text.replace(f"{ARTIFACTS}/p_2/test_slices", "../elsewhere"))
    with pytest.raises(InvalidInput, match=r"problem p_2: artifact_id of test_slices is '\.\./elsewhere\.mk'"):
        chosen(one_layout, partial=True)


def rewritten(root, problem, name):
    """Write a panel anew with one number changed."""
    columns = writing.made_columns()[name]
    column = next(column for column in columns if column != "id")
    columns[column] = 1 - columns[column]
    writing.write_panel(panel(root, problem, name), columns, older=False)


@pytest.mark.parametrize("name", READ)
def test_another_content_of_any_panel_makes_other_problems(one_layout, name):
    before = chosen(one_layout).fingerprint
    assert chosen(one_layout).fingerprint == before
    rewritten(one_layout, "p_3", name)
    assert chosen(one_layout).fingerprint != before


def test_what_is_not_chosen_does_not_matter(one_layout):
    before = chosen(one_layout, problem="p_1").fingerprint
    rewritten(one_layout, "p_3", "activations")
    rewritten(one_layout, "p_1", "clip")
    shutil.rmtree(panel(one_layout, "p_2", "clip"))
    assert chosen(one_layout, problem="p_1").fingerprint == before


def test_either_embedding_makes_other_problems(one_layout):
    assert chosen(one_layout).fingerprint != chosen(one_layout, embedding="clip").fingerprint


@pytest.mark.parametrize(
    "attributes",
    [{"alpha": 0.7}, {"target_name": "frowning"}, {"slice_names": ["a", "b"]}, {"class_names": ["a", "b"]}],
)
def test_what_the_index_says_of_a_problem_is_part_of_it(one_layout, attributes):
    before = chosen(one_layout).fingerprint
    others = [entry(problem, *of) for problem, of in PROBLEMS.items()]
    write_index(one_layout, entry("p_1", *PROBLEMS["p_1"], **attributes), *others[1:])
    assert chosen(one_layout).fingerprint != before


def test_each_problem_has_a_fingerprint_of_its_own(tmp_path):
    """Else what is cached of one would be taken for the other's."""
    write_many(tmp_path, 2, 0)
    first, second = (problem.read(("train",))[0] for problem in chosen(tmp_path).problems)
    assert first.fingerprint != second.fingerprint
    assert torch.equal(first.split("test").examples.embeddings, second.split("test").examples.embeddings)


def test_where_the_problems_lie_does_not_matter(one_layout, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "here"
    shutil.copytree(one_layout, moved)
    assert chosen(moved).fingerprint == chosen(one_layout).fingerprint


def test_pickles_are_never_opened_and_do_not_matter(one_layout, tmp_path):
    before = chosen(one_layout).fingerprint
    planted = tmp_path / "planted"
    for path in one_layout.rglob("*.mk"):
        (path / "state.dill").write_bytes(pickle.dumps(writing.Plant(planted)))
    (one_layout / ARTIFACTS / "p_1" / "model.pt").write_bytes(pickle.dumps(writing.Plant(planted)))
    problems = chosen(one_layout)
    assert problems.fingerprint == before
    for problem in problems.problems:
        problem.read(("train",))
    next(one_layout.rglob("state.dill")).write_bytes(b"something else")
    assert chosen(one_layout).fingerprint == before
    assert not planted.exists()


def test_files_that_are_not_read_as_panels_are_not_opened(one_layout, monkeypatch):
    """Not even to see whether they have changed."""
    opened = []
    unhooked = type(one_layout).open

    def watched(path, *arguments, **options):
        opened.append(path.name)
        return unhooked(path, *arguments, **options)

    for path in one_layout.rglob("*.mk"):
        (path / "state.dill").write_bytes(b"never")
    monkeypatch.setattr(type(one_layout), "open", watched)
    chosen(one_layout).problems[0].read(("train",))
    assert "meta.yaml" in opened
    assert "state.dill" not in opened


def with_train(root, **changed):
    """A problem as our own are: with what the model was trained on, and with paths."""
    columns = writing.train_columns()
    columns["train_predictions"] |= changed
    paths = np.array([f"photos/{i}.jpg" for i in range(40)])
    write_panels(root, "p_1", test_predictions={"path": paths}, **columns)
    named = f"    train_predictions: !Artifact\n      artifact_id: {ARTIFACTS}/p_1/train_predictions\n      class: c\n"
    write_index(root, entry("p_1", "rare", "celeba").replace("  attributes:\n", f"{named}  attributes:\n"))


def test_ours_have_a_train_split_too(tmp_path):
    with_train(tmp_path)
    problems = chosen(tmp_path)
    assert set(problems.splits) == {"train", "validation", "test"}
    dataset, _ = problems.problems[0].read(("train",))
    train = dataset.split("train")
    assert train.example_ids[:2] == ("n00", "n01")
    assert train.labels.tolist() == [0, 1] * 25
    assert train.examples.embeddings[3].tolist() == [12, 13, 14, 15]
    assert set(train.attributes["true_slice"]) == {""}


def test_ours_say_where_the_examples_lie(tmp_path):
    with_train(tmp_path)
    dataset, _ = chosen(tmp_path).problems[0].read(("train",))
    assert dataset.split("test").paths[:2] == ("photos/39.jpg", "photos/38.jpg")  # their rows are written backwards
    assert dataset.split("validation").paths is None


def test_a_problem_whose_splits_share_an_example_is_named(tmp_path):
    with_train(tmp_path, id=np.array(["t00", *(f"n{i:02d}" for i in range(1, 50))]))
    problems = chosen(tmp_path)
    with pytest.raises(InvalidInput, match="'t00'") as error:
        problems.problems[0].read(("train",))
    assert "p_1" in str(error.value)


def test_the_real_problems_are_data_sets(data):
    root = data("dcbench") / "dcbench"
    problems = chosen(root)
    assert names(problems) == ["p_101001", "p_101002", "p_101003"]
    assert (problems.splits, problems.notes) == (("validation", "test"), ())
    for problem in problems.problems:
        dataset, true_slices = problem.read(("train",))
        assert (dataset.split("validation").n_examples, dataset.split("test").n_examples) == (150, 240)
        named = (dataset.split("test").attributes["true_slice"] != "").to_numpy()
        assert named.tolist() == true_slices.any(dim=1).tolist()
