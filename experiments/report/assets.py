"""Pictures of a report: files beside the pages, or inside of them."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from experiments.reading.images import in_mode

FOLDER = "files"
SIDE = 112  # pixels of a thumbnail's longer side
TINY = 48  # pixels; what is smaller is enlarged, dot by dot
QUALITY = 82  # of a photograph
TYPES = {"png": "image/png", "jpg": "image/jpeg"}


class Assets:
    """Where pictures go, named by their content: no address on a page repeats what somebody's file is called.

    Parameters
    ----------
    folder : Path, optional
        Of the pages; None puts the pictures into the page itself.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[object, str | None] = {}

    def add(self, content: bytes, ending: str) -> str:
        """The address of this picture, from a page."""
        if self._folder is None:
            return f"data:{TYPES[ending]};base64,{base64.b64encode(content).decode()}"
        name = f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:20]}.{ending}"
        path = self._folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name

    def thumbnail(self, key: object, read: Callable[[], Image.Image]) -> str | None:
        """The address of a small picture, made once for a key; None where the picture cannot be read."""
        if key not in self._known:
            try:
                self._known[key] = self.add(*_thumbnail(read()))
            except Exception:  # of whosever loader: other pictures may well be readable
                self._known[key] = None
        return self._known[key]


def _thumbnail(picture: Image.Image) -> tuple[bytes, str]:
    small = in_mode(picture, "L" if picture.mode in ("L", "1") else "RGB").copy()
    longest, content = max(small.size), io.BytesIO()
    if longest <= TINY:
        scale = SIDE // longest
        small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST).save(
            content, "PNG", optimize=True
        )
        return content.getvalue(), "png"
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(content, "JPEG", quality=QUALITY, optimize=True)
    return content.getvalue(), "jpg"
