"""Stages on disk: arrays stored under the content of what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from experiments.console import say
from experiments.files import sync_folder, write_json
from experiments.keys import key_of

Arrays = dict[str, np.ndarray]


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
        """Hold the entry's lock: it saves double work, correctness does not depend on it."""
        with waiting_lock(self.folder.with_name(f"{self.key}.lock"), f"{self.stage} {self.key}"):
            yield

    def load(self) -> Arrays | None:
        """The arrays, memory-mapped and copied on write, or None where there are none; a damaged entry is put aside."""
        if not self.folder.exists():
            return None
        damage = self._damage()
        if damage is None:
            # mode "c": torch wants writable arrays, the file must stay as it is
            return {p.stem: np.load(p, mmap_mode="c", allow_pickle=False) for p in self.folder.glob("*.npy")}
        aside = self.folder.with_name(f"{self.key}.damaged-{time.time_ns()}")
        os.replace(self.folder, aside)
        say(f"cache: {self.stage} {self.key} was damaged ({damage}); put aside, computing it again")
        return None

    def store(self, fill: Callable[[Path], None]) -> Arrays:
        """Let `fill` write `.npy` files into a temporary folder, then move it into place as a whole."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f".{self.key}."))
        try:
            fill(temporary)
            files = {path.name: _stamp(path) for path in sorted(temporary.glob("*.npy"))}
            write_json(temporary / "done.json", {"stage": self.stage, "depends": dict(self.depends), "files": files})
            os.chmod(temporary, 0o755)
            self._move_into_place(temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        loaded = self.load()
        assert loaded is not None, f"{self.folder} vanished right after it was written"
        return loaded

    def get(self, fill: Callable[[Path], None]) -> Arrays:
        """The stored arrays, computed first where there are none yet."""
        found = self.load()
        if found is not None:
            return found
        with self.locked():
            found = self.load()  # somebody else may have been faster
            return self.store(fill) if found is None else found

    def _move_into_place(self, temporary: Path) -> None:
        try:
            os.rename(temporary, self.folder)
        except OSError:
            if not self.exists:  # else a writer without our lock was first, with the same content
                raise
        sync_folder(self.folder.parent)

    def _damage(self) -> str | None:
        try:
            done = json.loads((self.folder / "done.json").read_text())
            stamps = {name: (stamp["size"], stamp["sha256"]) for name, stamp in done["files"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return "done.json cannot be read"
        for name, (size, sha256) in stamps.items():
            path = self.folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, expected {size}"
            if _sha256(path) != sha256:
                return f"{name} has another content"
        return None


@contextmanager
def waiting_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that dies with its process; say so once where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another process, which works on {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds this lock now."""
    if not path.exists():
        return False
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """For each stage below the cache's root: (number of entries, bytes)."""
    return {stage.name: _size(stage) for stage in sorted(root.glob("*")) if stage.is_dir()}


def prune(root: Path, days: float) -> tuple[int, int]:
    """Remove what has not been written for so many days and is not locked: (number of entries, bytes)."""
    removed, freed, oldest = 0, 0, time.time() - days * 86_400
    for folder in (f for f in root.glob("*/*") if f.is_dir() and f.stat().st_mtime < oldest):
        if not is_locked(folder.with_name(f"{folder.name.split('.')[0]}.lock")):
            freed += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            shutil.rmtree(folder)
            removed += 1
    return removed, freed


def _size(stage: Path) -> tuple[int, int]:
    entries = [folder for folder in stage.iterdir() if (folder / "done.json").exists()]
    return len(entries), sum(f.stat().st_size for f in stage.rglob("*") if f.is_file())


def _stamp(path: Path) -> dict[str, Any]:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
