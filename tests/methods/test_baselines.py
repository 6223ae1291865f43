import pytest
import torch

from methods.confusion import Confusion
from methods.contract import InvalidInput, ModelOutputs, Unsupported
from methods.gmm import GMM
from methods.highest_loss import HighestLoss
from methods.random_slices import RandomSlices


def labelled(labels, predictions, losses=None, n_classes=2):
    logits = 3.0 * torch.nn.functional.one_hot(torch.tensor(predictions), n_classes)
    ids = [f"{i:04d}" for i in range(len(labels))]
    return ModelOutputs.from_arrays(
        ids, embeddings=torch.zeros(len(labels), 1), losses=losses, labels=labels, logits=logits
    )


def unlabelled(losses, embeddings=None):
    ids = [f"{i:04d}" for i in range(len(losses))]
    embeddings = torch.zeros(len(losses), 1) if embeddings is None else embeddings
    return ModelOutputs.from_arrays(ids, embeddings=embeddings, losses=losses, correct=[True] * len(losses))


def test_confusion_puts_the_worst_kind_of_error_first():
    outputs = labelled([0, 1, 1], [1, 0, 0], losses=[5.0, 1.0, 1.0])
    assert Confusion(n_slices=2).fit(outputs).cells_ == [(0, 1), (1, 0)]


def test_two_classes_have_two_kinds_of_error():
    assert len(Confusion(n_slices=3).fit(labelled([0], [1])).cells_) == 2


def test_confusion_refuses_losses_alone():
    with pytest.raises(Unsupported, match="needs labels and logits"):
        Confusion().fit(unlabelled([1.0]))


def test_confusion_ranks_a_cell_by_how_sure_the_model_was():
    outputs = ModelOutputs.from_arrays(
        "abc", embeddings=torch.zeros(3, 1), labels=[0, 0, 0], logits=[[0.0, 1.0], [0.0, 5.0], [5.0, 0.0]]
    )
    slices = Confusion(n_slices=1).fit(outputs).predict(outputs)
    assert slices.members.flatten().tolist() == [True, True, False]
    assert slices.membership.flatten().argsort(descending=True).tolist() == [1, 0, 2]
    assert slices.diagnostics == ({"cell": [0, 1]},)


def test_highest_loss_takes_the_worst_examples_in_order():
    slices = HighestLoss(size=2).fit(unlabelled([0.1, 9.0, -3.0, 2.0])).predict(unlabelled([0.1, 9.0, -3.0, 2.0]))
    assert slices.members.flatten().tolist() == [False, True, False, True]
    assert slices.membership.flatten().argsort(descending=True).tolist() == [1, 3, 0, 2]


def test_equal_losses_have_equal_membership():
    slices = HighestLoss(size=1).fit(unlabelled([1.0, 1.0])).predict(unlabelled([1.0, 1.0]))
    assert slices.membership[0] == slices.membership[1]


@pytest.mark.parametrize("method", [RandomSlices(size=4), HighestLoss(size=4)])
def test_a_slice_larger_than_the_split_is_refused(method):
    with pytest.raises(InvalidInput, match="size is 4, expected at most 3"):
        method.fit(unlabelled([1.0, 2.0, 3.0]))


def test_random_slices_differ_between_seeds_and_cover_everything_in_the_end():
    outputs = unlabelled([0.0] * 100)
    members = [RandomSlices(n_slices=1, size=10, seed=s).fit(outputs).predict(outputs).members for s in range(200)]
    counts = torch.cat(members, dim=1).sum(dim=1)
    assert (counts > 0).all()
    assert counts.sum() == 2000


def blobs(n_each=30, n_blobs=3, d=2):
    generator = torch.Generator().manual_seed(0)
    centers = 10.0 * torch.arange(n_blobs).repeat_interleave(n_each)
    return centers.unsqueeze(1) + torch.randn(n_each * n_blobs, d, generator=generator)


def test_gmm_ranks_clusters_by_mean_loss():
    losses = [0.5] * 30 + [0.1] * 30 + [2.0] * 30
    slices = GMM(n_slices=2, n_components=3).fit(unlabelled(losses, blobs())).predict(unlabelled(losses, blobs()))
    assert slices.members[60:, 0].all()
    assert slices.members[:30, 1].all()
    assert slices.members.sum() == 60


def test_gmm_passes_over_small_clusters():
    embeddings = torch.cat([blobs(), torch.full((3, 2), 500.0) + torch.arange(3.0).unsqueeze(1)])
    outputs = unlabelled([0.1] * 90 + [9.0] * 3, embeddings)
    slices = GMM(n_slices=5, n_components=4, min_size=10).fit(outputs).predict(outputs)
    assert slices.n_slices == 3
    assert not slices.members[90:].any()


def test_gmm_may_find_nothing_large_enough():
    outputs = unlabelled([0.1] * 6, torch.arange(12.0).reshape(6, 2))
    assert GMM(n_components=2, min_size=100).fit(outputs).predict(outputs).n_slices == 0


def test_gmm_refuses_more_components_than_examples():
    with pytest.raises(InvalidInput, match="n_components is 5, expected at most 3"):
        GMM(n_components=5).fit(unlabelled([1.0, 2.0, 3.0]))


def test_gmm_says_what_to_do_when_a_covariance_collapses():
    outputs = unlabelled([1.0] * 20, torch.zeros(20, 2))
    with pytest.raises(InvalidInput, match="covariance_type=diag or a larger reg_covar"):
        GMM(n_components=2, reg_covar=0.0).fit(outputs)


def test_gmm_says_when_full_covariance_never_leaves_its_start():
    generator = torch.Generator().manual_seed(0)
    outputs = unlabelled([1.0] * 60, torch.randn(60, 50, generator=generator))
    slices = GMM(n_components=6, min_size=1, covariance_type="full").fit(outputs).predict(outputs)
    assert slices.diagnostics[0]["moved"] == 0.0
