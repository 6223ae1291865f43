"""Coherence against influence explanations written out in full."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods import coherence as module
from methods.coherence import coherence, gram_matrix
from methods.errors import InvalidInput


def embeddings(n, seed=0, d=4, scale=1.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def by_hand(train, members):
    """The mean over ordered pairs of the squared distance between vectors with an entry a training example."""
    explanations = members.double() @ train.double().T  # (m, n')
    return (explanations[:, None] - explanations[None]).square().sum(dim=2).mean().item()


def test_distance_is_that_of_explanations_written_out():
    train, members = embeddings(60), embeddings(9, seed=1)
    found = coherence(gram_matrix(train), members)
    assert found.n == 9
    assert found.distance == pytest.approx(by_hand(train, members), rel=1e-12)


def test_the_bound_has_the_constant_of_the_proof():
    train, members = embeddings(60), embeddings(9, seed=1)
    apart = (members[:, None].double() - members[None].double()).square().sum(dim=2).mean().item()
    found = coherence(gram_matrix(train), members)
    assert found.bound == pytest.approx(train.double().square().sum().item() * apart, rel=1e-12)
    largest = torch.linalg.eigvalsh(train.double().T @ train.double())[-1].item()
    assert found.tight_bound == pytest.approx(largest * apart, rel=1e-9)


@given(n=st.integers(1, 12), m=st.integers(1, 8), d=st.integers(1, 5), seed=st.integers(0, 9), power=st.integers(-6, 6))
@settings(max_examples=60, deadline=None)
def test_lemma_1_holds(n, m, d, seed, power):
    train, members = embeddings(n, seed, d, scale=10.0**power), embeddings(m, seed + 1, d)
    found = coherence(gram_matrix(train), members)
    assert found.distance == pytest.approx(by_hand(train, members), rel=1e-9, abs=1e-12 * found.bound)
    assert 0 <= found.distance <= found.tight_bound * (1 + 1e-9) <= found.bound * (1 + 1e-8)


def test_the_tight_bound_is_reached_along_the_first_axis():
    gram = gram_matrix(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    found = coherence(gram, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert found.distance == pytest.approx(found.tight_bound)


@given(seed=st.integers(0, 20), k=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_dividing_a_slice_adds_no_distance(seed, k):
    gram, members = gram_matrix(embeddings(30, seed)), embeddings(40, seed + 1)
    parts = torch.arange(40) % k
    within = sum((parts == part).sum().item() * coherence(gram, members[parts == part]).distance for part in range(k))
    assert within / 40 <= coherence(gram, members).distance * (1 + 1e-9)


def test_a_member_alone_and_equal_members_are_at_no_distance():
    gram = gram_matrix(embeddings(30))
    assert coherence(gram, embeddings(1, seed=1))[:3] == (1, 0.0, 0.0)
    assert coherence(gram, embeddings(1, seed=1).expand(5, 4)).distance == pytest.approx(0.0, abs=1e-12)


def test_what_all_members_share_does_not_count():
    gram, members = gram_matrix(embeddings(30)), embeddings(9, seed=1)
    moved = members.double() + 1e3  # far from zero: squares minus squared means would have lost the last digits
    assert coherence(gram, moved).distance == pytest.approx(coherence(gram, members).distance, rel=1e-9)


def test_training_examples_are_summed_block_by_block(monkeypatch):
    train = embeddings(50)
    monkeypatch.setattr(module, "ROWS", 7)
    torch.testing.assert_close(gram_matrix(train), train.double().T @ train.double())


def test_single_precision_is_not_added_up_in_single_precision():
    train = torch.cat([torch.full((1, 1), 1e4), torch.full((1000, 1), 1.0)])
    assert gram_matrix(train).item() == 1e8 + 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slice_embeddings": torch.zeros(0, 4)}, r"slice_embeddings has shape \(0, 4\), expected \(examples, D\)"),
        ({"slice_embeddings": torch.zeros(4)}, r"slice_embeddings has shape \(4,\)"),
        ({"slice_embeddings": torch.zeros(2, 3)}, "slice_embeddings has 3 columns, the Gram matrix 4"),
        ({"slice_embeddings": torch.full((2, 4), torch.inf)}, "slice_embeddings is not finite at row 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    given = {"gram": gram_matrix(embeddings(5)), "slice_embeddings": embeddings(2)}
    with pytest.raises(InvalidInput, match=message):
        coherence(**given | change)


def test_training_embeddings_that_are_not_finite_are_refused():
    train = embeddings(5)
    train[3, 1] = torch.nan
    with pytest.raises(InvalidInput, match="train_embeddings is not finite at row 3"):
        gram_matrix(train)
