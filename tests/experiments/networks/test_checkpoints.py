import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from experiments.networks.checkpoints import (
    HoldsObjects,
    downloaded,
    identity_of,
    identity_of_file,
    load_weights,
    read_weights,
)
from methods.contract import InvalidInput


class Writes:
    """Unpickled by Python's own means, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("ending", ["pt", "pth", "safetensors"])
def test_half_precision_is_read_as_single(tmp_path, ending):
    path = tmp_path / f"weights.{ending}"
    weights = {"weight": torch.ones(2, 3, dtype=torch.float16), "steps": torch.tensor([7])}
    save_file(weights, path) if ending == "safetensors" else torch.save(weights, path)
    read = read_weights(path)
    assert {name: (values.dtype, values.shape) for name, values in read.items()} == {
        "weight": (torch.float32, (2, 3)),
        "steps": (torch.int64, (1,)),
    }


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_weights_inside_a_larger_checkpoint_are_found(tmp_path, name):
    torch.save({name: nn.Linear(2, 1).state_dict(), "epoch": 3}, tmp_path / "c.pt")
    assert set(read_weights(tmp_path / "c.pt")) == {"weight", "bias"}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("inside", [True, False])
def test_no_code_in_a_file_is_run(tmp_path, protocol, inside):
    trap = Writes(tmp_path / "written")
    if inside:
        torch.save({"weight": torch.ones(1), "more": trap}, tmp_path / "w.pt", pickle_protocol=protocol)
    else:
        (tmp_path / "w.pt").write_bytes(pickle.dumps(trap, protocol=protocol))
    with pytest.raises(HoldsObjects, match=r"w\.pt is not read: it holds .* beside tensors"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "written").exists()


def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path):
    torch.save(nn.Linear(2, 1), tmp_path / "module.pt")
    with pytest.raises(HoldsObjects, match=r"torch\.nn\.modules\.linear\.Linear.*save model\.state_dict\(\)"):
        read_weights(tmp_path / "module.pt")


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "absent"])
def test_a_file_that_is_no_longer_one_is_refused_in_one_line(tmp_path, ending, damage):
    path = tmp_path / f"weights.{ending}"
    weights = nn.Linear(50, 50).state_dict()
    save_file(weights, path) if ending == "safetensors" else torch.save(weights, path)
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"cut": path.read_bytes()[:3000], "empty": b"", "text": b"<html>not found</html>" * 9}[damage])
    with pytest.raises(InvalidInput, match=rf"weights\.{ending}") as error:
        read_weights(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("held", [{}, {"epoch": 3}, [torch.ones(1)], torch.ones(1), {"state_dict": {"w": 1}}])
def test_what_is_no_state_dict_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match=r"w\.pt holds no state dict"):
        read_weights(tmp_path / "w.pt")


def test_weights_that_are_not_finite_are_named(tmp_path):
    torch.save({"a": torch.ones(1), "b": torch.tensor([float("nan")])}, tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match=r"w\.pt: b is not finite"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"0.weight": torch.ones(3, 5)}, r"0\.weight has shape \(3, 5\), expected \(3, 4\)"),
        ({"0.bias": None}, r"0\.bias is missing, expected shape \(3,\)"),
        ({"module.0": torch.ones(2)}, r"module\.0 of shape \(2,\) is not in the model"),
    ],
)
def test_the_first_tensor_that_differs_is_named_with_both_shapes(change, said):
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    weights = {name: values for name, values in {**module.state_dict(), **change}.items() if values is not None}
    with pytest.raises(InvalidInput, match=f"w.pt has other weights: {said}"):
        load_weights(module, weights, Path("w.pt"))


def test_early_files_without_a_count_of_batches_are_loaded():
    module, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    other.weight.data += 1
    weights = {name: values for name, values in other.state_dict().items() if name != "num_batches_tracked"}
    load_weights(module, weights, Path("w.pt"))
    assert torch.equal(module.weight, other.weight)


def test_a_last_layer_may_be_left_as_it_is():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = module[1].weight.clone()
    load_weights(module, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 9)).state_dict(), Path("w.pt"), but=("1.",))
    assert torch.equal(module[1].weight, before)


def test_a_file_is_what_it_holds_wherever_it_lies(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "w.pt").write_bytes(b"weights")
    (tmp_path / "other.pt").write_bytes(b"others")
    found = [identity_of_file(tmp_path / name, "model.state_dict") for name in ("a/w.pt", "b/w.pt", "other.pt")]
    assert found[0] == found[1] != found[2]
    assert identity_of(str(tmp_path / "a"), "", "") == identity_of(str(tmp_path / "b"), "", "")
    assert identity_of("bert-base-uncased", "", "") == "bert-base-uncased"


def test_a_path_without_anything_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"model\.state_dict is '.*none\.pt', expected a file with weights"):
        identity_of_file(tmp_path / "none.pt", "model.state_dict")
    with pytest.raises(InvalidInput, match=r"model\.name is './none', expected a folder with a classifier"):
        identity_of("./none", "model.name", "a classifier")


def test_what_cannot_be_downloaded_is_said_with_its_place(tmp_path):
    source = tmp_path / "resnet-0123abcd.pth"
    with pytest.raises(InvalidInput, match=r"file:.* cannot be downloaded \(.*\): put that file at .*w\.pth") as error:
        downloaded(source.as_uri(), tmp_path / "new" / "w.pth")
    assert "\n" not in str(error.value)


def test_a_download_is_compared_with_the_checksum_in_its_name(tmp_path):
    (tmp_path / "there").write_bytes(b"weights")
    with pytest.raises(InvalidInput, match=r"cannot be downloaded .*hash"):
        downloaded((tmp_path / "there").as_uri(), tmp_path / "cache" / "resnet-0123abcd.pth")
    path = downloaded((tmp_path / "there").as_uri(), tmp_path / "cache" / "resnet.pth")
    assert path.read_bytes() == b"weights"
    (tmp_path / "there").unlink()
    assert downloaded((tmp_path / "there").as_uri(), path) == path
