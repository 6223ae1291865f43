"""Writing that a kill, a full disk or a second writer cannot leave half done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it to disk, then rename it into place."""
    with naming_a_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp's 600 would lock out the others on a shared file system
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Let the error of a full disk say which one it is: who writes below `path` knows, a failed write does not."""
    try:
        yield
    except Exception as error:
        code = errno_of(error)
        if code not in FULL:
            raise
        named = getattr(error, "filename", None)
        full = Path(named if isinstance(named, str) else path).absolute()
        disk = next(folder for folder in (full, *full.parents) if folder.is_mount())
        raise OSError(code, os.strerror(code), str(disk)) from error


def errno_of(error: BaseException) -> int | None:
    """The system's number of an error, also where a library has its own words for it; None where there is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if re.search(r"\d+ requested and \d+ written", str(error)):  # numpy's
        return errno.ENOSPC
    wrapped = re.search(r"os error (\d+)", str(error))  # safetensors'
    return int(wrapped.group(1)) if wrapped else None


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Make what was written to this file survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    write_atomically(path, lambda file: frame.to_parquet(file, index=False))


def write_joined(path: Path, tables: Sequence[Path]) -> None:
    """Parquet tables below each other, one after the other in memory; columns that one of them lacks are empty."""
    schema = pa.unify_schemas([pq.read_schema(table) for table in tables], promote_options="permissive")

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, schema) as writer:
            for table in tables:
                writer.write_table(pq.read_table(table, schema=schema))

    write_atomically(path, write)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
