"""Where a signal is, how strong, and that it touches nothing else."""

import numpy as np
import pytest
from PIL import Image

from experiments.reading.signals import PLACES, SIZES, Signal, WithSignal, signal_of
from methods.contract import InvalidInput

EVERY = [(kind, place) for kind, places in PLACES.items() for place in places]


def picture(mode="L", width=100, height=80):
    """Noise, with no pixel that is white or black."""
    pixels = np.random.default_rng(0).integers(10, 240, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def touched(signal, image):
    """Whether each pixel is another than before, bool (height, width)."""
    return np.asarray(signal(image)) != np.asarray(image)


def box(changed):
    """left, top, right, bottom of what has changed."""
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return tuple(int(i) for i in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("top left", (2, 2, 22, 13)),
        ("top right", (78, 2, 98, 13)),
        ("bottom left", (2, 67, 22, 78)),
        ("bottom right", (78, 67, 98, 78)),
    ],
)
def test_a_tag_lies_in_its_corner_and_nowhere_else(place, expected):
    assert box(touched(Signal("tag", size=0.25, place=place), picture())) == expected


def test_a_tag_is_white_with_dark_letters():
    left, top, right, bottom = 2, 2, 22, 13
    tag = np.asarray(Signal("tag", size=0.25, place="top left")(picture()))[top:bottom, left:right]
    assert set(np.unique(tag)) == {0, 255}
    assert 0.2 < (tag == 0).mean() < 0.5
    assert (tag[0] == 255).all()


@pytest.mark.parametrize(
    ("place", "expected"),
    [("left", (2, 0, 10, 80)), ("right", (90, 0, 98, 80)), ("top", (0, 2, 100, 10)), ("bottom", (0, 70, 100, 78))],
)
def test_a_stripe_is_white_and_reaches_from_edge_to_edge(place, expected):
    signal, image = Signal("stripe", size=0.1, place=place), picture()
    changed = touched(signal, image)
    assert box(changed) == expected
    assert (np.asarray(signal(image))[changed] == 255).all()


def test_a_blur_evens_out_the_whole_picture():
    image = picture()
    blurred = np.asarray(Signal("blur", size=0.05, place="everywhere")(image)).astype(float)
    assert blurred.std() < 0.3 * np.asarray(image).std()
    assert blurred.mean() == pytest.approx(np.asarray(image).mean(), abs=2)


@pytest.mark.parametrize(("kind", "place"), EVERY)
def test_half_the_strength_is_half_the_way(kind, place):
    image = picture()
    before = np.asarray(image).astype(int)
    whole, half = (np.asarray(Signal(kind, SIZES[kind], place, strength)(image)).astype(int) for strength in (1.0, 0.5))
    assert np.abs((half - before) - (whole - before) / 2).max() <= 1
    assert not (half != before)[whole == before].any()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("size", [(100, 80), (1, 1), (7, 40)])
def test_a_signal_keeps_size_and_mode_and_is_always_the_same(kind, mode, size):
    signal, image = signal_of(kind, None, None, 1.0), picture(mode, *size)
    before = image.tobytes()
    after = signal(image)
    assert (after.mode, after.size) == (image.mode, image.size)
    assert after.tobytes() == signal(image).tobytes()
    assert image.tobytes() == before


@pytest.mark.parametrize(("kind", "place"), [("tag", "left"), ("stripe", "top left"), ("blur", "top")])
def test_a_place_that_a_signal_cannot_have_is_refused(kind, place):
    with pytest.raises(InvalidInput, match=f"the place of a {kind} is '{place}', expected {PLACES[kind][0]}"):
        Signal(kind, 0.1, place)


def test_only_marked_images_get_the_signal():
    images = [picture(), picture()]
    planted = WithSignal(images, [False, True], signal_of("tag", None, None, 1.0))
    assert len(planted) == 2
    assert [a.tobytes() == b.tobytes() for a, b in zip(planted, images, strict=True)] == [True, False]
    assert planted[1:][0].tobytes() == planted[1].tobytes()


def test_what_the_pixels_depend_on_is_told_apart():
    identities = [signal_of(kind, size, None, 1.0).identity() for kind in PLACES for size in (None, 0.3)]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
