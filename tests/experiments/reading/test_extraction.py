"""Archives as an attacker, a careless publisher and a broken line make them."""

import bz2
import gzip
import io
import lzma
import os
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple

import pytest

from experiments.reading import extraction
from experiments.reading.extraction import BadArchive, unpack
from methods.errors import InvalidInput
from methods.progress import listening

MEGABYTE = 10**6


def a_zip(path, *members):
    """Members are (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def a_tar(path, *members, mode="w"):
    """Members are (name or TarInfo, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name, type_, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, target
    return info


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def refused(tmp_path):
    """Unpack, expect a refusal that names the archive, and see that nothing was written anywhere."""

    def call(archive, says, max_bytes=MEGABYTE, **bounds):
        before = everything_below(tmp_path)
        with pytest.raises(BadArchive, match=says) as error:
            unpack(archive, tmp_path / "out", max_bytes, **bounds)
        assert str(archive) in str(error.value)
        assert "\n" not in str(error.value)
        assert [path for path in everything_below(tmp_path) if path != "out"] == before

    return call


GOOD = [("images/1.txt", b"one"), ("./images/2.txt", b"two"), ("a.txt", b"")]
UNPACKED = {"images/1.txt": 3, "images/2.txt": 3, "a.txt": 0}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_are_unpacked_whatever_their_compression(tmp_path, mode):
    folder = special("images", tarfile.DIRTYPE)
    archive = a_tar(tmp_path / "archive.download", (folder, b""), *GOOD, mode=mode)
    assert unpack(archive, tmp_path / "deep" / "out", MEGABYTE) == UNPACKED
    assert (tmp_path / "deep" / "out" / "images" / "2.txt").read_bytes() == b"two"
    assert everything_below(tmp_path / "deep" / "out") == ["a.txt", "images", "images/1.txt", "images/2.txt"]


def test_zip_archives_are_unpacked(tmp_path):
    archive = a_zip(tmp_path / "archive", ("images/", b""), *GOOD)
    assert unpack(archive, tmp_path / "out", MEGABYTE) == UNPACKED
    assert (tmp_path / "out" / "images" / "1.txt").read_bytes() == b"one"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_single_compressed_file_loses_its_ending(tmp_path, compress):
    archive = tmp_path / "adult.data.gz"
    archive.write_bytes(compress(b"39, State-gov\n"))
    assert unpack(archive, tmp_path / "out", MEGABYTE) == {"adult.data": 14}
    assert (tmp_path / "out" / "adult.data").read_bytes() == b"39, State-gov\n"


def test_a_tar_archive_that_ends_in_a_zip_archive_is_a_tar_archive(tmp_path):
    inner = a_zip(tmp_path / "inner.zip", ("x", b"x"))
    archive = a_tar(tmp_path / "outer.tar", ("inner.zip", inner.read_bytes()))
    assert list(unpack(archive, tmp_path / "out", MEGABYTE)) == ["inner.zip"]


def test_what_runs_is_not_made_executable(tmp_path):
    info = tarfile.TarInfo("run")
    info.mode = 0o6777
    unpack(a_tar(tmp_path / "a.tar", (info, b"#!/bin/sh")), tmp_path / "out", MEGABYTE)
    assert not (tmp_path / "out" / "run").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


def test_progress_is_told(tmp_path):
    said = []
    with listening(lambda *told: said.append(told)):
        unpack(a_zip(tmp_path / "a.zip", *GOOD), tmp_path / "out", MEGABYTE)
    assert said[-1] == ("unpacking a.zip", 3, 3)


BAD_NAMES = {
    "/etc/evil": "'/etc/evil' is an absolute path",
    "../evil": "'../evil' leads out of the folder",
    "images/../../evil": "leads out of the folder",
    "..": "leads out of the folder",
    "..\\evil": "leads out of the folder",
    "images\\..\\..\\evil": "leads out of the folder",
    "\\evil": "is an absolute path",
    "\\\\host\\share\\evil": "is an absolute path",
    "C:\\evil": "is an absolute path",
    "c:evil": "is an absolute path",
    ".": "is no name for a file",
}


@pytest.mark.parametrize(("name", "says"), BAD_NAMES.items())
def test_a_name_that_leads_elsewhere_is_refused_in_a_tar_archive(tmp_path, refused, name, says):
    refused(a_tar(tmp_path / "a.tar.gz", ("good", b"good"), (name, b"evil"), mode="w:gz"), says)


@pytest.mark.parametrize(("name", "says"), BAD_NAMES.items())
def test_a_name_that_leads_elsewhere_is_refused_in_a_zip_archive(tmp_path, refused, name, says):
    refused(a_zip(tmp_path / "a.zip", ("good", b"good"), (name, b"evil")), says)


@pytest.mark.parametrize("make", [a_zip, a_tar])
@pytest.mark.parametrize("name", [".unpacking/x", "./.fetch/lock", ".fetch", ".FETCH/note.json"])
def test_our_own_folders_are_not_written_to(tmp_path, refused, make, name):
    refused(make(tmp_path / "a", *GOOD, (name, b"x")), "lies in a folder that slicebench uses itself")


def test_a_folder_of_that_name_further_down_is_nobody_else_s_business(tmp_path):
    assert unpack(a_zip(tmp_path / "a", ("images/.fetch/x", b"x")), tmp_path / "out", MEGABYTE) == {
        "images/.fetch/x": 1
    }


@pytest.mark.parametrize("make", [a_zip, a_tar])
@pytest.mark.parametrize("name", ["x" * 300, "/".join(["x" * 200] * 30)], ids=["name", "path"])
def test_a_name_that_no_disk_takes_is_refused(tmp_path, refused, make, name):
    refused(make(tmp_path / "a", *GOOD, (name, b"x")), "the name of a member is too long for this disk")


def test_a_name_with_a_zero_byte_is_refused(tmp_path, refused):
    archive = a_zip(tmp_path / "a.zip", ("good", b"good"), ("evil#.txt", b"evil"))
    archive.write_bytes(archive.read_bytes().replace(b"evil#", b"evil\0"))
    refused(archive, "is no name for a file")


@pytest.mark.parametrize(
    ("type_", "says"),
    [
        (tarfile.SYMTYPE, "'evil' is a symbolic link"),
        (tarfile.LNKTYPE, "'evil' is a hard link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.BLKTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device, a pipe"),
        (tarfile.GNUTYPE_SPARSE, "is a device, a pipe or something rarer"),
    ],
)
def test_what_is_no_file_is_refused_in_a_tar_archive(tmp_path, refused, type_, says):
    refused(a_tar(tmp_path / "a.tar", ("good", b"good"), (special("evil", type_, "/etc/passwd"), b"")), says)


def test_a_link_that_a_later_member_writes_through_is_refused(tmp_path, refused):
    link = special("images", tarfile.SYMTYPE, str(tmp_path))
    refused(a_tar(tmp_path / "a.tar", (link, b""), ("images/evil", b"evil")), "'images' is a symbolic link")


@pytest.mark.parametrize(
    ("mode", "says"),
    [(stat.S_IFLNK | 0o777, "a symbolic link"), (stat.S_IFIFO, "a device or pipe"), (stat.S_IFCHR, "a device or pipe")],
)
def test_what_is_no_file_is_refused_in_a_zip_archive(tmp_path, refused, mode, says):
    refused(a_zip(tmp_path / "a.zip", ("good", b"good"), (with_mode("evil", mode), b"/etc/passwd")), says)


@pytest.mark.parametrize("make", [a_zip, a_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "says"),
    [
        (["a", "a"], "'a' is there twice"),
        (["a", "./a"], "'./a' is there twice"),
        (["b/a", "b//a"], "'b//a' is there twice"),
        (["a", "a/b"], "'a/b' lies in 'a', which is a file"),
        (["a/b", "a"], "'a' is there twice"),
    ],
)
def test_members_that_overwrite_each_other_are_refused(tmp_path, refused, make, members, says):
    refused(make(tmp_path / "a", *((name, b"content") for name in members)), says)


@pytest.mark.parametrize("make", [a_zip, a_tar])
def test_too_many_members_are_refused(tmp_path, refused, make):
    refused(make(tmp_path / "a", *((f"{i}", b"") for i in range(11))), "more than 10 members", max_members=10)


@pytest.mark.parametrize("make", [a_zip, a_tar])
def test_a_declared_size_beyond_the_bound_is_refused(tmp_path, refused, make):
    refused(make(tmp_path / "a", ("a", bytes(700)), ("b", bytes(700))), "has more than 1.0 kB", max_bytes=1000)


def test_a_tar_header_that_declares_more_than_there_is_costs_no_disk(tmp_path, refused):
    info = tarfile.TarInfo("bomb")
    info.size = 10**15
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf()))
    refused(tmp_path / "a.tar.gz", "has more than 1.0 GB", max_bytes=10**9)


def test_a_zip_bomb_that_declares_a_small_size_is_found_out(tmp_path, refused):
    archive = a_zip(tmp_path / "a.zip", ("bomb", bytes(50 * MEGABYTE)))
    packed = archive.read_bytes()
    assert len(packed) < MEGABYTE
    lie = packed.replace(struct.pack("<I", 50 * MEGABYTE), struct.pack("<I", 1000))
    assert lie != packed
    archive.write_bytes(lie)
    refused(archive, "is damaged")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_declares_nothing_and_is_counted_while_it_is_written(tmp_path, refused, compress):
    archive = tmp_path / "bomb.gz"
    archive.write_bytes(compress(b"x" * 50 * MEGABYTE))
    refused(archive, "has more than 1.0 MB")


def test_a_bomb_is_left_after_little_more_than_the_bound(tmp_path):
    """As a process that may write no larger file: it would fail by the limit, were all unpacked and then counted."""
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"x" * 50 * MEGABYTE))
    code = "from pathlib import Path; from experiments.reading.extraction import unpack\n"
    code += "unpack(Path('bomb.gz'), Path('out'), 10**6)"
    limit = (3 * MEGABYTE, 3 * MEGABYTE)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert "BadArchive" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("type_", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_tar_header_that_would_fill_the_memory_is_refused(tmp_path, refused, type_):
    bomb = special("bomb", type_)
    archive = a_tar(tmp_path / "a.tar.gz", (bomb, bytes(20 * MEGABYTE)), ("a", b""), mode="w:gz")
    refused(archive, "a header is larger than any name", max_bytes=10**9)


def test_a_negative_size_is_refused_instead_of_read_for_ever(tmp_path, refused):
    content = a_tar(tmp_path / "good.tar", ("a", b""), ("b", b"")).read_bytes()
    header = bytearray(content[:512])
    header[124:136] = tarfile.itn(-1024, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + content[512:])
    refused(tmp_path / "a.tar", "negative size")


def test_an_encrypted_archive_is_refused(tmp_path, refused):
    archive = a_zip(tmp_path / "a.zip", ("a", b"secret"))
    packed = bytearray(archive.read_bytes())
    packed[6] |= 1  # the local header's flag, and the central directory's
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(packed)
    refused(archive, "'a' is encrypted")


def test_a_compression_that_python_does_not_read_is_told(tmp_path, refused):
    archive = a_zip(tmp_path / "a.zip", ("a", b"secret"))
    packed = bytearray(archive.read_bytes())
    packed[8] = packed[packed.index(b"PK\x01\x02") + 10] = 9  # Deflate64, which Windows makes of large files
    archive.write_bytes(packed)
    refused(archive, "unpack it by hand")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_half_an_archive_is_refused(tmp_path, refused, kind, share):
    contents = [(f"{i}", os.urandom(1000)) for i in range(30)]
    path = tmp_path / "a"
    mode = f"w:{kind.removeprefix('tar').removeprefix('.')}"
    archive = a_zip(path, *contents) if kind == "zip" else a_tar(path, *contents, mode=mode)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size) + 100])
    refused(archive, "is damaged|is no archive")


def test_a_header_in_the_middle_that_cannot_be_read_is_not_taken_for_the_end(tmp_path, refused):
    archive = a_tar(tmp_path / "a.tar", *((f"{i}", bytes(100)) for i in range(10)))
    content = bytearray(archive.read_bytes())
    content[5 * 1024 + 100] ^= 0xFF
    archive.write_bytes(content)
    refused(archive, "header after member 5 cannot be read")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_changed_bytes_are_found_by_the_archive_s_own_checksum(tmp_path, refused, kind):
    contents = [("a", os.urandom(5000)), ("b", b"b")]
    archive = a_zip(tmp_path / "a", *contents) if kind == "zip" else a_tar(tmp_path / "a", *contents, mode="w:gz")
    content = bytearray(archive.read_bytes())
    content[2500] ^= 0xFF
    archive.write_bytes(content)
    refused(archive, "is damaged")


def test_a_page_instead_of_an_archive_is_shown(tmp_path, refused):
    (tmp_path / "a.zip").write_text("<!DOCTYPE html><title>Log in</title>")
    refused(tmp_path / "a.zip", "is no archive .* begins with b'<!DOCTYPE html>")


@pytest.mark.parametrize("make", [a_zip, a_tar])
def test_an_empty_archive_is_refused(tmp_path, refused, make):
    refused(make(tmp_path / "a"), "holds no files")


def test_an_empty_file_is_refused(tmp_path, refused):
    (tmp_path / "a").touch()
    refused(tmp_path / "a", "is no archive")


@pytest.mark.parametrize("there", [{"images/2.txt": b"mine"}, {"images": b"mine"}, {"a.txt/b": b"mine"}])
def test_what_the_user_has_is_never_replaced(tmp_path, there):
    for path, content in there.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True)
        (tmp_path / "out" / path).write_bytes(content)
    before = everything_below(tmp_path / "out")
    with pytest.raises(InvalidInput, match=r"images|a\.txt.* is there, and the archive has something else: move it"):
        unpack(a_zip(tmp_path / "a.zip", *GOOD), tmp_path / "out", MEGABYTE)
    assert everything_below(tmp_path / "out") == before
    assert all((tmp_path / "out" / path).read_bytes() == content for path, content in there.items())


def test_a_link_to_nothing_is_never_written_through(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="is there, and the archive has something else"):
        unpack(a_zip(tmp_path / "a.zip", *GOOD), tmp_path / "out", MEGABYTE)
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_there_and_the_same_is_left_alone(tmp_path):
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "1.txt").write_bytes(b"one")
    (tmp_path / "out" / "mine.txt").write_bytes(b"mine")
    os.utime(tmp_path / "out" / "images" / "1.txt", (1, 1))
    assert unpack(a_zip(tmp_path / "a.zip", *GOOD), tmp_path / "out", MEGABYTE) == UNPACKED
    assert (tmp_path / "out" / "images" / "1.txt").stat().st_mtime == 1
    assert (tmp_path / "out" / "mine.txt").read_bytes() == b"mine"


def test_what_a_kill_left_is_removed(tmp_path):
    (tmp_path / "out" / ".unpacking" / "images").mkdir(parents=True)
    (tmp_path / "out" / ".unpacking" / "images" / "1.txt").write_bytes(b"o")
    assert unpack(a_zip(tmp_path / "a.zip", *GOOD), tmp_path / "out", MEGABYTE) == UNPACKED
    assert not (tmp_path / "out" / ".unpacking").exists()


def test_a_disk_with_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=100))
    with pytest.raises(InvalidInput, match=r"needs 700 bytes unpacked, .*out has 100 bytes left: free some space"):
        unpack(a_zip(tmp_path / "a.zip", ("a", bytes(700))), tmp_path / "out", MEGABYTE)
    assert everything_below(tmp_path / "out") == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "_copy", lambda *_: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(OSError, match="No space left"):
        unpack(a_zip(tmp_path / "a.zip", *GOOD), tmp_path / "out", MEGABYTE)
    assert everything_below(tmp_path / "out") == []
