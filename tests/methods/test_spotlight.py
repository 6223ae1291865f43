import os
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.contract import InvalidInput, ModelOutputs
from methods.spotlight import Spotlight
from methods.spotlight_size import best_cut, f1_of_errors, hard_members, loss_gap


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_outputs(embeddings, losses, correct=None):
    ids = tuple(f"{i:04d}" for i in range(len(losses)))
    return ModelOutputs(ids, embeddings, losses, losses < 1 if correct is None else correct)


def planted(n=300, d=8, blobs=(30,), high=4.0, seed=0, scale=1.0):
    """Blobs of high loss, the first examples, each lower than the one before; the rest around the origin."""
    generator = torch.Generator().manual_seed(seed)
    x, losses = torch.randn(n, d, generator=generator), 0.6 * torch.rand(n, generator=generator)
    start = 0
    for blob, size in enumerate(blobs):
        x[start : start + size] = 0.3 * x[start : start + size]
        x[start : start + size, blob] += 4
        losses[start : start + size] += high * 0.7**blob
        start += size
    return model_outputs(scale * x, losses)


def top(slices, column=0, k=10):
    return slices.membership[:, column].topk(k).indices


def members(method, outputs):
    return method.fit(outputs).predict(outputs).members


def jaccard(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize("start", ["mean", "ball"])
def test_a_blob_of_high_loss_is_found(start):
    outputs = planted()
    method = Spotlight(n_slices=1, size=30, start=start, steps=100 if start == "ball" else 1000)
    slices = method.fit(outputs).predict(outputs)
    assert (top(slices) < 30).float().mean() >= 0.8
    assert jaccard(slices.members[:, 0], torch.arange(300) < 30) >= 0.8
    assert slices.diagnostics[0]["warnings"] == []


def test_the_paper_starts_at_the_origin_of_the_embeddings():
    outputs = planted()
    method = Spotlight(n_slices=1, size=30, start="paper", steps=1, learning_rate=1e-6).fit(outputs)
    origin = method.centers_[0] + method.embedding_map_.mean
    torch.testing.assert_close(origin, torch.zeros(8), atol=1e-5, rtol=0)
    assert method.precisions_.item() == pytest.approx(1e-4, rel=1e-5)
    assert method.embedding_map_.scale == 1


def test_the_paper_s_settings_reproduce_the_released_optimiser():
    path = Path(os.environ.get("SLICEBENCH_DATA", "")) / "golden" / "spotlight_released.npz"
    if not path.is_file():
        pytest.skip(f"no stored runs of the released optimiser at {path}: set SLICEBENCH_DATA to the data pack")
    golden = np.load(path)
    embeddings, losses = torch.from_numpy(golden["embeddings"]), torch.from_numpy(golden["losses"])
    # where one run ends is a matter of rounding, though most end alike
    jittered = [
        model_outputs(embeddings * (1 + 1e-6 * torch.randn(1, generator=torch.Generator().manual_seed(seed))), losses)
        for seed in range(5)
    ]
    fits = Spotlight(n_slices=2, size=45, C=10.0, start="paper", steps=2000).fit_many(jittered, seeds=[0] * 5)
    found = [fit.predict(outputs) for fit, outputs in zip(fits, jittered, strict=True)]
    for column in (0, 1):
        expected = torch.zeros(len(losses), dtype=torch.bool)
        expected[torch.from_numpy(golden[f"a{column}_k"]).topk(45).indices] = True
        assert np.median([jaccard(slices.members[:, column], expected) for slices in found]) >= 0.9
        objectives = [slices.diagnostics[column]["objective"] for slices in found]
        assert np.median(objectives) == pytest.approx(golden[f"a{column}_objective"][-1], rel=0.01)


def test_the_second_spotlight_finds_the_second_blob():
    outputs = planted(blobs=(30, 30))
    slices = Spotlight(n_slices=2, size=25, steps=600).fit(outputs).predict(outputs)
    assert (top(slices, 0) < 30).all()
    assert ((top(slices, 1) >= 30) & (top(slices, 1) < 60)).float().mean() >= 0.8


def test_fit_is_fit_many_of_one_bitwise():
    relabelled = [planted(seed=0)]
    for seed in range(1, 20):
        losses = planted(seed=seed).losses.roll(seed)
        relabelled.append(model_outputs(relabelled[0].embeddings, losses))
    method = Spotlight(n_slices=2, sizes=(10, 30), steps=60)
    for outputs, together in zip(relabelled, method.fit_many(relabelled, seeds=list(range(20))), strict=True):
        alone = Spotlight(n_slices=2, sizes=(10, 30), steps=60).fit(outputs)
        assert torch.equal(alone.centers_, together.centers_)
        assert torch.equal(alone.precisions_, together.precisions_)
        assert alone.diagnostics_ == together.diagnostics_
    assert not hasattr(method, "centers_")  # fit_many hands out copies


@pytest.mark.parametrize("start", ["ball", "paper"])
def test_fit_is_fit_many_of_one_from_other_starts(start):
    first = planted(n=100)
    both = [first, model_outputs(first.embeddings, first.losses.flip(0)), planted(n=90, seed=2)]
    for outputs, together in zip(both, Spotlight(start=start, size=9, steps=40).fit_many(both, [0, 1, 2]), strict=True):
        assert torch.equal(Spotlight(start=start, size=9, steps=40).fit(outputs).centers_, together.centers_)


@pytest.mark.parametrize("C", [0.1, 0.3, 1.0, 10.0, 100.0, "range"])
def test_a_dying_spotlight_is_marked_and_never_nan(C):
    outputs = planted(n=400, blobs=(20,), high=4.3)  # about 4.9 against a mean of 0.6
    method = Spotlight(n_slices=2, size=60, C=C, steps=1000).fit(outputs)
    slices = method.predict(outputs)
    assert method.centers_.isfinite().all()
    for column, entry in enumerate(slices.diagnostics):
        inside = slices.members[:, column]
        assert entry["missed"] != bool(inside.any())
        assert entry["missed"] == (entry["size_ratio"] < 0.95)
    if C == "range":
        assert not slices.diagnostics[0]["missed"]


def test_a_spotlight_that_shrank_to_nothing_is_an_empty_slice():
    outputs = planted(n=400, blobs=(5,), high=50.0)
    slices = Spotlight(n_slices=1, size=80, C=0.1).fit(outputs).predict(outputs)
    assert slices.diagnostics[0]["missed"]
    assert "missed" in slices.diagnostics[0]["warnings"][0]
    assert not slices.members.any()
    assert not slices.membership.any()


@pytest.mark.parametrize("pca", [None, 4])
@pytest.mark.parametrize("scale", [2.0**-7, 2.0**7])
def test_a_power_of_two_in_the_embeddings_changes_nothing(scale, pca):
    def method():
        return Spotlight(n_slices=2, size=20, steps=300, pca=pca)

    assert torch.equal(members(method(), planted(seed=3)), members(method(), planted(seed=3, scale=scale)))


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_scale_of_the_embeddings_hardly_matters(scale):
    def method():
        return Spotlight(n_slices=1, size=30)

    outputs, scaled = planted(seed=3), planted(seed=3, scale=scale)
    assert jaccard(members(method(), outputs), members(method(), scaled)) >= 0.9


@pytest.mark.parametrize("tuning", ["loss_gap", "loss_gap_cut", "misclassification_f1"])
def test_tuning_prefers_the_size_of_the_blob(tuning):
    outputs = planted(n=400, blobs=(40,))
    slices = Spotlight(n_slices=1, sizes=(10, 20, 40, 80, 120), tuning=tuning).fit(outputs).predict(outputs)
    assert 30 <= slices.diagnostics[0]["size"] <= 60
    assert slices.diagnostics[0]["largest_size"] is False
    assert jaccard(slices.members[:, 0], torch.arange(400) < 40) >= 0.7


@pytest.mark.parametrize("tuning", ["loss_gap", "loss_gap_cut", "misclassification_f1"])
def test_tuning_says_when_the_largest_candidate_was_chosen(tuning):
    outputs = planted(n=400, blobs=(80,))
    method = Spotlight(n_slices=1, sizes=(10, 25), tuning=tuning).fit(outputs)
    assert method.diagnostics_[0]["largest_size"] is True
    assert "largest candidate" in method.diagnostics_[0]["warnings"][-1]


def test_every_slice_has_its_own_size():
    outputs = planted(n=500, d=5, blobs=(60, 15))
    method = Spotlight(n_slices=2, sizes=(15, 60), steps=600).fit(outputs)
    assert [entry["size"] for entry in method.diagnostics_] == [60, 15]


def test_without_candidates_there_is_no_largest():
    assert Spotlight(n_slices=1, size=30, steps=10).fit(planted()).diagnostics_[0]["largest_size"] is None


def test_too_few_steps_are_said():
    entry = Spotlight(n_slices=1, size=10, steps=20).fit(planted()).diagnostics_[0]
    assert entry["size_ratio"] > 1.2
    assert "take more steps" in entry["warnings"][0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 301}, "size has 301, expected 1 to 300"),
        ({"size": 0}, "size is 0, expected at least 1"),
        ({"sizes": (10, 400)}, "sizes has 400, expected 1 to 300"),
        ({"sizes": (10, 400), "tuning": "loss_gap_cut"}, "sizes has 400, expected 1 to 300"),
        ({"sizes": ()}, "sizes is empty"),
        ({"pca": 9}, "pca is 9, expected 1 to 8 for 300 examples of 8 dimensions"),
        ({"C": 0.0}, "C is 0.0, expected above 0"),
    ],
)
def test_what_the_data_makes_impossible_is_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        Spotlight(**settings).fit(planted())


def test_new_examples_have_the_weights_of_the_same_kernel():
    method = Spotlight(n_slices=2, size=20, steps=300).fit(planted(seed=4))
    new = planted(n=77, seed=5)
    slices = method.predict(new)
    x = (new.embeddings - method.embedding_map_.mean) / method.embedding_map_.scale
    distances = (x[:, None] - method.centers_).square().sum(dim=2)  # (n, s)
    torch.testing.assert_close(slices.membership, torch.relu(1 - method.precisions_ * distances))
    assert torch.equal(slices.members.sum(dim=0), slices.membership.sum(dim=0).round().long())


def test_new_examples_are_cut_at_the_same_weight():
    method = Spotlight(n_slices=1, sizes=(10, 40), tuning="loss_gap_cut", steps=300).fit(planted(seed=4))
    slices = method.predict(planted(n=200, seed=5))
    assert torch.equal(slices.members, slices.membership >= method.cuts_)


def test_embeddings_of_another_width_are_refused():
    method = Spotlight(n_slices=1, size=5, steps=5).fit(planted())
    with pytest.raises(InvalidInput, match="embeddings has 3 columns, the spotlights were fitted on 8"):
        method.predict(planted(d=3))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("start", ["mean", "ball", "paper"])
def test_few_examples(n, start):
    outputs = model_outputs(torch.arange(float(n))[:, None], torch.linspace(0, 2, n))
    for size in range(1, n + 1):
        method = Spotlight(n_slices=2, size=size, start=start, steps=50).fit(outputs)
        assert method.centers_.isfinite().all()
        assert method.predict(outputs).membership.shape == (n, 2)


@pytest.mark.parametrize("start", ["mean", "ball", "paper"])
@pytest.mark.parametrize(
    "outputs",
    [
        model_outputs(torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 2, 50)),
        model_outputs(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.full((50,), 0.7)),
        model_outputs(torch.full((50, 4), 0.1), torch.linspace(0, 2, 50)),
        model_outputs(torch.zeros(50, 4), torch.zeros(50)),
    ],
    ids=["one dimension", "equal losses", "equal embeddings", "all zero"],
)
def test_degenerate_inputs_give_no_nan(outputs, start):
    for settings in ({}, {"sizes": (5, 20)}, {"sizes": (5, 20), "tuning": "loss_gap_cut"}, {"pca": 1}):
        method = Spotlight(n_slices=2, size=10, start=start, steps=60, **settings).fit(outputs)
        assert method.centers_.isfinite().all()
        assert method.precisions_.isfinite().all()
        assert method.predict(outputs).membership.isfinite().all()


def test_losses_below_zero_are_dimmed_towards_the_lowest():
    outputs = planted(blobs=(30, 30))
    shifted = model_outputs(outputs.embeddings, outputs.losses - 10)
    slices = Spotlight(n_slices=2, size=25, steps=600).fit(shifted).predict(shifted)
    assert ((top(slices, 1) >= 30) & (top(slices, 1) < 60)).float().mean() >= 0.8


def test_support_holds_more_than_round():
    outputs = planted()
    few = members(Spotlight(n_slices=1, size=30, steps=300), outputs)
    many = members(Spotlight(n_slices=1, size=30, steps=300, members="support"), outputs)
    assert (many | ~few).all()
    assert many.sum() > few.sum()


def test_hard_members_break_ties_by_keeping_to_the_count():
    assert hard_members(torch.full((1, 8), 0.5), "round").sum() == 4


def test_f1_of_nothing_is_zero():
    assert f1_of_errors(torch.zeros(1, 3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)).item() == 0


def test_a_single_huge_loss_does_not_decide_the_gap():
    losses = torch.full((200,), 0.1)
    losses[:20], losses[199] = 2.0, 1000.0
    lonely, group = torch.arange(200) == 199, torch.arange(200) < 20
    gaps = loss_gap(torch.stack([lonely, group]), losses)
    assert gaps[1] > gaps[0]


def test_all_examples_have_no_gap():
    assert loss_gap(torch.ones(1, 5, dtype=torch.bool), torch.arange(5.0)).item() == 0


def test_a_cut_stays_within_its_bounds():
    weights, losses = torch.linspace(1, 0, 50), torch.cat([torch.full((10,), 3.0), torch.zeros(40)])
    assert best_cut(weights, losses, 1, 50) == 10
    assert best_cut(weights, losses, 15, 50) == 15
    assert best_cut(weights, losses, 1, 5) == 5
    assert best_cut(torch.zeros(50), losses, 5, 10) == 1
