"""A data set from its splits, with the fingerprint of all that is in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.cache_report import cache_root
from experiments.contract import Dataset, Modality, Split
from experiments.files import sha256_of, write_json
from experiments.reading.images import ImageFiles
from experiments.reading.signals import WithSignal
from experiments.reading.stored import Stored

VERSION = 3  # of the digest, and of how image files become pictures


def assembled(
    name: str,
    modality: Modality,
    class_names: Iterable[str],
    splits: Mapping[str, Split],
    root: Path,
    files: Iterable[str],
    also: Mapping[str, Any] | None = None,
    **more: Any,
) -> Dataset:
    """A data set and the fingerprints of its content, and of its train split alone.

    Parameters
    ----------
    name, modality, class_names, splits
        As for `Dataset`.
    root : Path
        The data root.
    files : iterable of str
        All files that examples, labels and attributes come from, relative to the root.
    also : mapping, optional
        What else the examples depend on, as json values: settings that change them while they are read.
    **more
        Other fields of `Dataset`.
    """
    beside = [VERSION, list(class_names), more.get("imagenet_classes"), also]
    common = hashlib.sha256(json.dumps(beside, sort_keys=True).encode())
    digests = {split_name: _digest(split) for split_name, split in splits.items()}
    content = common.copy()
    content.update(digest_of_files(root, files).encode())
    for split_name in sorted(splits):
        content.update(split_name.encode() + digests[split_name])
    trained = common.copy()
    trained.update(digests.get("train", b""))
    fingerprints = (content.hexdigest(), trained.hexdigest() if "train" in splits else None)
    return Dataset(name, modality, tuple(class_names), splits, *fingerprints, **more)


def _digest(split: Split) -> bytes:
    """Of all that is in a split, images by their files."""
    content = hashlib.sha256("\n".join(split.example_ids).encode())
    content.update(_digest_of_examples(split.examples))
    for tensor in (split.labels, split.spans):
        content.update(b"none" if tensor is None else tensor.contiguous().numpy().tobytes())
    for shown in (split.paths if split.pictures is not None else None, split.texts):
        content.update(b"" if shown is None else json.dumps(shown).encode())
    content.update("\n".join(str(column) for column in split.attributes.columns).encode())
    if len(split.attributes.columns):
        content.update(np.ascontiguousarray(pd.util.hash_pandas_object(split.attributes).to_numpy()).tobytes())
    return content.digest()


def _digest_of_examples(examples: Sequence[Any]) -> bytes:
    """Of what a loader made of its files; images are not decoded."""
    content = hashlib.sha256()
    if isinstance(examples, WithSignal):
        content.update(np.asarray(examples.marked, dtype=bool).tobytes() + _digest_of_examples(examples.images))
    elif isinstance(examples, ImageFiles):
        content.update(f"{examples.mode} {digest_of_files(examples.root, examples.paths)}".encode())
    elif isinstance(examples, Stored):
        for values in vars(examples).values():
            content.update(b"none" if values is None else _digest_of_examples(values))
    elif isinstance(examples, Tensor):
        content.update(f"{examples.dtype} {tuple(examples.shape)}".encode())
        content.update(examples.contiguous().reshape(-1).view(torch.uint8).numpy())
    else:
        for example in examples:  # texts, and pairs of them
            content.update(json.dumps(example, default=_in_words).encode())
    return content.digest()


def _in_words(example: Any) -> str:
    """Of an array, or a picture in memory."""
    values = np.asarray(example)
    return f"{values.dtype} {values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


def digest_of_files(root: Path, files: Iterable[str]) -> str:
    """Sha256 over the sorted relative paths and contents of these files."""
    content = hashlib.sha256()
    for name, entry in sorted(contents_of_files(root, files).items()):
        content.update(f"{name} {entry}\n".encode())
    return content.hexdigest()


def contents_of_files(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Size and sha256 of each of these files, by its path relative to the root.

    What was hashed before is remembered in the cache, by path, size and time of the last change.
    """
    memo = cache_root() / "fingerprints" / f"{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]}.json"
    known, seen = _remembered(memo), {}
    for name in sorted(set(files)):
        status = (root / name).stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        before = known.get(name)
        sha256 = before[1] if before and before[0] == stamp else sha256_of(root / name)
        seen[name] = [stamp, sha256]
    if any(known.get(name) != entry for name, entry in seen.items()):
        _remember(memo, known | seen)
    return {name: f"{stamp.split(' ')[0]} {sha256}" for name, (stamp, sha256) in seen.items()}


def _remembered(memo: Path) -> dict[str, list[str]]:
    try:
        return dict(json.loads(memo.read_text()))
    except (OSError, ValueError):
        return {}


def _remember(memo: Path, content: Mapping[str, list[str]]) -> None:
    with suppress(OSError):  # it saves time, nothing else
        write_json(memo, content)
