"""Where a data set comes from, and what is said where it is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from methods.errors import InvalidInput


def data_root() -> Path:
    """Where data sets lie unless a run's `paths.data` says otherwise."""
    return Path(os.environ.get("SLICEBENCH_DATA") or "data").expanduser().absolute()


class Absent(InvalidInput):
    """A data set, or a file that it cannot do without, is not at its place."""


class Partial(InvalidInput):
    """So many of a data set's files are missing that it must be asked for with `dataset.partial=true`."""


@dataclass(frozen=True)
class Download:
    """One file that may be downloaded.

    Parameters
    ----------
    url : str
    to : str
        Where it is put, below the data set's folder; of an archive, the folder into which it is unpacked ("." for the
        data set's own).
    sha256 : str, optional
        Of what the server sends; where it is not known, the file's own is shown, for the user to compare.
    unpack : bool
        Whether it is a zip or tar archive.
    holds : str, optional
        Of an archive that is unpacked into a folder of its own: a file that must be in it.
    """

    url: str
    to: str
    sha256: str | None = None
    unpack: bool = False
    holds: str | None = None


@dataclass(frozen=True)
class Source:
    """The publisher of a data set.

    Parameters
    ----------
    folder : str
        Of the data set, below the data root.
    instruction : str
        What to get, from where, and how it must lie in that folder: sentences for a person.
    licence : str
        The publisher's terms, in a few words.
    downloads : tuple of Download
        What `slicebench fetch` may take; none where the licence asks for an account or a signature.
    more : callable, (Path) -> (str, tuple of Download), optional
        What else may be taken, known only once the downloads lie below the data root that it is given: in words, and
        as archives, each with a folder of its own.
    """

    folder: str
    instruction: str
    licence: str
    downloads: tuple[Download, ...] = ()
    more: Callable[[Path], tuple[str, tuple[Download, ...]]] | None = None

    def path(self, root: Path, relative: str = ".") -> Path:
        """A file or folder of the data set that must be there.

        Raises
        ------
        Absent
            Naming the path, what to get and where to put it.
        """
        path = root / self.folder / relative
        if not path.exists():
            raise Absent(f"{path} is missing. {self.instruction} Put it into {root / self.folder}.")
        return path


class Sourced(Protocol):
    """A loader whose data set has a publisher; which one may depend on its settings (`layout`)."""

    @property
    def source(self) -> Source: ...
