"""How a method is fitted to many problems."""

from dataclasses import dataclass, field

import pytest
import torch

from experiments.contract import Problem
from experiments.discovery import fit_all
from methods.contract import ModelOutputs
from methods.gmm import GMM
from methods.kmeans import KMeansSlices
from methods.planespot import PlaneSpot

SHARING = [
    GMM(n_slices=2, n_components=4),
    KMeansSlices(n_slices=2, n_clusters=4),
    *(
        PlaneSpot(2, "pca", min_components=3, max_components=5, min_size=1, probability=p)
        for p in ("prediction", "label")
    ),
]


def outputs(losses, embeddings, **more):
    n = len(losses)
    return ModelOutputs(
        tuple(f"{i:02d}" for i in range(n)), embeddings, torch.tensor(losses), torch.tensor(losses) < 0.5, **more
    )


def random_problems(names):
    """Of one model on 80 examples: embeddings and logits are the same, labels and losses are not."""
    generator = torch.Generator().manual_seed(0)
    embeddings, logits = torch.randn(80, 3, generator=generator), torch.randn(80, 2, generator=generator)
    for name in names:
        losses = torch.rand(80, generator=generator).tolist()
        labels = torch.randint(0, 2, (80,), generator=generator)
        yield problem(name, outputs(losses, embeddings, logits=logits, labels=labels))


def problem(name, of_it):
    return Problem(name, name, "none", of_it, of_it)


@dataclass
class Counting:
    """Says how often each of its halves was asked to learn, and from which seed."""

    seed: int = 0
    log: list = field(default_factory=list)

    def fit_embeddings(self, of_it):
        self.log.append(("embeddings", self.seed))
        return self

    def fit_losses(self, of_it):
        self.log.append(("losses", float(of_it.losses[0])))
        return self

    def predict(self, of_it):
        """Every method has one; here only the fit is looked at."""


def test_what_embeddings_teach_is_learned_once_for_all_problems_that_share_them():
    embeddings, method = torch.randn(3, 2), Counting()
    fit_all(method, [problem("a", outputs([1.0, 0, 0], embeddings)), problem("b", outputs([2.0, 0, 0], embeddings))], 0)
    assert [what for what, _ in method.log] == ["embeddings", "losses", "losses"]
    assert [value for what, value in method.log if what == "losses"] == [1.0, 2.0]


def test_problems_with_embeddings_of_their_own_are_fitted_one_by_one_from_the_same_seed():
    method = Counting()
    problems = [problem(name, outputs([1.0, 0, 0], torch.randn(3, 2))) for name in "ab"]
    fit_all(method, problems, 7)
    seeds = [seed for what, seed in method.log if what == "embeddings"]
    assert len(seeds) == 2
    assert len(set(seeds)) == 1


@pytest.mark.parametrize("method", SHARING)
def test_a_block_gives_what_its_problems_give_alone(method):
    problems = list(random_problems("abc"))
    together = [fitted.predict(one.score) for fitted, one in zip(fit_all(method, problems, 1), problems, strict=True)]
    alone = [fit_all(method, [one], 1)[0].predict(one.score) for one in problems]
    assert all(torch.equal(a.members, b.members) for a, b in zip(together, alone, strict=True))
    assert not torch.equal(together[0].members, together[1].members)


@pytest.mark.parametrize("method", SHARING)
def test_fit_is_both_halves(method):
    (one,) = random_problems("a")
    halves = method.fit_embeddings(one.fit).fit_losses(one.fit).predict(one.fit)
    assert torch.equal(method.fit(one.fit).predict(one.fit).members, halves.members)


def test_other_logits_are_learned_from_anew():
    embeddings, method = torch.randn(3, 2), Counting()
    logits = [torch.randn(3, 2) for _ in range(2)]
    fit_all(
        method, [problem(n, outputs([1.0, 0, 0], embeddings, logits=x)) for n, x in zip("ab", logits, strict=True)], 0
    )
    assert [what for what, _ in method.log] == ["embeddings", "losses"] * 2
