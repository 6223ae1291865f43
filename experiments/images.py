"""Image files as a lazy sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from methods.contract import InvalidInput

Mode = Literal["RGB", "L"]
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


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
        """Raise `InvalidInput`, naming file and row, where it is missing, cut off or no image."""
        if isinstance(row, slice):
            return ImageFiles(self.root, self.paths[row], self.mode)
        path = self.root / self.paths[row]
        try:
            with Image.open(path) as image:
                image.load()
                return in_mode(image, self.mode)
        except FileNotFoundError:
            raise InvalidInput(f"{path} (row {row}) is gone: put it back, or run again without it") from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "no image format is known like this" if isinstance(error, UnidentifiedImageError) else str(error)
            raise InvalidInput(
                f"{path} (row {row}) cannot be read as an image ({reason}): get this file again, or remove it"
            ) from None


def in_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """The same picture in 8 bits a channel, in this mode.

    Examples
    --------
    >>> in_mode(Image.new("RGBA", (1, 1), (0, 0, 0, 0)), "RGB").getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def image_names(folder: Path) -> list[str]:
    """The names of the image files in a folder, sorted; hidden files are none.

    Raises
    ------
    InvalidInput
        Where there is not one.
    """
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in ENDINGS and not entry.name.startswith(".") and entry.is_file()
    )
    if not names:
        raise InvalidInput(f"{folder} holds no images: put some there, or remove the folder")
    return names


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
