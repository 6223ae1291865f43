"""The factorised autoencoder sees a matrix of ratings as a set: order, names and batches do not matter."""

import copy
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments.batches import Batches
from experiments.contract import Dataset, Split
from experiments.inference import LOGITS, Layer, forward
from experiments.loaders.movielens import MovieLens
from experiments.models.factorised_autoencoder import (
    Autoencoder,
    FactorisedAutoencoder,
    LeakyDropout,
    Ratings,
    exchangeable,
    joined,
)
from experiments.settings import Compute
from methods.contract import InvalidInput, Unsupported
from methods.influence import ModuleInfluence
from methods.influence_linear import LinearInfluence

SIZES = (6, 8)


def split_of(prefix, entries, labels, support=0):
    ids = tuple(f"{prefix}-{row:03d}" for row in range(len(entries)))
    examples = torch.tensor([[user, item, support] for user, item in entries])
    return Split(ids, examples, torch.tensor(labels), pd.DataFrame(index=pd.Index(ids, name="id")))


def ratings(seed=0, leak=False, test_labels=None):
    """24 training and 12 test ratings of 6 users for 8 items, none by the last user or of the last item in training."""
    generator = np.random.default_rng(seed)
    entries = [(user, item) for user in range(6) for item in range(8)]
    known = [entry for entry in entries if entry[0] < 5 and entry[1] < 7]
    train = sorted(known[row] for row in generator.permutation(len(known))[:24])
    rest = [entry for entry in entries if entry not in train]
    test = sorted(rest[row] for row in generator.permutation(len(rest))[:12])
    labels = generator.integers(5, size=36).tolist()
    splits = {
        "train": split_of("train", train, labels[:24]),
        "test": split_of("test", test, test_labels or labels[24:], support=int(leak)),
    }
    return Dataset("few ratings", "table", ("1", "2", "3", "4", "5"), splits, "fingerprint")


def built(dataset=None, seed=0, **settings):
    torch.manual_seed(seed)
    return FactorisedAutoencoder(**settings).build(dataset or ratings())


@torch.inference_mode()
def logits_of(model, split):
    return model.logits(split.examples)


def a_matrix():
    """2 users, 3 items; the second user has not rated the first item."""
    users, items = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 1, 2])
    return Ratings(users, items, torch.zeros(5, dtype=torch.int64), (2, 3))


def test_an_exchangeable_layer_by_hand():
    entries, values = a_matrix(), torch.tensor([[1.0], [2.0], [6.0], [4.0], [12.0]])
    means = entries.means(values)
    assert means.user.flatten().tolist() == [3, 8]
    assert means.item.flatten().tolist() == [1, 3, 9]
    assert means.all.item() == 5
    layer = torch.nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = torch.tensor([[1.0, 10.0, 100.0, 1000.0]]), 0.5
    made = exchangeable(layer, values, entries.users, entries.items, means)
    assert made.flatten().tolist() == [5131.5, 5332.5, 5936.5, 5384.5, 5992.5]


def test_the_layer_is_one_linear_map_of_the_four_parts():
    entries, values = a_matrix(), torch.randn(5, 7)
    layer, where = torch.nn.Linear(28, 3), (entries.users, entries.items)
    means = entries.means(values)
    assert joined(values, *where, means).shape == (5, 28)
    torch.testing.assert_close(
        exchangeable(layer, values, *where, means), layer(joined(values, *where, means)), rtol=1e-4, atol=1e-5
    )


def test_who_has_no_ratings_has_means_of_zero():
    entries = Ratings(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1, 2]), (2, 3))
    means = entries.means(torch.tensor([[1.0], [3.0]]))
    assert means.user.flatten().tolist() == [2, 0]
    assert means.item.flatten().tolist() == [1, 3, 0]


def test_the_whole_model_is_what_the_paper_writes_down():
    """Every exchangeable layer formed in full, over a dense matrix with a mask."""
    dataset = ratings()
    model, train = built(dataset), dataset.split("train")
    users, items = train.examples[:, 0].long(), train.examples[:, 1].long()
    mask = torch.zeros(*SIZES, 1).index_put((users, items), torch.ones(24, 1))

    def layer(linear, own):
        seen = own * mask
        rows, columns = mask.sum(1, keepdim=True).clamp(min=1), mask.sum(0, keepdim=True).clamp(min=1)
        parts = (seen.sum(1, keepdim=True) / rows, seen.sum(0, keepdim=True) / columns, seen.sum((0, 1)) / mask.sum())
        return linear(torch.cat([own, *(part.expand_as(own) for part in parts)], dim=2))

    def hidden(linear, own):
        return torch.nn.functional.leaky_relu(layer(linear, own))

    module = model.module
    own = torch.zeros(*SIZES, 5).index_put((users, items), torch.eye(5)[train.labels])
    own = layer(module.encoder[2], hidden(module.encoder[1], hidden(module.encoder[0], own))) * mask
    of_user = own.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    of_item = own.sum(0, keepdim=True) / mask.sum(0, keepdim=True).clamp(min=1)
    own = torch.cat([of_user.expand_as(own), of_item.expand_as(own)], dim=2)
    expected = layer(module.last, hidden(module.decoder[1], hidden(module.decoder[0], own)))
    for split in dataset.splits.values():
        rows = split.examples[:, 0].long(), split.examples[:, 1].long()
        torch.testing.assert_close(logits_of(model, split), expected[rows].detach(), rtol=1e-4, atol=1e-5)


def test_numbering_users_and_items_otherwise_changes_nothing():
    dataset = ratings()
    of_user, of_item = torch.randperm(6), torch.randperm(8)
    renamed = {}
    for name, split in dataset.splits.items():
        users, items, support = split.examples.long().unbind(dim=1)
        examples = torch.stack([of_user[users], of_item[items], support], dim=1).float()
        renamed[name] = Split(split.example_ids, examples, split.labels, split.attributes)
    other = Dataset("renamed", "table", dataset.class_names, renamed, "fingerprint")
    before, after = (logits_of(built(d), d.split("test")) for d in (dataset, other))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_training_ratings_changes_nothing():
    dataset = ratings()
    train, order = dataset.split("train"), torch.randperm(24)
    turned = Split(train.example_ids, train.examples[order], train.labels[order], train.attributes)
    other = Dataset("turned", "table", dataset.class_names, {**dataset.splits, "train": turned}, "fingerprint")
    test = dataset.split("test")
    assert logits_of(built(dataset), test).equal(logits_of(built(other), test))


@pytest.mark.parametrize("leak", [False, True])
def test_an_output_does_not_depend_on_the_rest_of_its_batch(leak):
    dataset = ratings(leak=leak)
    model, test = built(dataset), dataset.split("test")
    alone = torch.cat([model.logits(example[None]) for example in test.examples])
    torch.testing.assert_close(alone, model.logits(test.examples), rtol=1e-4, atol=1e-5)
    both = torch.cat([test.examples, dataset.split("train").examples])
    torch.testing.assert_close(alone, model.logits(both)[:12], rtol=1e-4, atol=1e-5)


def test_no_test_rating_is_seen_unless_that_is_asked_for():
    changed = [4] * 12
    splits = [ratings(test_labels=labels).split("test") for labels in (None, changed)]
    assert not splits[0].labels.equal(splits[1].labels)
    honest = [logits_of(built(ratings(test_labels=labels)), splits[0]) for labels in (None, changed)]
    assert honest[0].equal(honest[1])
    asked = ratings(leak=True).split("test")
    leaking = [logits_of(built(ratings(leak=True, test_labels=labels)), asked) for labels in (None, changed)]
    assert not leaking[0].allclose(leaking[1], atol=1e-3)


def test_with_test_ratings_as_inputs_the_training_ratings_are_none():
    dataset = ratings(leak=True)
    train, test = dataset.split("train"), dataset.split("test")
    others = Split(train.example_ids, train.examples, (train.labels + 1) % 5, train.attributes)
    changed = Dataset("others", "table", dataset.class_names, {"train": others, "test": test}, "fingerprint")
    assert logits_of(built(dataset), test).equal(logits_of(built(changed), test))
    assert not logits_of(built(dataset), train).allclose(logits_of(built(changed), train), atol=1e-3)


def test_training_reconstructs_the_training_ratings():
    model, train = built(dropout=0.0), ratings().split("train")
    expected = logits_of(model, train)
    model.module.train()
    order = torch.randperm(24)
    torch.testing.assert_close(model.logits(train.examples[order]), expected[order], rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInput, match="ratings of the train split, and no others"):
        model.logits(ratings().split("test").examples)


def test_training_learns_the_ratings():
    model, train = built(width=32, dropout=0.1), ratings().split("train")
    optimizer = torch.optim.Adam(model.module.parameters(), lr=0.01)
    model.module.train()
    for _ in range(150):
        optimizer.zero_grad()
        loss = cross_entropy(model.logits(train.examples), train.labels)
        loss.backward()
        optimizer.step()
    model.module.eval()
    assert cross_entropy(logits_of(model, train), train.labels) < 0.8  # 1.6 for five classes alike


def test_training_sees_no_test_ratings_even_where_the_test_examples_may():
    weights = []
    for leak in (False, True):
        model, train = built(ratings(leak=leak)), ratings().split("train")
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1)
        model.module.train()
        cross_entropy(model.logits(train.examples), train.labels).backward()
        optimizer.step()
        weights.append(model.module.state_dict())
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_what_is_kept_of_the_support_follows_the_weights():
    model, test = built(), ratings().split("test")
    before = logits_of(model, test)
    assert before.equal(logits_of(model, test))
    other = built(seed=1)
    expected = logits_of(other, test)
    model.module.load_state_dict(other.module.state_dict())
    assert expected.equal(logits_of(model, test))
    with torch.no_grad():
        model.module.encoder[0].weight.mul_(2)
    assert not expected.allclose(logits_of(model, test), atol=1e-3)
    assert logits_of(copy.deepcopy(model), test).equal(logits_of(model, test))
    assert model.module.double()(test.examples.double()).dtype == torch.float64


def test_no_other_weights_can_lie_where_those_lay_that_are_remembered():
    model = built()
    weight = model.module.encoder[1].weight
    values = weight.detach().numpy().copy()
    weight.data, memory = torch.from_numpy(values), weakref.ref(values)
    logits_of(model, ratings().split("test"))
    weight.data = torch.empty(0)
    del values
    assert memory() is not None  # else another tensor could get its address, and be taken for it


def test_the_support_is_encoded_once_for_all_batches(monkeypatch):
    model, test, calls = built(), ratings().split("test"), []
    seen = Autoencoder._seen
    monkeypatch.setattr(Autoencoder, "_seen", lambda *arguments: calls.append(1) or seen(*arguments))
    for _ in range(3):
        logits_of(model, test)
    assert len(calls) == 1
    model.logits(test.examples).sum().backward()
    assert len(calls) == 2
    assert model.module.encoder[0].weight.grad.abs().sum() > 0


def test_the_ratings_are_no_part_of_the_weights():
    weights = built().module.state_dict()
    assert all(name.split(".")[0] in ("encoder", "decoder", "last") for name in weights)
    assert {tuple(values.shape) for name, values in weights.items() if name.endswith("weight")} == {
        (150, 20),
        (150, 600),
        (32, 600),
        (150, 256),
        (5, 600),
    }


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    layer = LeakyDropout(0.25)
    made = layer(torch.ones(1000, 64))
    assert made.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert made.mean().item() == pytest.approx(1, abs=0.02)
    assert (made == 0).float().mean(dim=0).sub(0.25).abs().max() < 0.08  # in every column
    assert layer(torch.full((4, 4), -1.0)).unique().tolist() in (
        [pytest.approx(-0.04 / 3), 0],
        [pytest.approx(-0.04 / 3)],
    )
    assert layer.eval()(torch.tensor([-1.0, 2.0])).tolist() == [pytest.approx(-0.01), 2]


def test_the_embedding_has_600_columns_and_gives_the_influence_of_the_last_layer():
    dataset = ratings()
    model, train = built(dataset), dataset.split("train")
    hidden = Layer("hidden")
    outputs = forward(model, train, [LOGITS, hidden], Compute(batch_size=7))
    features, logits = torch.from_numpy(outputs[hidden]), torch.from_numpy(outputs[LOGITS])
    assert features.shape == (24, 600)
    torch.testing.assert_close(model.module.last(features), logits, rtol=1e-4, atol=1e-5)
    closed = LinearInfluence.fit(features, logits, krylov_dim=40, rank=5)
    general = ModuleInfluence.fit(
        model.module, ["last"], lambda: [(train.examples, train.labels)], krylov_dim=40, rank=5
    )
    torch.testing.assert_close(closed.factors.eigenvalues, general.factors.eigenvalues, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_influence_reaches_the_layers_that_the_support_goes_through():
    dataset = ratings()
    model, train = built(dataset, width=8, code=4), dataset.split("train")
    influence = ModuleInfluence.fit(
        model.module, ["encoder.0"], lambda: [(train.examples, train.labels)], krylov_dim=20, rank=4
    )
    embeddings = influence.embed(train.examples, train.labels)
    assert embeddings.shape == (24, influence.factors.rank)
    assert torch.isfinite(embeddings).all()


def test_what_are_no_ratings_is_refused():
    few = split_of("train", [(0, 0), (1, 1)], [0, 1])
    tables = {
        "fractions": few.examples + 0.5,
        "other columns": torch.zeros(2, 4),
        "negative": few.examples - 1,
        "another support": few.examples + 2,
    }
    for examples in tables.values():
        split = Split(few.example_ids, examples, few.labels, few.attributes)
        with pytest.raises(Unsupported, match=r"takes ratings.*those of wine are something else"):
            FactorisedAutoencoder().build(Dataset("wine", "table", ("a", "b"), {"train": split}, "f"))


def test_all_ratings_are_one_batch():
    recipe = FactorisedAutoencoder().training
    (batch,) = Batches(ratings().split("train"), built(), Compute(), recipe.batch_size, shuffle=True)
    assert batch[0].shape == (24, 3)


def write_files(folder, dataset):
    """The ratings as the publisher lays them out."""
    folder.mkdir()
    for name, split in (("u1.base", dataset.split("train")), ("u1.test", dataset.split("test"))):
        entries = zip(split.examples[:, :2].int().tolist(), split.labels.tolist(), strict=True)
        lines = [f"{user + 1}\t{item + 1}\t{label + 1}\t0\n" for (user, item), label in entries]
        (folder / name).write_text("".join(lines))
    (folder / "u.user").write_text("".join(f"{user}|30|F|other|0\n" for user in range(1, 7)))
    (folder / "u.item").write_text("".join(f"{item}|A film|||x|1\n" for item in range(1, 9)))
    (folder / "u.genre").write_text("Drama|0\n")
    (folder / "u.info").write_text("36 ratings\n")


@pytest.mark.parametrize("leak", ["false", "true"])
def test_a_run_goes_from_files_to_scores(slicebench, tmp_path, leak):
    write_files(tmp_path / "ml-100k", ratings())
    few = ("model.training.epochs=2", "method=kmeans", "dataset.n_components=2", f"dataset.leak_test_ratings={leak}")
    result = slicebench("run", "dataset=movielens", "model=factorised_autoencoder", *few, f"paths.data={tmp_path}")
    assert result.exit_code == 0, result.output


def test_on_the_real_ratings_a_few_epochs_beat_constant_predictions(data):
    dataset = MovieLens().load(data("ml-100k"), seed=0)
    train, test = dataset.split("train"), dataset.split("test")
    model = built(dataset, width=24, code=12, dropout=0.0)
    optimizer = torch.optim.Adam(model.module.parameters(), lr=0.015)
    model.module.train()
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(model.logits(train.examples), train.labels).backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()
    model.module.eval()
    shares = train.labels.bincount() / train.n_examples
    constant = -shares[test.labels].log().mean()
    assert cross_entropy(logits_of(model, test), test.labels) < constant - 0.05
