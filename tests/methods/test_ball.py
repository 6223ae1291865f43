import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods import ball
from methods.ball import Ball
from methods.contract import InvalidInput, ModelOutputs
from methods.progress import listening


def outputs_of(embeddings, losses):
    ids = [f"{i:04d}" for i in range(len(embeddings))]
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=[True] * len(embeddings))


def random_outputs(n=60, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return outputs_of(torch.randn(n, d, generator=generator), torch.rand(n, generator=generator))


def by_brute_force(outputs, n_slices, size, normalise):
    """The members of each ball, looking at all of them anew for each."""
    x = outputs.embeddings.double()
    x = x / x.norm(dim=1, keepdim=True) if normalise else x
    losses, found = outputs.losses.double().clone(), []
    balls = [(x - center).norm(dim=1).argsort()[:size] for center in x]
    for _ in range(n_slices):
        worst = max(balls, key=lambda members: float(losses[members].mean()))
        losses[worst] = outputs.losses.double().min()
        found.append(sorted(worst.tolist()))
    return found


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 1000), size=st.integers(1, 20), normalise=st.booleans(), block=st.sampled_from([1, 7, 256]))
def test_the_lazy_search_is_the_plain_one(seed, size, normalise, block):
    outputs = random_outputs(seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ball, "BLOCK", block)
        slices = Ball(n_slices=3, size=size, normalise=normalise).fit(outputs).predict(outputs)
    members = [members.nonzero().flatten().tolist() for members in slices.members.T]
    assert members == by_brute_force(outputs, 3, size, normalise)


def test_only_few_balls_are_looked_at_again():
    outputs = random_outputs(n=3000)
    looked_at = []
    original = ball._Search._means_around
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ball._Search, "_means_around", lambda self, rows: looked_at.append(len(rows)) or original(self, rows)
        )
        Ball(n_slices=5, size=50).fit(outputs)
    assert sum(looked_at) < 2 * 3000


def test_members_are_the_nearest_and_come_first_in_membership():
    outputs = random_outputs()
    method = Ball(n_slices=2, size=10, normalise=False).fit(outputs)
    slices = method.predict(outputs)
    for column in range(2):
        distances = (outputs.embeddings - method.centers_[column]).norm(dim=1)
        assert torch.equal(slices.membership[:, column].argsort(descending=True), distances.argsort())
        assert slices.members[:, column].sum() == 10
        assert slices.membership[slices.members[:, column], column].min() == pytest.approx(0.5)
        assert slices.membership[:, column].max() == 1.0


def test_diagnostics_say_where_the_ball_is_and_what_was_left_for_it():
    # the second ball shares the example at 3 with the first
    outputs = outputs_of([[0.0], [1.0], [3.0], [4.5], [20.0]], [9.0, 9.0, 6.0, 8.0, 0.0])
    slices = Ball(n_slices=2, size=3, normalise=False).fit(outputs).predict(outputs)
    assert slices.members.T.int().tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
    first, second = slices.diagnostics
    assert first == {"center": "0000", "radius": 3.0, "mean_loss": 8.0, "remaining_loss": 8.0}
    assert second["remaining_loss"] == pytest.approx(8 / 3)
    assert second["mean_loss"] == pytest.approx(23 / 3)


def test_the_second_ball_is_not_the_first_moved_by_a_neighbour():
    """The worst region is the larger of two: by its own losses every ball there beats the other region."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]]).repeat_interleave(40, dim=0)
    losses = torch.tensor([5.0, 4.0, 0.1]).repeat_interleave(40)
    outputs = outputs_of(places + torch.randn(120, 2, generator=generator), losses)
    slices = Ball(n_slices=2, size=40, normalise=False).fit(outputs).predict(outputs)
    assert slices.members[:40, 0].all()
    assert slices.members[40:80, 1].all()


def test_new_examples_are_members_within_the_radius():
    method = Ball(n_slices=1, size=2, normalise=False).fit(outputs_of([[0.0], [2.0], [9.0]], [5.0, 4.0, 0.0]))
    slices = method.predict(outputs_of([[-1.9], [0.0], [2.1], [50.0]], [0.0] * 4))
    assert slices.members.flatten().tolist() == [True, True, False, False]
    assert slices.membership.flatten().tolist() == pytest.approx([1 / (1 + 0.95**2), 1, 1 / (1 + 1.05**2), 1 / 626])


def test_normalised_rows_are_directions():
    outputs = outputs_of([[1.0, 0.0], [50.0, 1.0], [0.0, 1.0], [1.0, 40.0]], [3.0, 3.0, 0.0, 0.0])
    slices = Ball(n_slices=1, size=2).fit(outputs).predict(outputs)
    assert slices.members.flatten().tolist() == [True, True, False, False]


def test_no_ball_is_made_of_what_earlier_ones_hold():
    outputs = outputs_of([[0.0], [1.0], [9.0], [10.0]], [5.0, 4.0, 0.0, 0.0])
    assert Ball(n_slices=3, size=2, normalise=False).fit(outputs).predict(outputs).n_slices == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_examples_that_coincide_are_all_in_the_ball(value, normalise):
    slices = (
        Ball(size=5, normalise=normalise)
        .fit(outputs_of(torch.full((9, 3), value), [1.0] * 9))
        .predict(outputs_of(torch.full((9, 3), value), [1.0] * 9))
    )
    assert slices.members.all()
    assert slices.membership.eq(1).all()


def test_a_ball_without_extent_takes_no_new_example_beside_it():
    method = Ball(n_slices=1, size=2, normalise=False).fit(outputs_of([[0.0], [0.0], [1.0]], [2.0, 2.0, 0.0]))
    slices = method.predict(outputs_of([[0.0], [0.5]], [0.0, 0.0]))
    assert slices.members.flatten().tolist() == [True, False]
    assert slices.membership.flatten().tolist() == [1.0, 0.0]


def test_a_distant_origin_costs_no_digits():
    outputs = random_outputs()
    moved = outputs_of(outputs.embeddings + 4096, outputs.losses)
    first, second = (Ball(size=5, normalise=False).fit(each).predict(each).members for each in (outputs, moved))
    assert torch.equal(first, second)


def test_progress_is_told():
    told = []
    with listening(lambda *each: told.append(each)):
        Ball(size=5).fit(random_outputs(n=300))
    assert told == [("blocks of balls", 0, 2), ("blocks of balls", 1, 2), ("blocks of balls", 2, 2)]


def test_a_ball_larger_than_the_split_is_refused():
    with pytest.raises(InvalidInput, match="size is 61, expected at most 60"):
        Ball(size=61).fit(random_outputs())


def test_embeddings_of_another_dimension_are_refused():
    with pytest.raises(InvalidInput, match="embeddings has 3 columns, the method was fitted on 4"):
        Ball(size=5).fit(random_outputs()).predict(random_outputs(d=3))
