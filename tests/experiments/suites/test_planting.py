"""Who gets an artefact, what it looks like, and that it touches nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from experiments.contract import Dataset, Split
from experiments.loaders.digits import Digits
from experiments.reading.signals import Signal
from experiments.suites.planting import ATTRIBUTE, MAINS, Planted
from methods.contract import InvalidInput, Unsupported
from tests.experiments.suites.unread import Unread

N, CHANNELS, LENGTH = 400, 3, 128
SERIES, IMAGES = ("line_noise", "drift"), ("tag", "stripe", "blur")


def dataset(examples=None, modality="series", flip=False):
    """Train and test; `flip` gives every example another label."""
    noise = torch.randn(2, N, CHANNELS, LENGTH, generator=torch.Generator().manual_seed(0))
    splits = {}
    for name, of_split in zip(("train", "test"), noise, strict=True):
        ids = tuple(f"{name} {row:04d}" for row in range(N))
        labels = (torch.arange(N) + flip) % 2
        known = pd.DataFrame({"second": np.arange(N)}, index=pd.Index(ids, name="id"))
        paths = tuple(f"{i}.png" for i in ids)
        splits[name] = Split(ids, of_split if examples is None else examples, labels, known, paths)
    return Dataset("toy", modality, ("open", "closed"), splits, "toy", train_fingerprint="toy train")


def digits():
    return Digits().load(Path("data"), seed=0)


def of_kind(artefact):
    return dataset() if artefact in SERIES else digits()


def marked(split):
    return (split.attributes[ATTRIBUTE] != "none").to_numpy(copy=True)


def pixels(split):
    """(n, height, width), as whole numbers that may be subtracted."""
    return np.stack([np.asarray(image).astype(int) for image in split.examples])


def content(split):
    """The examples' own bytes."""
    of_each = [x.numpy().tobytes() if isinstance(x, torch.Tensor) else x.tobytes() for x in split.examples]
    return np.array(of_each, dtype=object)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("artefact", [*SERIES, *IMAGES])
def test_about_that_share_of_each_split_is_marked(artefact, share):
    before = of_kind(artefact)
    planted = Planted(artefact, share=share).plant(before, seed=0)
    assert set(planted.splits) == set(before.splits)
    for split in planted.splits.values():
        low, high = binom.interval(0.9999, split.n_examples, share)
        assert low <= marked(split).sum() <= high


@pytest.mark.parametrize("artefact", [*SERIES, *IMAGES])
def test_whom_it_meets_has_nothing_to_do_with_the_label(artefact):
    examples, modality = (None, "series") if artefact in SERIES else (Unread(N), "image")
    planted = [
        Planted(artefact).plant(dataset(examples, modality, flip), seed=0).split("train") for flip in (False, True)
    ]
    assert np.array_equal(marked(planted[0]), marked(planted[1]))
    shares = [marked(planted[0])[planted[0].labels.numpy() == label].mean() for label in (0, 1)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.15)  # of 200 examples: a deviation of 0.035


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        *((Planted(artefact), artefact) for artefact in IMAGES),
        (Planted("drift"), "drift on channel 0"),
        (Planted("line_noise", channel=2), "line_noise on channel 2"),
    ],
)
def test_the_attribute_says_what_was_planted(planted, name):
    for split in planted.plant(of_kind(planted.artefact), seed=0).splits.values():
        assert set(split.attributes[ATTRIBUTE]) == {name, "none"}


def test_each_split_has_draws_of_its_own():
    planted = Planted("drift").plant(dataset(), seed=0)
    assert not np.array_equal(marked(planted.split("train")), marked(planted.split("test")))


@pytest.mark.parametrize("artefact", [*SERIES, *IMAGES])
def test_the_unmarked_stay_bit_by_bit_and_the_marked_do_not(artefact):
    before = of_kind(artefact)
    planted = Planted(artefact).plant(before, seed=0)
    for name, split in planted.splits.items():
        same = content(split) == content(before.split(name))
        assert np.array_equal(same, ~marked(split))


@pytest.mark.parametrize("artefact", SERIES)
def test_a_zero_of_the_unmarked_keeps_its_sign(artefact):
    before = torch.full((N, CHANNELS, LENGTH), -0.0)
    split = Planted(artefact).plant(dataset(before), seed=0).split("train")
    assert torch.signbit(split.examples[torch.from_numpy(~marked(split))]).all()


@pytest.mark.parametrize("artefact", SERIES)
def test_other_channels_stay_bit_by_bit(artefact):
    before = dataset()
    after = Planted(artefact, channel=1).plant(before, seed=0).split("train").examples
    assert after.dtype == torch.float32
    others = [0, 2]
    assert after[:, others].numpy().tobytes() == before.split("train").examples[:, others].numpy().tobytes()


def planted_wave(artefact, **options):
    """What was added to the channel of the marked examples, (m, t)."""
    before = dataset().split("train")
    split = Planted(artefact, channel=2, **options).plant(dataset(), seed=0).split("train")
    return (split.examples - before.examples)[torch.from_numpy(marked(split)), 2].numpy()


def test_line_noise_is_a_wave_of_50_hertz_at_any_phase():
    waves = planted_wave("line_noise", strength=3.0)
    spectrum = np.fft.rfft(waves, axis=1)
    at = round(MAINS * LENGTH)
    assert np.fft.rfftfreq(LENGTH, d=1 / 128)[at] == 50
    assert 2 / LENGTH * np.abs(spectrum[:, at]) == pytest.approx(np.full(len(waves), 3.0), rel=1e-4)
    assert np.abs(np.delete(spectrum, at, axis=1)).max() < 1e-3
    quarters = np.histogram(np.angle(spectrum[:, at]), bins=4, range=(-np.pi, np.pi))[0] / len(waves)
    assert quarters == pytest.approx([0.25] * 4, abs=0.12)


def test_drift_is_a_straight_line_up_or_down():
    waves = planted_wave("drift", strength=3.0)
    up = waves[:, -1] > 0
    assert up.mean() == pytest.approx(0.5, abs=0.15)
    line = np.linspace(-3, 3, LENGTH)
    np.testing.assert_allclose(waves, np.where(up[:, None], line, -line), atol=1e-5)


def test_a_tag_on_a_digit_is_in_its_corner_and_a_stripe_on_its_left_edge():
    before = pixels(digits().split("train"))
    for artefact, place in (("tag", np.s_[:, 0, :2]), ("stripe", np.s_[:, :, 0])):
        split = Planted(artefact).plant(digits(), seed=0).split("train")
        change = (pixels(split) - before)[marked(split)]
        assert (change[place].reshape(len(change), -1) != 0).any(axis=1).all()
        change[place] = 0
        assert not change.any()


def test_half_the_strength_covers_half_of_what_is_below():
    before = pixels(digits().split("train"))
    whole, half = (
        pixels(Planted("stripe", strength=strength).plant(digits(), seed=0).split("train")) - before
        for strength in (1.0, 0.5)
    )
    assert np.abs(half - whole / 2).max() <= 1


@pytest.mark.parametrize("artefact", IMAGES)
def test_nothing_is_covered_more_than_wholly(artefact):
    with pytest.raises(InvalidInput):
        Planted(artefact, strength=1.5).plant(digits(), seed=0)


def test_images_are_read_when_they_are_asked_for():
    planted = Planted("tag").plant(dataset(Unread(N), "image"), seed=0)
    with pytest.raises(AssertionError, match="image 3 was read"):
        planted.split("test").examples[3]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_keep_size_and_mode(mode):
    images = [Image.new(mode, (20, 30))] * N
    split = Planted("tag").plant(dataset(images, "image"), seed=0).split("train")
    assert {(image.size, image.mode) for image in split.examples} == {((20, 30), mode)}


@pytest.mark.parametrize("artefact", [*SERIES, *IMAGES])
def test_the_seed_decides(artefact):
    before = of_kind(artefact)
    first, again, other = (Planted(artefact).plant(before, seed) for seed in (0, 0, 1))
    assert (first.fingerprint, first.train_fingerprint) == (again.fingerprint, again.train_fingerprint)
    for name in first.splits:
        assert (content(first.split(name)) == content(again.split(name))).all()
        assert first.split(name).attributes.equals(again.split(name).attributes)
        assert not np.array_equal(marked(first.split(name)), marked(other.split(name)))


def test_every_setting_and_the_seed_change_the_fingerprints():
    settings = [
        Planted("drift"),
        Planted("line_noise"),
        Planted("drift", share=0.4),
        Planted("drift", strength=2.0),
        Planted("drift", channel=1),
    ]
    planted = [given.plant(dataset(), seed) for given in settings for seed in (0, 1)] + [dataset()]
    assert len({given.fingerprint for given in planted}) == len(planted)
    assert len({given.train_fingerprint for given in planted}) == len(planted)


def test_other_data_have_other_fingerprints_and_the_train_split_its_own():
    series = Planted("drift").plant(dataset(), seed=0)
    assert series.fingerprint != series.train_fingerprint
    others = Digits(train_share=0.5).load(Path("data"), seed=0)  # the data set has no fingerprint of its train split
    one, other = (Planted("tag").plant(given, seed=0) for given in (digits(), others))
    assert one.fingerprint != other.fingerprint
    assert one.train_fingerprint != other.train_fingerprint


def test_a_signal_that_is_drawn_in_another_way_changes_the_fingerprint(monkeypatch):
    before = Planted("tag").plant(digits(), seed=0).fingerprint
    monkeypatch.setattr(Signal, "version", Signal.version + 1)
    assert Planted("tag").plant(digits(), seed=0).fingerprint != before


@pytest.mark.parametrize("artefact", [*SERIES, *IMAGES])
def test_the_data_that_were_given_do_not_change(artefact):
    before, untouched = of_kind(artefact), of_kind(artefact)
    Planted(artefact).plant(before, seed=0)
    for name, split in before.splits.items():
        assert (content(split) == content(untouched.split(name))).all()
        assert split.attributes.equals(untouched.split(name).attributes)
    assert before.fingerprint == untouched.fingerprint


def test_labels_ids_paths_and_other_attributes_are_kept():
    before = dataset()
    planted = Planted("drift").plant(before, seed=0)
    assert (planted.name, planted.modality, planted.class_names) == ("toy", "series", ("open", "closed"))
    for name, split in planted.splits.items():
        given = before.split(name)
        assert (split.example_ids, split.paths) == (given.example_ids, given.paths)
        assert torch.equal(split.labels, given.labels)
        assert split.attributes.drop(columns=ATTRIBUTE).equals(given.attributes)


def test_series_one_by_one_are_as_good_as_a_tensor_of_them():
    together = dataset().split("train").examples
    planted = [Planted("drift").plant(dataset(given), seed=0) for given in (together, list(together))]
    assert torch.equal(*(given.split("train").examples for given in planted))


@pytest.mark.parametrize("modality", ["table", "text"])
@pytest.mark.parametrize("artefact", [*SERIES, *IMAGES])
def test_data_of_another_kind_are_refused(artefact, modality):
    wanted = "series" if artefact in SERIES else "images"
    with pytest.raises(
        Unsupported, match=f"the artefact {artefact} is planted into {wanted}; toy has modality {modality}"
    ):
        Planted(artefact).plant(dataset(modality=modality), seed=0)


def test_a_wave_in_images_and_a_tag_in_series_are_refused():
    with pytest.raises(Unsupported, match="the artefact drift is planted into series; digits has modality image"):
        Planted("drift").plant(digits(), seed=0)
    with pytest.raises(Unsupported, match="the artefact tag is planted into images; toy has modality series"):
        Planted("tag").plant(dataset(), seed=0)


def test_a_channel_that_is_not_there_is_refused_with_their_number():
    with pytest.raises(Unsupported, match="channel is 3, expected below 3, the channels of these series"):
        Planted("drift", channel=3).plant(dataset(), seed=0)
