import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before torchvision)
from experiments.clock import counting
from experiments.compute import threads
from experiments.inference import LOGITS, forward
from experiments.loaders.imagenet import ImageNet
from experiments.models.torchvision_classifier import Torchvision
from experiments.settings import Compute
from methods.contract import InvalidInput, Unsupported

# isort: split
import torchvision
from torchvision.models import get_model, get_model_weights, list_models, regnet

NAMES = list_models(module=torchvision.models)
SUPERCLASSES = {"imagenet_classes": ((0, 1), (2, 999))}
CAFFE = {"mean": (123 / 255, 117 / 255, 104 / 255), "std": (1 / 255, 1 / 255, 1 / 255)}  # values as in 8 bits


def picture_size(name):
    return get_model_weights(name).DEFAULT.transforms().crop_size[0]


@pytest.fixture
def without_numbers(monkeypatch):
    """Modules of any size cost nothing; RegNets compute their widths with tensors."""
    widths = regnet.BlockParams.from_init_params

    def computed(**options):
        with torch.device("cpu"):
            return widths(**options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", computed)
    return torch.device("meta")


@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_has_its_embedding_in_front_of_its_last_map(name, image_dataset, without_numbers, monkeypatch):
    from experiments.models import torchvision_classifier

    monkeypatch.setattr(torchvision_classifier, "check_takes", lambda *_, **__: None)
    size, dataset = picture_size(name), image_dataset(**SUPERCLASSES)
    with without_numbers:
        model = Torchvision(name=name, weights=None, crop=size).build(dataset)
    head, seen = model.layer(model.embedding_layer), []
    head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        logits = model.logits(torch.empty(2, 3, size, size, device="meta"))
    rows = model.final_hidden.rows(seen[0])
    assert logits.shape == (2, 2)
    assert rows.shape == (2, head.in_features if isinstance(head, nn.Linear) else head.in_channels)
    assert (head.out_features if isinstance(head, nn.Linear) else head.out_channels) == 1000


def test_there_are_classifiers_to_go_over():
    assert {"resnet18", "vit_b_16", "inception_v3", "squeezenet1_1", "regnet_y_128gf"} <= set(NAMES)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A file with random weights of a network with so many outputs."""

    def saved(name, n_outputs=1000, ending="pth", change=None, **options):
        torch.manual_seed(1)
        weights = get_model(name, weights=None, num_classes=n_outputs, **options).state_dict()
        weights |= change or {}
        path = tmp_path_factory.mktemp("weights") / f"{name}.{ending}"
        save_file(weights, path) if ending == "safetensors" else torch.save(weights, path)
        return path

    return saved


def logits_of(model, dataset):
    return torch.from_numpy(forward(model, dataset.split("test"), [LOGITS], Compute(workers=0))[LOGITS])


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_of_weights_gives_torchvision_s_own_outputs(state, image_dataset, ending):
    path, dataset = state("squeezenet1_1", 2, ending), image_dataset()
    model = Torchvision(name="squeezenet1_1", weights=None, state_dict=path, resize=80, crop=64).build(dataset)
    torch.manual_seed(1)
    own = get_model("squeezenet1_1", weights=None, num_classes=2).eval()
    batch = torch.stack([model.preprocess(image) for image in dataset.split("test").examples])
    with torch.inference_mode():
        torch.testing.assert_close(logits_of(model, dataset), own(batch))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("aux_logits", [True, False])
def test_files_with_and_without_helping_classifiers_are_read(state, image_dataset, name, aux_logits):
    path = state(name, 2, aux_logits=aux_logits, init_weights=False)
    model = Torchvision(name=name, weights=None, state_dict=path, crop=96).build(image_dataset())
    assert logits_of(model, image_dataset()).shape == (4, 2)
    assert model.embedding_layer == "fc.input"


def test_published_names_of_densenets_are_older_than_their_layers(tmp_path, image_dataset):
    weights = get_model("densenet121", weights=None, num_classes=2).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): values for name, values in weights.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    model = Torchvision(name="densenet121", weights=None, state_dict=tmp_path / "densenet.pth").build(image_dataset())
    torch.testing.assert_close(model.module.state_dict(), weights)


def test_weights_of_another_architecture_are_refused_by_their_first_tensor(state, image_dataset):
    path = state("resnet18", 2)
    with pytest.raises(
        InvalidInput, match=r"resnet18\.pth has other weights: layer1\.0\.conv1\.weight has shape .*exp"
    ):
        Torchvision(name="resnet50", weights=None, state_dict=path).build(image_dataset())


def test_weights_of_another_number_of_classes_are_refused_with_both_counts(state, image_dataset):
    model = Torchvision(name="squeezenet1_1", weights=None, state_dict=state("squeezenet1_1", 7))
    with pytest.raises(InvalidInput, match="squeezenet1_1 has 7 outputs, expected 2, the classes of toy"):
        model.build(image_dataset())


def test_imagenet_s_outputs_are_read_as_superclasses(state, image_dataset):
    path, dataset = state("squeezenet1_1"), image_dataset(**SUPERCLASSES)
    model = Torchvision(name="squeezenet1_1", weights=None, state_dict=path, crop=64).build(dataset)
    batch = torch.stack([model.preprocess(image) for image in dataset.split("test").examples])
    with torch.inference_mode():
        probabilities = model.module(batch).softmax(dim=1)
        sums = torch.stack([probabilities[:, [0, 1]].sum(dim=1), probabilities[:, [2, 999]].sum(dim=1)], dim=1)
        torch.testing.assert_close(model.logits(batch).softmax(dim=1), sums / sums.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "efficientnet_v2_l"])
def test_pictures_are_prepared_as_the_weights_want_it(image_dataset, name):
    theirs, ours = get_model_weights(name).DEFAULT.transforms(), Torchvision(name=name).pixels()
    picture = image_dataset(size=(500, 333)).split("test").examples[1]
    torch.testing.assert_close(ours(picture), theirs(picture))
    assert Torchvision(name=name, crop=32, resize=(40, 50)).pixels()(picture).shape == (3, 32, 32)


def test_without_weights_it_is_random_with_the_data_set_s_classes(image_dataset):
    model = Torchvision(name="squeezenet1_1", weights=None, crop=64).build(image_dataset(("a", "b", "c")))
    assert logits_of(model, image_dataset()).shape == (4, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "resnet19"}, r"torchvision has no classifier 'resnet19'; the nearest are resnet18"),
        ({"weights": "V9"}, r"model.weights is 'V9', expected null or, for resnet18, one of IMAGENET1K_V1, DEFAULT"),
        ({"name": "vit_b_16", "weights": None, "crop": 65}, r"vit_b_16 cannot be made: .*change model.crop"),
        ({"name": "alexnet", "weights": None, "crop": 16}, r"alexnet cannot take pictures from .*crop=16.*too small"),
        ({"weights": None, "mean": (0.5,), "std": (0.5,)}, r"resnet18 cannot take pictures from .*mean=\(0\.5,\)"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(image_dataset, settings, said):
    with pytest.raises(InvalidInput, match=said) as error:
        Torchvision(**settings).build(image_dataset())
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_downloaded_are_said_with_address_and_place(image_dataset, monkeypatch, tmp_path):
    def no_network(*_arguments, **_options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = re.escape(str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"))
    with pytest.raises(InvalidInput, match=rf"https://\S+/resnet18-f37072fd.pth cannot.*\(no network\): put.* {place}"):
        Torchvision().build(image_dataset())


def test_weights_at_torch_s_place_are_used(image_dataset, monkeypatch, tmp_path, state):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state("resnet18").rename(folder / "resnet18-f37072fd.pth")
    assert logits_of(Torchvision().build(image_dataset(**SUPERCLASSES)), image_dataset()).shape == (4, 2)
    state("resnet34").rename(folder / "resnet18-f37072fd.pth")
    with pytest.raises(InvalidInput, match=r"resnet18-f37072fd\.pth has other weights"):
        Torchvision().build(image_dataset(**SUPERCLASSES))


def test_a_run_is_named_by_the_weights_and_not_by_their_place(settings_of, state, tmp_path):
    path = state("squeezenet1_1", 2)
    copy = tmp_path / "elsewhere.pth"
    copy.write_bytes(path.read_bytes())
    given = ("model=torchvision", "model.name=squeezenet1_1", "model.weights=null")
    first, second = (settings_of(*given, f"model.state_dict={file}").model.defining() for file in (path, copy))
    assert first == second
    assert settings_of("model=torchvision").model.defining()["weights"] == "IMAGENET1K_V1"
    with pytest.raises(InvalidInput, match=r"model\.state_dict is '.*none\.pt', expected a file"):
        settings_of(*given, f"model.state_dict={tmp_path / 'none.pt'}").model.defining()


def test_texts_are_refused(image_dataset):
    with pytest.raises(Unsupported, match="squeezenet1_1 takes images; toy has modality text"):
        Torchvision(name="squeezenet1_1", weights=None).build(image_dataset(modality="text"))


def test_squeezenet_on_real_photographs(data):
    root = data("nips2017", "models")
    dataset = ImageNet(layout="nips2017").load(root, seed=0)
    path = root / "models" / "squeezenet1_1_imagenet_fp16.pt"
    model = Torchvision(name="squeezenet1_1", weights=None, state_dict=path, **CAFFE).build(dataset)
    split, seconds = dataset.split("test"), {}
    compute = Compute(batch_size=16, workers=1, device="cpu", threads=1)
    with counting(seconds), threads(compute):
        outputs = forward(model, split, [LOGITS, model.final_hidden], compute)
    assert (torch.from_numpy(outputs[LOGITS]).argmax(dim=1) == split.labels).float().mean() >= 0.44
    assert outputs[model.final_hidden].shape == (1000, 512)
    assert seconds["infer: waiting for data"] >= 0
