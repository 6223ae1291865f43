"""What one sees in a notebook."""

import pandas as pd
import pytest
import torch

from methods.contract import InvalidInput, ModelOutputs, Slices


def slices(*weights, ids="abcd"):
    """A slice for each list of memberships; those above a half are members."""
    membership = torch.tensor(weights).T if weights else torch.zeros(len(ids), 0)
    return Slices(tuple(ids), membership, membership > 0.5)


def test_a_frame_has_a_row_for_each_example_and_two_columns_for_each_slice():
    frame = slices([0.1, 0.9, 0.6, 0.0], [0.0, 0.0, 0.0, 0.7]).to_frame()
    assert list(frame.columns) == ["slice_1", "membership_1", "slice_2", "membership_2"]
    assert list(frame.index) == list("abcd")
    assert frame.index.name == "example_id"
    assert frame["slice_1"].tolist() == [False, True, True, False]
    assert frame["membership_2"].tolist() == pytest.approx([0, 0, 0, 0.7])


def test_the_frame_of_no_slices_has_all_rows_and_no_columns():
    assert slices().to_frame().shape == (4, 0)


def test_the_frame_goes_beside_ones_own_by_its_ids():
    own = pd.DataFrame({"text": ["x", "y", "z", "w"]}, index=[10, 9, 100, 8])
    arrays = {"embeddings": torch.zeros(4, 1), "losses": own["text"].eq("z"), "correct": own["text"].ne("z")}
    outputs = ModelOutputs.from_arrays(own.index, **arrays)
    found = Slices(outputs.example_ids, outputs.losses[:, None], outputs.losses[:, None] > 0.5)
    joined = own.join(found.to_frame(), on=own.index.astype(str))
    assert joined.loc[joined["slice_1"], "text"].tolist() == ["z"]


def test_the_frame_of_rows_without_ids_is_in_their_order():
    losses = torch.arange(12.0)
    outputs = ModelOutputs.from_arrays(embeddings=torch.zeros(12, 1), losses=losses, correct=losses < 9)
    assert outputs.losses.tolist() == losses.tolist()
    own = pd.DataFrame({"row": range(12)}, index=[f"no {i}" for i in range(12)])
    found = Slices(outputs.example_ids, (losses / 11)[:, None], ~outputs.correct[:, None])
    joined = own.join(found.to_frame().set_axis(own.index))
    assert joined.loc[joined["slice_1"], "row"].tolist() == [9, 10, 11]


def test_the_top_are_members_the_strongest_first_and_ties_in_the_order_of_ids():
    assert slices([0.6, 0.9, 0.6, 0.5], [0.0, 0.0, 0.0, 0.7]).top(2) == (("b", "a"), ("d",))
    assert slices().top() == ()


def test_the_top_none_are_refused():
    with pytest.raises(InvalidInput, match="k is 0, expected at least 1"):
        slices([1.0, 1, 1, 1]).top(0)


def test_slices_are_shown_by_their_sizes_and_first_members():
    assert repr(slices([0.6, 0.9, 0.7, 0.8], [0.0, 0.0, 0.0, 0.7], [0.0, 0, 0, 0])).splitlines() == [
        "3 slices of 4 examples",
        "  1: 4 examples: 'b', 'd', 'c' ...",
        "  2: 1 example: 'd'",
        "  3: 0 examples",
    ]
    assert repr(slices()) == "0 slices of 4 examples"


def test_many_slices_are_shown_in_ten_lines():
    lines = repr(slices(*[[1.0, 0, 0, 0]] * 30)).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "  and 22 more"


def test_outputs_are_shown_in_one_line():
    outputs = ModelOutputs.from_arrays(
        "abc", embeddings=torch.zeros(3, 2), labels=[0, 1, 1], logits=torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    )
    assert repr(outputs) == (
        "ModelOutputs of 3 examples ('a' to 'c'): embeddings of 2 dimensions, labels, logits of 2 classes; "
        "accuracy 66.7%, mean loss 0.647 nats"
    )
