"""Pictures of a report: small, and named by what is in them."""

import base64
import io

import pytest
from PIL import Image

from experiments.report.assets import SIDE, Assets
from methods.errors import InvalidInput


def thumbnail(picture, folder):
    address = Assets(folder).thumbnail("key", lambda: picture)
    return Image.open(io.BytesIO((folder / address).read_bytes()))


def test_a_picture_is_a_file_named_by_its_content(tmp_path):
    assets = Assets(tmp_path)
    first, again, other = (assets.add(content, "png") for content in (b"one", b"one", b"two"))
    assert first == again != other
    assert (tmp_path / first).read_bytes() == b"one"
    assert first.startswith("files/")
    assert len(list((tmp_path / "files").iterdir())) == 2


def test_a_picture_may_stand_in_the_page_itself():
    address = Assets(None).add(b"content", "jpg")
    assert address.startswith("data:image/jpeg;base64,")
    assert base64.b64decode(address.partition(",")[2]) == b"content"


def test_large_pictures_become_small_and_keep_their_shape(tmp_path):
    small = thumbnail(Image.new("RGB", (400, 200), "red"), tmp_path)
    assert (small.format, small.size) == ("JPEG", (SIDE, SIDE // 2))


def test_dots_of_tiny_pictures_stay_dots(tmp_path):
    tiny = Image.new("L", (8, 4))
    tiny.putpixel((0, 0), 255)
    large = thumbnail(tiny, tmp_path)
    assert (large.format, large.size) == ("PNG", (SIDE, SIDE // 2))
    assert sorted(count for count, _ in large.getcolors()) == [14 * 14, 31 * 14 * 14]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (3, 300), (224, 224)])
def test_pictures_of_all_kinds_can_be_shown(tmp_path, mode, size):
    assert max(thumbnail(Image.new(mode, size), tmp_path).size) == SIDE


def test_the_picture_itself_is_not_changed(tmp_path):
    picture = Image.new("RGB", (300, 300))
    thumbnail(picture, tmp_path)
    assert picture.size == (300, 300)


def test_a_thumbnail_is_made_once(tmp_path):
    read = iter([Image.new("L", (9, 9))])
    assets = Assets(tmp_path)
    assert assets.thumbnail("key", lambda: next(read)) == assets.thumbnail("key", lambda: next(read))


@pytest.mark.parametrize("error", [InvalidInput("gone"), OSError("cut off"), KeyError("of a loader"), SyntaxError()])
def test_a_picture_that_cannot_be_read_is_none(error):
    def read():
        raise error

    assert Assets(None).thumbnail("key", read) is None


def test_thumbnails_hold_nothing_but_the_picture(tmp_path):
    content, told = io.BytesIO(), Image.Exif()
    told[0x010E] = "where it was taken"
    Image.new("RGB", (200, 200)).save(content, "JPEG", exif=told)
    assets = Assets(tmp_path)
    address = assets.thumbnail("key", lambda: Image.open(content))
    assert b"where it was taken" not in (tmp_path / address).read_bytes()
