import numpy as np
import pandas as pd
import pytest
import torch

from experiments.corruption import Half, NoCorruption, RelabelSubclass
from methods.contract import InvalidInput, ModelOutputs

N_CLASSES = 4


def half(n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    subclass = np.arange(n) % 8
    labels = torch.from_numpy(subclass % N_CLASSES)
    logits = 8.0 * torch.nn.functional.one_hot(labels, N_CLASSES) + torch.rand(n, N_CLASSES, generator=generator)
    ids = [f"{seed}-{i:04d}" for i in range(n)]
    outputs = ModelOutputs.from_arrays(ids, embeddings=torch.zeros(n, 1), labels=labels, logits=logits)
    return Half(outputs, pd.DataFrame({"subclass": [f"s{s}" for s in subclass]}, index=ids))


def test_no_corruption_is_one_problem_without_truth():
    given = half()
    (problem,) = NoCorruption().problems(given, given, seed=0)
    assert problem.fit is problem.score is given.outputs
    assert problem.true_slices is None


def test_every_subclass_is_relabelled_so_many_times():
    given = half()
    problems = RelabelSubclass(n_seeds=3).problems(given, given, seed=0)
    assert len(problems) == 24
    assert len(set(problems.names)) == 24
    assert [problems[i].name for i in range(24)] == list(problems.names)
    assert [problem.group for problem in problems[:6]] == ["s0"] * 3 + ["s1"] * 3


def test_the_subclass_gets_uniform_labels_and_nobody_else_does():
    given = half()
    drawn = []
    for problem in RelabelSubclass(n_seeds=20).problems(given, given, seed=0)[:20]:
        in_slice = problem.true_slices[:, 0]
        assert torch.equal(in_slice, torch.from_numpy((given.attributes["subclass"] == "s0").to_numpy(copy=True)))
        assert torch.equal(problem.score.labels[~in_slice], given.outputs.labels[~in_slice])
        drawn += problem.score.labels[in_slice].tolist()
    # 1,000 draws from four classes: a share of 0.25 has a standard deviation of 0.014
    assert np.bincount(drawn, minlength=N_CLASSES) / len(drawn) == pytest.approx([0.25] * 4, abs=0.06)


def test_logits_and_embeddings_stay_and_are_shared():
    given = half()
    problem = RelabelSubclass().problems(given, given, seed=0)[0]
    assert problem.score.logits is given.outputs.logits
    assert problem.score.embeddings is given.outputs.embeddings
    assert problem.fit is problem.score


def test_noise_relabels_that_share_of_the_others():
    given = half(n=4000)
    problem = RelabelSubclass(noise=0.2).problems(given, given, seed=0)[0]
    others = ~problem.true_slices[:, 0]
    changed = (problem.score.labels != given.outputs.labels)[others].float().mean()
    # a quarter of the drawn labels are the old ones again
    assert float(changed) == pytest.approx(0.15, abs=0.02)


def test_draws_differ_and_seeds_decide():
    given = half()

    def labels(seed, index):
        return RelabelSubclass().problems(given, given, seed)[index].score.labels

    assert torch.equal(labels(0, 0), labels(0, 0))
    assert not torch.equal(labels(0, 0), labels(0, 1))
    assert not torch.equal(labels(0, 0), labels(1, 0))


def test_both_halves_are_relabelled_where_they_differ():
    fit, score = half(seed=1), half(seed=2)
    problem = RelabelSubclass().problems(fit, score, seed=0)[0]
    in_slice = torch.from_numpy((fit.attributes["subclass"] == "s0").to_numpy(copy=True))
    assert problem.fit.example_ids == fit.outputs.example_ids
    assert (problem.fit.labels != fit.outputs.labels)[in_slice].any()
    assert torch.equal(problem.fit.labels[~in_slice], fit.outputs.labels[~in_slice])


def test_a_missing_attribute_is_named_with_those_that_exist():
    given = half()
    with pytest.raises(
        InvalidInput, match=r"corruption\.attribute is 'race', expected an attribute of the data: subclass"
    ):
        RelabelSubclass(attribute="race").problems(given, given, seed=0)
