"""What goes into a slice discovery method, and what comes out of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from methods.errors import InvalidInput as InvalidInput
from methods.errors import Unsupported as Unsupported

if TYPE_CHECKING:
    import pandas as pd

BLOCK_ROWS = 65_536  # finiteness is checked by blocks of rows: a memory-mapped array is never copied whole
SUM_TOLERANCE = 1e-3  # of probabilities
NUMBERED = (
    "number the classes from 0, as the columns of logits or probabilities are numbered "
    "(pandas.factorize(labels, sort=True)[0] does it in alphabetical order)"
)
SHARED = ("embeddings", "logits")  # large: kept as they were given where that is in order
SHOWN = 8  # slices that are described; of more, the number is said
FIRST = 3  # members of a slice that are named


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
    >>> outputs
    ModelOutputs of 2 examples ('a' to 'b'): embeddings of 1 dimension; accuracy 50.0%, mean loss 0.3 nats
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

    def __repr__(self) -> str:
        first, last = self.example_ids[0], self.example_ids[-1]
        has = [f"embeddings of {_counted(self.embeddings.shape[1], 'dimension')}"]
        has += ["labels"] if self.labels is not None else []
        has += [f"logits of {self.logits.shape[1]} classes"] if self.logits is not None else []
        accuracy, loss = float(self.correct.float().mean()), float(self.losses.mean())
        return (
            f"ModelOutputs of {_counted(self.n_examples, 'example')} ({first!r} to {last!r}): {', '.join(has)}; "
            f"accuracy {accuracy:.1%}, mean loss {loss:.3g} nats"
        )

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
        example_ids: Sequence[Any] | None = None,
        *,
        embeddings: Any,
        losses: Any = None,
        correct: Any = None,
        labels: Any = None,
        logits: Any = None,
        probabilities: Any = None,
    ) -> Self:
        """Outputs from numpy, pandas, torch or lists, in any row order; all go where the embeddings are.

        Parameters
        ----------
        example_ids : sequence, length n, optional
            Turned into strings; they must be distinct. By default the numbers of the rows, in the order of the rows:
            "000", "001" ...
        embeddings : array-like, shape (n, d)
            A tensor or a `numpy.memmap`, in single precision and in the order of sorted ids, is not copied (nor are
            such logits): a file may be larger than memory.
        losses : array-like, shape (n,), in nats, optional
            The cross-entropy of logits and labels where it is left out.
        correct : array-like, shape (n,), optional
            Whether the largest logit is the label's where it is left out.
        labels : array-like, shape (n,), optional
            Classes, counted from 0 as the columns of logits or probabilities are.
        logits : array-like, shape (n, c), (n, 1) or (n,), optional
            A single logit z becomes the columns (0, z).
        probabilities : array-like, shape (n, c), (n, 1) or (n,), in [0, 1], optional
            Instead of logits, which become their logarithms; a single column is that of class 1, of two. Rows sum to 1
            within 0.001.

        Raises
        ------
        InvalidInput
            As for the class; where losses or correct can neither be read nor computed; where two pandas objects have
            one index in two orders.

        Examples
        --------
        >>> outputs = ModelOutputs.from_arrays(embeddings=[[0.1], [0.2]], labels=[1, 0], probabilities=[0.9, 0.8])
        >>> outputs.example_ids, outputs.correct.tolist()
        (('0', '1'), [True, False])
        """
        arrays = {
            "embeddings": (embeddings, torch.float32),
            "losses": (losses, torch.float32),
            "correct": (correct, torch.bool),
            "labels": (labels, torch.int64),
            "logits": (logits, torch.float32),
            "probabilities": (probabilities, torch.float32),
        }
        _check_same_order({name: values for name, (values, _) in arrays.items()})
        counted, n = ("embeddings", _n_rows(embeddings)) if example_ids is None else ("example_ids", len(example_ids))
        ids = np.asarray(row_numbers(n) if example_ids is None else [str(i) for i in example_ids], dtype=object)
        # Python's order of strings, which the contract's check uses too
        order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        in_order = bool((order[1:] > order[:-1]).all())
        sorted_ids = tuple(ids[order])
        check_example_ids(sorted_ids)
        tensors = {name: _as_tensor(name, values, kind, n, counted) for name, (values, kind) in arrays.items()}
        tensors["logits"] = _as_logits(tensors["logits"], tensors.pop("probabilities"))
        device, rows = getattr(tensors["embeddings"], "device", None), torch.from_numpy(order)
        sorted_arrays = {
            name: None if a is None else a.to(device) if in_order and name in SHARED else a.to(device)[rows]
            for name, a in tensors.items()
        }
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

    Examples
    --------
    >>> membership = torch.tensor([[0.2, 0.0], [0.9, 0.0], [0.4, 0.7]])
    >>> slices = Slices(("a", "b", "c"), membership, members=membership > 0.3)
    >>> slices
    2 slices of 3 examples
      1: 2 examples: 'b', 'c'
      2: 1 example: 'c'
    >>> slices.top(1)
    (('b',), ('c',))
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

    def __repr__(self) -> str:
        lines = [f"{_counted(self.n_slices, 'slice')} of {_counted(len(self.example_ids), 'example')}"]
        for index in range(min(self.n_slices, SHOWN)):
            size, strongest = int(self.members[:, index].sum()), self._strongest(FIRST, index)
            named = f": {', '.join(map(repr, strongest))}" if size else ""
            lines.append(f"  {index + 1}: {_counted(size, 'example')}{named}{' ...' if size > FIRST else ''}")
        lines += [f"  and {self.n_slices - SHOWN} more"] if self.n_slices > SHOWN else []
        return "\n".join(lines)

    @property
    def n_slices(self) -> int:
        return self.membership.shape[1]

    def top(self, k: int = 10) -> tuple[tuple[str, ...], ...]:
        """The ids of the k strongest members of each slice, the strongest first.

        Parameters
        ----------
        k : int, >= 1
            Fewer come back from a slice with fewer members: examples that are no members do not.

        Returns
        -------
        tuple of tuple of str, length s
            Members of equal membership in the order of their ids.
        """
        if k < 1:
            raise InvalidInput(f"k is {k}, expected at least 1")
        return tuple(self._strongest(k, index) for index in range(self.n_slices))

    def _strongest(self, k: int, index: int) -> tuple[str, ...]:
        rows = self.members[:, index].nonzero().flatten()  # in the order of their ids, as all rows are
        order = self.membership[rows, index].argsort(descending=True, stable=True)
        return tuple(self.example_ids[row] for row in rows[order[:k]].tolist())

    def to_frame(self) -> pd.DataFrame:
        """A pandas frame with a row for each example, under its id.

        Returns
        -------
        pandas.DataFrame
            Indexed by `example_id`. For each slice, counted from 1, whether the example is a member (`slice_1`, bool)
            and its membership (`membership_1`, float32).

        Notes
        -----
        Ids are strings. Beside a frame of yours whose index is the ids: `frame.join(slices.to_frame())`; where they
        are not strings there, `frame.join(slices.to_frame(), on=frame.index.astype(str))`; and where no ids were given,
        so that rows are in your order: `frame.join(slices.to_frame().set_axis(frame.index))`. Then the worst slice is
        `joined[joined["slice_1"]].sort_values("membership_1", ascending=False)`.

        Examples
        --------
        >>> slices = Slices(("a", "b"), torch.tensor([[0.5], [1.0]]), torch.tensor([[False], [True]]))
        >>> slices.to_frame()  # doctest: +NORMALIZE_WHITESPACE
                    slice_1  membership_1
        example_id
        a             False           0.5
        b              True           1.0
        """
        import pandas as pd

        members, membership = self.members.cpu().numpy(), self.membership.cpu().numpy()
        columns: dict[str, Any] = {}
        for index in range(self.n_slices):
            columns |= {f"slice_{index + 1}": members[:, index], f"membership_{index + 1}": membership[:, index]}
        return pd.DataFrame(columns, index=pd.Index(self.example_ids, name="example_id"))

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
        block = values[start : start + BLOCK_ROWS]
        if not torch.isfinite(torch.stack(torch.aminmax(block))).all():  # NaN is the least and the largest, then
            row = start + int((~torch.isfinite(block)).nonzero()[0, 0])
            raise InvalidInput(f"{name} is not finite at row {row} ({example_ids[row]!r})")


def check_labels(labels: Tensor, example_ids: tuple[str, ...], n_classes: int | None) -> None:
    """Raise `InvalidInput` where a label is negative or not below the number of classes (if that is known)."""
    outside = labels < 0 if n_classes is None else (labels < 0) | (labels >= n_classes)
    if outside.any():
        row = int(outside.nonzero()[0])
        allowed = "0 or more" if n_classes is None else f"0 to {n_classes - 1}"
        raise InvalidInput(f"labels has {int(labels[row])} at row {row} ({example_ids[row]!r}), expected {allowed}")


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _shape(n_examples: int, n_dims: int) -> str:
    return f"({n_examples},)" if n_dims == 1 else f"({n_examples}, columns)"


def _first_row(bad: Tensor, example_ids: tuple[str, ...]) -> str:
    row = int(bad.nonzero()[0])
    return f"row {row} ({example_ids[row]!r})"


def row_numbers(n: int) -> list[str]:
    """The ids of n rows that have none; their order is that of the rows.

    Examples
    --------
    >>> row_numbers(11)[8:]
    ['08', '09', '10']
    """
    return [f"{row:0{len(str(n - 1))}d}" for row in range(n)]


def _n_rows(embeddings: Any) -> int:
    try:
        return len(embeddings)
    except TypeError:
        kind = type(embeddings).__name__
        raise InvalidInput(f"embeddings is a {kind}, expected a table with a row for each example") from None


def _check_same_order(arrays: Mapping[str, Any]) -> None:
    """Raise where two pandas objects have the same index in another order: rows would be of different examples."""
    indexes = {name: values.index for name, values in arrays.items() if hasattr(values, "iloc")}
    if not indexes:
        return
    first, index = next(iter(indexes.items()))
    for name, other in indexes.items():
        if not index.equals(other) and len(index) == len(other) and set(index) == set(other):
            raise InvalidInput(
                f"{name} has the index of {first} in another order, but rows are taken in the order in which they are: "
                f"give {name}.loc[{first}.index], or {name}.to_numpy() if the rows belong together as they are"
            )


def _as_tensor(name: str, values: Any, dtype: torch.dtype, n_examples: int, counted: str) -> Tensor | None:
    if values is None:
        return None
    try:
        array = values.detach() if isinstance(values, Tensor) else _wrapped(values)
    except (TypeError, ValueError) as error:
        text = next((value for value in np.array(values, dtype=object).flat if isinstance(value, str)), None)
        if name == "labels" and text is not None:
            raise InvalidInput(f"labels has {text!r}, expected whole numbers: {NUMBERED}") from None
        raise InvalidInput(f"{name} cannot be read as numbers: {error}") from None
    if array.ndim == 0 or len(array) != n_examples:
        raise InvalidInput(
            f"{name} has {array.numel() if array.ndim == 0 else len(array)} rows, {counted} has {n_examples}"
        )
    return _converted(name, array, dtype)


def _wrapped(values: Any) -> Tensor:
    """A tensor on a memory-mapped array itself, and on a copy of anything else, which may change or be read-only."""
    if not isinstance(values, np.memmap):
        return torch.from_numpy(np.array(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a file opened to be read cannot be written, nor is it
        return torch.from_numpy(values)


def _converted(name: str, array: Tensor, dtype: torch.dtype) -> Tensor:
    converted = array.to(dtype)
    if not dtype.is_floating_point:  # 0.7 as a label or as `correct` is a mistake, never to be rounded
        changed = (converted.to(torch.float64) != array.to(torch.float64)).reshape(len(array), -1).any(dim=1)
        if changed.any():
            row = int(changed.nonzero()[0])
            kind = "true or false" if dtype == torch.bool else "a whole number"
            raise InvalidInput(f"{name} has {array[row].tolist()} at row {row}, expected {kind}")
    return converted


def _as_logits(logits: Tensor | None, probabilities: Tensor | None) -> Tensor | None:
    if probabilities is None:
        return _two_columns(logits)
    if logits is not None:
        raise InvalidInput("logits and probabilities are both given, expected one of them: leave out probabilities")
    if probabilities.ndim > 2:
        raise InvalidInput(f"probabilities has shape {tuple(probabilities.shape)}, expected a row for each example")
    values = probabilities.reshape(len(probabilities), -1)  # (n, c) or (n, 1)
    _check_probabilities(values)
    if _is_single(probabilities):
        values = torch.cat([1 - values, values], dim=1)
    return values.clamp(min=torch.finfo(torch.float32).tiny).log()


def _check_probabilities(values: Tensor) -> None:
    """Raise `InvalidInput` for the first row that is none; a single column has no sum."""
    outside = ~((values >= 0) & (values <= 1 + SUM_TOLERANCE))  # (n, c), true for NaN
    if outside.any():
        row, column = outside.nonzero()[0].tolist()
        raise InvalidInput(f"probabilities has {float(values[row, column]):g} at row {row}, expected 0 to 1")
    sums = values.double().sum(dim=1)  # (n,)
    far = (sums - 1).abs() > SUM_TOLERANCE
    if values.shape[1] > 1 and far.any():
        row = int(far.nonzero()[0])
        raise InvalidInput(
            f"probabilities has a sum of {float(sums[row]):g} at row {row}, expected 1 (within {SUM_TOLERANCE:g})"
        )


def _is_single(columns: Tensor) -> bool:
    return columns.ndim == 1 or (columns.ndim == 2 and columns.shape[1] == 1)


def _two_columns(logits: Tensor | None) -> Tensor | None:
    if logits is None or not _is_single(logits):
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
        raise InvalidInput(
            f"{missing[0]} is missing, expected it or both logits and labels to compute it from (or probabilities and "
            "labels)"
        )
    check_tensor("logits", logits, example_ids, torch.float32, n_dims=2)
    check_labels(labels, example_ids, logits.shape[1])
    computed = {"losses": cross_entropy(logits, labels, reduction="none"), "correct": logits.argmax(dim=1) == labels}
    return {**arrays, **{name: computed[name] for name in missing}}
