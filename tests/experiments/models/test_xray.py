import sys
import warnings

import pytest
import torch
from torch import nn

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)
from experiments.inference import LOGITS, forward
from experiments.models.xray import XRay
from experiments.settings import Compute
from experiments.training import Training, train_or_load
from methods.contract import InvalidInput, Unsupported
from methods.influence import ModuleInfluence

LAYERS = ("classifier", "features.denseblock4.denselayer16.conv1", "features.denseblock4.denselayer16.conv2")


@pytest.fixture(scope="module")
def library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchxrayvision")


@pytest.fixture(scope="module")
def published(library, tmp_path_factory):
    """A DenseNet of 18 findings with thresholds, as a state dict; and as the library saves it, whole."""
    folder = tmp_path_factory.mktemp("xray")
    torch.manual_seed(1)
    module = library.models.DenseNet(weights=None)
    module.op_threshs = torch.full((18,), 0.5)
    torch.save(module.state_dict(), folder / "state.pt")
    torch.save(module, folder / "whole.pt", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("architecture", "width"), [("densenet121", 1024), ("resnet50", 2048)])
@pytest.mark.parametrize(("class_names", "n_outputs"), [(("no", "yes"), 1), (("a", "b", "c"), 3)])
def test_two_classes_have_one_logit(image_dataset, architecture, width, class_names, n_outputs):
    dataset = image_dataset(class_names)
    model = XRay(architecture=architecture, weights=None, image_size=32).build(dataset)
    outputs = forward(model, dataset.split("test"), [LOGITS, model.final_hidden], Compute(workers=0))
    assert model.layer(model.embedding_layer).out_features == n_outputs
    assert outputs[LOGITS].shape == (4, len(class_names))
    assert outputs[model.final_hidden].shape == (4, width)
    assert (outputs[LOGITS][:, 0] == 0).all() == (n_outputs == 1)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("architecture", "size"), [("densenet121", 224), ("resnet50", 512)])
def test_pictures_are_grey_squares_as_the_library_s(image_dataset, library, architecture, size):
    from PIL import Image

    preprocess = XRay(architecture=architecture, weights=None).build(image_dataset()).preprocess
    assert preprocess(Image.new("RGB", (60, 50))).shape == (1, size, size)
    greys = torch.stack([preprocess(Image.new("L", (9, 9), grey))[0, 0, 0] for grey in (0, 100, 255)])
    expected = library.datasets.normalize(torch.tensor([0, 100, 255]).numpy(), 255)
    torch.testing.assert_close(greys, torch.from_numpy(expected))


def test_pretrained_weights_get_a_new_last_layer(published, image_dataset):
    model = XRay(weights=None, state_dict=published / "state.pt", image_size=32).build(image_dataset())
    given = torch.load(published / "state.pt", weights_only=True)
    found = model.module.state_dict()
    assert all(torch.equal(values, given[name]) for name, values in found.items() if name.startswith("features."))
    assert found["classifier.weight"].shape == (1, 1024)


def test_the_library_s_pickled_networks_are_refused_with_the_way_to_convert_them(
    published, image_dataset, library, monkeypatch
):
    with pytest.raises(
        InvalidInput, match=r"whole\.pt is not read: it holds an object \(torchxrayvision\.models\.DenseNet\)"
    ):
        XRay(weights=None, state_dict=published / "whole.pt").build(image_dataset())
    name = library.models.model_urls["densenet121-res224-all"]["weights_url"].rpartition("/")[2]
    monkeypatch.setattr(library.utils, "get_cache_dir", lambda: str(published))
    (published / "whole.pt").rename(published / name)
    with pytest.raises(InvalidInput, match=r"convert it once, python -c .*and use model\.state_dict=FILE\.pt"):
        XRay().build(image_dataset())


@pytest.mark.usefixtures("library")
def test_weights_of_another_architecture_are_refused(image_dataset):
    with pytest.raises(InvalidInput, match=r"weights is 'densenet121-res224-all', expected null or, for resnet50, one"):
        XRay(architecture="resnet50").build(image_dataset())


def test_weights_that_cannot_be_downloaded_are_said_with_their_place(library, image_dataset, monkeypatch, tmp_path):
    def no_network(*_arguments, **_options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(library.utils, "get_cache_dir", lambda: str(tmp_path))
    with pytest.raises(InvalidInput, match=rf"https://\S+ cannot be downloaded \(no network\): put .* at {tmp_path}"):
        XRay().build(image_dataset())


@pytest.mark.usefixtures("library", "own_cache")
@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_networks_learn_in_their_last_layer_only(settings_of, image_dataset, published, freeze):
    settings = settings_of(
        "model=xray",
        "model.weights=null",
        f"model.state_dict={published / 'state.pt'}",
        "model.image_size=32",
        f"model.freeze={freeze}",
        "model.training.epochs=1",
    )
    given = torch.load(published / "state.pt", weights_only=True)
    found = train_or_load(settings, image_dataset()).module.state_dict()
    same = [torch.equal(values, given[name]) for name, values in found.items() if name.startswith("features.")]
    assert all(same) == freeze  # the running means of batch normalisation among them
    assert any(same) == freeze


@pytest.mark.usefixtures("library")
def test_the_loss_of_two_classes_is_binary_cross_entropy(image_dataset):
    model, dataset = XRay(weights=None, image_size=32).build(image_dataset()), image_dataset()
    batch = torch.stack([model.preprocess(image) for image in dataset.split("test").examples])
    labels = dataset.split("test").labels
    with torch.inference_mode():
        expected = nn.functional.binary_cross_entropy_with_logits(
            model.module(batch)[:, 0], labels.float(), reduction="none"
        )
        torch.testing.assert_close(model.loss(model.logits(batch), labels), expected)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("freeze", [True, False])
def test_influence_works_over_the_layers_that_the_paper_names(image_dataset, freeze):
    model = XRay(weights=None, image_size=32, freeze=freeze).build(image_dataset())
    assert all(model.layer(name) for name in LAYERS)
    split = image_dataset().split("test")
    batch = torch.stack([model.preprocess(image) for image in split.examples]) / 100
    influence = ModuleInfluence.fit(model.module, LAYERS, lambda: [(batch, split.labels)], krylov_dim=4, rank=2)
    embeddings = influence.embed(batch, split.labels)
    assert embeddings.shape[0] == 4
    assert embeddings.isfinite().all()
    assert embeddings.abs().sum() > 0


def test_without_the_library_it_is_said_how_to_install_it(image_dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(InvalidInput, match=r"pip install 'slicebench\[xray\]'"):
        XRay().build(image_dataset())


@pytest.mark.usefixtures("library")
def test_warnings_are_not_silenced_by_the_library(image_dataset, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchxrayvision"]:
        monkeypatch.delitem(sys.modules, name)
    before = list(warnings.filters)
    XRay(weights=None).build(image_dataset())
    assert not any(entry[0] == "ignore" and entry[2] is Warning and entry not in before for entry in warnings.filters)


def test_texts_are_refused(image_dataset):
    with pytest.raises(Unsupported, match="xray takes images; toy has modality text"):
        XRay().build(image_dataset(modality="text"))


def test_it_may_be_trained_by_sgd():
    optimizer = Training(optimizer="sgd", momentum=0.5).start(nn.Linear(1, 1))
    assert optimizer.param_groups[0]["momentum"] == 0.5
