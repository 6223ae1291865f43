"""Which errors are told in one line, and which are bugs."""

import errno
import os
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.errors import explanation


def reason(act):
    try:
        act()
    except Exception as error:
        return explanation(error)
    raise AssertionError("nothing went wrong")


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.ENOENT]
)
def test_an_error_of_the_file_system_names_the_file(code):
    said = explanation(OSError(code, os.strerror(code), "/some/file"))
    assert said.startswith(f"/some/file: {os.strerror(code)}: ")
    assert len(said.splitlines()) == 1


def test_real_errors_of_the_file_system(tmp_path):
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: File exists: " in reason(lambda: (tmp_path / "file").mkdir())
    assert "Not a directory: something else has this name" in reason(lambda: (tmp_path / "file" / "x").write_text(""))
    assert "Is a directory" in reason(lambda: tmp_path.write_text(""))
    assert "No such file or directory" in reason(lambda: (tmp_path / "nothing").read_text())


@pytest.mark.parametrize(
    "act", [lambda file: np.save(file, np.zeros(9)), lambda file: pd.DataFrame({"a": [1.0]}).to_parquet(file)]
)
def test_a_full_disk(act):
    def write():
        file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        try:
            act(file)
        finally:
            file.close()

    assert "No space left on device: free some space" in reason(write)


@contextmanager
def small_files():
    """No file may have more than 1000 bytes, not even pytest's log: libraries meet that as they meet a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_libraries_have_their_own_words_for_it(tmp_path):
    with small_files():
        numpys = reason(lambda: np.save(tmp_path / "a.npy", np.zeros(1000)))
        safetensors = reason(lambda: save_file({"a": torch.zeros(1000)}, tmp_path / "b"))
    assert "No space left on device: free some space" in numpys
    assert "File too large: choose other folders" in safetensors


def test_damaged_files(tmp_path):
    frame = pd.DataFrame({"a": range(10000)})
    frame.to_parquet(tmp_path / "scores.parquet")
    whole = (tmp_path / "scores.parquet").read_bytes()
    for content in (b"", whole[:1000], whole[:200] + bytes(400) + whole[600:]):
        (tmp_path / "scores.parquet").write_bytes(content)
        assert "a file is damaged (" in reason(lambda: pd.read_parquet(tmp_path / "scores.parquet"))
    (tmp_path / "weights").write_bytes(b"\x10")
    assert "a file is damaged (" in reason(lambda: load_file(tmp_path / "weights"))


def test_too_little_memory():
    for act in (lambda: np.zeros(10**15), lambda: torch.empty(10**14)):
        assert "there is not enough memory (" in reason(act)


def test_bugs_stay_bugs():
    mixed = pd.DataFrame({"a": [1, "x"]})
    for act in (
        lambda: 1 / 0,
        lambda: {}["x"],
        lambda: torch.zeros(2) @ torch.zeros(3),
        lambda: mixed.to_parquet("/dev/null"),
        lambda: os.kill(2**22 + 1, 0),
    ):
        assert reason(act) is None
