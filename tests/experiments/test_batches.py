import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from experiments.batches import Batches, as_is
from experiments.contract import ModelUnderAudit, Split
from experiments.settings import Compute
from methods.contract import InvalidInput


def split_of(n, labels=True):
    ids = tuple(f"{row:03d}" for row in range(n))
    examples = torch.arange(n, dtype=torch.float32)[:, None]
    attributes = pd.DataFrame(index=pd.Index(ids, name="id"))
    return Split(ids, examples, torch.arange(n) if labels else None, attributes)


def model_of(preprocess=lambda example: example):
    return ModelUnderAudit(nn.Sequential(nn.Identity()), preprocess, embedding_layer="0", key="k")


def batches(n=10, workers=2, model=None, **options):
    return Batches(split_of(n), model or model_of(), Compute(workers=workers), **options)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_example_comes_once_in_order_with_its_target(workers):
    found = list(batches(10, workers, batch_size=4))
    assert [len(examples) for examples, _ in found] == [4, 4, 2]
    examples, targets = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert examples.flatten().tolist() == targets.tolist() == list(range(10))


def test_threads_change_neither_order_nor_randomness():
    orders = []
    for workers in (0, 3):
        torch.manual_seed(3)
        orders.append([targets.tolist() for _, targets in batches(50, workers, batch_size=8, shuffle=True)])
        orders.append(torch.rand(1).item())
    assert orders[:2] == orders[2:]
    assert sorted(row for rows in orders[0] for row in rows) == list(range(50))


def test_examples_are_prepared_while_the_model_computes():
    """Two threads prepare 5 ms an example while the consumer takes 10 ms a batch of two: it hardly waits."""

    def slow(example):
        time.sleep(0.005)
        return example

    prepared = batches(40, 2, model_of(slow), batch_size=2)
    start = time.perf_counter()
    for _ in prepared:
        time.sleep(0.012)
    assert prepared.waited < 0.5 * (time.perf_counter() - start)
    alone = batches(40, 0, model_of(slow), batch_size=2)
    list(alone)
    assert alone.waited > 0.2
    assert prepared.waited < alone.waited


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_only_two_batches_are_ahead_however_many_threads_there_are(workers):
    touched = []

    def note(example):
        touched.append(int(example))
        return example

    iterator = iter(batches(1000, workers, model_of(note), batch_size=4))
    next(iterator)
    time.sleep(0.1)
    assert len(touched) <= 3 * 4
    iterator.close()


def test_all_threads_work_on_one_batch():
    names = set()

    def note(example):
        names.add(threading.current_thread().name)
        time.sleep(0.005)
        return example

    list(batches(16, 4, model_of(note), batch_size=16))
    assert len(names) > 1


def test_examples_that_do_not_fit_together_are_named():
    with pytest.raises(InvalidInput, match=r"'000' and '002' have the shapes \(1,\) and \(3,\)"):
        list(batches(4, 2, model_of(lambda example: example if example < 2 else example.repeat(3)), batch_size=4))


def test_targets_are_not_made_where_nobody_asks_for_them():
    model = ModelUnderAudit(
        nn.Sequential(nn.Identity()), as_is, embedding_layer="0", to_targets=lambda split: pytest.fail("made targets")
    )
    assert [targets for _, targets in Batches(split_of(3), model, Compute(), with_targets=False)] == [None]


def test_an_unreadable_example_is_named_as_it_was():
    def refuse(example):
        if example == 7:
            raise InvalidInput("7.jpg cannot be read")
        return example

    with pytest.raises(InvalidInput, match=r"^7.jpg cannot be read$"):
        list(batches(10, 2, model_of(refuse), batch_size=2))


def test_a_split_without_labels_has_no_targets():
    found = list(Batches(split_of(3, labels=False), model_of(), Compute(), batch_size=2))
    assert [targets for _, targets in found] == [None, None]


def test_a_last_batch_of_one_is_left_out_where_it_would_be_trained_on():
    assert [len(examples) for examples, _ in batches(9, batch_size=4, shuffle=True)] == [4, 4]
    assert [len(examples) for examples, _ in batches(9, batch_size=4)] == [4, 4, 1]
    assert [len(examples) for examples, _ in batches(1, batch_size=4, shuffle=True)] == [1]


def test_chosen_rows_only():
    (found,) = batches(10, rows=np.array([7, 2]).tolist())
    assert found[1].tolist() == [7, 2]


@pytest.mark.parametrize("examples", [torch.rand(10, 3), list(torch.rand(10, 3))], ids=["a tensor", "a list"])
def test_examples_that_are_taken_as_they_are_come_in_whole_batches(examples):
    bare = split_of(10)
    split = Split(bare.example_ids, examples, bare.labels, bare.attributes)
    found = list(Batches(split, model_of(as_is), Compute(workers=2), batch_size=4))
    assert [len(batch) for batch, _ in found] == [4, 4, 2]
    assert torch.cat([batch for batch, _ in found]).equal(torch.stack(list(examples)))


def test_of_a_tensor_as_it_is_no_example_is_taken_alone():
    """100,000 ratings in one batch: one by one they would take as long as the model does with them."""

    class Rows(torch.Tensor):
        def __getitem__(self, index):
            assert isinstance(index, torch.Tensor)
            return super().__getitem__(index)

    bare = split_of(10)
    split = Split(bare.example_ids, torch.rand(10, 3).as_subclass(Rows), bare.labels, bare.attributes)
    (batch,) = Batches(split, model_of(as_is), Compute(), shuffle=True)
    assert batch[0].shape == (10, 3)
