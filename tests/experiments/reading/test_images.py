import numpy as np
import pytest
from PIL import Image

from experiments.reading.images import ImageFiles, image_names, in_mode, note_on_others
from methods.contract import InvalidInput


def saved(folder, image, name="a.png"):
    image.save(folder / name)
    return ImageFiles(folder, [name])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "LA"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_kind_of_picture_comes_in_the_mode_that_was_asked_for(tmp_path, mode, wanted):
    Image.new(mode, (3, 2)).save(tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}")
    images = ImageFiles(tmp_path, [path.name for path in tmp_path.iterdir()], wanted)
    assert (images[0].mode, images[0].size) == (wanted, (3, 2))


def test_grey_becomes_three_equal_channels(tmp_path):
    picture = saved(tmp_path, Image.fromarray(np.array([[7, 200]], dtype=np.uint8)))[0]
    assert np.asarray(picture).tolist() == [[[7, 7, 7], [200, 200, 200]]]


def test_what_is_transparent_becomes_white(tmp_path):
    assert saved(tmp_path, Image.new("RGBA", (1, 1), (10, 20, 30, 0)))[0].getpixel((0, 0)) == (255, 255, 255)
    assert saved(tmp_path, Image.new("RGBA", (1, 1), (10, 20, 30, 255)))[0].getpixel((0, 0)) == (10, 20, 30)


def test_sixteen_bits_are_scaled_and_not_cut_off():
    wide = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert np.asarray(in_mode(wide, "L")).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("values", "seen"),
    [([0, 128, 255], [0, 128, 255]), ([0, 32768, 65535], [0, 128, 255]), ([0, 255, 256], [0, 0, 1])],
)
def test_a_picture_of_32_bits_is_not_black(tmp_path, values, seen):
    images = saved(tmp_path, Image.fromarray(np.array([values], dtype=np.int32)), "a.tif")
    assert np.asarray(images[0])[0, :, 0].tolist() == seen


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    images = saved(tmp_path, Image.fromarray(np.array([[0, 255]], dtype=np.uint16)))
    assert np.asarray(images[0]).max() == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), "holds fractions"),
        (np.array([[0, 65536]], dtype=np.int32), "holds whole numbers from 0 to 65536"),
        (np.array([[-1, 5]], dtype=np.int32), "holds whole numbers from -1 to 5"),
    ],
)
def test_numbers_without_a_scale_are_refused_by_name(tmp_path, values, said):
    images = saved(tmp_path, Image.fromarray(values), "a.tif")
    with pytest.raises(InvalidInput, match=rf"/a\.tif {said}, of which nothing says what is white: save it with 8 or"):
        images[0]


def truncated(path):
    path.write_bytes(path.read_bytes()[:900])


def text(path):
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize("spoil", [truncated, text, lambda path: path.write_bytes(b"")], ids=["cut", "html", "empty"])
def test_a_file_that_is_no_whole_image_is_named(tmp_path, spoil):
    images = saved(tmp_path, Image.effect_noise((40, 40), 50))
    spoil(tmp_path / "a.png")
    with pytest.raises(InvalidInput, match=r"/a\.png cannot be read as an image .* get this file again"):
        images[0]


def test_a_file_that_vanished_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"/a\.png is gone"):
        ImageFiles(tmp_path, ["a.png"])[0]


def test_a_slice_is_lazy_too(tmp_path):
    assert ImageFiles(tmp_path, ["a", "b", "c"])[1:].paths == ("b", "c")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._a.png").touch()
    with pytest.raises(InvalidInput, match="holds no images"):
        image_names(tmp_path)


def test_a_link_to_nothing_is_named_and_not_passed_over(tmp_path):
    Image.new("L", (1, 1)).save(tmp_path / "a.png")
    for name in ("c.png", "b.png"):
        (tmp_path / name).symlink_to("annex/objects/SHA256")
    with pytest.raises(
        InvalidInput, match=r"b\.png is a link to a file that is not here \(and 1 others there\): fetch"
    ):
        image_names(tmp_path)


def test_files_of_other_kinds_are_counted_and_hidden_ones_are_not(tmp_path):
    for name in ("a.png", "b.HEIC", "c.heic", "d.avif", "readme", ".hidden"):
        (tmp_path / "cat" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "cat" / name).touch()
    (note,) = note_on_others(tmp_path, ["cat"])
    assert note.startswith("4 files beside the pictures are of kinds that are not read (.avif 1, .heic 2, no ending 1)")
