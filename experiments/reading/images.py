"""Image files as a lazy sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from methods.contract import InvalidInput

Mode = Literal["RGB", "L"]
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
BRIGHTEST = 2**8 - 1
DEEPEST = 2**16 - 1  # the brightest of 16 bits


class ImageFiles(Sequence[Image.Image]):
    """Images that are read from their files when they are asked for, all in one mode.

    Parameters
    ----------
    root : Path
    paths : sequence of str
        Relative to the root.
    mode : {"RGB", "L"}
        Grey images become RGB and the other way round; what is transparent becomes white.
    """

    def __init__(self, root: Path, paths: Sequence[str], mode: Mode = "RGB") -> None:
        self.root, self.paths, self.mode = root, tuple(paths), mode

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, row: int) -> Image.Image: ...

    @overload
    def __getitem__(self, row: slice) -> ImageFiles: ...

    def __getitem__(self, row: int | slice) -> Image.Image | ImageFiles:
        """Raise `InvalidInput`, naming the file, where it is missing, cut off or no image."""
        if isinstance(row, slice):
            return ImageFiles(self.root, self.paths[row], self.mode)
        path = self.root / self.paths[row]
        try:
            with Image.open(path) as image:
                image.load()
                return in_mode(image, self.mode)
        except FileNotFoundError:
            raise InvalidInput(f"{path} is gone: put it back, or run again without it") from None
        except InvalidInput as error:
            raise InvalidInput(f"{path} {error}") from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "no image format is known like this" if isinstance(error, UnidentifiedImageError) else str(error)
            raise InvalidInput(
                f"{path} cannot be read as an image ({reason}): get this file again, or remove it"
            ) from None


def in_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """The same picture in 8 bits a channel, in this mode.

    Raises
    ------
    InvalidInput
        Where its numbers have no scale from black to white.

    Examples
    --------
    >>> in_mode(Image.new("RGBA", (1, 1), (0, 0, 0, 0)), "RGB").getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would cut them off at 255
        image = Image.fromarray(_eight_bits(image))
    if "A" in image.mode or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Wide grey numbers as uint8, shape (height, width)."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > DEEPEST:
        kind = "fractions" if image.mode == "F" else f"whole numbers from {values.min()} to {values.max()}"
        raise InvalidInput(f"holds {kind}, of which nothing says what is white: save it with 8 or 16 bits a channel")
    # a picture of 8 bits may be saved in 32; one that says that it has 16 may be dark
    wide = image.mode != "I" or values.max() > BRIGHTEST
    return (values.astype(np.uint32) >> (8 if wide else 0)).astype(np.uint8)


def image_names(folder: Path) -> list[str]:
    """The names of the image files in a folder, sorted; hidden files are none.

    Raises
    ------
    InvalidInput
        Where there is not one, or a link in place of one leads to nothing.
    """
    entries = [entry for entry in folder.iterdir() if _named_as_image(entry)]
    names = sorted(entry.name for entry in entries if entry.is_file())
    if len(names) < len(entries):
        _refuse_links_to_nothing(entries)
    if not names:
        raise InvalidInput(f"{folder} holds no images: put some there, or remove the folder")
    return names


def _named_as_image(entry: Path) -> bool:
    return entry.suffix.lower() in ENDINGS and not entry.name.startswith(".")


def _refuse_links_to_nothing(entries: Sequence[Path]) -> None:
    broken = sorted(entry for entry in entries if entry.is_symlink() and not entry.exists())
    if broken:
        others = f" (and {len(broken) - 1:,} others there)" if len(broken) > 1 else ""
        raise InvalidInput(
            f"{broken[0]} is a link to a file that is not here{others}: fetch the files with the tool that made the "
            "links (git annex get, dvc pull), or remove the links"
        )


def note_on_others(root: Path, folders: Iterable[str]) -> tuple[str, ...]:
    """A note on the files in some folders that `image_names` passes over, if there are any."""
    others = [
        entry.suffix.lower() or "no ending"
        for folder in folders
        for entry in (root / folder).iterdir()
        if not entry.name.startswith(".") and not _named_as_image(entry) and not entry.is_dir()
    ]
    if not others:
        return ()
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(Counter(others).items()))
    return (f"{len(others):,} files beside the pictures are of kinds that are not read ({kinds}): left out",)


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted; hidden ones are none.

    Raises
    ------
    InvalidInput
        Where there is not one.
    """
    entries = folder.iterdir() if folder.is_dir() else ()
    names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        raise InvalidInput(f"{folder} holds no folders: expected one for each class, with its images")
    return names


def labelled_images(root: Path, folders: Mapping[str, int]) -> tuple[tuple[str, ...], Tensor]:
    """All images of some folders, with the label of each one's folder.

    Parameters
    ----------
    root : Path
    folders : mapping from folder, relative to the root, to label

    Returns
    -------
    tuple of str, length n
        Paths relative to the root, strictly increasing.
    Tensor, shape (n,), int64

    Raises
    ------
    InvalidInput
        Naming a folder without images.
    """
    labels = {f"{folder}/{name}": label for folder, label in folders.items() for name in image_names(root / folder)}
    paths = sorted(labels)
    return tuple(paths), torch.tensor([labels[path] for path in paths])
