"""What goes into a slice discovery method, and what comes out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from methods.errors import InvalidInput as InvalidInput
from methods.errors import Unsupported as Unsupported

BLOCK_ROWS = 65_536  # finiteness is checked by blocks of rows: a memory-mapped array is never copied whole


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """What a model under audit did on one split.

    There are no true slices in here, so no method can peek at them.

    Parameters
    ----------
    example_ids : tuple of str, length n
        At least one; strictly increasing, so that no result can depend on row order (see `from_arrays`).
    embeddings : Tensor, shape (n, d), float32
    losses : Tensor, shape (n,), float32, in nats
    correct : Tensor, shape (n,), bool
        Whether the model's prediction was right.
    labels : Tensor, shape (n,), int64, in [0, c), optional
    logits : Tensor, shape (n, c), float32, optional
        With c >= 2: a model with a single logit z has the columns (0, z).

    Raises
    ------
    InvalidInput
        Naming the field, the first bad row where there is one, and what was expected.

    Examples
    --------
    >>> arrays = {"embeddings": [[1.0], [2.0]], "losses": [0.5, 0.1], "correct": [False, True]}
    >>> outputs = ModelOutputs.from_arrays(["b", "a"], **arrays)
    >>> outputs.example_ids, outputs.losses.tolist()[1]
    (('a', 'b'), 0.5)
    """

    example_ids: tuple[str, ...]
    embeddings: Tensor
    losses: Tensor
    correct: Tensor
    labels: Tensor | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        check_example_ids(self.example_ids)
        check_tensor("embeddings", self.embeddings, self.example_ids, torch.float32, n_dims=2)
        if self.logits is not None:
            check_tensor("logits", self.logits, self.example_ids, torch.float32, n_dims=2)
            if self.logits.shape[1] < 2:
                raise InvalidInput("logits has 1 column, expected at least 2: store a single logit z as (0, z)")
        self._check_outcomes()

    def _check_outcomes(self) -> None:
        """Check what a relabelling changes."""
        check_tensor("losses", self.losses, self.example_ids, torch.float32, n_dims=1)
        check_tensor("correct", self.correct, self.example_ids, torch.bool, n_dims=1)
        if self.labels is not None:
            check_tensor("labels", self.labels, self.example_ids, torch.int64, n_dims=1)
            n_classes = None if self.logits is None else self.logits.shape[1]
            check_labels(self.labels, self.example_ids, n_classes)

    @property
    def n_examples(self) -> int:
        return len(self.example_ids)

    @property
    def predictions(self) -> Tensor | None:
        """The class of the largest logit: Tensor, shape (n,), int64, or None without logits."""
        return None if self.logits is None else self.logits.argmax(dim=1)

    def to(self, device: torch.device) -> ModelOutputs:
        """The same outputs on another device; nothing is checked again."""
        if self.embeddings.device == device:
            return self
        return self._with({name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)})

    def _with(self, changed: Mapping[str, Any]) -> ModelOutputs:
        """A copy with other fields, unchecked."""
        new = object.__new__(ModelOutputs)
        for name, value in {**vars(self), **changed}.items():
            object.__setattr__(new, name, value)
        return new

    @classmethod
    def from_arrays(
        cls,
        example_ids: Sequence[Any],
        *,
        embeddings: Any,
        losses: Any = None,
        correct: Any = None,
        labels: Any = None,
        logits: Any = None,
    ) -> Self:
        """Outputs from numpy, pandas, torch or lists, in any row order.

        Parameters
        ----------
        example_ids : sequence, length n
            Turned into strings; they must be distinct.
        embeddings : array-like, shape (n, d)
        losses : array-like, shape (n,), in nats, optional
            The cross-entropy of logits and labels where it is left out.
        correct : array-like, shape (n,), optional
            Whether the largest logit is the label's where it is left out.
        labels : array-like, shape (n,), optional
        logits : array-like, shape (n, c), (n, 1) or (n,), optional
            A single logit z becomes the columns (0, z).

        Raises
        ------
        InvalidInput
            As for the class, and where losses or correct can neither be read nor computed.
        """
        ids = np.asarray([str(i) for i in example_ids], dtype=object)
        # Python's order of strings, which the contract's check uses too
        order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        arrays = {
            "embeddings": _as_tensor("embeddings", embeddings, torch.float32, len(ids)),
            "losses": _as_tensor("losses", losses, torch.float32, len(ids)),
            "correct": _as_tensor("correct", correct, torch.bool, len(ids)),
            "labels": _as_tensor("labels", labels, torch.int64, len(ids)),
            "logits": _two_columns(_as_tensor("logits", logits, torch.float32, len(ids))),
        }
        rows = torch.from_numpy(order)
        sorted_arrays = {name: None if a is None else a[rows] for name, a in arrays.items()}
        sorted_ids = tuple(ids[order])
        check_example_ids(sorted_ids)
        return cls(sorted_ids, **_with_outcomes(sorted_ids, sorted_arrays))

    def relabelled(self, labels: Tensor, embeddings: Tensor | None = None) -> ModelOutputs:
        """The same outputs under other labels: cross-entropy and `correct` are computed anew, logits stay.

        Ids, logits and (unless given) embeddings are shared, not copied, and only what is new is checked.

        Parameters
        ----------
        labels : Tensor, shape (n,), int64, in [0, c)
        embeddings : Tensor, shape (n, d), float32, optional
            Embeddings that depend on the label (influence) must follow it.

        Raises
        ------
        Unsupported
            Where these outputs hold no logits.
        """
        if self.logits is None:
            raise Unsupported("relabelling needs logits: the losses of other labels are computed from them")
        check_tensor("labels", labels, self.example_ids, torch.int64, n_dims=1)
        check_labels(labels, self.example_ids, self.logits.shape[1])
        new = self._with(
            {
                "embeddings": self.embeddings if embeddings is None else embeddings,
                "losses": cross_entropy(self.logits, labels, reduction="none"),
                "correct": self.logits.argmax(dim=1) == labels,
                "labels": labels,
            }
        )
        if embeddings is not None:
            check_tensor("embeddings", embeddings, self.example_ids, torch.float32, n_dims=2)
        new._check_outcomes()
        return new


@dataclass(frozen=True, eq=False)
class Slices:
    """Discovered slices, the worst first as the method judged it on the half that it was fitted on.

    Parameters
    ----------
    example_ids : tuple of str, length n
        Strictly increasing.
    membership : Tensor, shape (n, s), float32, in [0, 1]
        Ranks the examples of a slice; rows need not sum to 1.
    members : Tensor, shape (n, s), bool
        The hard slices; an example may be in several, or in none.
    diagnostics : tuple of dict, length s
        What the method has to say about each slice, as json values (size_ratio, cell ...); empty dicts by default.

    Raises
    ------
    InvalidInput
        Naming the field, the first bad row where there is one, and what was expected.
    """

    example_ids: tuple[str, ...]
    membership: Tensor
    members: Tensor
    diagnostics: tuple[Mapping[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        check_example_ids(self.example_ids)
        check_tensor("membership", self.membership, self.example_ids, torch.float32, n_dims=2, min_columns=0)
        check_tensor("members", self.members, self.example_ids, torch.bool, n_dims=2, min_columns=0)
        if self.members.shape != self.membership.shape:
            shape, expected = tuple(self.members.shape), tuple(self.membership.shape)
            raise InvalidInput(f"members has shape {shape}, expected that of membership, {expected}")
        outside = ((self.membership < 0) | (self.membership > 1)).any(dim=1)
        if outside.any():
            raise InvalidInput(f"membership is outside [0, 1] at {_first_row(outside, self.example_ids)}")
        object.__setattr__(self, "diagnostics", self._checked_diagnostics())

    def _checked_diagnostics(self) -> tuple[Mapping[str, Any], ...]:
        diagnostics = tuple(self.diagnostics) or tuple({} for _ in range(self.n_slices))
        if len(diagnostics) != self.n_slices:
            raise InvalidInput(
                f"diagnostics has {len(diagnostics)} entries, expected one for each of {self.n_slices} slices"
            )
        for index, entry in enumerate(diagnostics):
            try:
                json.dumps(entry, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"diagnostics of slice {index} are not json values: {error}") from None
        return diagnostics

    @property
    def n_slices(self) -> int:
        return self.membership.shape[1]

    @classmethod
    def none(cls, example_ids: tuple[str, ...]) -> Slices:
        """No slice at all: what a method returns where it finds nothing."""
        n = len(example_ids)
        return cls(example_ids, torch.zeros(n, 0), torch.zeros(n, 0, dtype=torch.bool))


class SliceDiscoveryMethod(Protocol):
    """Anything with these two methods can be benchmarked: no base class, no registry.

    A constructor only stores its arguments; what `fit` learns ends in an underscore. A method may also have
    `fit_many(outputs: list[ModelOutputs], seeds: list[int]) -> list[Self]` where fitting several at once is faster,
    a field `seed`, and an integer class attribute `version` that is raised when its results change.
    """

    def fit(self, outputs: ModelOutputs) -> Self:
        """Learn slices from a model's outputs on one split."""
        ...

    def predict(self, outputs: ModelOutputs) -> Slices:
        """The learned slices among the same examples or others; there may be fewer than asked for, or none."""
        ...


def check_example_ids(example_ids: tuple[str, ...]) -> None:
    """Raise `InvalidInput` unless there is at least one id, all are strings, and they are strictly increasing."""
    if len(example_ids) == 0:
        raise InvalidInput("example_ids is empty, expected at least one example")
    previous = None
    for row, example_id in enumerate(example_ids):
        if not isinstance(example_id, str):
            raise InvalidInput(f"example_ids has {example_id!r} at row {row}, expected a string")
        if previous is not None and example_id <= previous:
            problem = "a duplicate" if example_id == previous else f"after {previous!r}"
            raise InvalidInput(
                f"example_ids has {example_id!r} at row {row}, {problem}: expected strictly increasing ids "
                "(from_arrays sorts them)"
            )
        previous = example_id


def check_tensor(
    name: str,
    values: Any,
    example_ids: tuple[str, ...],
    dtype: torch.dtype,
    n_dims: int,
    min_columns: int = 1,
) -> None:
    """Raise `InvalidInput` unless `values` is a finite tensor of this type with a row for each example."""
    expected = f"expected a {str(dtype).removeprefix('torch.')} tensor of shape {_shape(len(example_ids), n_dims)}"
    if not isinstance(values, Tensor):
        raise InvalidInput(f"{name} is a {type(values).__name__}, {expected} (from_arrays converts)")
    if values.dtype != dtype:
        raise InvalidInput(f"{name} is {str(values.dtype).removeprefix('torch.')}, {expected}")
    if values.ndim != n_dims or (n_dims == 2 and values.shape[1] < min_columns):
        raise InvalidInput(f"{name} has shape {tuple(values.shape)}, {expected}")
    if len(values) != len(example_ids):
        raise InvalidInput(f"{name} has {len(values)} rows, example_ids has {len(example_ids)}")
    if not dtype.is_floating_point or values.numel() == 0:
        return
    for start in range(0, len(values), BLOCK_ROWS):
        finite = torch.isfinite(values[start : start + BLOCK_ROWS])
        finite = finite if n_dims == 1 else finite.all(dim=1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0])
            raise InvalidInput(f"{name} is not finite at row {row} ({example_ids[row]!r})")


def check_labels(labels: Tensor, example_ids: tuple[str, ...], n_classes: int | None) -> None:
    """Raise `InvalidInput` where a label is negative or not below the number of classes (if that is known)."""
    outside = labels < 0 if n_classes is None else (labels < 0) | (labels >= n_classes)
    if outside.any():
        row = int(outside.nonzero()[0])
        allowed = "0 or more" if n_classes is None else f"0 to {n_classes - 1}"
        raise InvalidInput(f"labels has {int(labels[row])} at row {row} ({example_ids[row]!r}), expected {allowed}")


def _shape(n_examples: int, n_dims: int) -> str:
    return f"({n_examples},)" if n_dims == 1 else f"({n_examples}, columns)"


def _first_row(bad: Tensor, example_ids: tuple[str, ...]) -> str:
    row = int(bad.nonzero()[0])
    return f"row {row} ({example_ids[row]!r})"


def _as_tensor(name: str, values: Any, dtype: torch.dtype, n_examples: int) -> Tensor | None:
    if values is None:
        return None
    try:
        # pandas hands out read-only arrays, which torch cannot wrap: copy those
        array = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} cannot be read as numbers: {error}") from None
    if array.ndim == 0 or len(array) != n_examples:
        raise InvalidInput(
            f"{name} has {array.numel() if array.ndim == 0 else len(array)} rows, example_ids has {n_examples}"
        )
    return _converted(name, array, dtype)


def _converted(name: str, array: Tensor, dtype: torch.dtype) -> Tensor:
    converted = array.to(dtype)
    if not dtype.is_floating_point:  # 0.7 as a label or as `correct` is a mistake, never to be rounded
        changed = (converted.to(torch.float64) != array.to(torch.float64)).reshape(len(array), -1).any(dim=1)
        if changed.any():
            row = int(changed.nonzero()[0])
            kind = "true or false" if dtype == torch.bool else "a whole number"
            raise InvalidInput(f"{name} has {array[row].tolist()} at row {row}, expected {kind}")
    return converted


def _two_columns(logits: Tensor | None) -> Tensor | None:
    if logits is None or (logits.ndim == 2 and logits.shape[1] != 1):
        return logits
    single = logits.reshape(-1)
    return torch.stack([torch.zeros_like(single), single], dim=1)


def _with_outcomes(example_ids: tuple[str, ...], arrays: dict[str, Tensor | None]) -> dict[str, Any]:
    """Losses and `correct` from logits and labels, where they were not given."""
    logits, labels = arrays["logits"], arrays["labels"]
    missing = [name for name in ("losses", "correct") if arrays[name] is None]
    if not missing:
        return arrays
    if logits is None or labels is None:
        raise InvalidInput(f"{missing[0]} is missing, expected it or both logits and labels to compute it from")
    check_tensor("logits", logits, example_ids, torch.float32, n_dims=2)
    check_labels(labels, example_ids, logits.shape[1])
    computed = {"losses": cross_entropy(logits, labels, reduction="none"), "correct": logits.argmax(dim=1) == labels}
    return {**arrays, **{name: computed[name] for name in missing}}
