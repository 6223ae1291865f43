from dataclasses import dataclass, field

import pytest

from methods.errors import InvalidInput
from methods.ranges import check_ranges


@dataclass
class Settings:
    size: int = field(default=5, metadata={"min": 1, "max": 9})
    share: float | None = field(default=None, metadata={"above": 0, "below": 1})
    sizes: tuple[int, ...] = field(default=(), metadata={"min": 10})
    name: str = "x"
    some: tuple[int, ...] = field(default=(1,), metadata={"min_items": 1})


@pytest.mark.parametrize(
    "allowed", [{}, {"size": 1}, {"size": 9}, {"share": 0.5}, {"share": None}, {"sizes": (10, 11)}, {"name": ""}]
)
def test_values_in_range_pass(allowed):
    check_ranges(Settings(**allowed))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size is 0, expected at least 1 and at most 9"),
        ({"size": 10}, "size is 10, expected"),
        ({"share": 0.0}, "share is 0.0, expected above 0 and below 1"),
        ({"share": float("nan")}, "share is nan, expected"),
        ({"some": ()}, "some is empty, expected at least 1"),
        ({"sizes": (10, 9)}, "sizes is 9, expected at least 10"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(InvalidInput, match=message):
        check_ranges(Settings(**values))
