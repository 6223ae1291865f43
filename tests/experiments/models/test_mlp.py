import pandas as pd
import pytest
import torch

from experiments.contract import Dataset, Split
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.models.mlp import MLP
from experiments.reading.stored import Stored
from experiments.training import train_or_load
from methods.contract import Unsupported


def dataset_of(examples, modality="table"):
    n = len(examples)
    ids = tuple(f"{row:02d}" for row in range(n))
    attributes = pd.DataFrame(index=pd.Index(ids, name="id"))
    split = Split(ids, examples, torch.arange(n) % 3, attributes)
    return Dataset("rows", modality, ("a", "b", "c"), {"train": split}, "f")


def test_the_embedding_is_the_last_hidden_layer():
    model = MLP(hidden=(8, 5)).build(dataset_of(torch.randn(6, 4)))
    batch = torch.stack([model.preprocess(row) for row in torch.randn(6, 4)])
    assert model.logits(batch).shape == (6, 3)
    hidden = model.layer(model.embedding_layer)(batch)
    assert hidden.shape == (6, 5)
    assert torch.equal(model.layer("classifier")(hidden), model.logits(batch))


def test_other_modalities_are_refused():
    with pytest.raises(Unsupported, match="mlp takes tables; rows has modality series"):
        MLP().build(dataset_of(torch.randn(6, 4), "series"))


def test_stored_outputs_are_no_features():
    with pytest.raises(Unsupported, match="read them with model=precomputed"):
        MLP().build(dataset_of(Stored(torch.randn(6, 4))))


def test_numbers_that_name_something_are_no_quantities():
    with pytest.raises(
        Unsupported, match="mlp takes quantities; the examples of rows are whole numbers that name some"
    ):
        MLP().build(dataset_of(torch.arange(18).reshape(6, 3)))


def accuracy(settings):
    dataset = load_dataset(settings)
    return infer(settings, dataset, train_or_load(settings, dataset))["test"].correct.float().mean()


def test_it_learns_a_table(tmp_path, settings_of):
    rows = [f"{x},{(7 * x) % 11},{int(x > 50)},{'train' if x % 2 else 'test'}" for x in range(100)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["x,noise,label,split", *rows]))
    table = ("dataset=table", f"dataset.path={path}", "dataset.label=label", "dataset.split=split")
    assert accuracy(settings_of(*table, "model=mlp", "model.training.batch_size=8")) > 0.9


@pytest.mark.parametrize(
    ("name", "files", "bound"), [("adult", "adult.data", 0.84), ("wine", "winequality-red.csv", 0.72)]
)
def test_it_learns_the_real_data(data, settings_of, name, files, bound):
    root = data(f"uci/{files}")
    assert accuracy(settings_of(f"dataset={name}", f"paths.data={root}", "model=mlp")) > bound
