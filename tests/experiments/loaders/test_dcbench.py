import pickle

import numpy as np
import pytest

from experiments.contract import ProblemSet
from experiments.loaders import dcbench
from experiments.loaders.dcbench import DCBench
from experiments.reading.dcbench import INDEX
from experiments.reading.sources import Absent, Partial
from tests.experiments.reading import test_dcbench as writing
from tests.experiments.reading import test_problem_sets as sets


@pytest.fixture
def root(tmp_path):
    """A data root with three problems."""
    sets.write_problems(tmp_path / "dcbench")
    return tmp_path


def names(root, **settings):
    return [problem.name for problem in DCBench(**settings).load(root, seed=0).problems]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["p_1", "p_2", "p_3"]),
        ({"problem": "p_2"}, ["p_2"]),
        ({"problem": ("p_1", "p_3")}, ["p_1", "p_3"]),
        ({"kind": "rare"}, ["p_2", "p_3"]),
        ({"dataset": "celeba", "kind": ("rare", "correlation")}, ["p_1", "p_3"]),
    ],
)
def test_settings_choose_the_problems(root, settings, expected):
    assert names(root, **settings) == expected


def test_the_set_is_called_dcbench_and_no_seed_changes_it(root):
    first, second = (DCBench().load(root, seed) for seed in (0, 1))
    assert isinstance(first, ProblemSet)
    assert first.name == "dcbench"
    assert first.fingerprint == second.fingerprint


def test_the_folder_may_have_another_name(root):
    (root / "dcbench").rename(root / "slices")
    with pytest.raises(Absent):
        names(root)
    assert names(root, folder="slices") == ["p_1", "p_2", "p_3"]


def test_either_embedding_may_be_taken(root):
    widths = []
    for embedding in ("activations", "clip"):
        dataset, _ = DCBench(embedding=embedding).load(root, seed=0).problems[0].read(("test",))
        widths.append(dataset.split("test").examples.embeddings.shape[1])
    assert widths == [4, 3]


def test_a_missing_index_says_what_to_get_and_where_to_put_it(tmp_path):
    with pytest.raises(
        Absent, match=r"problems\.yaml is missing\. Get slice_discovery/problems\.yaml and the"
    ) as error:
        names(tmp_path)
    assert dcbench.BUCKET in str(error.value)
    assert str(error.value).endswith(f"Put it into {tmp_path / 'dcbench'}.")


def test_missing_problems_must_be_asked_for(root):
    for path in (root / "dcbench" / sets.ARTIFACTS / "p_2").glob("act*/meta.yaml"):
        path.unlink()
    with pytest.raises(Partial, match="1 of 3 problems"):
        names(root)
    assert names(root, partial=True) == ["p_1", "p_3"]


def test_where_only_the_index_is_there_it_is_said_how_to_get_the_rest(tmp_path):
    sets.write_index(tmp_path / "dcbench", sets.entry("p_1", "rare", "celeba"))
    with pytest.raises(Absent, match="1 of 1 problems of dcbench are missing") as error:
        names(tmp_path)
    assert dcbench.BUCKET in str(error.value) or "slicebench fetch dcbench" in str(error.value)


def test_the_weights_of_a_model_are_never_opened(root, tmp_path):
    planted = tmp_path / "planted"
    for problem in sets.PROBLEMS:
        code = pickle.dumps(writing.Plant(planted))
        (root / "dcbench" / sets.ARTIFACTS / problem / "model.pt").write_bytes(code)
    for problem in DCBench().load(root, seed=0).problems:
        problem.read(("test",))
    assert not planted.exists()


def test_what_is_fetched_is_what_is_read(root):
    """Each artifact that a problem needs, and no other."""
    _, downloads = DCBench(problem="p_1", embedding="clip").source.more(root)
    folder = root / "dcbench"
    wanted = {folder / download.to for download in downloads}
    assert all((path / "meta.yaml").is_file() for path in wanted)
    for path in folder.rglob("meta.yaml"):
        if not any(path.is_relative_to(one) for one in wanted):
            path.write_text("broken")
    dataset, _ = DCBench(problem="p_1", embedding="clip").load(root, seed=0).problems[0].read(("test",))
    assert np.isfinite(dataset.split("test").examples.embeddings.numpy()).all()


def test_the_real_files(data):
    root = data("dcbench")
    assert (root / "dcbench" / INDEX).is_file()
    problems = DCBench().load(root, seed=0).problems
    assert [(problem.name, problem.kind, problem.group) for problem in problems] == [
        ("p_101001", "rare", "imagenet hay.n.01"),
        ("p_101002", "correlation", "celeba smiling=0_male=1, smiling=1_male=0"),
        ("p_101003", "noisy_label", "imagenet guitar.n.01"),
    ]
    assert problems[0].read(("test",))[0].class_names == ("not food.n.01", "food.n.01")
