"""Stages on disk: arrays stored under the content of what they depend on."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from experiments.console import say
from experiments.files import naming_a_full_disk, sha256_of, sync_file, sync_folder, write_json
from experiments.keys import KEY_LENGTH, key_of
from methods.errors import InvalidInput

Arrays = dict[str, np.ndarray]

# KEY is an entry, .KEY.* is being written or removed, KEY.* is kept for a while; all else is not the cache's
NAME = re.compile(rf"(?P<hidden>\.?)(?P<key>[0-9a-f]{{{KEY_LENGTH}}})(?P<more>\..+)?")


class Damaged(Exception):
    """The files of an entry are not those that were stored."""


@dataclass(frozen=True)
class Entry:
    """The result of one stage: a folder of `.npy` files and `done.json`, complete or absent.

    Parameters
    ----------
    root : Path
        Of the cache.
    stage : str
        Name of the stage: the folder below the root.
    depends : mapping
        Everything that the result depends on, as json values: names, settings, keys, seeds, versions.
    """

    root: Path
    stage: str
    depends: Mapping[str, Any]

    @property
    def key(self) -> str:
        return key_of(self.depends)

    @property
    def folder(self) -> Path:
        return self.root / self.stage / self.key

    @property
    def scratch(self) -> Path:
        """A folder for what may be kept of an unfinished computation (checkpoints); removed when it is done."""
        return self.folder.with_name(f"{self.key}.partial")

    @property
    def exists(self) -> bool:
        return (self.folder / "done.json").exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the entry's lock; who holds it already may take it again."""
        with waiting_lock(_lock_of(self.folder), f"{self.stage} {self.key}"):
            yield

    @contextmanager
    def locked_if_free(self) -> Iterator[bool]:
        """Hold the entry's lock if no other process has it; whether that is so."""
        path = _lock_of(self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, fallback_to_soft=False, is_singleton=True)  # `store` takes it again
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def load(self) -> Arrays | None:
        """The arrays, memory-mapped and copied on write, or None where there are none; a damaged entry is put aside."""
        try:
            return self._read()
        except Damaged:
            pass
        with self.locked():
            try:
                return self._read()  # somebody else may have repaired it
            except Damaged as damage:
                self._put_aside(str(damage))
                return None

    def store(self, fill: Callable[[Path], None]) -> Arrays:
        """Let `fill` write `.npy` files into a temporary folder, then move it into place as a whole."""
        # the lock also tells `prune` that the temporary folder is in use
        with self.locked(), naming_a_full_disk(self.folder):
            temporary = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f".{self.key}."))
            try:
                fill(temporary)
                files = {path.name: _stamp(path) for path in sorted(temporary.glob("*.npy"))}
                done = {"stage": self.stage, "depends": dict(self.depends), "files": files}
                write_json(temporary / "done.json", done)
                os.chmod(temporary, 0o755)
                loaded = self._move_into_place(temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(self.scratch, ignore_errors=True)
        return loaded

    def get(self, fill: Callable[[Path], None]) -> Arrays:
        """The stored arrays, computed first where there are none yet."""
        found = self.load()
        if found is not None:
            return found
        with self.locked():
            found = self.load()  # somebody else may have been faster
            return self.store(fill) if found is None else found

    def _move_into_place(self, temporary: Path) -> Arrays:
        found = self.load()  # a damaged one is put out of the way, a good one has the same content
        if found is None:
            os.rename(temporary, self.folder)
            sync_folder(self.folder.parent)
            found = self.load()
        assert found is not None, f"{self.folder} vanished right after it was written"
        return found

    def _put_aside(self, damage: str) -> None:
        os.replace(self.folder, self.folder.with_name(f"{self.key}.damaged-{time.time_ns()}"))
        say(f"cache: {self.stage} {self.key} was damaged ({damage}); put aside, computing it again")

    def _read(self) -> Arrays | None:
        """The files that `done.json` names, checked; anything else in the folder is not ours."""
        try:
            files = self._stamps()
            return {Path(name).stem: self._checked(name, *stamp) for name, stamp in files.items()}
        except (Damaged, FileNotFoundError) as error:
            if not self.folder.exists():  # not there, or gone while we read
                return None
            raise error if isinstance(error, Damaged) else Damaged(f"{Path(error.filename).name} is missing") from None

    def _stamps(self) -> dict[str, tuple[int, str]]:
        try:
            done = json.loads((self.folder / "done.json").read_text())
            return {name: (stamp["size"], stamp["sha256"]) for name, stamp in done["files"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            raise Damaged("done.json cannot be read") from None

    def _checked(self, name: str, size: int, sha256: str) -> np.ndarray:
        path = self.folder / name
        if path.stat().st_size != size:
            raise Damaged(f"{name} has {path.stat().st_size} bytes, expected {size}")
        if sha256_of(path) != sha256:
            raise Damaged(f"{name} has another content")
        # mode "c": torch wants writable arrays, the file must stay as it is
        return np.load(path, mmap_mode="c", allow_pickle=False)


@contextmanager
def waiting_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that dies with its process; say so once where another process has it.

    Within a thread it may be taken again by who holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process, which works on {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock if nobody has it, not even this process; whether that is so."""
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds this lock now; to ask needs no right to write, and misleads nobody else who asks."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # file systems differ in how they say that it is taken
            return True
    return False


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """For each stage below the cache's root: (number of whole entries, bytes of all that is there)."""
    return {
        stage.name: (sum(_is_entry(folder) for folder in stage.iterdir()), _bytes(stage))
        for stage in sorted(root.glob("*"))
        if stage.is_dir()
    }


def prune(root: Path, days: float) -> tuple[int, int]:
    """Remove what has not been written for so many days, and what killed processes left: (number of folders, bytes).

    Nothing that is locked is removed.
    """
    if not 0 <= days < math.inf:
        raise InvalidInput(f"--prune is {days:g}, expected a number of days, at least 0")
    oldest = time.time() - days * 86_400
    freed = [_remove(folder, oldest) for folder in sorted(root.glob("*/*")) if folder.is_dir()]
    removed = [size for size in freed if size is not None]
    return len(removed), sum(removed)


def _remove(folder: Path, oldest: float) -> int | None:
    """Remove a folder of the cache that is in nobody's hands and old; its bytes, or None where it stays."""
    name = NAME.fullmatch(folder.name)
    if name is None:
        return None
    aside = folder.with_name(f".{name['key']}.removed-{time.time_ns()}")
    with lock_if_free(_lock_of(folder)) as free:
        try:
            # the hidden ones are of use to nobody once their process is gone
            if not free or not (name["hidden"] or folder.stat().st_mtime < oldest):
                return None
            os.rename(folder, aside)  # all at once: who reads it finds either all of it or nothing
        except FileNotFoundError:
            return None
    size = _bytes(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return size


def _lock_of(folder: Path) -> Path:
    """The lock of an entry, and of what belongs to it."""
    name = NAME.fullmatch(folder.name)
    assert name is not None, f"{folder} is no folder of the cache"
    return folder.with_name(f"{name['key']}.lock")


def _is_entry(folder: Path) -> bool:
    name = NAME.fullmatch(folder.name)
    return name is not None and name[0] == name["key"] and (folder / "done.json").exists()


def _bytes(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # others may be at work here
            size += path.stat().st_size if path.is_file() else 0
    return size


def _stamp(path: Path) -> dict[str, Any]:
    sync_file(path)
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}
