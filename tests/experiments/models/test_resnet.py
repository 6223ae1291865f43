import pytest
import torch

from experiments.models.resnet import ResNet
from experiments.training import Training, train_or_load
from methods.contract import Unsupported

TINY = ("model=resnet", "model.image_size=32", "model.training.epochs=2", "model.training.batch_size=4")


@pytest.mark.parametrize(("depth", "width"), [(18, 512), (50, 2048)])
def test_embeddings_are_what_the_last_layer_sees(image_dataset, depth, width):
    model = ResNet(depth=depth, image_size=32).build(image_dataset(("a", "b", "c")))
    seen = []
    model.layer(model.embedding_layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
    batch = torch.stack([model.preprocess(image) for image in image_dataset().split("test").examples])
    with torch.inference_mode():
        assert model.logits(batch).shape == (4, 3)
        rows = model.final_hidden.rows(seen[0])
        torch.testing.assert_close(model.module.fc(rows), model.logits(batch))
    assert batch.shape == (4, 3, 32, 32)
    assert rows.shape == (4, width)


def test_texts_are_refused(image_dataset):
    with pytest.raises(Unsupported, match="resnet takes images; toy has modality text"):
        ResNet().build(image_dataset(modality="text"))


def test_by_default_it_is_trained_as_the_paper_says():
    training = ResNet().training
    assert (training.optimizer, training.learning_rate, training.epochs) == ("adam", 3e-4, 2)
    assert isinstance(training, Training)


@pytest.mark.usefixtures("own_cache")
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(settings_of, image_dataset, monkeypatch):
    from experiments import training

    whole, stopped = settings_of(*TINY, "seeds.training=1"), settings_of(*TINY, "seeds.training=2")
    monkeypatch.setattr(training, "derive", lambda _seed, name: sum(name.encode()))  # else the seeds' weights differ
    dataset = image_dataset(n=8)
    expected = train_or_load(whole, dataset).module.state_dict()

    one_epoch, begun = training._one_epoch, []

    def stopped_in_the_second(model, batches, recipe, epoch, optimizer):
        begun.append(epoch)
        if begun == [0, 1]:
            raise KeyboardInterrupt
        one_epoch(model, batches, recipe, epoch, optimizer)

    monkeypatch.setattr(training, "_one_epoch", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_or_load(stopped, dataset)
    found = train_or_load(stopped, dataset).module.state_dict()
    assert begun == [0, 1, 1]
    assert all(torch.equal(found[name], values) for name, values in expected.items())
