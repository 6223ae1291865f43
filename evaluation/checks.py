"""What the functions of this room refuse, each with a message that says what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from methods.errors import InvalidInput, unknown_name

if TYPE_CHECKING:  # tables of scores need no torch
    from methods.contract import ModelOutputs, Slices

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


def check_count(name: str, value: int) -> None:
    """Raise `InvalidInput` unless the value is a whole number of at least 1."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInput(f"{name} is {value!r}, expected a whole number of at least 1")


def check_share(name: str, value: float) -> None:
    """Raise `InvalidInput` unless the value lies strictly between 0 and 1 (NaN does not)."""
    if not 0 < value < 1:
        raise InvalidInput(f"{name} is {value!r}, expected a number between 0 and 1, both excluded")


def check_name(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raise `InvalidInput` with the nearest valid name unless the name is one of those allowed."""
    names = list(allowed)
    if name not in names:
        raise InvalidInput(unknown_name(f"no {kind} is called {name!r}", name, names))


def check_same_examples(slices: Slices, outputs: ModelOutputs) -> None:
    """Raise `InvalidInput` unless the slices are about the examples of these outputs."""
    if slices.example_ids == outputs.example_ids:
        return
    if len(slices.example_ids) != outputs.n_examples:
        raise InvalidInput(f"slices have {len(slices.example_ids)} examples, outputs have {outputs.n_examples}")
    pairs = zip(slices.example_ids, outputs.example_ids, strict=True)
    row, (ours, theirs) = next((row, pair) for row, pair in enumerate(pairs) if pair[0] != pair[1])
    raise InvalidInput(f"example_ids differ at row {row}: slices have {ours!r}, outputs have {theirs!r}")


def as_outcomes(name: str, values: Any, n_examples: int | None = None) -> Bools:
    """The values as an array (n,) of true and false; `InvalidInput` where they are no such thing."""
    array = np.asarray(values)
    n = array.size if n_examples is None else n_examples
    if array.dtype != np.bool_ or array.shape != (n,):
        raise InvalidInput(f"{name} has {array.dtype} and shape {array.shape}, expected bool and ({n},)")
    return array
