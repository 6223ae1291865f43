import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.contract import InvalidInput, ModelOutputs
from methods.infembed_rule import InfEmbedRule


def outputs_of(embeddings, correct, losses=None):
    ids = [f"{i:04d}" for i in range(len(embeddings))]
    losses = (~correct).float() if losses is None else losses
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=correct)


def random_outputs(n, seed, d=3, share_wrong=0.4):
    """Errors that depend on the place, so that some regions are worse than others."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, d, generator=generator)
    wrong = torch.rand(n, generator=generator) < share_wrong * embeddings[:, 0].sigmoid() * 2
    return outputs_of(embeddings, ~wrong, torch.rand(n, generator=generator))


def blobs(accuracies, n_each=40):
    blob = torch.arange(len(accuracies)).repeat_interleave(n_each)
    noise = torch.randn(len(blob), 2, generator=torch.Generator().manual_seed(0))
    correct = torch.cat([torch.arange(n_each) < round(accuracy * n_each) for accuracy in accuracies])
    return outputs_of(30.0 * blob[:, None] + noise, correct, (1.0 + blob).float())


rules = st.fixed_dictionaries(
    {
        "max_accuracy": st.sampled_from([0.0, 0.3, 0.4, 0.7]),
        "min_size": st.integers(1, 40),
        "branching": st.integers(2, 6),
        "max_depth": st.integers(0, 6),
    }
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rule=rules, n=st.integers(1, 120), seed=st.integers(0, 1000))
def test_every_slice_satisfies_the_rule_and_examples_are_in_one_at_most(rule, n, seed):
    outputs = random_outputs(n, seed)
    slices = InfEmbedRule(**rule).fit(outputs).predict(outputs)
    assert (slices.members.sum(dim=1) <= 1).all()
    assert torch.equal(slices.membership > 0, slices.members)
    for members, entry in zip(slices.members.T, slices.diagnostics, strict=True):
        # the examples of the fit are routed to where they were
        assert int(members.sum()) == entry["size"] >= rule["min_size"]
        assert int(outputs.correct[members].sum()) / entry["size"] == entry["accuracy"] <= rule["max_accuracy"]
        assert len(entry["path"]) == entry["depth"] <= rule["max_depth"]
        assert all(0 <= branch < rule["branching"] for branch in entry["path"])


@settings(deadline=None, derandomize=True, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_no_slice_lies_within_another_and_the_worst_is_first(seed):
    outputs = random_outputs(200, seed)
    method = InfEmbedRule(min_size=5).fit(outputs)
    for path in method.paths_:
        assert path not in method.splits_
    badness = [(entry["accuracy"], -entry["mean_loss"]) for entry in method.diagnostics_]
    assert badness == sorted(badness)


def test_bad_blobs_are_found_the_worst_first_and_equal_ones_by_loss():
    outputs = blobs([1.0, 0.0, 1.0, 0.1, 1.0, 0.0, 1.0, 0.2])
    slices = InfEmbedRule(min_size=40, branching=2, n_init=10).fit(outputs).predict(outputs)
    blob_of_slice = [int(members.nonzero()[0]) // 40 for members in slices.members.T]
    assert blob_of_slice == [5, 1, 3, 7]
    assert slices.members.sum(dim=0).tolist() == [40, 40, 40, 40]


def test_the_thresholds_are_inclusive():
    outputs = blobs([0.4, 1.0, 1.0], n_each=25)
    assert InfEmbedRule(max_accuracy=0.4, min_size=25).fit(outputs).paths_ != []
    assert InfEmbedRule(max_accuracy=0.4, min_size=26).fit(outputs).paths_ == []
    assert InfEmbedRule(max_accuracy=0.39, min_size=25, max_depth=1).fit(outputs).paths_ == []


def test_a_model_that_is_bad_everywhere_is_one_slice():
    outputs = blobs([0.1, 0.2])
    slices = InfEmbedRule(max_depth=0).fit(outputs).predict(outputs)
    assert slices.members.all()
    assert slices.diagnostics[0]["path"] == []


def test_a_good_model_has_no_slices():
    outputs = blobs([1.0, 1.0])
    slices = InfEmbedRule().fit(outputs).predict(outputs)
    assert slices.n_slices == 0
    assert slices.members.shape == (80, 0)


def test_nothing_is_split_beyond_the_depth():
    outputs = random_outputs(200, seed=0, share_wrong=0.1)
    for max_depth in range(4):
        method = InfEmbedRule(min_size=1, max_accuracy=0.0, max_depth=max_depth).fit(outputs)
        assert max((len(path) + 1 for path in method.splits_), default=0) == max_depth


def test_a_node_smaller_than_the_branching_is_split_into_its_examples():
    outputs = outputs_of(torch.tensor([[0.0], [1.0]]), torch.tensor([True, False]))
    slices = InfEmbedRule(min_size=1, branching=5).fit(outputs).predict(outputs)
    assert slices.members.flatten().tolist() == [False, True]


def test_examples_that_coincide_are_not_split():
    outputs = outputs_of(torch.ones(100, 3), torch.arange(100) % 2 == 0)
    method = InfEmbedRule().fit(outputs)
    assert method.paths_ == []
    assert method.splits_ == {}


def test_new_examples_are_routed_to_the_slice_of_their_neighbours():
    method = InfEmbedRule(min_size=40).fit(blobs([1.0, 0.0, 1.0]))
    new = outputs_of(torch.tensor([[0.5, 0.5], [29.0, 31.0], [61.0, 59.0]]), torch.tensor([True, True, True]))
    slices = method.predict(new)
    assert slices.members.flatten().tolist() == [False, True, False]
    assert slices.membership[[0, 2]].eq(0).all()
    assert slices.diagnostics[0]["accuracy"] == 0.0  # as it was in the fit


def test_rank_by_loss_or_distance():
    outputs = blobs([1.0, 0.0])
    losses = torch.rand(80, generator=torch.Generator().manual_seed(0))
    outputs = ModelOutputs(outputs.example_ids, outputs.embeddings, losses, outputs.correct)
    by_loss = InfEmbedRule(branching=2, rank="loss").fit(outputs).predict(outputs)
    assert by_loss.membership[:, 0].argmax() == 40 + losses[40:].argmax()
    by_distance = InfEmbedRule(branching=2).fit(outputs).predict(outputs)
    distances = (outputs.embeddings[40:] - outputs.embeddings[40:].mean(dim=0)).norm(dim=1)
    assert by_distance.membership[:, 0].argmax() == 40 + distances.argmin()


@pytest.mark.parametrize("rule", [{"max_accuracy": 1.1}, {"min_size": 0}, {"branching": 1}, {"max_depth": -1}])
def test_impossible_rules_are_refused(rule):
    with pytest.raises(InvalidInput, match=f"{next(iter(rule))} is .*, expected at"):
        InfEmbedRule(**rule).fit(blobs([1.0]))


def test_embeddings_of_another_dimension_are_refused():
    method = InfEmbedRule().fit(blobs([1.0, 1.0]))  # without a single slice, too
    with pytest.raises(InvalidInput, match="embeddings has 3 columns, the method was fitted on 2"):
        method.predict(random_outputs(5, seed=0))
