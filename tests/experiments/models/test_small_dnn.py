import pytest
import torch
from torch import nn

from experiments.inference import LOGITS, forward
from experiments.models.small_dnn import SmallDNN
from experiments.settings import Compute
from experiments.training import train_or_load
from methods.contract import InvalidInput, Unsupported


@pytest.mark.parametrize(("grey", "n_inputs"), [(True, 1), (False, 3)])
def test_it_is_built_as_the_paper_says(image_dataset, grey, n_inputs):
    model = SmallDNN(channels=2, n_blocks=3, hidden=5, image_size=17, grey=grey).build(image_dataset())
    blocks = list(model.module.features)[:-1]
    kinds = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d]
    assert [[type(layer) for layer in block] for block in blocks] == [kinds] * 3
    assert all(block[0].kernel_size == (5, 5) and block[0].stride == (1, 1) for block in blocks)
    assert [block[0].in_channels for block in blocks] == [n_inputs, 2, 4]
    assert sum(isinstance(layer, nn.Linear) for layer in model.module.modules()) == 2


def test_the_last_hidden_layer_is_the_embedding(image_dataset):
    dataset = image_dataset(("a", "b", "c"))
    model = SmallDNN(channels=2, n_blocks=2, hidden=5, image_size=8).build(dataset)
    outputs = forward(model, dataset.split("test"), [LOGITS, model.final_hidden], Compute(workers=0))
    hidden = torch.from_numpy(outputs[model.final_hidden])
    assert hidden.shape == (4, 5)
    torch.testing.assert_close(model.module.classifier(hidden), torch.from_numpy(outputs[LOGITS]))


def test_pictures_that_pooling_would_use_up_are_refused(image_dataset):
    with pytest.raises(InvalidInput, match=r"model\.image_size is 15, expected at least 16, which 4 blocks halve"):
        SmallDNN(n_blocks=4, image_size=15).build(image_dataset())
    assert SmallDNN(n_blocks=4, image_size=16).build(image_dataset()).layer("hidden")


def test_texts_are_refused(image_dataset):
    with pytest.raises(Unsupported, match="small_dnn takes images; toy has modality text"):
        SmallDNN().build(image_dataset(modality="text"))


def test_the_learning_rate_falls_every_ten_epochs():
    training = SmallDNN().training
    assert (training.optimizer, training.momentum) == ("sgd", 0.9)
    assert [round(training.rate(epoch), 6) for epoch in (0, 9, 10, 20)] == [0.01, 0.01, 0.001, 0.0001]


@pytest.mark.usefixtures("own_cache")
def test_it_is_trained_by_its_config(settings_of, image_dataset):
    settings = settings_of("model=small_dnn", "model.image_size=16", "model.training.epochs=1")
    model = train_or_load(settings, image_dataset())
    assert not model.module.training
    assert model.module.features[0][2].num_batches_tracked == 1
