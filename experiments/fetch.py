"""Download public data: `slicebench fetch`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EDQUOT, ENOENT, ENOSPC, EPERM, EROFS
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from experiments.cache import lock_if_free
from experiments.check import Finding, Recipe, look, parsed, read_recipe
from experiments.console import console, progress_bars, say
from experiments.files import sha256_of, sync_file, sync_folder, write_json
from experiments.reading.extraction import OURS, BadArchive, in_bytes, unpack
from experiments.reading.sources import Download, Source, data_root
from methods.errors import InvalidInput, InvalidSetting

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before trying again, as long as nothing more comes
TIMEOUT = (10.0, 30.0)  # seconds to wait for a connection, and for the next bytes
CHUNK = 2**16
LOCK = "lock"
GIGABYTE = 10**9
LARGEST_RATIO = 30  # of unpacked to packed bytes; text comes to some ten
# answers after which it is worth while to try again
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
ROOM = "free some space, or set SLICEBENCH_DATA to a folder on another disk"
RIGHTS = "set SLICEBENCH_DATA to a folder that you may write to"
ADVICE = {
    **dict.fromkeys((ENOSPC, EDQUOT), ROOM),
    **dict.fromkeys((EACCES, EPERM, EROFS, ENOENT), RIGHTS),  # "not found" is a folder that cannot be made, as in /proc
}


class _Broken(Exception):
    """A transfer that stopped, and may go on."""


class _Refused(InvalidInput):
    """What the server does not give, however often it is asked."""


def show_fetch(name: str, overrides: Sequence[str], as_json: bool = False) -> bool:
    """Fetch a data set, or say what to get and where to put it; whether it is there now."""
    settings = dict(parsed(_setting(override)) for override in overrides)
    recipe = read_recipe(name, {key.removeprefix("dataset."): value for key, value in settings.items()})
    if recipe.missing:
        raise InvalidInput(
            f"{name} reads your own files: nothing to fetch, say where with dataset.{recipe.missing[0]}=..."
        )
    root, source = data_root(), recipe.source
    if source is None:
        say(f"{name} needs nothing from elsewhere")
        return _show(look(recipe, root), as_json)
    _introduce(recipe, source)
    finding = look(recipe, root)
    if source.downloads and fetch(source, root, complete=finding["state"] == "found"):
        finding = look(recipe, root)
    if finding["state"] != "found" and not source.downloads and source.instruction not in finding["note"]:
        finding["note"] += f"\n{source.instruction} Put it into {root / source.folder}."
    return _show(finding, as_json)


def fetch(source: Source, root: Path, complete: bool = False) -> bool:
    """Download what is not there yet, and unpack it.

    Parameters
    ----------
    source : Source
    root : Path
        The data root.
    complete : bool
        Whether the data set can be loaded already: then archives that somebody else unpacked are not downloaded, and
        a file with another checksum is said, but no error.

    Returns
    -------
    bool
        Whether there was anything to do.

    Raises
    ------
    InvalidInput
        Where a file cannot be had, is not what was expected or cannot be written; what has come is kept, and the next
        call goes on from there. The other files of `source.more` have come all the same, where the network allows it.
    """
    folder = root / source.folder
    missing = [wanted for wanted in source.downloads if not _is_there(wanted, folder, complete)]
    if missing:  # else nothing is written: others' data may be read only
        _fetch_all(missing, source, folder)
    more = _missing_more(source, root)
    if more:
        _fetch_each(more, source, folder)
    return bool(missing or more)


def download(url: str, path: Path, sha256: str | None = None) -> str:
    """Download one file, going on where an earlier call was broken off.

    What has come lies in `PATH.part` until it is complete and found to be right, what is known of it in
    `PATH.part.json`.

    Parameters
    ----------
    url : str
        Of http or https.
    path : Path
        Must not exist.
    sha256 : str, optional
        That the file must have.

    Returns
    -------
    str
        The file's sha256.

    Raises
    ------
    InvalidInput
        Where the server cannot be reached, does not give the file, or gives another one.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidInput(f"{url} is refused: only addresses of http and https are downloaded")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    _receive(url, part, verified=sha256 is not None)
    found = _sha256(part)
    if sha256 is not None and found != sha256:
        part.unlink()
        _note_of(part).unlink()
        raise _Refused(
            f"{url} has sha256 {found}, expected {sha256}: it was removed. Try once more; if it comes again, the "
            "publisher has changed the file"
        )
    sync_file(part)
    os.replace(part, path)
    sync_folder(path.parent)
    _note_of(part).unlink(missing_ok=True)
    return found


def _setting(override: str) -> str:
    if "=" not in override:
        raise InvalidInput(f"{override!r} is no setting, expected KEY=VALUE, such as layout=...")
    return override


def _introduce(recipe: Recipe, source: Source) -> None:
    others = [layout for layout in recipe.layouts if f"{recipe.name} layout={layout}" != recipe.title]
    say(f"{recipe.title}, licence: {source.licence}")
    if others:
        say(f"other layouts: {', '.join(f'layout={layout}' for layout in others)}")


def _show(finding: Finding, as_json: bool) -> bool:
    print(json.dumps(finding, indent=2) if as_json else f"{finding['what']}: {finding['state']}: {finding['note']}")
    return finding["state"] == "found"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raise where another process fetches into this folder."""
    (folder / OURS).mkdir(parents=True, exist_ok=True)
    with lock_if_free(folder / OURS / LOCK) as free:
        if not free:
            raise InvalidInput(f"another `slicebench fetch` works on {folder}: wait for it, or end it")
        yield


@contextmanager
def _advising(folder: Path) -> Iterator[None]:
    """What to do where a file cannot be written; elsewhere the advice is about the folders of runs."""
    try:
        yield
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        where = error.filename or folder
        raise InvalidInput(
            f"{where}: {os.strerror(error.errno)}: {ADVICE[error.errno]}; the same command goes on from here"
        ) from None


def _is_there(wanted: Download, folder: Path, complete: bool) -> bool:
    """Whether a file need not come, which is said."""
    if wanted.unpack:
        return _archive_is_there(wanted, folder, complete)
    path = folder / wanted.to
    if not path.exists():
        return False
    found = _sha256(path)
    if wanted.sha256 in (None, found):
        _say_checked(f"{path} is there already", found, wanted)
        return True
    problem = f"{path} is there, but has sha256 {found}, expected {wanted.sha256}"
    if not complete:
        raise InvalidInput(f"{problem}: move it away, and the same command downloads it")
    say(f"{problem}: it is left as it is, for the data set can be loaded (move it away to have the publisher's)")
    return True


def _archive_is_there(wanted: Download, folder: Path, complete: bool) -> bool:
    name, note = _name(wanted), folder / OURS / f"{_key(wanted)}.json"
    if _is_unpacked(note, wanted, folder / wanted.to):
        say(f"{name} is unpacked in {folder / wanted.to} already")
        return True
    ours = (folder / OURS).exists() and any(entry.name != LOCK for entry in (folder / OURS).iterdir())
    if complete and not ours:  # somebody else unpacked it
        say(f"{name} is not downloaded: the data set is there already (to have it anew, move {folder} away)")
        return True
    return False


def _missing_more(source: Source, root: Path) -> list[Download]:
    """What the downloads, which are there now, name besides, and what of it must come."""
    if source.more is None:
        return []
    try:
        what, wanted = source.more(root)
    except InvalidSetting:
        raise
    except InvalidInput as error:
        names = ", ".join(download.to for download in source.downloads)
        raise InvalidInput(f"{error} (to have {names} anew, move it away)") from None
    missing = [archive for archive in wanted if not _is_in_its_folder(archive, root / source.folder)]
    say(f"{what}: {len(wanted) - len(missing):,} are there, {len(missing):,} are to come")
    return missing


def _is_in_its_folder(wanted: Download, folder: Path) -> bool:
    """Whether an archive was unpacked into the folder that is its own: by us and completely, or by somebody else."""
    target, ours = folder / wanted.to, folder / OURS / _key(wanted)
    note = ours.with_suffix(".json")
    if note.exists() or ours.exists():
        return _is_unpacked(note, wanted, target)
    return (target / wanted.holds).is_file() if wanted.holds else any(target.glob("*"))


def _fetch_all(missing: Sequence[Download], source: Source, folder: Path) -> None:
    with _advising(folder), _alone(folder):
        try:
            for wanted in missing:
                fetched = _fetch_archive if wanted.unpack else _fetch_file
                found = fetched(wanted, folder)
                name = _name(wanted) if wanted.unpack else folder / wanted.to
                _say_checked(f"{name} has come", found, wanted)
        except _Refused as error:
            raise InvalidInput(f"{error}. {_by_hand(source, folder)}") from None


def _fetch_each(missing: Sequence[Download], source: Source, folder: Path) -> None:
    """Download many archives; one that is refused does not keep the others from coming."""
    refused = []
    with _advising(folder), _alone(folder):
        for number, wanted in enumerate(missing, start=1):
            try:
                _fetch_archive(wanted, folder)
                say(f"{_name(wanted)} has come ({number:,} of {len(missing):,})")
            except _Refused as error:
                say(str(error))
                refused.append(error)
    if refused:
        n = f"{len(refused):,} of {len(missing):,} did not come"
        raise InvalidInput(f"{n}, the first of them: {refused[0]}. {_by_hand(source, folder)}")


def _by_hand(source: Source, folder: Path) -> str:
    return f"By hand: {source.instruction} Put it into {folder}."


def _fetch_file(wanted: Download, folder: Path) -> str:
    """Download a file; its sha256."""
    return download(wanted.url, folder / wanted.to, wanted.sha256)


def _say_checked(what: str, sha256: str, wanted: Download) -> None:
    said = "is right" if wanted.sha256 else "cannot be checked here: compare it with the publisher's, if there is one"
    say(f"{what}; its sha256 {sha256} {said}")


def _fetch_archive(wanted: Download, folder: Path) -> str:
    """Download and unpack an archive, then delete it; its sha256.

    What was unpacked is noted, and recognised by the next call.
    """
    archive = folder / OURS / _key(wanted) / _name(wanted)
    if archive.exists() and wanted.sha256 not in (None, _sha256(archive)):
        archive.unlink()  # an older version
    found = _sha256(archive) if archive.exists() else download(wanted.url, archive, wanted.sha256)
    sizes = _unpacked(archive, folder / wanted.to, wanted.url)
    # no sync of each file: the note holds their sizes, and what a power cut loses is seen by it
    write_json(folder / OURS / f"{_key(wanted)}.json", {"url": wanted.url, "sha256": found, "files": sizes})
    shutil.rmtree(archive.parent)
    return found


def _key(wanted: Download) -> str:
    """Of an archive: two of them may have one name."""
    return hashlib.sha256(wanted.url.encode()).hexdigest()[:8]


def _name(wanted: Download) -> str:
    return Path(urlsplit(wanted.url).path).name or "archive"


def _unpacked(archive: Path, target: Path, url: str) -> dict[str, int]:
    most = max(GIGABYTE, LARGEST_RATIO * archive.stat().st_size)
    try:
        with progress_bars(lambda *_: None):
            return unpack(archive, target, max_bytes=most)
    except BadArchive as error:
        archive.unlink()
        raise _Refused(f"{error} (it came from {url} and was removed)") from None


def _is_unpacked(note: Path, wanted: Download, target: Path) -> bool:
    known = _read_json(note)
    if known.get("url") != wanted.url or wanted.sha256 not in (None, known["sha256"]):
        return False
    files = ((target / path, size) for path, size in known["files"].items())
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _receive(url: str, part: Path, verified: bool) -> None:
    """Try until all has come; give up after some attempts that brought nothing more."""
    furthest, waits = 0, iter(WAITS)
    while True:
        try:
            return _transfer(url, part, verified)
        except _Broken as broken:
            reason = broken
        if _size(part) > furthest:
            furthest, waits = _size(part), iter(WAITS)
        wait = next(waits, None)
        if wait is None:
            raise InvalidInput(
                f"{url} cannot be downloaded: {reason}; when the network is back, the same command goes on "
                f"({in_bytes(_size(part))} have come and are kept)"
            )
        say(f"{reason}, at {in_bytes(_size(part))} of {url}; trying again in {wait:g} s")
        time.sleep(wait)


def _transfer(url: str, part: Path, verified: bool) -> None:
    """Ask once for what is missing, and append it to the part."""
    note = _read_json(_note_of(part))
    # pieces belong together where the server says so by a validator, or where a checksum will tell
    known = note.get("url") == url and (note["validator"] or verified)
    offset = _size(part) if known else 0
    if offset and offset == note["total"]:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": f"slicebench/{version('slicebench')}"}
    if offset:
        headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": note["validator"]} if note["validator"] else {})
    with _asking(url), requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        start = _start(response, url, offset, note, part)
        _refuse_encoding(response, url, verified)
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        _check_room(part, start, total)
        with part.open("ab" if start else "wb") as file:
            if not start:
                write_json(_note_of(part), {"url": url, "validator": _validator(response), "total": total})
            _append(response, file, start, total, part.stem)
    if total is not None and _size(part) < total:
        raise _Broken("the connection was lost")


def _start(response: requests.Response, url: str, offset: int, note: dict[str, Any], part: Path) -> int:
    """At which byte of the file the answer starts; raise where the answer is no part of it."""
    status = response.status_code
    if status == HTTPStatus.OK:
        why = " from its beginning: the server cannot go on, or its file has changed" if offset else ""
        say(f"downloading {url}{why}")
        return 0
    if status == HTTPStatus.PARTIAL_CONTENT and offset:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if given and int(given[1]) == offset and given[2] in ("*", str(note["total"] or given[2])):
            say(f"going on with {url} at {in_bytes(offset)}")
            return offset
    if status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE) and offset:
        part.unlink()
        raise _Broken("the server's file is another one than before")
    answer = f"{status} {response.reason}".strip()
    if status in TEMPORARY:
        raise _Broken(f"the server answers {answer}")
    raise _Refused(f"{url} answers {answer}: the publisher may have moved the file, or asks for an account")


def _refuse_encoding(response: requests.Response, url: str, verified: bool) -> None:
    """Raise where the bytes that come are not the file's own; a checksum is of what is sent, and will tell."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity" and not verified:
        raise _Refused(f"{url} comes packed ({encoding}), though it was asked for as it is")


def _validator(response: requests.Response) -> str | None:
    """What tells two versions of the server's file apart, in the words that `If-Range` takes."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")  # a weak tag (W/"...") is refused


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """What goes wrong on the network, as something that may be tried again or not."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        proxy = "behind a proxy, name its certificates by REQUESTS_CA_BUNDLE"
        raise InvalidInput(f"{url} cannot be trusted: {_innermost(error)} ({proxy})") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _Broken("the server does not answer") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
        raise _Broken(_innermost(error)) from None
    except requests.RequestException as error:
        raise _Refused(f"{url} cannot be downloaded: {error}") from None


def _innermost(error: BaseException) -> str:
    """The system's own words, which stand at the bottom of a heap of exceptions."""
    words, cause = "the connection was lost", error
    while cause is not None:
        words = getattr(cause, "strerror", None) or words
        cause = cause.__cause__ or cause.__context__
    return words


def _check_room(part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free + _size(part) - start  # a part that is replaced gives room
    if total is not None and total - start > free:
        raise InvalidInput(
            f"{part.parent} has {in_bytes(free)} left, {in_bytes(total - start)} are to come: {ROOM}; the same command "
            "goes on from here"
        )


def _append(response: requests.Response, file: BinaryIO, start: int, total: int | None, name: str) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    rates = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *rates, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(name), total=total, completed=start)
        for chunk in response.raw.stream(CHUNK, decode_content=False):  # the checksum is of what was sent
            file.write(chunk)
            bar.update(task, advance=len(chunk))


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_json(path: Path) -> dict[str, Any]:
    """A note of ours; empty where there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with console.status(escape(f"checksum of {path.name}")):
        return sha256_of(path)
