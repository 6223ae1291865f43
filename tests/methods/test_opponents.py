import pytest
import torch

from methods.errors import InvalidInput
from methods.opponents import Opponent, opponents


def embeddings(n, seed=0, d=4):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def ids(n):
    return [f"{i:03d}" for i in range(n)]


def test_influence_on_a_slice_is_the_sum_of_the_influences_on_its_members():
    train, members = embeddings(50), embeddings(7, seed=1)
    expected = (train.double() @ members.double().T).sum(1)
    for found in opponents(train, ids(50), members, k=50):
        assert found.influence == pytest.approx(expected[int(found.example_id)].item())


def test_the_most_negative_are_opponents_and_the_most_positive_proponents():
    train, members = embeddings(50), embeddings(7, seed=1)
    order = (train @ members.sum(0)).argsort().tolist()
    found = opponents(train, ids(50), members, k=3)
    assert [entry.rank for entry in found] == [1, 2, 3, 1, 2, 3]
    assert [entry.sign for entry in found] == [-1, -1, -1, 1, 1, 1]
    assert [int(entry.example_id) for entry in found] == [*order[:3], *order[:-4:-1]]


def test_k_beyond_the_training_examples_is_cut_and_none_is_both():
    found = opponents(embeddings(20), ids(20), embeddings(3, seed=1), k=100)
    assert sorted(entry.example_id for entry in found) == ids(20)
    assert all(entry.sign * entry.influence > 0 for entry in found)


def test_equal_influences_come_in_the_order_of_the_rows():
    found = opponents(torch.ones(4, 1), ids(4), torch.ones(1, 1), k=2)
    assert found == [Opponent(1, 1, "000", 1.0), Opponent(2, 1, "001", 1.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0, expected at least 1"),
        ({"train_ids": ids(4)}, "train_ids has 4 entries, train_embeddings 5 rows"),
        ({"slice_embeddings": torch.zeros(0, 4)}, r"slice_embeddings has shape \(0, 4\)"),
        ({"slice_embeddings": torch.zeros(2, 3)}, "slice_embeddings has 3 columns, train_embeddings 4"),
        ({"train_embeddings": torch.full((5, 4), torch.nan)}, "influence of training example '000' is not finite"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    given = {"train_embeddings": embeddings(5), "train_ids": ids(5), "slice_embeddings": embeddings(2), "k": 1}
    with pytest.raises(InvalidInput, match=message):
        opponents(**given | change)
