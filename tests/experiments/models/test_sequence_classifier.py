"""Fine-tuned classifiers, each saved by transformers itself as a tiny checkpoint with random weights."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pandas as pd
import pytest
import torch

from experiments.batches import Batches
from experiments.contract import Dataset, Split
from experiments.embedding import embed
from experiments.inference import LOGITS, forward, infer
from experiments.layers import Layer
from experiments.models.sequence_classifier import SequenceClassifier, order_of_classes
from experiments.settings import Compute
from experiments.training import train_or_load
from methods.contract import InvalidInput, Unsupported
from methods.influence_gradients import LayerGradients

TEXTS = ("the film was good", "bad", "a very long and boring film . " * 5, "", "unknowns ?", "long " * 100)
PAIRS = [("who made it ?", "it was made by anna ."), ("where ?", "in paris and rome .")]
AUTO = "AutoModelForSequenceClassification"


def dataset(examples=TEXTS, modality="text", classes=("negative", "positive")):
    ids = tuple(f"{i}" for i in range(len(examples)))
    labels = torch.arange(len(ids)) % len(classes)
    split = Split(ids, examples, labels, pd.DataFrame(index=pd.Index(ids)))
    return Dataset("toy", modality, classes, {"test": split}, "toy")


@pytest.fixture(scope="module")
def bert(text_checkpoint):
    return text_checkpoint("BertForSequenceClassification", num_labels=2)


@pytest.fixture(scope="module")
def distilbert(text_checkpoint):
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    return text_checkpoint("DistilBertForSequenceClassification", id2label=names)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize(("examples", "modality"), [(TEXTS, "text"), (PAIRS, "text_pair")])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_logits_are_transformers_own_whatever_batch_a_text_is_in(
    request, theirs, family, examples, modality, batch_size
):
    folder = request.getfixturevalue(family)
    data = dataset(examples, modality)
    model = SequenceClassifier(str(folder)).build(data)
    found = forward(model, data.split("test"), [LOGITS, model.final_hidden], Compute(batch_size=batch_size))
    expected = torch.cat([output.logits for output in theirs(AUTO, folder, examples)])
    torch.testing.assert_close(torch.from_numpy(found[LOGITS]), expected, rtol=1e-4, atol=1e-5)
    assert found[model.final_hidden].shape == (len(examples), 32)


@pytest.mark.parametrize(("family", "head"), [("bert", "classifier"), ("distilbert", "classifier")])
def test_the_embedding_is_what_the_last_linear_map_sees(request, family, head):
    data = dataset()
    model = SequenceClassifier(str(request.getfixturevalue(family))).build(data)
    found = forward(model, data.split("test"), [LOGITS, model.final_hidden], Compute())
    with torch.inference_mode():
        logits = model.layer(head)(torch.from_numpy(found[model.final_hidden]))
    torch.testing.assert_close(logits, torch.from_numpy(found[LOGITS]))


def test_the_first_token_s_hidden_state_is_a_layer_s_input(distilbert):
    """The other reading of the Spotlight paper's representation."""
    data = dataset()
    model = SequenceClassifier(str(distilbert)).build(data)
    first = Layer("pre_classifier.input")
    found = forward(model, data.split("test"), [first, model.final_hidden], Compute())
    with torch.inference_mode():
        after = model.layer("pre_classifier")(torch.from_numpy(found[first])).relu()
    torch.testing.assert_close(after, torch.from_numpy(found[model.final_hidden]))


def test_threads_may_tokenise_at_once(bert):
    tokens = SequenceClassifier(str(bert)).build(dataset()).preprocess
    texts = [f"{text} good" * (1 + i % 7) for i, text in enumerate(TEXTS * 100)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(tokens, texts))
    assert all(torch.equal(a, tokens(text)) for a, text in zip(together, texts, strict=True))


def test_padding_that_a_whole_batch_has_is_left_out(bert):
    data = dataset(("good", "a bad film"))
    model = SequenceClassifier(str(bert)).build(data)
    ((batch, _),) = Batches(data.split("test"), model, Compute(workers=0))
    assert batch.shape == (2, 3, 64)
    assert {name: values.shape for name, values in model.preprocess.arguments(batch).items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), (2, 5)
    )


@pytest.mark.parametrize(("asked", "kept"), [(512, 64), (8, 8)])
def test_texts_are_cut_where_it_is_asked_for_but_never_longer_than_the_model_takes(bert, asked, kept):
    model = SequenceClassifier(str(bert), max_length=asked).build(dataset())
    assert model.preprocess(TEXTS[-1]).shape == (3, kept)


def test_positions_are_counted_as_roberta_does(tmp_path, bert):
    """Its positions start behind the padding token's number: of 20, 18 are for tokens."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    shutil.copytree(bert, tmp_path / "roberta")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=40, max_position_embeddings=20, pad_token_id=1, **sizes)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "roberta")
    data = dataset()
    model = SequenceClassifier(str(tmp_path / "roberta")).build(data)
    found = forward(model, data.split("test"), [LOGITS, model.final_hidden], Compute())
    assert model.preprocess.max_length == 18
    assert found[model.final_hidden].shape == (6, 8)


def test_classes_are_matched_by_name(distilbert):
    data = dataset()
    straight = SequenceClassifier(str(distilbert)).build(data)
    turned = SequenceClassifier(str(distilbert)).build(dataset(classes=("Positive", "Negative")))
    batch = straight.preprocess(TEXTS[0])[None]
    with torch.inference_mode():
        assert torch.equal(straight.logits(batch).flip(1), turned.logits(batch))


def test_an_order_that_is_given_counts(bert):
    batch = SequenceClassifier(str(bert)).build(dataset()).preprocess(TEXTS[0])[None]
    with torch.inference_mode():
        logits = [SequenceClassifier(str(bert), label_order=o).build(dataset()).logits(batch) for o in ((0, 1), (1, 0))]
    assert torch.equal(logits[0].flip(1), logits[1])


def test_names_that_say_nothing_are_taken_in_order_and_strange_ones_are_said(capfd):
    assert order_of_classes(["LABEL_0", "LABEL_1"], ["bad", "good"], None) == [0, 1]
    assert capfd.readouterr().err == ""
    assert order_of_classes(["entails", "contradicts"], ["bad", "good"], None) == [0, 1]
    assert "its classes entails, contradicts are taken for bad, good" in capfd.readouterr().err


@pytest.mark.parametrize("order", [(0,), (0, 0), (1, 2)])
def test_an_order_that_is_none_is_refused(bert, order):
    with pytest.raises(InvalidInput, match=r"label_order is \[.*\], expected each of 0 to 1 once"):
        SequenceClassifier(str(bert), label_order=order).build(dataset())


def test_another_number_of_classes_is_refused(bert):
    with pytest.raises(InvalidInput, match=r"the model has 2 classes \(LABEL_0, LABEL_1\), the data set has 3"):
        SequenceClassifier(str(bert)).build(dataset(classes=("a", "b", "c")))


def test_images_are_refused(bert):
    with pytest.raises(Unsupported, match="sequence_classifier takes texts and pairs of texts; toy has modality table"):
        SequenceClassifier(str(bert)).build(dataset(modality="table"))


def test_an_encoder_without_a_head_is_refused(text_checkpoint):
    with pytest.raises(InvalidInput, match=r"lacks the weights classifier.bias of BertForSequenceClassification"):
        SequenceClassifier(str(text_checkpoint("BertModel"))).build(dataset())


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(InvalidInput, match=f"cannot be loaded, expected a network that {AUTO} can load") as refused:
        SequenceClassifier(str(tmp_path)).build(dataset())
    assert "\n" not in str(refused.value)


def test_a_network_that_predicts_words_is_refused(tmp_path, bert):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    shutil.copytree(bert, tmp_path / "gpt")
    config = GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2, pad_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt")
    with pytest.raises(Unsupported, match="only predicts next words"):
        SequenceClassifier(str(tmp_path / "gpt")).build(dataset())


@pytest.mark.parametrize("broken", ["empty", "no config", "cut weights", "mangled config"])
def test_a_folder_that_is_no_model_is_refused_in_one_line(tmp_path, bert, broken):
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    for path in folder.glob({"empty": "*", "no config": "config.json"}.get(broken, "nothing")):
        path.unlink()
    if broken == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    if broken == "mangled config":
        (folder / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"model.name '.*' cannot be loaded, expected a") as refused:
        SequenceClassifier(str(folder)).build(dataset())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("words", [(), range(100)])
def test_a_vocabulary_that_is_missing_or_another_s_is_refused(tmp_path, bert, words):
    """Transformers makes a tokenizer to which every word is unknown, or whose words are nothing to the network."""
    shutil.copytree(bert, tmp_path / "model", ignore=shutil.ignore_patterns("vocab.txt", "tokenizer*"))
    if words:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        (tmp_path / "model/vocab.txt").write_text("\n".join([*special, *(f"w{word}" for word in words)]))
    with pytest.raises(InvalidInput, match=r"knows \d+ tokens, the network 31: .* is missing, or another's"):
        SequenceClassifier(str(tmp_path / "model")).build(dataset())


def test_a_name_that_is_not_there_costs_nothing(slicebench):
    done = slicebench("run", "model=sequence_classifier", "model.name=./nowhere")
    assert done.exit_code == 2
    assert "model.name is './nowhere', expected a folder" in done.stderr


class Code:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_is_run(tmp_path, bert):
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": Code(str(tmp_path / "run"))}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="is refused: its weights are a pickle"):
        SequenceClassifier(str(folder)).build(dataset())
    assert not (tmp_path / "run").exists()


def test_weights_in_a_pickle_of_numbers_are_read(tmp_path, bert):
    from safetensors.torch import load_file

    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    model = SequenceClassifier(str(folder)).build(dataset())
    assert torch.equal(model.module.state_dict()["classifier.weight"], weights["classifier.weight"])


def test_code_beside_a_model_is_not_run(tmp_path, bert):
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'run')!r})\n")
    config = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "code.Config", AUTO: "code.Model"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        SequenceClassifier(str(folder)).build(dataset())
    assert not (tmp_path / "run").exists()


def test_loading_says_nothing(bert, capfd):
    SequenceClassifier(str(bert)).build(dataset(classes=("negative", "positive")))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_weights_of_half_precision_become_float32(tmp_path, bert):
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(bert, tmp_path / "half")
    AutoModelForSequenceClassification.from_pretrained(bert, dtype=torch.float16).save_pretrained(tmp_path / "half")
    model = SequenceClassifier(str(tmp_path / "half")).build(dataset())
    assert {values.dtype for values in model.module.state_dict().values() if values.is_floating_point()} == {
        torch.float32
    }


def test_not_where_a_model_lies_defines_a_run_but_what_it_is(bert, distilbert, tmp_path):
    shutil.copytree(bert, tmp_path / "moved")
    assert SequenceClassifier(str(bert)).identity() == SequenceClassifier(str(tmp_path / "moved")).identity()
    assert SequenceClassifier(str(bert)).identity() != SequenceClassifier(str(distilbert)).identity()


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.module, self.model = model.module, model

    def forward(self, batch):
        return self.model.logits(batch)


@pytest.mark.parametrize(
    ("family", "layers"),
    [("bert", ("bert.pooler.dense", "classifier")), ("distilbert", ("pre_classifier", "classifier"))],
)
def test_gradients_of_the_paper_s_layers_are_autograd_s(request, family, layers):
    data = dataset()
    model = SequenceClassifier(str(request.getfixturevalue(family))).build(data)
    ((batch, labels),) = Batches(data.split("test"), model, Compute(workers=0))
    gradients = LayerGradients(Logits(model), tuple(f"module.{name}" for name in layers))
    parameters = [p for n, p in model.module.named_parameters() if n.rpartition(".")[0] in layers]
    expected = []
    for row in range(len(labels)):
        loss = model.loss(model.logits(batch[row : row + 1]), labels[row : row + 1]).sum()
        expected.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    found = gradients.of_losses(batch, labels)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_hessian_products_are_differences_of_gradients(bert):
    data = dataset()
    model = SequenceClassifier(str(bert)).build(data)
    model = replace(model, module=model.module.double())
    ((batch, labels),) = Batches(data.split("test"), model, Compute(workers=0))
    gradients = LayerGradients(Logits(model), ("module.bert.pooler.dense", "module.classifier"), dtype=torch.float64)
    vector = torch.randn(gradients.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = gradients.hessian_product(lambda: [(batch, labels)])(vector)

    parameters = [model.module.bert.pooler.dense, model.module.classifier]
    flat = [parameter for module in parameters for parameter in module.parameters()]

    def slope(step):
        with torch.no_grad():
            for parameter, part in zip(flat, vector.split([p.numel() for p in flat]), strict=True):
                parameter.add_(step * part.view_as(parameter))
        loss = model.loss(model.logits(batch), labels).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, flat)])

    size = 1e-5
    before, after = slope(size), slope(-2 * size)
    torch.testing.assert_close(found, (before - after) / (2 * size), rtol=1e-4, atol=1e-4)


def test_influence_embeddings_of_the_paper_s_layers(settings_of, own_cache, bert):
    layers = "embedding.layers=[bert.pooler.dense,classifier]"
    few = ("embedding.krylov_dim=20", "embedding.rank=4", "embedding.hessian_split=test")
    settings = settings_of(
        "model=sequence_classifier", f"model.name={bert}", "embedding=influence", layers, *few, "compute.batch_size=4"
    )
    data = dataset()
    model = train_or_load(settings, data)
    embedded = embed(settings, data, model, infer(settings, data, model))["test"]
    labels = data.split("test").labels
    assert embedded.values.shape == (6, 4)
    torch.testing.assert_close(embedded.relabelled(labels), embedded.values)
    turned = torch.nn.functional.cosine_similarity(embedded.relabelled(1 - labels), embedded.values)
    torch.testing.assert_close(turned, -torch.ones(6))
