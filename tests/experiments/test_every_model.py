"""To exist is to be tested: what holds for every kind of model under audit."""

from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import conf
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.listing import items
from methods.contract import InvalidInput

NAMES = [item["name"] for item in items("models")]
FOLDER = Path(conf.__path__[0]) / "model"
NAMED_IN_THE_PAPERS = {
    *("small_cnn", "small_dnn", "resnet", "mlp", "series_cnn", "factorised_autoencoder", "minilm", "minilm_squad"),
    *("torchvision", "image_classifier", "sequence_classifier", "question_answerer", "xray", "precomputed"),
}
EXAMPLES = {
    "image": [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue", "white")],
    "text": ["good", "bad", "a good film", "a bad film"],
    "text_pair": [("who", "it was paris"), ("where", "in rome"), ("who", "anna"), ("where", "paris")],
    "table": torch.eye(4),
    "series": torch.zeros(4, 2, 64),
}
TAKES = {
    "small_cnn": "image",
    "small_dnn": "image",
    "resnet": "image",
    "mlp": "table",
    "series_cnn": "series",
    "minilm": "text",
    "minilm_squad": "text_pair",
    "xray": "image",
    "torchvision": "image",
}
# without a download
OFFLINE = {"torchvision": {"weights": None}, "xray": {"weights": None}, "image_classifier": {"name": "no/such"}}


def data_of(modality):
    """Four examples, of two classes, twice; questions have spans instead."""
    splits = {}
    for name in ("train", "test"):
        ids = tuple(f"{name}-{row}" for row in range(4))
        questions = modality == "text_pair"
        splits[name] = Split(
            ids,
            EXAMPLES[modality],
            None if questions else torch.tensor([0, 1, 0, 1]),
            pd.DataFrame(index=pd.Index(ids, name="id")),
            spans=torch.tensor([[0, 2]] * 4) if questions else None,
        )
    return Dataset("things", modality, () if modality == "text_pair" else ("no", "yes"), splits, "f")


def loader_of(name):
    module, _, class_name = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["_target_"].rpartition(".")
    return getattr(import_module(module), class_name)(**OFFLINE.get(name, {}))


def test_the_list_is_complete():
    assert set(NAMES) >= NAMED_IN_THE_PAPERS


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_tests_of_its_own_and_says_what_it_is(name):
    module = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["_target_"].split(".")[-2]
    folder = Path(__file__).parent
    files = [folder / "models" / f"test_{module}.py", folder / f"test_{module}.py"]
    assert any(file.exists() for file in files) or module == "small_cnn"  # which all tests of the pipeline use
    assert next(item for item in items("models") if item["name"] == name)["summary"]


def built(loader, dataset) -> tuple[ModelUnderAudit | None, str]:
    try:
        return loader.build(dataset), ""
    except InvalidInput as refusal:
        return None, str(refusal)


@pytest.mark.parametrize("modality", EXAMPLES)
@pytest.mark.parametrize("name", NAMES)
def test_a_model_works_on_data_or_refuses_them_in_one_line(name, modality):
    dataset = data_of(modality)
    model, refusal = built(loader_of(name), dataset)
    if model is None:
        assert "\n" not in refusal
        assert TAKES.get(name) != modality or "is not installed" in refusal, refusal
        return
    split = dataset.split("test")
    batch = torch.stack([model.preprocess(split.examples[row]) for row in range(2)])
    with torch.inference_mode():
        logits = model.logits(batch)
    targets = model.targets(split)[:2]
    assert logits.isfinite().all()
    assert model.loss(logits, targets).shape == (2,)
    assert model.correct(logits, targets).dtype == torch.bool
