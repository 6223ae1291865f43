"""Unpack an archive that comes from elsewhere: all of it, or nothing where one member is bad."""

from __future__ import annotations

import bz2
import filecmp
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENAMETOOLONG
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from methods.errors import InvalidInput
from methods.progress import progress

MAX_MEMBERS = 5_000_000
MAX_HEADER = 2**20  # bytes read at once from the headers of a tar archive: a name has some hundreds
CHUNK = 2**20
UNPACKING = ".unpacking"
OURS = ".fetch"  # below a data set's folder: archives, and notes of what was unpacked from them
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# what the standard library raises where an archive is not as it should be
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RecursionError, ValueError)


class BadArchive(InvalidInput):
    """An archive that is damaged, or that would write what it must not; the message names archive and member."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive, as it declares itself.

    Parameters
    ----------
    name : str
    kind : str
        "file", "folder", or in words what else it is, which is refused.
    size : int
        Bytes, unpacked; 0 where the archive does not say.
    open : callable
        Its content.
    """

    name: str
    kind: str
    size: int
    open: Callable[[], Any]


def unpack(archive: Path, folder: Path, max_bytes: int, max_members: int = MAX_MEMBERS) -> dict[str, int]:
    """Unpack a zip or tar archive, or a single compressed file (gz, bz2, xz), into a folder.

    All members are checked before one is written. They are written into `.unpacking` below the folder, and moved to
    their places when all are there; what a kill leaves there is removed by the next call. Two processes must not
    unpack into one folder at the same time.

    Parameters
    ----------
    archive : Path
        What it is, is read from its content; a single compressed file is unpacked under its name without the ending.
    folder : Path
        Made where it does not exist.
    max_bytes : int
        That may be written in all, whatever the archive declares.
    max_members : int
        Files and folders.

    Returns
    -------
    dict of str to int
        The size in bytes of each file, by its path relative to the folder.

    Raises
    ------
    BadArchive
        Where the archive is damaged or encrypted, or has a member that is no plain file or folder, that would lie
        outside the folder, that is there twice, or that is beyond the bounds. Nothing was unpacked.
    InvalidInput
        Where the folder has a file of that name with other content, or its disk too little space. Nothing was unpacked.
    """
    n_members, declared = _check(archive, max_bytes, max_members)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if declared > free:
        raise InvalidInput(
            f"{archive} needs {in_bytes(declared)} unpacked, {folder} has {in_bytes(free)} left: free some space"
        )
    temporary = folder / UNPACKING
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        sizes = _write(archive, temporary, max_bytes, n_members)
        _move(temporary, folder, sizes)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sizes


def in_bytes(size: float) -> str:
    """A size in words.

    Examples
    --------
    >>> in_bytes(999), in_bytes(1_234_567)
    ('999 bytes', '1.2 MB')
    """
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _check(archive: Path, max_bytes: int, max_members: int) -> tuple[int, int]:
    """How many members there are and the bytes that they declare, once all are found to be harmless."""
    files: set[str] = set()
    folders: set[str] = set()
    count = total = 0
    with _members(archive, headers_only=True) as members:
        for count, member in enumerate(members, start=1):
            if count > max_members:
                raise BadArchive(f"{archive} is refused: it has more than {max_members:,} members")
            total += member.size
            if total > max_bytes:
                raise _too_large(archive, max_bytes)
            _note(archive, member, files, folders)
    if not files:
        raise BadArchive(f"{archive} holds no files")
    return count, total


def _note(archive: Path, member: Member, files: set[str], folders: set[str]) -> None:
    """Add a member to the files or folders seen so far; raise where it is not safe or in the way of one of them."""
    path = _safe_path(archive, member)
    is_file = member.kind == "file"
    if path in files or (is_file and path in folders):
        raise _refused(archive, member, "is there twice")
    (files if is_file else folders).add(path)
    for parent in map(str, PurePosixPath(path).parents):
        if parent in files:
            raise _refused(archive, member, f"lies in {parent!r}, which is a file")
        folders.add(parent)


def _safe_path(archive: Path, member: Member) -> str:
    """The path of a member relative to the folder, without `.` and doubled separators."""
    if member.kind not in ("file", "folder"):
        raise _refused(archive, member, f"is {member.kind}, expected files and folders only")
    # Windows separates by backslashes and has drives: a name that is bad there is bad everywhere
    if re.match(r"[/\\]|[A-Za-z]:", member.name):
        raise _refused(archive, member, "is an absolute path")
    if ".." in re.split(r"[/\\]", member.name):
        raise _refused(archive, member, "leads out of the folder")
    path = str(PurePosixPath(member.name))
    if path.split("/")[0].casefold() in (UNPACKING, OURS):  # some disks take capitals for small letters
        raise _refused(archive, member, "lies in a folder that slicebench uses itself")
    if "\0" in path or (path == "." and member.kind == "file"):
        raise _refused(archive, member, "is no name for a file")
    return path


def _refused(archive: Path, member: Member, why: str) -> BadArchive:
    return BadArchive(f"{archive} is refused: its member {member.name!r} {why}; nothing was unpacked")


def _too_large(archive: Path, max_bytes: int) -> BadArchive:
    return BadArchive(f"{archive} is refused: unpacked it has more than {in_bytes(max_bytes)}; nothing was unpacked")


def _write(archive: Path, folder: Path, max_bytes: int, n_members: int) -> dict[str, int]:
    """Write all files; how large each is."""
    sizes: dict[str, int] = {}
    left = max_bytes
    with _members(archive) as members:
        for member in _shown(members, archive, n_members):
            if member.kind == "folder":
                continue
            path = _safe_path(archive, member)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with member.open() as content, (folder / path).open("xb") as file:
                sizes[path] = _copy(content, file, left)
            left -= sizes[path]
            if left < 0:
                raise _too_large(archive, max_bytes)
    return sizes


def _shown(members: Iterator[Member], archive: Path, n_members: int) -> Iterator[Member]:
    """The members, telling of each hundredth."""
    for _ in progress(range(n_members), f"unpacking {archive.name}", n_members):
        yield next(members)
    yield from members  # none, but only now the archive is read to its end


def _copy(content: BinaryIO, file: BinaryIO, at_most: int) -> int:
    """Bytes copied; a little more than `at_most` and no further, as what an archive declares may be a lie."""
    copied = 0
    while copied <= at_most and (chunk := content.read(CHUNK)):
        copied += file.write(chunk)
    return copied


def _move(source: Path, folder: Path, sizes: Iterable[str]) -> None:
    """Move files to their places; what is there already must be the same, and is left alone."""
    for path in sizes:
        _check_place(source / path, folder, path)
    for path in sizes:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.rename(source / path, target)


def _check_place(file: Path, folder: Path, path: str) -> None:
    parents = [folder / parent for parent in PurePosixPath(path).parents]
    in_the_way = [parent for parent in parents if os.path.lexists(parent) and not parent.is_dir()]
    target = folder / path
    same = target.exists() and filecmp.cmp(file, target, shallow=False)
    if os.path.lexists(target) and not same:
        in_the_way.append(target)
    if in_the_way:
        raise InvalidInput(f"{in_the_way[0]} is there, and the archive has something else: move it away")


@contextmanager
def _members(archive: Path, headers_only: bool = False) -> Iterator[Iterator[Member]]:
    """All members of an archive of any kind; whatever goes wrong in reading them becomes `BadArchive`."""
    with archive.open("rb") as file:
        start = file.read(8)
    try:
        if start.startswith(ZIP):
            with zipfile.ZipFile(archive) as opened:
                yield _zip_members(opened)
        else:
            open_ = next((reader for magic, reader in COMPRESSED.items() if start.startswith(magic)), open)
            with open_(archive, "rb") as file:
                yield _tar_members(archive, file, headers_only, compressed=open_ is not open)
    except InvalidInput:
        raise
    except NotImplementedError as error:
        raise BadArchive(f"{archive} cannot be read here ({error}): unpack it by hand") from None
    except (*DAMAGE, OSError) as error:
        if getattr(error, "errno", None) == ENAMETOOLONG:
            raise BadArchive(f"{archive} is refused: the name of a member is too long for this disk") from None
        if getattr(error, "errno", None) is not None:  # of the file system; gzip and bz2 have none
            raise
        raise BadArchive(f"{archive} is damaged ({str(error) or type(error).__name__}); nothing was unpacked") from None


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        yield Member(info.orig_filename, _zip_kind(info), info.file_size, partial(archive.open, info))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made elsewhere than on Unix
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device or pipe"
    if info.flag_bits & 1:
        return "encrypted"
    return "folder" if info.is_dir() else "file"


def _tar_members(archive: Path, file: BinaryIO, headers_only: bool, compressed: bool) -> Iterator[Member]:
    readable: Any = _Headers(file) if headers_only else file
    try:
        tar = tarfile.open(fileobj=readable, mode="r:")  # noqa: SIM115 (who opened the file closes it)
    except tarfile.ReadError:
        if not compressed:
            raise _no_archive(archive) from None
        file.seek(0)
        yield Member(archive.stem, "file", 0, lambda: file)
        return
    for info in tar:
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name!r} has a negative size")
        yield Member(info.name, _tar_kind(info), info.size, partial(tar.extractfile, info))
    while not headers_only and file.read(CHUNK):  # the checksum of a compressed file stands at its end
        pass
    if headers_only and readable.last.strip(b"\0"):  # tarfile takes a header that it cannot read for the end
        raise tarfile.ReadError(f"a header after member {len(tar.getmembers())} cannot be read")


def _no_archive(archive: Path) -> BadArchive:
    with archive.open("rb") as file:
        start = file.read(40)
    return BadArchive(f"{archive} is no archive (zip, tar, gz, bz2, xz): it begins with {start!r}")


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() and not info.issparse() else "a device, a pipe or something rarer"


class _Headers:
    """A tar archive's file of which only headers may be read: one that claims to be huge would fill the memory.

    Attributes
    ----------
    last : bytes
        What was read last.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.TarError("a header is larger than any name")
        self.last = self._file.read(size)
        return self.last
