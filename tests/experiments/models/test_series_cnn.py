import math

import pandas as pd
import pytest
import torch

from experiments.contract import Dataset, Split
from experiments.inference import infer
from experiments.loading import load_dataset
from experiments.models.series_cnn import SeriesCNN
from experiments.training import train_or_load
from methods.contract import Unsupported


def dataset_of(examples, modality="series"):
    n = len(examples)
    ids = tuple(f"{row:03d}" for row in range(n))
    attributes = pd.DataFrame(index=pd.Index(ids, name="id"))
    split = Split(ids, examples, torch.arange(n) % 2, attributes)
    return Dataset("waves", modality, ("slow", "fast"), {"train": split}, "f")


@pytest.mark.parametrize("shape", [(6, 1, 1), (6, 14, 128), (6, 3, 37)])
def test_any_number_of_channels_and_any_length_will_do(shape):
    examples = torch.randn(shape)
    model = SeriesCNN(channels=(4, 8), hidden=5).build(dataset_of(examples))
    batch = torch.stack([model.preprocess(example) for example in examples])
    assert model.logits(batch).shape == (6, 2)
    assert model.layer("hidden")(model.layer("features")(batch)).shape == (6, 5)


def test_it_tells_slow_waves_from_fast_ones_whatever_their_phase():
    generator = torch.Generator().manual_seed(0)
    phase = 2 * math.pi * torch.rand(64, 1, 1, generator=generator)
    speed = torch.where(torch.arange(64) % 2 == 0, 0.2, 1.0)[:, None, None]
    waves = torch.sin(speed * torch.arange(50) + phase)
    labels = torch.arange(64) % 2
    torch.manual_seed(0)
    model = SeriesCNN(channels=(4, 8)).build(dataset_of(waves))
    optimizer = torch.optim.Adam(model.module.train().parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(model.logits(waves[:32]), labels[:32]).mean().backward()
        optimizer.step()
    model.module.eval()
    assert model.correct(model.logits(waves[32:]), labels[32:]).float().mean() > 0.9


def test_other_modalities_are_refused():
    with pytest.raises(Unsupported, match="series_cnn takes series; waves has modality table"):
        SeriesCNN().build(dataset_of(torch.randn(6, 4), "table"))


def test_it_runs_on_the_real_recording(data, settings_of):
    root = data("eeg/EEG_Eye_State.arff")
    settings = settings_of("dataset=eeg", f"paths.data={root}", "model=series_cnn")
    dataset = load_dataset(settings)
    predictions = infer(settings, dataset, train_or_load(settings, dataset))["test"]
    # honestly split in time, a model of one recording is little better than a guess
    assert predictions.correct.float().mean() > 0.4
    assert predictions.hidden[next(iter(predictions.hidden))].shape == (250, 32)
