"""How well methods find relabelled subclasses, against hand computation."""

import numpy as np
import pandas as pd
import pytest
import torch

from evaluation.scores import score
from experiments.analyses.relabelling import analyse
from methods.contract import InvalidInput, ModelOutputs, Slices
from tests.experiments.analyses.reading import the_one

# the first two examples are cats, the next two dogs
EXAMPLES = {
    "loss": [1.0] * 6,
    "correct": [True] * 6,
    "attribute_subclass": ["cat", "cat", "dog", "dog", "owl", "owl"],
}
CORRUPTION = {"corruption": {"attribute": "subclass"}}
CAT = [1, 1, 0, 0, 0, 0]
NOTHING = [0] * 6


def columns(*slices):
    return np.array(slices).T


def scores(problem, f1, chosen=0, protocol="worst_slice"):
    row = {"problem": problem, "group": problem.split(" ")[0], "kind": "relabel_subclass", "protocol": protocol}
    row |= {"true_slice": 0, "slice": chosen}
    plain = ("f1", "precision", "recall", "average_precision")
    return [
        *[{**row, "metric": metric, "value": f1} for metric in plain],
        {**row, "metric": "precision_at_k", "k": 10, "value": f1 / 2},
    ]


@pytest.fixture
def relabelled(finished_run):
    """A run: by problem its slices, F1 and the index of the slice that was chosen."""

    def make(found, extra=(), **names):
        members = {problem: slices for problem, (slices, *_) in found.items()}
        rows = [row for problem, (_, f1, *chosen) in found.items() for row in scores(problem, f1, *chosen)]
        settings = {"definition": CORRUPTION, "corruption": "relabel_subclass", **names}
        return finished_run(EXAMPLES, members, scores=[*rows, *extra], **settings)

    return make


def row(numbers, measure, group="all"):
    return the_one(numbers, measure, group=group)


def test_means_and_the_median_are_over_problems(relabelled, unsaved):
    found = {f"cat draw {d}": (columns(CAT), f1) for d, f1 in enumerate([0.0, 0.2, 1.0])}
    numbers = analyse([relabelled(found)], unsaved)
    np.testing.assert_allclose(row(numbers, "f1")["value"], 0.4)
    assert row(numbers, "median_f1")["value"] == 0.2
    np.testing.assert_allclose(row(numbers, "precision_at_k", "k=10")["value"], 0.2)
    assert row(numbers, "f1")["n"] == 3


def test_intervals_are_over_subclasses_and_need_two(relabelled, unsaved):
    one = relabelled({"cat draw 0": (columns(CAT), 0.0), "cat draw 1": (columns(CAT), 1.0)})
    assert np.isnan(row(analyse([one], unsaved), "f1")["low"])
    two = relabelled({"cat draw 0": (columns(CAT), 0.0), "dog draw 0": (columns(CAT), 1.0)})
    assert row(analyse([two], unsaved), "f1")["low"] == 0


def test_size_is_that_of_the_chosen_slice(relabelled, unsaved):
    slices = columns([1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0])
    assert row(analyse([relabelled({"cat draw 0": (slices, 0.5, 1)})], unsaved), "size")["value"] == 3


def test_size_of_a_complement_is_all_that_is_outside(relabelled, unsaved):
    slices = columns([1, 0, 0, 0, 0, 0], CAT)
    assert row(analyse([relabelled({"cat draw 0": (slices, 0.5, -2)})], unsaved), "size")["value"] == 4


def test_unions_hold_the_members_of_all_first_slices(relabelled, unsaved):
    slices = columns([1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0])
    numbers = analyse([relabelled({"cat draw 0": (slices, 0.5)})], unsaved, most=3)
    precision = [row(numbers, "union_precision", f"{j} slices")["value"] for j in (1, 2, 3)]
    recall = [row(numbers, "union_recall", f"{j} slices")["value"] for j in (1, 2, 3)]
    assert (precision, recall) == ([1, 0.5, 0.5], [0.5, 0.5, 1])


def test_deviations_of_unions_are_over_problems(relabelled, unsaved):
    slices = columns(CAT, NOTHING)
    numbers = analyse([relabelled({"cat draw 0": (slices, 1.0), "dog draw 0": (slices, 0.0)})], unsaved)
    assert row(numbers, "union_recall", "1 slices")["value"] == 0.5
    assert row(numbers, "union_recall_sd", "1 slices")["value"] == 0.5


def test_a_problem_with_fewer_slices_counts_with_all_that_it_has(relabelled, unsaved):
    found = {"cat draw 0": (columns(CAT), 1.0), "cat draw 1": (columns(NOTHING, CAT), 1.0)}
    numbers = analyse([relabelled(found)], unsaved)
    assert row(numbers, "union_recall", "1 slices")["value"] == 0.5
    assert row(numbers, "union_recall", "2 slices")["value"] == 1
    assert "3 slices" not in set(numbers["group"])


def test_a_method_with_one_slice_has_no_unions(relabelled, unsaved):
    numbers = analyse([relabelled({"cat draw 0": (columns(CAT), 1.0)})], unsaved)
    assert not numbers["measure"].str.startswith("union").any()
    assert [picture["file"] for picture in unsaved.pictures] == ["tested-boxes"]


def test_a_problem_without_slices_has_size_0(relabelled, unsaved):
    found = {"cat draw 0": (np.zeros((6, 0)), 0.0, None), "cat draw 1": (columns(CAT, NOTHING), 1.0, 1)}
    numbers = analyse([relabelled(found)], unsaved)
    assert row(numbers, "size")["value"] == 0
    assert row(numbers, "union_precision", "2 slices")["value"] == 0.5


def test_the_true_slice_is_the_one_that_was_scored(finished_run, unsaved):
    slices = columns([1, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0])
    ids = tuple(f"{i:05d}" for i in range(6))
    outputs = ModelOutputs(ids, torch.zeros(6, 1), torch.ones(6), torch.ones(6, dtype=torch.bool))
    hard = torch.from_numpy(slices).bool()
    truth = torch.tensor(CAT).bool().unsqueeze(1)
    settings = {"protocols": ["first"], "k": [10], "seed": 0, "confidence": 0.95, "resamples": 10}
    rows = score(Slices(ids, hard.float(), hard), outputs, truth, **settings)
    problem = {"problem": "cat draw 0", "group": "cat", "kind": "relabel_subclass"}
    run = finished_run(EXAMPLES, {"cat draw 0": slices}, scores=[problem | r for r in rows], definition=CORRUPTION)
    numbers = analyse([run], unsaved, protocol="first")
    precision, recall, size = (row(numbers, name)["value"] for name in ("precision", "recall", "size"))
    assert row(numbers, "union_precision", "1 slices")["value"] == precision
    assert row(numbers, "union_recall", "1 slices")["value"] == recall
    np.testing.assert_allclose(size * precision, 2 * recall)  # both are the cats that were found


def test_refused_problems_are_counted_and_said(relabelled, unsaved):
    refused = {"problem": "dog draw 0", "group": "dog", "kind": "relabel_subclass", "metric": "refused", "value": 1.0}
    numbers = analyse([relabelled({"cat draw 0": (columns(CAT), 1.0)}, extra=[refused])], unsaved)
    assert row(numbers, "n_refused")["value"] == 1
    assert row(numbers, "f1")["n"] == 1
    assert any("spotlight refused 1 of 2 problems" in sentence for sentence in unsaved.sentences)


def test_each_corruption_has_pictures_of_its_own(relabelled, out):
    found = {"cat draw 0": (columns(CAT, NOTHING), 1.0)}
    analyse([relabelled(found), relabelled(found, corruption="relabel_subclass noise=0.05")], out)
    names = ["boxes", "unions", "boxes-noise_0_05", "unions-noise_0_05"]
    assert [picture["file"] for picture in out.pictures] == [f"tested-{name}" for name in names]
    assert all((out.folder / f"tested-{name}{end}").exists() for name in names for end in (".png", ".svg"))
    assert all(picture["shows"] is None for picture in out.pictures)


def test_the_highest_median_is_on_top_and_variants_are_told_apart(relabelled, unsaved, figures):
    runs = [
        relabelled({"cat draw 0": (columns(CAT), 0.1)}, method="gmm"),
        relabelled({"cat draw 0": (columns(CAT), 0.2)}, variant="size=2"),
        relabelled({"cat draw 0": (columns(CAT), 0.9)}),
    ]
    analyse(runs, unsaved)
    labels = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert labels == ["spotlight", "spotlight size=2", "gmm"]


def test_methods_with_fewer_draws_stand_in_the_same_picture_with_their_number(relabelled, unsaved, figures):
    two = {"cat draw 0": (columns(CAT), 0.9), "cat draw 1": (columns(CAT), 0.9)}
    one = {"cat draw 0": (columns(CAT), 0.1)}
    few = relabelled(one, method="george", corruption="relabel_subclass n_seeds=1")
    analyse([relabelled(two), few], unsaved)
    assert len(figures) == 1
    assert [text.get_text() for text in figures[0].axes[0].get_yticklabels()] == ["spotlight", "george (1)"]


def test_the_best_and_those_not_told_apart_from_it_are_said(relabelled, unsaved):
    found = {
        method: {f"{name} draw 0": (columns(CAT), f1) for name in ("cat", "dog", "owl")}
        for method, f1 in (("random", 0.5), ("spotlight", 0.75))
    }
    analyse([relabelled(problems, method=method) for method, problems in found.items()], unsaved)
    assert "the highest mean F1 is that of spotlight, 0.75" in unsaved.sentences[0]
    assert "not told apart from it: random" in unsaved.sentences[0]  # three subclasses are too few for any p-value
    assert "Median F1: spotlight 0.75, random 0.50" in unsaved.sentences[0]


def test_an_unknown_protocol_is_named_with_those_that_there_are(relabelled, unsaved):
    with pytest.raises(InvalidInput, match="protocol 'best', expected one of worst_slice"):
        analyse([relabelled({"cat draw 0": (columns(CAT), 1.0)})], unsaved, protocol="best")


def test_a_run_without_relabelled_subclasses_is_refused(finished_run, unsaved):
    with pytest.raises(InvalidInput, match="corruption=relabel_subclass"):
        analyse([finished_run(EXAMPLES, columns(CAT))], unsaved)


def test_numbers_that_are_no_text_name_subclasses_too(finished_run, unsaved):
    examples = pd.DataFrame(EXAMPLES).assign(attribute_subclass=[3, 3, 1, 1, 2, 2])
    run = finished_run(
        examples, {"3 draw 0": columns(CAT, NOTHING)}, scores=scores("3 draw 0", 1.0), definition=CORRUPTION
    )
    assert row(analyse([run], unsaved), "union_recall", "1 slices")["value"] == 1
