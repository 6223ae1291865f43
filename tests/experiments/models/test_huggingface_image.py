import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import experiments.networks.torchvision_beside_torch  # noqa: F401 (before transformers)
from experiments.compute import threads
from experiments.inference import LOGITS, forward
from experiments.loaders.imagenet import ImageNet
from experiments.models.huggingface_image import HuggingFaceImage
from experiments.settings import Compute
from methods.contract import InvalidInput, Unsupported

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 16}
SIZES = {
    "ViT": {**TINY, "patch_size": 8},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"},
    "MobileNetV2": {"depth_multiplier": 0.1, "image_size": 32},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a tiny network of this family, and how it wants its pictures."""
    import transformers

    def saved(family="ViT", names=("a", "b"), processor="ViTImageProcessor", **options):
        folder = tmp_path_factory.mktemp(family)
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**SIZES[family], **labels)
        getattr(transformers, f"{family}ForImageClassification")(config).save_pretrained(folder)
        getattr(transformers, processor)(**{"size": {"height": 16, "width": 16}, **options}).save_pretrained(folder)
        return folder

    return saved


def noise(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("family", "layer", "width"),
    [
        ("ViT", "classifier.input", 8),
        ("ResNet", "classifier.1.input", 12),
        ("MobileNetV2", "classifier.input", 1280),
    ],
)
def test_outputs_are_those_of_transformers_and_the_embedding_is_what_the_last_map_sees(
    checkpoint, image_dataset, family, layer, width
):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder, dataset = (
        checkpoint(family, size={"height": 32, "width": 32} if family != "ViT" else {"height": 16, "width": 16}),
        image_dataset(),
    )
    model = HuggingFaceImage(str(folder)).build(dataset)
    outputs = forward(model, dataset.split("test"), [LOGITS, model.final_hidden], Compute(workers=0))
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(dataset.split("test").examples, return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(outputs[LOGITS]), network(**pixels).logits, atol=1e-3, rtol=1e-3)
    assert model.embedding_layer == layer
    hidden = torch.from_numpy(outputs[model.final_hidden])
    assert hidden.shape == (4, width)
    torch.testing.assert_close(model.layer(layer)(hidden), torch.from_numpy(outputs[LOGITS]))


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ("ViTImageProcessor", {"size": {"height": 16, "width": 24}}),
        ("DeiTImageProcessor", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("ViTImageProcessor", {"do_normalize": False}),
        ("ViTImageProcessor", {"do_rescale": False}),
        ("ViTImageProcessor", {"rescale_factor": 1 / 127.5, "resample": 3}),
    ],
)
def test_pictures_are_prepared_as_the_folder_says(checkpoint, processor, options):
    from transformers import AutoImageProcessor

    folder = checkpoint(processor=processor, **options)
    ours, theirs = HuggingFaceImage(str(folder)).pixels(), AutoImageProcessor.from_pretrained(folder)
    picture = noise((61, 83)).resize((610, 830))
    expected = theirs(picture, return_tensors="pt")["pixel_values"][0]
    assert ours(picture).shape == expected.shape
    assert (ours(picture) - expected).abs().mean() < 0.005 * expected.std()  # they round to 8 bits elsewhere


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ("EfficientNetImageProcessor", {}),
        ("MobileViTImageProcessor", {"size": {"shortest_edge": 16}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    ],
)
def test_a_preparation_that_cannot_be_copied_is_refused_unless_it_is_given(checkpoint, processor, options):
    folder = str(checkpoint(processor=processor, **options))
    with pytest.raises(Unsupported, match=rf"prepares pictures in a way of its own \({processor}\): say how, with mod"):
        HuggingFaceImage(folder).pixels()
    given = HuggingFaceImage(folder, resize=20, crop=16, mean=(0.5,) * 3, std=(0.5,) * 3).pixels()
    assert given(noise((30, 40))).shape == (3, 16, 16)


def test_settings_come_before_the_folder_s(checkpoint):
    pixels = HuggingFaceImage(str(checkpoint()), crop=8, std=(0.25,) * 3, interpolation="bicubic").pixels()
    assert (pixels.resize, pixels.crop, pixels.mean, pixels.std) == ((16, 16), 8, (0.5,) * 3, (0.25,) * 3)
    assert pixels.interpolation == "bicubic"


def test_outputs_with_the_classes_names_are_put_into_their_order(checkpoint, image_dataset):
    as_named, swapped = image_dataset(("a", "b")), image_dataset(("b", "a"))
    outputs = [
        forward(HuggingFaceImage(str(checkpoint())).build(dataset), dataset.split("test"), [LOGITS], Compute(workers=0))
        for dataset in (as_named, swapped)
    ]
    np.testing.assert_array_equal(outputs[0][LOGITS], outputs[1][LOGITS][:, ::-1])


def test_another_number_of_classes_is_refused_with_both_counts(checkpoint, image_dataset):
    with pytest.raises(InvalidInput, match="has 2 outputs, expected 3, the classes of toy"):
        HuggingFaceImage(str(checkpoint())).build(image_dataset(("a", "b", "c")))


def test_pictures_of_another_size_than_a_vit_s_are_refused(checkpoint, image_dataset):
    with pytest.raises(InvalidInput, match=r"cannot take pictures from Pixels\(resize=\(16, 16\), crop=8"):
        HuggingFaceImage(str(checkpoint()), crop=8).build(image_dataset())


def test_a_network_without_a_classifier_is_refused(checkpoint, image_dataset, tmp_path):
    from transformers import ViTModel

    folder = tmp_path / "headless"
    shutil.copytree(checkpoint(), folder)
    (folder / "model.safetensors").unlink()
    ViTModel.from_pretrained(checkpoint(), add_pooling_layer=False).save_pretrained(folder)
    with pytest.raises(InvalidInput, match=r"lacks the weights classifier\.bias") as error:
        HuggingFaceImage(str(folder)).build(image_dataset())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_folder_with_a_missing_or_damaged_file_is_refused_in_one_line(
    checkpoint, image_dataset, tmp_path, file, content
):
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint(), folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(InvalidInput, match=r"model\.name '.*damaged' cannot be loaded, expected") as error:
        HuggingFaceImage(str(folder)).build(image_dataset())
    assert "\n" not in str(error.value)


def test_a_name_that_is_not_here_is_refused_in_one_line(image_dataset):
    with pytest.raises(InvalidInput, match=r"model\.name 'nobody/nothing' cannot be loaded") as error:
        HuggingFaceImage("nobody/nothing").build(image_dataset())
    assert "\n" not in str(error.value)


def test_programs_in_a_folder_are_not_run(checkpoint, image_dataset, tmp_path):
    folder = tmp_path / "program"
    shutil.copytree(checkpoint(), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoModelForImageClassification": "mine.Mine", "AutoConfig": "mine.C"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'written')!r}, 'w')")
    with pytest.raises(InvalidInput, match=r"model\.name '.*program' cannot be loaded"):
        HuggingFaceImage(str(folder)).build(image_dataset())
    assert not (tmp_path / "written").exists()


def test_texts_are_refused(checkpoint, image_dataset):
    with pytest.raises(Unsupported, match="takes images; toy has modality text"):
        HuggingFaceImage(str(checkpoint())).build(image_dataset(modality="text"))


def test_a_run_is_named_by_the_network_and_not_by_its_place(checkpoint, tmp_path):
    folder = checkpoint()
    shutil.copytree(folder, tmp_path / "moved")
    assert HuggingFaceImage(str(folder)).identity() == HuggingFaceImage(str(tmp_path / "moved")).identity()
    assert HuggingFaceImage("nobody/nothing").identity() == {"name": "nobody/nothing"}


def test_mobilenet_on_real_photographs(data):
    root = data("nips2017", "models")
    dataset = ImageNet(layout="nips2017").load(root, seed=0)
    model = HuggingFaceImage(str(root / "models" / "mobilenet_v2_1.0_224")).build(dataset)
    split, compute = dataset.split("test"), Compute(batch_size=16, workers=1, device="cpu", threads=1)
    with threads(compute):
        outputs = forward(model, split, [LOGITS, model.final_hidden], compute)
    assert (torch.from_numpy(outputs[LOGITS]).argmax(dim=1) == split.labels).float().mean() >= 0.78
    assert outputs[model.final_hidden].shape == (1000, 1280)
