from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.loaders.digits import SUPERCLASSES, Digits
from methods.contract import InvalidInput


def loaded(seed=0, **settings):
    return Digits(**settings).load(Path("nowhere"), seed)


def test_every_image_is_in_one_split():
    splits = loaded().splits
    ids = [i for split in splits.values() for i in split.example_ids]
    assert len(ids) == len(set(ids)) == 1797


def test_the_label_is_the_pair_that_the_digit_belongs_to():
    split = loaded().split("test")
    for digit, label in zip(split.attributes["subclass"], split.labels.tolist(), strict=True):
        assert int(digit) in SUPERCLASSES[label]


def test_every_split_has_its_share_of_every_digit():
    counts = loaded().split("test").attributes["subclass"].value_counts()
    assert len(counts) == 10
    assert counts.min() >= 85


def test_the_seed_decides_the_splits_and_the_fingerprint():
    first, again, other = loaded(0), loaded(0), loaded(1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.split("train").example_ids != other.split("train").example_ids


def test_pictures_are_the_real_digits():
    picture = loaded().split("train").examples[0]
    assert (picture.size, picture.mode) == ((8, 8), "L")
    assert np.asarray(picture).max() > 200


def test_shares_that_leave_no_test_split_are_refused():
    with pytest.raises(InvalidInput, match="expected below 1"):
        loaded(train_share=0.6, validation_share=0.4)


def test_labels_are_int64():
    assert loaded().split("validation").labels.dtype == torch.int64
