"""The deep factorised autoencoder, which sees a matrix of ratings as a set of entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot

from experiments.batches import as_is
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.training import Training
from methods.contract import InvalidInput, Unsupported

TRAIN, TEST = 0, 1  # an example's support: the split whose ratings the model may see
SLOPE = 0.01  # of LeakyReLU below zero


def _training() -> Training:
    return Training(
        epochs=200,
        batch_size=100_000,
        learning_rate=0.01,
        weight_decay=0.0,
        optimizer="adam",
        decay_every=180,
        clip=1.0,
    )


@dataclass(frozen=True)
class FactorisedAutoencoder:
    """An autoencoder of ratings (Hartford et al. 2018) that knows no user or item by name; embeddings of 600.

    Parameters
    ----------
    width : int
        Of the hidden layers; embeddings have four times as many columns.
    code : int
        Of what the encoder says of a user, and of an item.
    dropout : float
        Share of hidden units that are left out in training, in [0, 1); in steps of 1/256.
    training : Training
        As published, all ratings in one batch, Adam at 0.01 and gradients clipped to 1; but 200 epochs instead of
        5,000, and the last 20 of them at 0.001: at 0.01 the loss jumps at times, and an epoch may be the last one.

    Notes
    -----
    Hartford, Graham, Leyton-Brown and Ravanbakhsh (2018), "Deep models of interactions across sets"; the Spotlight
    paper's model for MovieLens (section 4.4), with the sizes of its release.

    The rating of an entry (user, item), one-hot, goes through three exchangeable layers: classes, width, width, code.
    The mean over a user's entries is the user's code, the mean over an item's entries the item's. Both codes of an
    entry go through three more: 2 code, width, width, classes. An exchangeable layer is one linear map of an entry's
    own values and of their means over its user's entries, its item's, and all entries. LeakyReLU and dropout follow
    all layers but the last of each half. The embedding is what the last linear map sees: the four parts one after the
    other.

    All means are over the support, the ratings that the model may see, so that no output depends on which other
    examples are in its batch: the train split, or, for examples that ask for it (`dataset.leak_test_ratings`), the test
    split (the published code pools its decoder over the examples that are asked for: the same only where they are the
    support). The means of a user or an item without entries in the support are zeros. In training, the train split is
    reconstructed from itself; the rating to be predicted is among the inputs, as in the published code.
    """

    version: ClassVar[int] = 1

    width: int = field(default=150, metadata={"min": 1})
    code: int = field(default=32, metadata={"min": 1})
    dropout: float = field(default=0.5, metadata={"min": 0, "max": 0.99})
    training: Training = field(default_factory=_training)

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        sizes = _sizes(dataset)
        train = _ratings(dataset.split("train"), sizes)
        leaks = any((split.examples[:, 2] == TEST).any() for split in dataset.splits.values())
        test = _ratings(dataset.split("test"), sizes) if leaks else None
        module = Autoencoder(train, test, len(dataset.class_names), self.width, self.code, self.dropout)
        return ModelUnderAudit(module, as_is, embedding_layer="hidden")


def _sizes(dataset: Dataset) -> tuple[int, int]:
    """Numbers of users and of items; `Unsupported` where examples are no ratings."""
    if not all(_are_ratings(split) for split in dataset.splits.values()):
        raise Unsupported(
            f"factorised_autoencoder takes ratings, examples of (user, item, support) with labels, as movielens has "
            f"them; those of {dataset.name} are something else"
        )
    n_users, n_items, _ = torch.cat([split.examples for split in dataset.splits.values()]).long().amax(dim=0) + 1
    return int(n_users), int(n_items)


def _are_ratings(split: Split) -> bool:
    examples = split.examples
    if split.labels is None or not isinstance(examples, Tensor) or examples.ndim != 2 or examples.shape[1] != 3:
        return False
    return bool(((examples >= 0) & (examples == examples.round())).all() and (examples[:, 2] <= TEST).all())


def _ratings(split: Split, sizes: tuple[int, int]) -> Ratings:
    users, items, _ = split.examples.long().unbind(dim=1)
    return Ratings(users, items, split.labels, sizes)


class Means(NamedTuple):
    """Means of values (n, d) over the entries of each user (n_users, d), of each item (n_items, d), of all (1, d)."""

    user: Tensor
    item: Tensor
    all: Tensor


class Ratings(nn.Module):
    """Entries of the matrix of ratings.

    Parameters
    ----------
    users, items, labels : Tensor, shape (n,), int64
        Of the entries, in any order; no two have the same user and item.
    sizes : (int, int)
        Numbers of users and of items.
    """

    users: Tensor
    items: Tensor
    labels: Tensor
    keys: Tensor
    per_user: Tensor
    per_item: Tensor

    def __init__(self, users: Tensor, items: Tensor, labels: Tensor, sizes: tuple[int, int]) -> None:
        super().__init__()
        keys = users * sizes[1] + items
        order = keys.argsort()
        entries = {"users": users[order], "items": items[order], "labels": labels[order], "keys": keys[order]}
        for name, values in entries.items():
            self.register_buffer(name, values, persistent=False)  # data, no weights
        for name, index, size in (("per_user", users, sizes[0]), ("per_item", items, sizes[1])):
            counts = index.bincount(minlength=size).clamp(min=1)[:, None].float()  # (size, 1); 0/1 is 0 for the others
            self.register_buffer(name, counts, persistent=False)

    def means(self, values: Tensor) -> Means:
        """Of values of the entries, shape (n, d); zeros for users and items that have none."""
        by_user, by_item = (
            values.new_zeros(len(counts), values.shape[1]).index_add(0, index, values) / counts
            for index, counts in ((self.users, self.per_user), (self.items, self.per_item))
        )
        return Means(by_user, by_item, values.mean(dim=0, keepdim=True))

    def rows(self, users: Tensor, items: Tensor) -> Tensor:
        """Where these are among the entries: Tensor, shape (b,), int64."""
        keys = users * len(self.per_item) + items
        rows = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        if not torch.equal(self.keys[rows], keys):
            raise InvalidInput("in training mode the model reconstructs ratings of the train split, and no others")
        return rows


def joined(own: Tensor, users: Tensor, items: Tensor, means: Means) -> Tensor:
    """What an exchangeable layer sees: own values (b, d), user's, item's and global means, together (b, 4 d)."""
    by_user, by_item = means.user.index_select(0, users), means.item.index_select(0, items)
    return torch.cat([own, by_user, by_item, means.all.expand_as(own)], dim=1)


def exchangeable(layer: nn.Linear, own: Tensor, users: Tensor, items: Tensor, means: Means) -> Tensor:
    """`layer(joined(...))`, with the means mapped once for each user and item and not once for each entry."""
    of_own, of_user, of_item, of_all = layer.weight.chunk(4, dim=1)
    by_user = means.user @ of_user.T + means.all @ of_all.T + layer.bias  # (n_users, out)
    by_item = means.item @ of_item.T  # (n_items, out)
    # in place: on all entries it is the making of large tensors that takes the time
    by_both = by_user.index_select(0, users).add_(by_item.index_select(0, items))  # (b, out)
    return torch.addmm(by_both, own, of_own.T)


class LeakyDropout(nn.Module):
    """LeakyReLU, then dropout; in training it writes over its input.

    Parameters
    ----------
    dropout : float
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropped = round(256 * dropout)  # of 256

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.dropped == 0:
            return leaky_relu(values, SLOPE)
        scale = 256 / (256 - self.dropped)
        factors = torch.where(values.detach() > 0, scale, SLOPE * scale)
        return values.mul_(factors.mul_(_random_bytes(values) >= self.dropped))


def _random_bytes(like: Tensor) -> Tensor:
    """A uint8 for each value, eight from one draw: drawing is what dropout spends its time on."""
    drawn = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return drawn.view(torch.uint8)[: like.numel()].view(like.shape)


class Seen(NamedTuple):
    """What the model makes of a support.

    Parameters
    ----------
    codes : Means
    means : list of Means
        Of what enters each layer of the decoder and the last one.
    own : Tensor, shape (n, width)
        What enters the last layer, of each entry of the support.
    """

    codes: Means
    means: list[Means]
    own: Tensor


class Autoencoder(nn.Module):
    """From examples (user, item, support), shape (b, 3), to logits, shape (b, c).

    Parameters
    ----------
    train, test : Ratings
        The supports; without `test`, all examples are answered from `train`.
    n_classes, width, code : int
    dropout : float

    Notes
    -----
    Without gradients, what is made of a support is kept, and made anew when a weight has changed or moved.
    """

    def __init__(
        self, train: Ratings, test: Ratings | None, n_classes: int, width: int, code: int, dropout: float
    ) -> None:
        super().__init__()
        self.train_ratings, self.test_ratings, self.n_classes = train, test, n_classes
        self.encoder = _layers(n_classes, width, width, code)
        self.decoder = _layers(2 * code, width, width)
        self.activation = LeakyDropout(dropout)
        self.hidden = nn.Identity()
        self.last = nn.Linear(4 * width, n_classes)
        self._kept: dict[Ratings, tuple[object, list[Tensor], Seen]] = {}

    def forward(self, examples: Tensor) -> Tensor:
        users, items, support = examples.long().unbind(dim=1)
        if self.training:
            return self._reconstructed(users, items)
        hidden = self._decoded(users, items, self.train_ratings)
        if self.test_ratings is not None:
            of_test = self._decoded(users, items, self.test_ratings)
            hidden = torch.where(support[:, None] == TEST, of_test, hidden)
        return self.last(self.hidden(hidden))

    def _reconstructed(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits of entries of the support: there is no need to decode them again, nor to form the hidden layer."""
        ratings = self.train_ratings
        seen = self._seen(ratings)
        logits = exchangeable(self.last, seen.own, ratings.users, ratings.items, seen.means[-1])
        return logits.index_select(0, ratings.rows(users, items))

    def _decoded(self, users: Tensor, items: Tensor, ratings: Ratings) -> Tensor:
        """What the last layer sees of any entries: Tensor, shape (b, 4 width)."""
        seen = self._seen(ratings) if torch.is_grad_enabled() else self._remembered(ratings)
        own = _codes(seen.codes, users, items)
        for layer, means in zip(self.decoder, seen.means, strict=False):  # the last means are not the decoder's
            own = self.activation(exchangeable(layer, own, users, items, means))
        return joined(own, users, items, seen.means[-1])

    def _remembered(self, ratings: Ratings) -> Seen:
        weights = [weight.detach() for weight in self.parameters()]
        state = [(weight.data_ptr(), weight._version) for weight in weights]
        if ratings not in self._kept or self._kept[ratings][0] != state:
            # what the weights lie in is kept too: as long as it lives, nothing else can have its address, not even what
            # `.data =` or `.to()` puts in its place without another version
            self._kept[ratings] = state, weights, self._seen(ratings)
        return self._kept[ratings][2]

    def _seen(self, ratings: Ratings) -> Seen:
        users, items = ratings.users, ratings.items
        own = one_hot(ratings.labels, self.n_classes).to(self.last.weight)  # (n, c)
        *hidden, final = self.encoder
        for layer in hidden:
            own = self.activation(exchangeable(layer, own, users, items, ratings.means(own)))
        codes = ratings.means(exchangeable(final, own, users, items, ratings.means(own)))
        own = _codes(codes, users, items)
        means = [ratings.means(own)]
        for layer in self.decoder:
            own = self.activation(exchangeable(layer, own, users, items, means[-1]))
            means.append(ratings.means(own))
        return Seen(codes, means, own)


def _layers(*widths: int) -> nn.ModuleList:
    return nn.ModuleList([nn.Linear(4 * before, after) for before, after in pairwise(widths)])


def _codes(codes: Means, users: Tensor, items: Tensor) -> Tensor:
    """Of entries, their user's code and their item's: Tensor, shape (b, 2 code)."""
    return torch.cat([codes.user.index_select(0, users), codes.item.index_select(0, items)], dim=1)
