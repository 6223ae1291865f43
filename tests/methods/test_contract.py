import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.contract import InvalidInput, ModelOutputs, Slices, Unsupported


def outputs(**changed):
    fields = {
        "example_ids": ("a", "b", "c"),
        "embeddings": torch.zeros(3, 2),
        "losses": torch.tensor([0.1, 0.2, 3.0]),
        "correct": torch.tensor([True, True, False]),
        "labels": torch.tensor([0, 1, 0]),
        "logits": torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]),
    }
    return ModelOutputs(**(fields | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"example_ids": ()}, "example_ids is empty, expected at least one"),
        ({"example_ids": ("a", "a", "b")}, "'a' at row 1, a duplicate"),
        ({"example_ids": ("b", "a", "c")}, "'a' at row 1, after 'b'.*strictly increasing"),
        ({"example_ids": ("a", 2, "c")}, "2 at row 1, expected a string"),
        ({"embeddings": torch.zeros(2, 2)}, "embeddings has 2 rows, example_ids has 3"),
        (
            {"embeddings": torch.zeros(3)},
            r"embeddings has shape \(3,\), expected a float32 tensor of shape \(3, columns\)",
        ),
        ({"embeddings": torch.zeros(3, 0)}, r"embeddings has shape \(3, 0\)"),
        ({"embeddings": torch.zeros(3, 2).double()}, "embeddings is float64, expected a float32 tensor"),
        ({"embeddings": np.zeros((3, 2), np.float32)}, "embeddings is a ndarray.*from_arrays converts"),
        ({"embeddings": torch.tensor([[0, 0], [0, torch.inf], [0, 0]])}, r"embeddings is not finite at row 1 \('b'\)"),
        ({"losses": torch.tensor([0.1, 0.2, torch.nan])}, r"losses is not finite at row 2 \('c'\)"),
        ({"losses": torch.zeros(3, 1)}, r"losses has shape \(3, 1\)"),
        ({"correct": torch.tensor([1, 1, 0])}, "correct is int64, expected a bool tensor"),
        ({"labels": torch.tensor([0, 2, 0])}, r"labels has 2 at row 1 \('b'\), expected 0 to 1"),
        ({"labels": torch.tensor([0, -1, 0]), "logits": None}, "labels has -1 at row 1.*expected 0 or more"),
        ({"logits": torch.zeros(3, 1)}, "logits has 1 column, expected at least 2"),
    ],
)
def test_bad_outputs_are_refused_with_field_row_and_what_was_expected(changed, message):
    with pytest.raises(InvalidInput, match=message):
        outputs(**changed)


def test_a_bad_value_far_down_is_found_in_its_block():
    n = 70_000
    values = torch.zeros(n, 1)
    values[69_999] = torch.nan
    with pytest.raises(InvalidInput, match="not finite at row 69999"):
        outputs(
            example_ids=tuple(f"{i:06d}" for i in range(n)),
            embeddings=values,
            losses=torch.zeros(n),
            correct=torch.ones(n, dtype=torch.bool),
            labels=None,
            logits=None,
        )


def test_outputs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        outputs().losses = torch.zeros(3)


@settings(deadline=None, derandomize=True)
@given(st.permutations(range(6)))
def test_the_order_of_the_rows_does_not_matter(order):
    ids, values = np.array(list("fbdace")), np.arange(6.0)
    rows = np.array(order)

    def made(rows):
        arrays = {"embeddings": values[rows, None], "losses": values[rows], "correct": values[rows] > 2}
        return ModelOutputs.from_arrays(ids[rows], **arrays)

    shuffled, plain = made(rows), made(np.arange(6))
    assert shuffled.example_ids == plain.example_ids == tuple("abcdef")
    assert torch.equal(shuffled.losses, plain.losses)
    assert torch.equal(shuffled.embeddings, plain.embeddings)
    assert torch.equal(shuffled.correct, plain.correct)


def test_numpy_pandas_torch_and_lists_are_all_taken():
    frame = pd.DataFrame({"x": [1.0, 2.0], "loss": [0.5, 1.0], "right": [True, False]}, index=["b", "a"])
    kinds = [
        ModelOutputs.from_arrays(frame.index, embeddings=frame[["x"]], losses=frame["loss"], correct=frame["right"]),
        ModelOutputs.from_arrays(["b", "a"], embeddings=[[1], [2]], losses=[0.5, 1], correct=[1, 0]),
        ModelOutputs.from_arrays(
            np.array(["b", "a"]),
            embeddings=torch.tensor([[1.0], [2.0]], dtype=torch.float64),
            losses=np.array([0.5, 1.0]),
            correct=torch.tensor([True, False]),
        ),
    ]
    for made in kinds:
        assert made.example_ids == ("a", "b")
        assert made.embeddings.flatten().tolist() == [2.0, 1.0]
        assert made.correct.tolist() == [False, True]


def test_losses_and_correct_are_computed_from_logits_and_labels():
    made = ModelOutputs.from_arrays("ab", embeddings=[[0], [0]], labels=[1, 0], logits=[[0.0, 1.0], [0.0, 1.0]])
    assert made.losses.tolist() == pytest.approx([np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))])
    assert made.correct.tolist() == [True, False]


def test_a_single_logit_stands_for_two_classes():
    made = ModelOutputs.from_arrays("ab", embeddings=[[0], [0]], labels=[1, 1], logits=[3.0, -3.0])
    assert made.logits.tolist() == [[0.0, 3.0], [0.0, -3.0]]
    assert made.correct.tolist() == [True, False]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "losses is missing, expected it or both logits and labels"),
        ({"losses": [0, 0]}, "correct is missing, expected it or both logits and labels"),
        ({"labels": [0, 0.5]}, "labels has 0.5 at row 1, expected a whole number"),
        ({"losses": [1, 2, 3], "correct": [1, 1]}, "losses has 3 rows, example_ids has 2"),
        ({"losses": ["high", "low"], "correct": [1, 1]}, "losses cannot be read as numbers"),
        ({"labels": [0, 5], "logits": [[0, 0], [0, 0]]}, "labels has 5 at row 1"),
        ({"labels": pd.Series(["cat", "dog"])}, r"labels has 'cat', expected whole numbers: .*pandas.factorize"),
        ({"logits": [0, 1], "probabilities": [0, 1]}, "logits and probabilities are both given"),
        ({"probabilities": [0.2, 1.5]}, "probabilities has 1.5 at row 1, expected 0 to 1"),
        ({"probabilities": [0.2, np.nan]}, "probabilities has nan at row 1, expected 0 to 1"),
        ({"probabilities": [[0.5, 0.5], [0.5, 0.6]]}, r"a sum of 1.1 at row 1, expected 1 \(within 0.001\)"),
        ({"probabilities": np.zeros((2, 1, 1))}, r"probabilities has shape \(2, 1, 1\)"),
    ],
)
def test_unusable_arrays_are_refused(arrays, message):
    with pytest.raises(InvalidInput, match=message):
        ModelOutputs.from_arrays("ab", embeddings=[[0], [0]], **arrays)


@pytest.mark.parametrize("given", [[0.25, 1.0], [[0.25], [1.0]], [[0.75, 0.25], [0.0, 1.0]]])
def test_probabilities_stand_for_logits(given):
    made = ModelOutputs.from_arrays("ab", embeddings=[[0], [0]], labels=[0, 0], probabilities=given)
    assert made.logits.softmax(dim=1).flatten().tolist() == pytest.approx([0.75, 0.25, 0, 1])
    assert made.losses.tolist() == pytest.approx([-np.log(0.75), -np.log(torch.finfo(torch.float32).tiny)])
    assert made.correct.tolist() == [True, False]


def test_rows_without_ids_are_numbered_in_their_order():
    arrays = {"embeddings": np.arange(11.0)[:, None], "labels": np.arange(11) % 2}
    made = ModelOutputs.from_arrays(**arrays, probabilities=pd.Series(np.linspace(0, 1, 11)))
    assert made.example_ids == ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10")
    assert made.embeddings.flatten().tolist() == arrays["embeddings"].flatten().tolist()
    with pytest.raises(InvalidInput, match="labels has 10 rows, embeddings has 11"):
        ModelOutputs.from_arrays(**arrays | {"labels": arrays["labels"][:10]}, logits=np.zeros(11))
    with pytest.raises(InvalidInput, match="embeddings is a float, expected a table"):
        ModelOutputs.from_arrays(embeddings=0.5)


def test_pandas_objects_with_one_index_in_two_orders_are_not_put_together():
    embeddings = pd.DataFrame({"x": [1.0, 2.0]}, index=["a", "b"])
    losses = pd.Series([0.5, 0.1], index=["b", "a"])
    with pytest.raises(InvalidInput, match=r"losses has the index of embeddings in another order.*losses\.loc"):
        ModelOutputs.from_arrays(embeddings=embeddings, losses=losses, correct=[True, True])
    made = ModelOutputs.from_arrays(embeddings=embeddings, losses=losses[embeddings.index], correct=[True, True])
    assert made.losses.tolist() == pytest.approx([0.1, 0.5])


def test_what_a_network_gave_is_taken_without_its_gradients():
    logits = torch.nn.Linear(2, 2)(torch.ones(3, 2))
    made = ModelOutputs.from_arrays(embeddings=logits, labels=torch.tensor([0, 1, 1]), logits=logits)
    assert not any(values.requires_grad for values in (made.embeddings, made.logits, made.losses))


def test_relabelling_shares_what_stays_and_computes_what_changes():
    plain = outputs()
    relabelled = plain.relabelled(torch.tensor([0, 1, 1]))
    assert relabelled.embeddings is plain.embeddings
    assert relabelled.logits is plain.logits
    assert relabelled.correct.tolist() == [True, True, True]
    assert relabelled.losses.tolist() == pytest.approx([np.log(1 + np.exp(-2))] * 3)
    assert plain.labels.tolist() == [0, 1, 0]


def test_relabelling_checks_what_is_new():
    with pytest.raises(InvalidInput, match="labels has 2 at row 2"):
        outputs().relabelled(torch.tensor([0, 1, 2]))
    with pytest.raises(InvalidInput, match="embeddings is not finite at row 0"):
        outputs().relabelled(torch.tensor([0, 1, 1]), embeddings=torch.full((3, 2), torch.nan))
    with pytest.raises(Unsupported, match="relabelling needs logits"):
        outputs(logits=None).relabelled(torch.tensor([0, 1, 1]))


def slices(**changed):
    fields = {
        "example_ids": ("a", "b"),
        "membership": torch.tensor([[0.5], [1.0]]),
        "members": torch.tensor([[False], [True]]),
    }
    return Slices(**(fields | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"membership": torch.tensor([[0.5], [1.5]])}, r"membership is outside \[0, 1\] at row 1 \('b'\)"),
        ({"membership": torch.tensor([[0.5], [torch.nan]])}, "membership is not finite at row 1"),
        ({"members": torch.zeros(2, 2, dtype=torch.bool)}, r"members has shape \(2, 2\), expected that of membership"),
        ({"members": torch.zeros(2, 1)}, "members is float32, expected a bool tensor"),
        ({"diagnostics": ({}, {})}, "diagnostics has 2 entries, expected one for each of 1 slices"),
        ({"diagnostics": ({"size": torch.tensor(1)},)}, "diagnostics of slice 0 are not json values"),
        ({"diagnostics": ({"ratio": float("nan")},)}, "diagnostics of slice 0 are not json values"),
    ],
)
def test_bad_slices_are_refused(changed, message):
    with pytest.raises(InvalidInput, match=message):
        slices(**changed)


def test_no_slices_are_slices_too():
    nothing = Slices.none(("a", "b"))
    assert (nothing.n_slices, nothing.membership.shape, nothing.diagnostics) == (0, (2, 0), ())


def test_every_slice_has_diagnostics():
    assert slices().diagnostics == ({},)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_memory_mapped_file_is_not_copied(tmp_path, mode):
    path = tmp_path / "embeddings.npy"
    np.save(path, np.arange(12, dtype=np.float32).reshape(4, 3))
    mapped = np.load(path, mmap_mode=mode)
    outputs = ModelOutputs.from_arrays("abcd", embeddings=mapped, losses=[0.0] * 4, correct=[True] * 4)
    assert outputs.embeddings.data_ptr() == mapped.ctypes.data
    shuffled = ModelOutputs.from_arrays("dcba", embeddings=mapped, losses=[0.0] * 4, correct=[True] * 4)
    assert torch.equal(shuffled.embeddings, outputs.embeddings.flip(0))


def test_arrays_in_memory_may_be_changed_afterwards():
    embeddings, losses = np.zeros((2, 1), dtype=np.float32), torch.zeros(2)
    outputs = ModelOutputs.from_arrays("ab", embeddings=embeddings, losses=losses, correct=[True] * 2)
    embeddings += 1
    losses += 1
    assert outputs.embeddings.sum() == outputs.losses.sum() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 70_000])
def test_what_is_not_finite_is_named_in_any_block(value, row):
    embeddings = torch.zeros(70_001, 2)
    embeddings[row, 1] = value
    with pytest.raises(InvalidInput, match=f"embeddings is not finite at row {row} "):
        ModelOutputs.from_arrays(embeddings=embeddings, losses=torch.zeros(70_001), correct=torch.ones(70_001))
