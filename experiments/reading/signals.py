"""Signals that are planted into pictures, to see whether a model relies on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, overload

from PIL import Image, ImageFilter

from methods.contract import InvalidInput

Kind = Literal["tag", "stripe", "blur"]
Place = Literal[
    "top left", "top right", "bottom left", "bottom right", "left", "right", "top", "bottom", "everywhere"
]  # fmt: skip
PLACES: dict[Kind, tuple[Place, ...]] = {  # the first is the default
    "tag": ("top left", "top right", "bottom left", "bottom right"),
    "stripe": ("left", "right", "top", "bottom"),
    "blur": ("everywhere",),
}
SIZES: dict[Kind, float] = {"tag": 0.25, "stripe": 0.06, "blur": 0.02}
MARGIN = 0.03  # of the shorter side, between a signal and the edge of the picture
LETTERS = (  # drawn here: a font would look different on another machine
    ".............",
    ".###..#...##.",
    "..#..#.#.#...",
    "..#..###.#.#.",
    "..#..#.#.#.#.",
    "..#..#.#..##.",
    ".............",
)


@dataclass(frozen=True)
class Signal:
    """One signal; it makes of a grey or RGB picture a new one of the same size.

    Parameters
    ----------
    kind : {"tag", "stripe", "blur"}
        A white tag with dark letters in a corner, a white stripe along a side, a Gaussian blur of the whole picture.
    size : float
        Above 0; the tag's or the stripe's width or the blur's standard deviation, in shorter sides of the picture.
    place : str
        The tag's corner ("top left" ...), the stripe's side ("left" ...), "everywhere" for the blur.
    strength : float
        In (0, 1]: how far each pixel goes from what it was (0) to the signal's (1).

    Raises
    ------
    InvalidInput
        Where this kind of signal has no such place.

    Examples
    --------
    >>> Signal("stripe", size=0.2, place="left")(Image.new("L", (10, 10))).getpixel((1, 5))
    255
    """

    version: ClassVar[int] = 1

    kind: Kind
    size: float
    place: Place
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.place not in PLACES[self.kind]:
            allowed = " or ".join(PLACES[self.kind])
            raise InvalidInput(f"the place of a {self.kind} is {self.place!r}, expected {allowed}")

    def __call__(self, image: Image.Image) -> Image.Image:
        draw = {"tag": self._tag, "stripe": self._stripe, "blur": self._blur}[self.kind]
        return Image.blend(image, draw(image), self.strength)

    def identity(self) -> dict[str, Any]:
        """What the pixels depend on, as json values."""
        return {"version": self.version, **asdict(self)}

    def _tag(self, image: Image.Image) -> Image.Image:
        width = _pixels(self.size, image)
        height = max(1, round(width * len(LETTERS) / len(LETTERS[0])))
        left, top = _corner(image, width, height, self.place)
        tagged = image.copy()
        tagged.paste(_lettering(width, height).convert(image.mode), (left, top))
        return tagged

    def _stripe(self, image: Image.Image) -> Image.Image:
        thick = _pixels(self.size, image)
        width, height = (thick, image.height) if self.place in ("left", "right") else (image.width, thick)
        left, top = _corner(image, width, height, self.place)
        striped = image.copy()
        striped.paste("white", (left, top, left + width, top + height))
        return striped

    def _blur(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(self.size * min(image.size)))


def signal_of(kind: Kind, size: float | None, place: Place | None, strength: float) -> Signal:
    """A signal whose size and place, where they are left out, are the usual ones of its kind."""
    return Signal(kind, SIZES[kind] if size is None else size, place or PLACES[kind][0], strength)


class WithSignal(Sequence[Image.Image]):
    """Images of which some get the signal, at the moment when they are asked for.

    Parameters
    ----------
    images : sequence of PIL.Image, length n
    marked : sequence of bool, length n
        Which of them get it.
    signal : Signal
    """

    def __init__(self, images: Sequence[Image.Image], marked: Sequence[bool], signal: Signal) -> None:
        self.images, self.marked, self.signal = images, marked, signal

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, row: int) -> Image.Image: ...

    @overload
    def __getitem__(self, row: slice) -> WithSignal: ...

    def __getitem__(self, row: int | slice) -> Image.Image | WithSignal:
        if isinstance(row, slice):
            return WithSignal(self.images[row], self.marked[row], self.signal)
        image = self.images[row]
        return self.signal(image) if self.marked[row] else image


def _pixels(share: float, image: Image.Image) -> int:
    return max(1, round(share * min(image.size)))


def _corner(image: Image.Image, width: int, height: int, place: Place) -> tuple[int, int]:
    """Where the upper left corner of a box of this size lies; a stripe reaches from edge to edge."""
    margin = round(MARGIN * min(image.size))
    left = 0 if width == image.width else image.width - width - margin if "right" in place else margin
    top = 0 if height == image.height else image.height - height - margin if "bottom" in place else margin
    return left, top


def _lettering(width: int, height: int) -> Image.Image:
    rows, columns = len(LETTERS), len(LETTERS[0])
    small = Image.frombytes("L", (columns, rows), bytes(0 if dot == "#" else 255 for row in LETTERS for dot in row))
    return small.resize((width, height), Image.Resampling.NEAREST)
