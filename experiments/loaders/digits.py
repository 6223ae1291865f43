"""scikit-learn's handwritten digits: the embedded data set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_digits

from experiments.contract import Dataset, Split
from experiments.reading.division import divide

SUPERCLASSES = ((0, 6), (1, 7), (2, 3), (4, 9), (5, 8))  # pairs of digits that look alike


@dataclass(frozen=True)
class Digits:
    """1,797 real 8x8 images of ten digits, as five superclasses of two digits; nothing to download.

    The label is the superclass, the attribute `subclass` the digit. Splits are drawn by seed, stratified by digit.

    Parameters
    ----------
    train_share, validation_share : float
        In (0, 1), validation_share also 0 (no such split), with a sum below 1; the rest is the test split.

    Notes
    -----
    The test set of "Optical recognition of handwritten digits" (Alpaydin and Kaynak 1998) as scikit-learn ships it.

    Examples
    --------
    >>> dataset = Digits().load(Path("data"), seed=0)
    >>> dataset.class_names[0], dataset.split("test").n_examples
    ('0 or 6', 900)
    """

    version: ClassVar[int] = 1

    train_share: float = field(default=0.4, metadata={"above": 0, "below": 1})
    validation_share: float = field(default=0.1, metadata={"min": 0, "below": 1})

    def load(self, root: Path, seed: int) -> Dataset:
        """`root` is not needed: the images come with scikit-learn."""
        images, digits = load_digits(return_X_y=True)  # (n, 64) float64 in 0..16, (n,)
        shares = {"train": self.train_share, "validation": self.validation_share}
        rows = divide(len(digits), shares, "test", seed, strata=digits)
        return Dataset(
            name="digits",
            modality="image",
            class_names=tuple(f"{a} or {b}" for a, b in SUPERCLASSES),
            splits={name: _split(images, digits, r) for name, r in rows.items()},
            fingerprint=_fingerprint(images, digits, rows),
        )


def _split(images: np.ndarray, digits: np.ndarray, rows: np.ndarray) -> Split:
    example_ids = tuple(f"{row:04d}" for row in rows)
    superclass = {digit: index for index, pair in enumerate(SUPERCLASSES) for digit in pair}
    return Split(
        example_ids=example_ids,
        examples=[_picture(image) for image in images[rows]],
        labels=torch.tensor([superclass[digit] for digit in digits[rows]]),
        attributes=pd.DataFrame({"subclass": digits[rows].astype(str)}, index=pd.Index(example_ids, name="id")),
    )


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(image.reshape(8, 8) * 255 / 16).astype(np.uint8))


def _fingerprint(images: np.ndarray, digits: np.ndarray, rows: dict[str, np.ndarray]) -> str:
    content = hashlib.sha256(images.astype(np.uint8).tobytes() + digits.astype(np.uint8).tobytes())
    for name, r in rows.items():
        content.update(name.encode() + r.astype(np.int64).tobytes())
    return content.hexdigest()
