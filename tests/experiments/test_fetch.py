"""Downloads from a real server, good and bad, and through real interruptions."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import conf
from experiments import fetch as fetching
from experiments.cache import lock_if_free
from experiments.fetch import download, fetch
from experiments.reading.extraction import unpack
from experiments.reading.sources import Download, Source
from methods.errors import InvalidInput

CONTENT = os.urandom(500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TO_THE_END = 10**12


@dataclass
class File:
    """A file of the server, and how badly it is served; what is in a list is for one request after the other."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    drops: list[int] = field(default_factory=list)  # bytes after which the connection ends
    answers: list[int] = field(default_factory=list)  # statuses other than 200
    stalls: list[float] = field(default_factory=list)  # seconds in the middle
    late: float = 0  # seconds before the headers
    content_range: str | None = None  # instead of the right one
    says_length: bool = True
    chunked: bool = False
    pause: float = 0  # seconds after each 64 kB
    headers: dict = field(default_factory=dict)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = {}, []

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def ranges(self):
        return [headers.get("Range") for headers in self.requests]

    def handle_error(self, *_):
        """A client that was killed is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        file = self.server.files.get(self.path.strip("/"))
        status = 404 if file is None else file.answers.pop(0) if file.answers else 200
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            for name, value in (file.headers if file else {}).items():
                self.send_header(name, value)
            self.end_headers()
            return
        self.send(file, self.offset(file))

    def offset(self, file):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, file.etag, file.modified)
        return int(asked[1]) if asked and file.ranges and same else 0

    def send(self, file, offset):
        body = file.content[offset:]
        time.sleep(file.late)
        self.send_response(206 if offset else 200)
        given = {"Connection": "close", "ETag": file.etag, "Last-Modified": file.modified, **file.headers}
        if offset:
            right = f"bytes {offset}-{len(file.content) - 1}/{len(file.content)}"
            given["Content-Range"] = file.content_range or right
        if file.says_length and not file.chunked:
            given["Content-Length"] = str(len(body))
        if file.chunked:
            given["Transfer-Encoding"] = "chunked"
        for name, value in given.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.body(file, body)

    def body(self, file, body):
        end = file.drops.pop(0) if file.drops else TO_THE_END
        stall = file.stalls.pop(0) if file.stalls else 0
        for start in range(0, min(end, len(body)), 2**16):
            if start + 2**16 >= len(body) / 2:
                time.sleep(stall)
                stall = 0
            part = body[start : min(start + 2**16, end)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if file.chunked else part)
            time.sleep(file.pause)
        if file.chunked and end >= len(body):
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_): ...


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "WAITS", (0.01, 0.01, 0.01))
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture
def get(server, tmp_path):
    """Download the server's file `data` to `there/data`, expecting this checksum."""

    def call(file=None, sha256=SHA256):
        if file is not None:
            server.files["data"] = file
        return download(server.url("data"), tmp_path / "there" / "data", sha256)

    return call


def below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_and_nothing_else_is_left(get, tmp_path):
    assert get(File()) == SHA256
    assert (tmp_path / "there" / "data").read_bytes() == CONTENT
    assert below(tmp_path) == ["there/data"]


def test_without_a_checksum_the_file_s_own_comes_back(get):
    assert get(File(), sha256=None) == SHA256


def test_what_was_dropped_goes_on_from_there(get, server, tmp_path):
    get(File(drops=[200_000]))
    assert server.ranges()[0] is None
    (start,) = re.findall(r"bytes=(\d+)-", server.ranges()[1])
    assert 0 < int(start) <= 200_000
    assert server.requests[1]["If-Range"] == '"one"'
    assert below(tmp_path) == ["there/data"]


def test_a_line_that_drops_often_but_gets_on_is_borne(get, server):
    get(File(drops=[70_000] * 7))
    assert len(server.requests) == 8


def test_a_server_without_ranges_sends_all_again(get, server, capsys):
    get(File(ranges=False, drops=[200_000]))
    assert len(server.requests) == 2
    assert "from its beginning: the server cannot go on" in capsys.readouterr().err


def test_a_server_that_never_gets_further_is_given_up(get, server, tmp_path):
    with pytest.raises(
        InvalidInput, match=r"the connection was lost; .* the same command goes on \(.* are kept\)$"
    ) as error:
        get(File(ranges=False, drops=[200_000] * 99))
    assert server.url("data") in str(error.value)
    assert len(server.requests) == 4  # once, and after each wait
    assert below(tmp_path) == ["there/data.part", "there/data.part.json"]


def test_the_next_call_goes_on(get, server):
    with pytest.raises(InvalidInput):
        get(File(drops=[200_000, 0, 0, 0]))
    before = len(server.requests)
    get()
    assert len(server.requests) == before + 1
    assert server.ranges()[-1] is not None


def broken_off(get, file, sha256=None):
    """Have something come, and then no more; the file is served well after it."""
    file.drops = [200_000, 0, 0, 0]
    with pytest.raises(InvalidInput, match="are kept"):
        get(file, sha256)
    file.drops = []


def test_a_file_that_changed_meanwhile_is_not_glued_together(get, server):
    broken_off(get, File())
    other = os.urandom(400_000)
    assert get(File(other, etag='"two"'), sha256=None) == hashlib.sha256(other).hexdigest()
    assert server.requests[-1]["If-Range"] == '"one"'


def test_pieces_that_nothing_holds_together_are_not_glued(get, server):
    broken_off(get, File(etag=None))
    get(sha256=None)
    assert set(server.ranges()) == {None}


def test_a_checksum_holds_pieces_together(get, server):
    broken_off(get, File(etag=None), SHA256)
    get()
    assert server.ranges()[-1] is not None
    assert "If-Range" not in server.requests[-1]


def test_a_weak_tag_is_not_sent_but_the_time_of_change_is(get, server):
    broken_off(get, File(etag='W/"one"', modified="Sat, 01 Jan 2022 00:00:00 GMT"))
    get(sha256=None)
    assert server.requests[-1]["If-Range"] == "Sat, 01 Jan 2022 00:00:00 GMT"


@pytest.mark.parametrize("wrong", ["bytes 0-499999/500000", "bytes 7-9/10", "nonsense"])
def test_another_part_than_was_asked_for_is_thrown_away(get, server, wrong):
    file = File()
    broken_off(get, file)
    file.content_range = wrong
    assert get() == SHA256
    assert server.ranges()[-2:] == [server.ranges()[-2], None]


def test_a_part_that_is_longer_than_the_server_s_file_is_thrown_away(get, server, tmp_path):
    file = File()
    broken_off(get, file)
    (tmp_path / "there" / "data.part").write_bytes(CONTENT + b"more")
    file.answers = [416]
    assert get() == SHA256
    assert server.ranges()[-1] is None


def test_a_part_without_a_note_is_not_trusted(get, server, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "data.part").write_bytes(b"whatever")
    assert get(File()) == SHA256
    assert server.ranges() == [None]


def test_a_part_of_another_address_is_not_trusted(get, server, tmp_path):
    broken_off(get, File())
    server.files["other"] = File()
    assert download(server.url("other"), tmp_path / "there" / "data", SHA256) == SHA256
    assert server.ranges()[-1] is None


def test_a_complete_part_is_not_asked_for_again(get, server, tmp_path):
    broken_off(get, File())
    (tmp_path / "there" / "data.part").write_bytes(CONTENT)
    before = len(server.requests)
    assert get() == SHA256
    assert len(server.requests) == before


def test_wrong_content_is_removed_and_both_checksums_are_said(get, tmp_path):
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(InvalidInput, match=f"sha256 {other}, expected {SHA256}: it was removed. Try once more"):
        get(File(b"other"))
    assert below(tmp_path) == []
    assert get(File()) == SHA256


def test_a_part_that_was_changed_is_found_by_the_checksum_and_comes_anew(get, server, tmp_path):
    broken_off(get, File())
    part = tmp_path / "there" / "data.part"
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(InvalidInput, match="it was removed"):
        get()
    assert get() == SHA256
    assert server.ranges()[-1] is None


@pytest.mark.parametrize(
    ("status", "says"), [(404, "404 Not Found"), (403, "403 Forbidden"), (401, "401"), (410, "410")]
)
def test_a_server_that_refuses_is_asked_once(get, server, tmp_path, status, says):
    with pytest.raises(InvalidInput, match=f"^{re.escape(server.url('data'))} answers {says}"):
        get(File(answers=[status]))
    assert len(server.requests) == 1
    assert below(tmp_path) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_with_troubles_is_asked_again(get, server, status):
    assert get(File(answers=[status, status])) == SHA256
    assert len(server.requests) == 3


def test_a_server_that_is_down_is_said_in_one_line(tmp_path, server):
    server.server_close()
    with pytest.raises(
        InvalidInput, match=r"/data cannot be downloaded: Connection refused; when .* \(0 bytes have come"
    ) as error:
        download(server.url("data"), tmp_path / "data")
    assert "\n" not in str(error.value)


def test_a_name_that_no_network_knows_is_said_in_one_line(tmp_path, server):
    with pytest.raises(
        InvalidInput, match=r"http://nowhere.invalid/data cannot be downloaded: .* the same command goes on"
    ):
        download("http://nowhere.invalid/data", tmp_path / "data")


def test_a_server_that_falls_silent_is_asked_again(get, server, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", (1.0, 0.2))
    assert get(File(stalls=[1.0])) == SHA256
    assert len(server.requests) == 2
    assert server.ranges()[1] is not None


def test_a_server_that_never_answers_is_said_in_one_line(get, server, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", (1.0, 0.1))
    with pytest.raises(InvalidInput, match="the server does not answer"):
        get(File(late=0.3))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "data:,x", ""])
def test_only_http_and_https_are_spoken(tmp_path, url):
    with pytest.raises(InvalidInput, match="is refused: only addresses of http and https"):
        download(url, tmp_path / "data")
    assert below(tmp_path) == []


def test_no_redirect_leads_to_a_file_of_this_machine(get, server, tmp_path):
    with pytest.raises(InvalidInput, match="cannot be downloaded: No connection adapters were found for 'file:///etc"):
        get(File(answers=[302], headers={"Location": "file:///etc/passwd"}))
    assert below(tmp_path) == []


def test_redirects_are_followed(get, server):
    server.files["moved"] = File()
    assert get(File(answers=[302], headers={"Location": "/moved"})) == SHA256


def test_a_redirect_in_a_circle_ends(get, server):
    with pytest.raises(InvalidInput, match="cannot be downloaded: Exceeded 30 redirects"):
        get(File(answers=[302] * 99, headers={"Location": "/data"}))


def test_what_was_sent_is_kept_as_it_was_sent(get, tmp_path):
    packed = gzip.compress(b"text")
    get(File(packed, headers={"Content-Encoding": "gzip"}), hashlib.sha256(packed).hexdigest())
    assert (tmp_path / "there" / "data").read_bytes() == packed


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_packed_bytes_are_not_taken_for_the_file(get, tmp_path, encoding):
    with pytest.raises(InvalidInput, match=rf"comes packed \({encoding}\), though it was asked for as it is"):
        get(File(gzip.compress(b"text"), headers={"Content-Encoding": encoding}), sha256=None)
    assert below(tmp_path) == []
    assert get(File(headers={"Content-Encoding": "identity"}), sha256=None) == SHA256


def test_a_server_that_says_no_length_is_borne(get):
    assert get(File(says_length=False)) == SHA256


def test_a_stream_of_chunks_that_ends_early_is_no_whole_file(get, server):
    assert get(File(chunked=True, drops=[200_000]), sha256=None) == SHA256
    assert server.ranges()[1] is not None


def test_too_little_space_is_said_before_anything_is_written(get, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(free=100_000))
    with pytest.raises(InvalidInput, match=r"has 100.0 kB left, 500.0 kB are to come: free some space, or set SLICEB"):
        get(File())
    assert below(tmp_path) == []


LINES = b"a,0\nb,1\nc,0\n"


def source_of(*downloads, folder="tiny"):
    return Source(
        folder=folder, instruction="Get the lines from the library.", licence="public domain", downloads=downloads
    )


def a_zip(members):
    with zipfile.ZipFile(written := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return written.getvalue()


@pytest.fixture
def lines(server):
    """A file of the server, as what is to be downloaded."""
    server.files["lines.csv"] = File(LINES)
    return Download(server.url("lines.csv"), "raw/lines.csv", hashlib.sha256(LINES).hexdigest())


@pytest.fixture
def archive(server):
    content = a_zip({"train/1.txt": b"one", "train/2.txt": b"two"})
    server.files["archive.zip"] = File(content)
    return Download(server.url("archive.zip"), "images", hashlib.sha256(content).hexdigest(), unpack=True)


def visible(folder):
    return [path for path in below(folder) if ".fetch" not in path]


def test_files_and_archives_come_to_their_places(server, lines, archive, tmp_path):
    assert fetch(source_of(lines, archive), tmp_path)
    assert visible(tmp_path) == ["tiny/images/train/1.txt", "tiny/images/train/2.txt", "tiny/raw/lines.csv"]
    assert (tmp_path / "tiny" / "raw" / "lines.csv").read_bytes() == LINES
    assert not list(tmp_path.rglob("*.zip"))


def test_what_is_there_does_not_come_again(server, lines, archive, tmp_path, capsys):
    fetch(source_of(lines, archive), tmp_path)
    before = len(server.requests)
    assert not fetch(source_of(lines, archive), tmp_path)
    assert len(server.requests) == before
    said = capsys.readouterr().err
    assert "lines.csv is there already; its sha256" in said
    assert "archive.zip is unpacked in" in said


def test_a_file_of_an_archive_that_is_lost_comes_again(lines, archive, tmp_path):
    fetch(source_of(archive), tmp_path)
    (tmp_path / "tiny" / "images" / "train" / "1.txt").unlink()
    assert fetch(source_of(archive), tmp_path)
    assert (tmp_path / "tiny" / "images" / "train" / "1.txt").read_bytes() == b"one"


def test_an_archive_of_which_the_publisher_has_a_new_version_comes_again(server, archive, tmp_path):
    fetch(source_of(archive), tmp_path)
    content = a_zip({"train/3.txt": b"three"})
    server.files["archive.zip"] = File(content)
    new = Download(archive.url, archive.to, hashlib.sha256(content).hexdigest(), unpack=True)
    assert fetch(source_of(new), tmp_path)
    assert (tmp_path / "tiny" / "images" / "train" / "3.txt").read_bytes() == b"three"


def test_a_file_with_another_checksum_is_left_alone(server, lines, tmp_path):
    (tmp_path / "tiny" / "raw").mkdir(parents=True)
    (tmp_path / "tiny" / "raw" / "lines.csv").write_bytes(b"mine")
    with pytest.raises(InvalidInput, match=f"lines.csv is there, but has sha256 .* expected {lines.sha256}: move it"):
        fetch(source_of(lines), tmp_path)
    assert (tmp_path / "tiny" / "raw" / "lines.csv").read_bytes() == b"mine"
    assert server.requests == []


def test_a_checksum_that_nobody_knows_is_shown(server, lines, tmp_path, capsys):
    fetch(source_of(Download(lines.url, lines.to)), tmp_path)
    assert f"its sha256 {lines.sha256} cannot be checked here" in capsys.readouterr().err
    assert not fetch(source_of(Download(lines.url, lines.to)), tmp_path)


def test_an_archive_that_has_come_is_unpacked_by_the_next_call(server, archive, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(source_of(archive), tmp_path)
    monkeypatch.setattr(fetching, "unpack", unpack)
    fetch(source_of(archive), tmp_path)
    assert len(server.requests) == 1
    assert visible(tmp_path) == ["tiny/images/train/1.txt", "tiny/images/train/2.txt"]


def test_a_dangerous_archive_is_refused_by_name_and_removed(server, tmp_path):
    server.files["evil.zip"] = File(a_zip({"good": b"good", "../../evil": b"evil"}))
    evil = Download(server.url("evil.zip"), ".", unpack=True)
    with pytest.raises(
        InvalidInput, match=r"'../../evil' leads out of the folder.*By hand: Get the lines from the libr"
    ):
        fetch(source_of(evil), tmp_path / "data")
    assert visible(tmp_path) == []
    assert not list(tmp_path.rglob("*.zip"))


def test_an_archive_that_is_far_too_large_unpacked_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "GIGABYTE", 1000)
    server.files["bomb.zip"] = File(a_zip({"bomb": bytes(10**6)}))
    with pytest.raises(InvalidInput, match=r"unpacked it has more than"):
        fetch(source_of(Download(server.url("bomb.zip"), ".", unpack=True)), tmp_path)


def test_two_archives_of_one_name_are_two(server, tmp_path):
    for split in ("train", "test"):
        server.files[f"{split}/data.tar.gz"] = File(a_tar_gz({f"{split}.txt": split.encode()}))
    urls = [server.url(f"{split}/data.tar.gz") for split in ("train", "test")]
    fetch(source_of(*(Download(url, ".", unpack=True) for url in urls)), tmp_path)
    assert visible(tmp_path) == ["tiny/test.txt", "tiny/train.txt"]


def a_tar_gz(members):
    with tarfile.open(fileobj=(written := io.BytesIO()), mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return written.getvalue()


def test_what_somebody_unpacked_by_hand_does_not_come_again(server, archive, tmp_path, capsys):
    for _ in range(2):
        assert not fetch(source_of(archive), tmp_path, complete=True)
    assert server.requests == []
    assert "the data set is there already" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()  # it may be on a disk that cannot be written to


def test_a_file_with_another_checksum_is_no_error_where_the_data_set_can_be_loaded(server, lines, tmp_path, capsys):
    (tmp_path / "tiny" / "raw").mkdir(parents=True)
    (tmp_path / "tiny" / "raw" / "lines.csv").write_bytes(b"mine")
    assert not fetch(source_of(lines), tmp_path, complete=True)
    assert f"expected {lines.sha256}: it is left as it is" in capsys.readouterr().err
    assert server.requests == []


def test_a_refusal_tells_how_to_do_it_by_hand(server, tmp_path):
    with pytest.raises(InvalidInput, match=r"404 Not Found.*By hand: Get the lines .*Put it into .*tiny\.$"):
        fetch(source_of(Download(server.url("gone"), "gone")), tmp_path)


def test_two_at_a_time_are_one_too_many(lines, tmp_path):
    (tmp_path / "tiny" / ".fetch").mkdir(parents=True)
    with (
        lock_if_free(tmp_path / "tiny" / ".fetch" / "lock"),
        pytest.raises(InvalidInput, match="another `slicebench fet"),
    ):
        fetch(source_of(lines), tmp_path)
    assert fetch(source_of(lines), tmp_path)


def test_a_disk_that_fills_up_is_said_with_what_to_do(lines, tmp_path):
    (tmp_path / "tiny" / "raw").mkdir(parents=True)
    (tmp_path / "tiny" / "raw" / "lines.csv.part").symlink_to("/dev/full")  # where every write finds no space
    with pytest.raises(
        InvalidInput, match=r"No space left on device: free some space, or set SLICEBENCH_DATA .* goes on"
    ):
        fetch(source_of(lines), tmp_path)


def test_a_data_root_that_cannot_be_made_is_said_with_what_to_do(lines):
    with pytest.raises(InvalidInput, match=r"/proc/nope.*: set SLICEBENCH_DATA to a folder that you may write to"):
        fetch(source_of(lines), Path("/proc/nope"))


# the command line, on a data set of the test's own

LOADER = '''
import json, os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch

from experiments.contract import Dataset, Split
from experiments.reading.sources import Download, Source


@dataclass(frozen=True)
class Tiny:
    """Some lines."""

    layout: Literal["web", "paper"] = "web"

    @property
    def source(self):
        downloads = [Download(**d) for d in json.loads(os.environ["TINY"])] if self.layout == "web" else []
        return Source("tiny", "Get the lines from the library.", "public domain", tuple(downloads))

    def load(self, root: Path, seed: int):
        rows = self.source.path(root, f"{self.layout}.csv").read_text().split()
        ids = tuple(f"{i:06d}" for i in range(len(rows)))
        labels = torch.tensor([int(row[-1]) for row in rows])
        split = Split(ids, rows, labels, pd.DataFrame(index=pd.Index(ids, name="id")))
        return Dataset("tiny", "text", ("no", "yes"), {"test": split}, "x")
'''
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so its children
import conf
conf.__path__ = [sys.argv.pop(1)]
from experiments.cli import main
main()
"""


@pytest.fixture
def tiny(server, workspace, monkeypatch):
    """A data set called tiny, of so many lines; the folder of its config."""

    def call(n_lines=3, **served):
        content = b"".join(b"line-%d,%d\n" % (i, i % 2) for i in range(n_lines))
        server.files["web.csv"] = File(content, **served)
        wanted = {"url": server.url("web.csv"), "to": "web.csv", "sha256": hashlib.sha256(content).hexdigest()}
        monkeypatch.setenv("TINY", json.dumps([wanted]))
        return content

    (workspace / "modules").mkdir()
    (workspace / "modules" / "tiny_loader.py").write_text(LOADER)
    (workspace / "conf" / "dataset").mkdir(parents=True)
    (workspace / "conf" / "dataset" / "tiny.yaml").write_text(
        "_target_: tiny_loader.Tiny\nlayout: web\nslice_size: 50\n"
    )
    (workspace / "conf" / "dataset" / "own.yaml").write_text("_target_: tiny_loader.Tiny\npath: ???\n")
    monkeypatch.setattr(conf, "__path__", [str(workspace / "conf")])
    monkeypatch.syspath_prepend(workspace / "modules")
    monkeypatch.setenv("PYTHONPATH", str(workspace / "modules"))
    monkeypatch.delitem(sys.modules, "tiny_loader", raising=False)
    monkeypatch.setenv("SLICEBENCH_DATA", str(workspace / "data"))
    return call


def test_the_command_fetches_and_counts(tiny, slicebench, workspace):
    tiny()
    done = slicebench("fetch", "tiny")
    assert done.exit_code == 0, done.output
    assert done.stdout == "dataset tiny layout=web: found: 3 test\n"
    assert "tiny layout=web, licence: public domain" in done.stderr
    assert "other layouts: layout=paper" in done.stderr
    assert slicebench("fetch", "tiny", "layout=web").exit_code == 0


def test_without_downloads_it_says_what_to_get_and_where_to_put_it(tiny, slicebench, workspace):
    tiny()
    done = slicebench("fetch", "tiny", "layout=paper")
    assert done.exit_code == 1
    assert done.stdout.count("Get the lines from the library.") == 1
    assert f"Put it into {workspace / 'data' / 'tiny'}" in done.stdout
    (workspace / "data" / "tiny").mkdir(parents=True)
    (workspace / "data" / "tiny" / "paper.csv").write_text("x,0\ny,1\n")
    done = slicebench("fetch", "tiny", "dataset.layout=paper")
    assert done.exit_code == 0
    assert "found: 2 test" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tniy"], "no dataset is called 'tniy'; the nearest is tiny (all: own, tiny)"),
        (["tiny", "layout=disc"], "dataset.layout is 'disc', expected web or paper"),
        (["tiny", "layuot=web"], "dataset has no setting 'layuot'; the nearest is layout"),
        (["tiny", "layout=web,paper"], "'layout=web,paper' is not one setting, expected KEY=VALUE"),
        (["tiny", "web"], "'web' is no setting, expected KEY=VALUE"),
        (["own"], "own reads your own files: nothing to fetch"),
    ],
)
def test_a_mistake_is_explained_in_one_line(tiny, slicebench, arguments, says):
    tiny()
    done = slicebench("fetch", *arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert says in line


def test_a_server_that_refuses_gives_one_line_and_no_traceback(tiny, slicebench, server):
    tiny(answers=[404])
    done = slicebench("fetch", "tiny")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(f"slicebench: {server.url('web.csv')} answers 404 Not Found")
    assert "Traceback" not in done.output


def test_a_data_set_without_a_publisher_needs_nothing(slicebench):
    done = slicebench("fetch", "digits")
    assert done.exit_code == 0
    assert "718 train" in done.stdout


def started(workspace):
    """The command as a process of its own, once a good part has come; how much that is."""
    command = [sys.executable, "-c", START, str(workspace / "conf"), "fetch", "tiny"]
    process = subprocess.Popen(command, cwd=workspace, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    part, deadline = workspace / "data" / "tiny" / "web.csv.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 200_000):
        assert time.monotonic() < deadline, "nothing came"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process, part


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_was_ended_in_the_middle_goes_on_when_it_is_given_again(
    tiny, slicebench, server, workspace, how
):
    content = tiny(n_lines=100_000, pause=0.05)
    process, part = started(workspace)
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines()[-1] == "interrupted; the same command goes on from here"
        assert "Traceback" not in said
    n_came = part.stat().st_size
    assert 200_000 < n_came < len(content)

    server.files["web.csv"].pause = 0
    done = slicebench("fetch", "tiny")
    assert done.exit_code == 0, done.output
    assert done.stdout == "dataset tiny layout=web: found: 100,000 test\n"
    assert server.ranges() == [None, f"bytes={n_came}-"]
    assert f"going on with {server.url('web.csv')}" in done.stderr
    assert (workspace / "data" / "tiny" / "web.csv").read_bytes() == content
    assert visible(workspace / "data") == ["tiny/web.csv"]
