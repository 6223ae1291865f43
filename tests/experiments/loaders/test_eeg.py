"""On a fixture in the publisher's layout, and on the real file where there is one."""

import numpy as np
import pytest
import torch

from experiments.loaders.eeg import CHANNELS, EEG
from experiments.reading.sources import Absent
from methods.contract import InvalidInput

N = 600
STATES = np.repeat([0, 1, 0, 1, 0, 1], 100)
SMALL = {"window": 20, "stride": 5, "block": 60, "guard": 10}


def lines_of(n=N, outlier=None):
    values = np.round(4200 + np.sin(np.arange(n)[:, None] / 3 + np.arange(14)) * 20, 2)
    if outlier is not None:
        values[outlier] = 715897.0
    return [",".join([*map(str, row), str(state)]) for row, state in zip(values, STATES[:n], strict=True)]


def publish(root, lines=None, channels=CHANNELS):
    """The recording as its publisher lays it out: an arff file, with Windows' ends of lines and none at the end."""
    (root / "eeg").mkdir(parents=True)
    head = ["@RELATION EEG_DATA", "", *(f"@ATTRIBUTE {name} NUMERIC" for name in channels)]
    head += ["@ATTRIBUTE eyeDetection {0,1}", "", "@DATA"]
    content = "\r\n".join([*head, *(lines_of() if lines is None else lines)])
    (root / "eeg/EEG_Eye_State.arff").write_bytes(content.encode())
    return root


def loaded(root, **settings):
    return EEG(**{**SMALL, **settings}).load(root, seed=0)


def samples_of(split, window=20):
    starts = [int(i) for i in split.example_ids]
    return {sample for start in starts for sample in range(start, start + window)}


def test_a_window_has_the_samples_that_its_id_says(tmp_path):
    dataset = loaded(publish(tmp_path), clip=0.0)
    test = dataset.split("test")
    assert dataset.class_names == ("eyes open", "eyes closed")
    assert test.examples.shape == (test.n_examples, 14, 20)
    assert test.examples.dtype == torch.float32
    row = test.example_ids.index("00065")
    assert torch.equal(test.examples[row, :, :15], test.examples[row - 1, :, 5:])
    wave = np.sin(np.arange(65, 85) / 3)
    assert np.corrcoef(test.examples[row, 0].numpy(), wave)[0, 1] > 0.999


def test_no_sample_is_in_two_splits_and_guards_are_in_none(tmp_path):
    of_split = {name: samples_of(split) for name, split in loaded(publish(tmp_path)).splits.items()}
    assert set(of_split) == {"train", "test", "validation"}
    everything = set().union(*of_split.values())
    assert len(everything) == sum(map(len, of_split.values()))
    assert not any(sample % 60 >= 50 for sample in everything)


def test_blocks_go_to_the_splits_in_turn(tmp_path):
    dataset = loaded(publish(tmp_path), deal=("train", "train", "test"))
    assert set(dataset.splits) == {"train", "test"}
    assert dataset.split("test").attributes["block"].unique().tolist() == [2, 5, 8]


def test_the_label_is_the_state_of_at_least_half_of_the_samples(tmp_path):
    splits = loaded(publish(tmp_path)).splits.values()
    labels = {i: int(label) for split in splits for i, label in zip(split.example_ids, split.labels, strict=True)}
    changes = {i: split.attributes.loc[i] for split in splits for i in split.example_ids}
    assert (labels["00080"], changes["00080"]["transition"], changes["00080"]["open_share"]) == (0, "no", 1.0)
    assert (labels["00185"], changes["00185"]["transition"], changes["00185"]["open_share"]) == (1, "yes", 0.25)
    assert changes["00185"]["seconds_since_change"] == 4 / 128  # 200 to 204
    assert changes["00120"]["seconds_since_change"] == 39 / 128
    assert changes["00185"]["second"] == 185 / 128


def test_outliers_are_clipped_by_what_is_usual_in_training(tmp_path):
    for outlier, settings in ((5, {"clip": 0.01}), (70, {})):  # one in a training block, one in a test block
        dataset = loaded(publish(tmp_path / str(outlier), lines_of(outlier=outlier)), **settings)
        assert max(split.examples.abs().max() for split in dataset.splits.values()) < 3


def test_the_fingerprint_follows_what_becomes_of_the_samples(tmp_path):
    root = publish(tmp_path)
    assert loaded(root).fingerprint == loaded(root).fingerprint != loaded(root, clip=0.1).fingerprint


def test_the_order_of_ids_is_that_of_time_in_a_long_recording_too(tmp_path):
    root = publish(tmp_path, lines_of() * 170)  # 102,000 samples
    dataset = loaded(root, block=6_000, stride=1_000)
    starts = [int(name) for name in dataset.split("validation").example_ids]
    assert starts == sorted(starts)
    assert {len(name) for split in dataset.splits.values() for name in split.example_ids} == {6}


def test_the_number_of_samples_is_said(tmp_path):
    assert loaded(publish(tmp_path)).notes[0].startswith("600 samples at 128 Hz")


def test_without_the_data_it_is_said_what_to_get(tmp_path):
    with pytest.raises(Absent, match=r"EEG_Eye_State.arff is missing. Get the arff file from https"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (lines_of()[0].replace("4200.0", "high", 1), "line 20: AF3 is 'high', expected a number"),
        (lines_of()[0][:30], "line 20: eyeDetection is ''"),
        (lines_of()[0][:-1] + "2", "line 20: eyeDetection is '2', expected one of 0, 1"),
        (lines_of()[0] + ",0", "more fields than its 15 columns"),
    ],
)
def test_what_is_wrong_in_a_line_is_refused_with_its_number(tmp_path, line, said):
    with pytest.raises(InvalidInput, match=f"EEG_Eye_State.arff.*{said}"):
        loaded(publish(tmp_path, [line, *lines_of()[1:]]))


def test_other_channels_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"has the attributes Cz, F7.*expected AF3, F7"):
        loaded(publish(tmp_path, channels=("Cz", *CHANNELS[1:])))


@pytest.mark.parametrize("content", [b"", b"1,2\n", b"\xff\xfe\x00"])
def test_what_is_no_arff_file_is_refused(tmp_path, content):
    (publish(tmp_path) / "eeg/EEG_Eye_State.arff").write_bytes(content)
    with pytest.raises(InvalidInput, match="no line @DATA, expected an arff file"):
        loaded(tmp_path)


def test_a_file_without_samples_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"arff (cannot be read as a table|has no rows)"):
        loaded(publish(tmp_path, []))


def test_a_recording_of_one_state_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"no example of the class 'eyes closed \(1\)'"):
        loaded(publish(tmp_path, lines_of(100)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 60}, "which give no window to the train split: expected more, a smaller dataset.block, or"),
        ({"block": 400}, "no window to the validation split"),
        ({"deal": ("test",)}, "dataset.deal has no train"),
    ],
)
def test_settings_that_leave_a_split_empty_are_refused(tmp_path, settings, said):
    with pytest.raises(InvalidInput, match=said):
        loaded(publish(tmp_path), **settings)


def test_the_real_files(data):
    dataset = EEG().load(data("eeg/EEG_Eye_State.arff"), seed=0)
    assert dataset.notes[0].startswith("14,980 samples")
    sizes = {name: split.n_examples for name, split in dataset.splits.items()}
    assert sizes == {"train": 500, "test": 250, "validation": 225}
    for split in dataset.splits.values():
        assert split.examples.abs().max() < 10
        assert 0.3 < split.labels.float().mean() < 0.7
