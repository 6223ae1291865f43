"""That frozen features are what the network itself makes of the images, and are made once."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before transformers)
from experiments.contract import Dataset, Split
from experiments.models import huggingface_image
from experiments.models.mlp import MLP
from experiments.settings import Compute
from experiments.suites import frozen
from experiments.suites.frozen import Frozen
from methods.contract import InvalidInput, Unsupported
from tests.experiments.suites.unread import Unread

COMPUTE = Compute(workers=0, device="cpu")
VIT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 16}
SIZES = {
    "ViT": {**VIT, "patch_size": 8},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"},
    "MobileNetV2": {"depth_multiplier": 0.1, "image_size": 32},
}
N = 5


def picture(seed, mode="RGB"):
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def dataset(images=None, modality="image", class_names=("a", "b", "c"), fingerprint="toy"):
    splits = {}
    for start, name in enumerate(("train", "test")):
        ids = tuple(f"{name} {row}" for row in range(N))
        examples = [picture(start * N + row) for row in range(N)] if images is None else images
        labels = torch.arange(N) % len(class_names) if class_names else None
        known = pd.DataFrame({"colour": list("rgbrg")}, index=pd.Index(ids, name="id"))
        splits[name] = Split(ids, examples, labels, known, tuple(f"{i}.png" for i in ids))
    return Dataset("toy", modality, class_names, splits, fingerprint, train_fingerprint=f"{fingerprint} train")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a tiny random network of two classes, saved by transformers itself."""
    import transformers

    def saved(family="MobileNetV2", seed=0, processor="ViTImageProcessor", **options):
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(seed)
        config = getattr(transformers, f"{family}Config")(**SIZES[family])
        getattr(transformers, f"{family}ForImageClassification")(config).save_pretrained(folder)
        how = {"size": {"height": 16, "width": 16}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3, **options}
        getattr(transformers, processor)(**how).save_pretrained(folder)
        return folder

    return saved


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint()


def prepared(image, size):
    """(3, size, size), by hand: the shorter side becomes `size`, the middle is cut out, mean 0.4, deviation 0.2."""
    width, height = image.size
    width, height = int(size * width / min(image.size)), int(size * height / min(image.size))
    left, top = round((width - size) / 2), round((height - size) / 2)
    square = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return (torch.from_numpy(np.array(square.convert("RGB"))).permute(2, 0, 1) / 255 - 0.4) / 0.2


@pytest.mark.parametrize(
    ("family", "size", "width"),
    [("ViT", 16, 8), ("ResNet", 32, 12), ("MobileNetV2", 32, 1280), ("MobileNetV2", 48, 1280)],
)
def test_features_are_what_the_network_hands_to_its_last_map(checkpoint, tmp_path, family, size, width):
    from transformers import AutoModelForImageClassification

    folder, given = checkpoint(family), dataset()
    features = Frozen(str(folder), image_size=size).features(given, tmp_path, COMPUTE)
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    for name, split in given.splits.items():
        rows = features.split(name).examples
        assert (rows.shape, rows.dtype) == ((N, width), torch.float32)
        with torch.inference_mode():
            pixels = torch.stack([prepared(image, size) for image in split.examples])
            if family == "ViT":
                expected = network.vit(pixels).last_hidden_state[:, 0]
            else:
                expected = network.base_model(pixels).pooler_output.flatten(start_dim=1)
            torch.testing.assert_close(rows, expected, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(network.classifier(rows), network(pixels).logits, atol=1e-4, rtol=1e-4)


def test_features_differ_from_image_to_image_and_from_split_to_split(folder, tmp_path):
    features = Frozen(str(folder), 32).features(dataset(), tmp_path, COMPUTE)
    rows = torch.cat([split.examples for split in features.splits.values()])
    assert len(rows.unique(dim=0)) == 2 * N


def test_batches_make_no_difference(folder, tmp_path):
    together, in_pairs = (
        Frozen(str(folder), 32).features(dataset(), tmp_path / str(b), Compute(workers=0, device="cpu", batch_size=b))
        for b in (256, 2)
    )
    torch.testing.assert_close(together.split("test").examples, in_pairs.split("test").examples, atol=1e-5, rtol=1e-4)


def test_the_second_time_nothing_is_loaded_read_or_computed(folder, tmp_path, monkeypatch):
    first = Frozen(str(folder), 32).features(dataset(), tmp_path, COMPUTE)

    def refuse(*_args, **_kwargs):
        raise AssertionError("the features are computed again")

    monkeypatch.setattr(huggingface_image, "load_pretrained", refuse)
    monkeypatch.setattr(frozen, "forward", refuse)
    again = Frozen(str(folder), 32).features(dataset(Unread(N)), tmp_path, COMPUTE)
    assert again.fingerprint == first.fingerprint
    for name in first.splits:
        assert torch.equal(again.split(name).examples, first.split(name).examples)


def test_the_network_is_loaded_once_for_all_splits(folder, tmp_path, monkeypatch):
    loaded, load = [], huggingface_image.load_pretrained
    monkeypatch.setattr(
        huggingface_image, "load_pretrained", lambda kind, name: loaded.append(name) or load(kind, name)
    )
    Frozen(str(folder), 32).features(dataset(), tmp_path, COMPUTE)
    assert len(loaded) == 1


def test_writing_to_features_leaves_the_cache_as_it_was(folder, tmp_path):
    first = Frozen(str(folder), 32).features(dataset(), tmp_path, COMPUTE).split("test").examples
    before = first.clone()
    first.zero_()
    again = Frozen(str(folder), 32).features(dataset(), tmp_path, COMPUTE).split("test").examples
    assert torch.equal(again, before)


def test_ids_labels_attributes_and_paths_are_kept_and_the_images_are_not_lost(folder, tmp_path):
    given = dataset()
    features = Frozen(str(folder), 32).features(given, tmp_path, COMPUTE)
    assert (features.name, features.modality, features.class_names) == ("toy", "table", ("a", "b", "c"))
    assert given.modality == "image"
    for name, split in features.splits.items():
        before = given.split(name)
        assert isinstance(before.examples[0], Image.Image)
        assert (split.example_ids, split.paths) == (before.example_ids, before.paths)
        assert torch.equal(split.labels, before.labels)
        assert split.attributes.equals(before.attributes)


def test_a_small_model_takes_them(folder, tmp_path):
    features = Frozen(str(folder), 32).features(dataset(), tmp_path, COMPUTE)
    model = MLP(hidden=(4,)).build(features)
    assert model.logits(features.split("train").examples).shape == (N, 3)


def test_classes_do_not_matter(folder, tmp_path):
    bare = Frozen(str(folder), 32).features(dataset(class_names=()), tmp_path / "bare", COMPUTE)
    many = Frozen(str(folder), 32).features(dataset(class_names=tuple("abcde")), tmp_path / "many", COMPUTE)
    assert bare.split("test").labels is None
    assert torch.equal(bare.split("test").examples, many.split("test").examples)


def test_grey_images_are_taken(folder, tmp_path):
    images = [picture(row, "L") for row in range(N)]
    grey, coloured = (
        Frozen(str(folder), 32).features(dataset(of, fingerprint=str(of[0].mode)), tmp_path, COMPUTE)
        for of in (images, [image.convert("RGB") for image in images])
    )
    assert torch.equal(grey.split("train").examples, coloured.split("train").examples)


def test_what_they_depend_on_changes_the_fingerprints_and_where_the_network_lies_does_not(checkpoint, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    features = [
        Frozen(str(network), size).features(dataset(fingerprint=data), tmp_path / "cache", COMPUTE)
        for network, size, data in (
            (folder, 32, "toy"),
            (folder, 40, "toy"),
            (folder, 32, "other"),
            (checkpoint(seed=1), 32, "toy"),
            (checkpoint("ResNet"), 32, "toy"),
            (checkpoint(image_std=[0.3] * 3), 32, "toy"),
        )
    ]
    fingerprints = [f for of in features for f in (of.fingerprint, of.train_fingerprint)] + ["toy", "toy train"]
    assert len(set(fingerprints)) == len(fingerprints)
    moved = Frozen(str(tmp_path / "moved"), 32).features(dataset(Unread(N)), tmp_path / "cache", COMPUTE)
    assert moved.fingerprint == features[0].fingerprint


def test_other_images_are_other_features(folder, tmp_path):
    others = [picture(100 + row) for row in range(N)]
    features = [
        Frozen(str(folder), 32).features(given, tmp_path, COMPUTE)
        for given in (dataset(), dataset(others, fingerprint="other"))
    ]
    assert not torch.equal(*(of.split("test").examples for of in features))


def test_other_weights_at_the_same_place_are_other_features(checkpoint, tmp_path):
    folder = tmp_path / "network"
    shutil.copytree(checkpoint(), folder)
    before = Frozen(str(folder), 32).features(dataset(), tmp_path / "cache", COMPUTE)
    shutil.copytree(checkpoint(seed=1), folder, dirs_exist_ok=True)
    after = Frozen(str(folder), 32).features(dataset(), tmp_path / "cache", COMPUTE)
    assert before.fingerprint != after.fingerprint
    assert not torch.equal(before.split("test").examples, after.split("test").examples)


@pytest.mark.parametrize(("modality", "examples"), [("text", ["good"] * N), ("table", torch.zeros(N, 3))])
def test_what_has_no_images_is_refused(folder, tmp_path, modality, examples):
    with pytest.raises(Unsupported, match=f"takes images; toy has modality {modality}"):
        Frozen(str(folder), 32).features(dataset(examples, modality), tmp_path, COMPUTE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nobody/nothing", "/nowhere/network"])
def test_a_network_that_is_not_here_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(InvalidInput, match=name) as error:
        Frozen(name, 32).features(dataset(), tmp_path, COMPUTE)
    assert "\n" not in str(error.value)


def test_a_size_that_the_network_cannot_take_is_refused(checkpoint, tmp_path):
    with pytest.raises(InvalidInput):
        Frozen(str(checkpoint("ViT")), image_size=24).features(dataset(), tmp_path, COMPUTE)


def test_a_preparation_that_cannot_be_copied_is_refused(checkpoint, tmp_path):
    folder = str(checkpoint(processor="EfficientNetImageProcessor"))
    with pytest.raises(Unsupported, match=r"prepares pictures in a way of its own \(EfficientNetImageProcessor\)"):
        Frozen(folder, 32).features(dataset(), tmp_path, COMPUTE)


def test_a_network_that_lies_with_the_data_is_found_by_its_name(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "data" / "models" / "tiny_net")
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path / "data"))
    by_place = Frozen(str(folder), 32).features(dataset(), tmp_path / "cache", COMPUTE)
    for name in ("tiny_net", "someone/tiny_net"):
        by_name = Frozen(name, 32).features(dataset(Unread(N)), tmp_path / "cache", COMPUTE)
        assert by_name.fingerprint == by_place.fingerprint


@pytest.mark.parametrize("name", ["/nowhere/tiny_net", "./elsewhere/tiny_net", "~/nowhere/tiny_net"])
def test_a_path_to_nothing_is_not_taken_for_a_network_that_lies_with_the_data(folder, tmp_path, monkeypatch, name):
    shutil.copytree(folder, tmp_path / "data" / "models" / "tiny_net")
    monkeypatch.setenv("SLICEBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(InvalidInput):
        Frozen(name, 32).features(dataset(), tmp_path / "cache", COMPUTE)


def test_mobilenet_of_the_data_pack_is_found(data, tmp_path):
    data("models/mobilenet_v2_1.0_224")
    features = Frozen("google/mobilenet_v2_1.0_224", 128).features(dataset(), tmp_path, COMPUTE)
    assert features.split("test").examples.shape == (N, 1280)
