from dataclasses import dataclass, field
from typing import Literal

import pytest

from experiments.schema import construct, words
from methods.contract import InvalidInput


@dataclass
class Inner:
    rate: float = field(default=0.1, metadata={"above": 0})


@dataclass
class Outer:
    size: int = field(default=5, metadata={"min": 1})
    kind: Literal["full", "diag"] = "full"
    sizes: tuple[int, ...] | None = None
    inner: Inner = field(default_factory=Inner)


class Plain:
    def __init__(self, alpha: float, name: str = "x") -> None:
        self.alpha, self.name = alpha, name


@pytest.mark.parametrize(
    ("target", "values", "message"),
    [
        (Outer, {"sise": 3}, "method has no setting 'sise'; the nearest are size, sizes"),
        (Outer, {"size": "many"}, "method.size is 'many', expected a whole number$"),
        (Outer, {"size": 2.5}, "method.size is 2.5, expected a whole number$"),
        (Outer, {"size": True}, "method.size is true, expected a whole number"),
        (Inner, {"rate": float("inf")}, "method.rate is inf, expected a finite number"),
        (Outer, {"size": 0}, "method.size is 0, expected at least 1"),
        (Outer, {"kind": "tied"}, "method.kind is 'tied', expected full or diag"),
        (Outer, {"sizes": [1, "x"]}, r"method.sizes is \[1, 'x'\], expected a list \(each a whole number\) or null"),
        (Outer, {"inner": {"rate": 0}}, "method.inner.rate is 0.0, expected above 0"),
        (Outer, {"inner": {"pace": 1}}, "method.inner has no setting 'pace'"),
        (Outer, {"inner": 3}, "method.inner is 3, expected settings of Inner"),
        (Plain, {}, "method.alpha is missing, expected a number"),
        (Plain, {"alpha": "x"}, "method.alpha is 'x', expected a number"),
    ],
)
def test_what_does_not_fit_is_named_with_what_is_allowed(target, values, message):
    with pytest.raises(InvalidInput, match=message):
        construct(target, values, "method")


def test_what_fits_is_made_with_the_right_types():
    made = construct(Outer, {"size": 3, "sizes": [1, 2], "inner": {"rate": 1}}, "method")
    assert made == Outer(3, "full", (1, 2), Inner(1.0))
    assert construct(Plain, {"alpha": 1}, "method").alpha == 1.0


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "a whole number"),
        (bool, "true or false"),
        (str | None, "a text or null"),
        (list[float], "a list (each a number)"),
    ],
)
def test_types_in_words(annotation, expected):
    assert words(annotation) == expected
