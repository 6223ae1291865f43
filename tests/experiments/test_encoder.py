"""Encoders, each saved by transformers itself as a tiny checkpoint with random weights."""

import shutil

import pandas as pd
import pytest
import torch
from PIL import Image

import experiments.networks.torchvision_beside_torch  # noqa: F401
from experiments.contract import Dataset, Split
from experiments.embeddings.encoder import Encoder
from methods.contract import InvalidInput, Unsupported

TEXTS = ("good film", "bad", "a very long and winding review of a film", "film film")


def dataset(modality, examples):
    ids = tuple(f"{i}" for i in range(len(examples)))
    split = Split(ids, examples, torch.zeros(len(ids), dtype=torch.int64), pd.DataFrame(index=pd.Index(ids)))
    return Dataset("toy", modality, ("a", "b"), {"test": split}, f"{modality}{len(examples)}")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({word for text in TEXTS for word in text.split()})]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=6)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture
def embedded(settings_of):
    def embed(folder, data, *overrides):
        settings = settings_of("embedding=encoder", f"embedding.name={folder}", *overrides)
        assert isinstance(settings.embedding.instance, Encoder)
        return settings.embedding.instance.embed(settings, data, None, {})["test"].values

    return embed


def pictures():
    return [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")] + [Image.new("L", (30, 10), 128)]


def test_texts_get_the_mean_of_their_tokens_whatever_batch_they_are_in(bert, embedded):
    alone = embedded(bert, dataset("text", TEXTS), "compute.batch_size=1")
    together = embedded(bert, dataset("text", TEXTS[:3]), "compute.batch_size=8")
    assert alone.shape == (4, 8)
    torch.testing.assert_close(alone[:3], together)


def test_long_texts_are_cut(bert, embedded):
    assert embedded(bert, dataset("text", TEXTS), "embedding.max_length=4").shape == (4, 8)


def test_pairs_of_texts_are_encoded_together(bert, embedded):
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0])]
    assert not torch.allclose(*embedded(bert, dataset("text_pair", pairs)))


@pytest.mark.parametrize("pool", ["mean", "first", "pooler"])
def test_images_are_encoded_by_vit(vit, embedded, pool):
    values = embedded(vit, dataset("image", pictures()), f"embedding.pool={pool}")
    assert values.shape == (4, 8)
    assert not torch.allclose(values[0], values[1])


def test_images_are_encoded_by_clip_s_image_tower(clip, embedded):
    assert embedded(clip, dataset("image", pictures())).shape == (4, 6)


def test_another_encoder_in_the_same_folder_is_another_embedding(bert, embedded, tmp_path):
    from transformers import BertModel

    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    before = embedded(folder, dataset("text", TEXTS))
    network = BertModel.from_pretrained(folder)
    with torch.no_grad():
        network.embeddings.word_embeddings.weight.add_(torch.randn(8))
    network.save_pretrained(folder)
    assert not torch.allclose(before, embedded(folder, dataset("text", TEXTS)))


def test_a_folder_without_an_encoder_is_refused(embedded, tmp_path):
    with pytest.raises(InvalidInput, match=r"embedding\.name '.*' cannot be loaded"):
        embedded(tmp_path, dataset("text", TEXTS))


def test_a_folder_that_is_not_there_costs_no_training(own_cache, slicebench):
    done = slicebench("run", "embedding=encoder", "embedding.name=./nowhere")
    assert done.exit_code == 2
    assert "embedding.name is './nowhere', expected a folder with an encoder" in done.stderr
    assert not list(own_cache.rglob("*.npy"))


def test_what_is_neither_text_nor_image_is_refused(bert, embedded):
    with pytest.raises(Unsupported, match="toy has modality table"):
        embedded(bert, dataset("table", [torch.zeros(3)]))


def test_where_the_encoder_lies_does_not_make_another_run(vit, slicebench, tmp_path):
    shutil.copytree(vit, tmp_path / "moved")
    assert slicebench("run", f"embedding.name={vit}", "embedding=encoder", "method=random").exit_code == 0
    again = slicebench("run", f"embedding.name={tmp_path / 'moved'}", "embedding=encoder", "method=random")
    assert "skipped" in again.stderr


def test_every_example_of_a_real_run_is_encoded(vit, slicebench):
    done = slicebench("run", "embedding=encoder", f"embedding.name={vit}", "method=gmm")
    assert done.exit_code == 0, done.stderr
