import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from experiments.cache import Entry, is_locked, prune, sizes
from methods.errors import InvalidInput


def entry(root, **depends):
    return Entry(root, "stage", {"version": 1} | depends)


def fill(folder):
    np.save(folder / "values.npy", np.arange(4, dtype=np.float32))


def refuse(folder):
    raise AssertionError("computed again")


def test_what_was_computed_is_read_again(tmp_path):
    entry(tmp_path).get(fill)
    assert entry(tmp_path).get(refuse)["values"].tolist() == [0, 1, 2, 3]


def test_another_dependence_is_another_entry(tmp_path):
    entry(tmp_path).get(fill)
    assert entry(tmp_path, version=2).load() is None


def test_changing_what_was_loaded_does_not_change_the_file(tmp_path):
    entry(tmp_path).get(fill)["values"][0] = 9
    assert entry(tmp_path).get(refuse)["values"][0] == 0


def damaged(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damaged, "another content"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), "bytes, expected"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: (path.parent / "done.json").write_text("{"), "done.json cannot be read"),
        (lambda path: (path.parent / "done.json").unlink(), "done.json cannot be read"),
    ],
    ids=["a changed byte", "a cut file", "a missing file", "a cut stamp", "a missing stamp"],
)
def test_a_damaged_entry_is_put_aside_and_computed_again(tmp_path, capsys, spoil, reason):
    entry(tmp_path).get(fill)
    spoil(entry(tmp_path).folder / "values.npy")
    assert entry(tmp_path).get(fill)["values"].tolist() == [0, 1, 2, 3]
    assert reason in capsys.readouterr().err
    assert len(list((tmp_path / "stage").glob("*.damaged-*"))) == 1


def test_a_computation_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError):
        entry(tmp_path).get(refuse)
    assert [path.suffix for path in (tmp_path / "stage").iterdir()] == [".lock"]


def test_pickles_are_not_loaded(tmp_path):
    def pickled(folder):
        np.save(folder / "values.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(ValueError, match="Python objects"):
        entry(tmp_path).get(pickled)


SLOW = textwrap.dedent("""
    import sys, time, numpy as np
    from pathlib import Path
    from experiments.cache import Entry

    def fill(folder):
        print("computing", flush=True)
        time.sleep(float(sys.argv[2]))
        np.save(folder / "values.npy", np.arange(4, dtype=np.float32))

    print(Entry(Path(sys.argv[1]), "stage", {"version": 1}).get(fill)["values"].sum(), flush=True)
""")


def slow(root, seconds):
    return subprocess.Popen([sys.executable, "-c", SLOW, str(root), str(seconds)], stdout=subprocess.PIPE, text=True)


def test_processes_that_want_the_same_compute_it_once(tmp_path):
    processes = [slow(tmp_path, 1) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sum(words.count("computing") for words in said) == 1
    assert [words[-1] for words in said] == ["6.0"] * 3


def test_a_killed_holder_does_not_keep_the_lock(tmp_path):
    holder = slow(tmp_path, 600)
    assert holder.stdout.readline().strip() == "computing"
    lock = entry(tmp_path).folder.with_suffix(".lock")
    assert is_locked(lock)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(timeout=10)
    holder.stdout.close()
    assert not is_locked(lock)
    assert entry(tmp_path).load() is None
    assert entry(tmp_path).get(fill)["values"].tolist() == [0, 1, 2, 3]


def test_sizes_count_entries_and_bytes(tmp_path):
    entry(tmp_path).get(fill)
    entry(tmp_path, version=2).get(fill)
    count, size = sizes(tmp_path)["stage"]
    assert count == 2
    assert size > 2 * 16


def test_pruning_takes_what_is_old_and_leaves_the_rest(tmp_path):
    entry(tmp_path).get(fill)
    entry(tmp_path, version=2).get(fill)
    old = time.time() - 10 * 86_400
    os.utime(entry(tmp_path).folder, (old, old))
    removed, freed = prune(tmp_path, days=5)
    assert removed == 1
    assert freed > 16
    assert not entry(tmp_path).exists
    assert entry(tmp_path, version=2).exists


OLD = (0, 0)  # access and modification: 1970


def age(root):
    for folder in root.glob("*/*"):
        os.utime(folder, OLD)


def test_pruning_leaves_what_a_running_computation_uses(tmp_path):
    holder = slow(tmp_path, 600)
    try:
        assert holder.stdout.readline().strip() == "computing"
        entry(tmp_path).scratch.mkdir()
        age(tmp_path)
        before = sorted(tmp_path.glob("*/*"))
        assert len([path for path in before if path.name.startswith(".")]) == 1
        assert prune(tmp_path, days=0) == (0, 0)
        assert sorted(tmp_path.glob("*/*")) == before
    finally:
        holder.kill()
        holder.communicate()
    # the temporary folder is of use to nobody, however new it is; the checkpoints are
    os.utime(entry(tmp_path).scratch)
    assert prune(tmp_path, days=1)[0] == 1
    assert entry(tmp_path).scratch.exists()
    assert not list(tmp_path.glob("*/.*"))


def test_a_computation_that_ends_while_the_cache_is_pruned_is_not_disturbed(tmp_path):
    holder = slow(tmp_path, 1)
    assert holder.stdout.readline().strip() == "computing"
    while holder.poll() is None:
        age(tmp_path)
        prune(tmp_path, days=1e4)  # 1970 is longer ago than that
    assert holder.communicate()[0].split() == ["6.0"]
    assert holder.returncode == 0


def test_pruning_touches_nothing_but_the_cache(tmp_path):
    (tmp_path / "photos" / "holiday").mkdir(parents=True)
    age(tmp_path)
    assert prune(tmp_path, days=1) == (0, 0)
    assert (tmp_path / "photos" / "holiday").exists()


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_pruning_wants_a_number_of_days(tmp_path, days):
    with pytest.raises(InvalidInput, match="expected a number of days"):
        prune(tmp_path, days)


def test_what_is_damaged_or_unfinished_is_no_entry(tmp_path):
    entry(tmp_path).get(fill)
    damaged(entry(tmp_path).folder / "values.npy")
    entry(tmp_path).get(fill)
    (tmp_path / "stage" / f".{entry(tmp_path).key}.abc").mkdir()
    (tmp_path / "stage" / f".{entry(tmp_path).key}.abc" / "done.json").write_text("{}")
    assert sizes(tmp_path)["stage"][0] == 1


def test_only_the_files_of_the_stamp_are_loaded(tmp_path):
    entry(tmp_path).get(fill)
    np.save(entry(tmp_path).folder / "stray.npy", np.zeros(1))
    assert set(entry(tmp_path).get(refuse)) == {"values"}


def test_a_damaged_entry_is_replaced_under_a_lock_of_another_entry(tmp_path):
    other = entry(tmp_path, version=2)
    entry(tmp_path).get(fill)
    damaged(entry(tmp_path).folder / "values.npy")
    with other.locked():
        assert entry(tmp_path).load() is None
        assert entry(tmp_path).store(fill)["values"].tolist() == [0, 1, 2, 3]
        assert is_locked(other.folder.with_suffix(".lock"))
    assert not is_locked(other.folder.with_suffix(".lock"))


def test_storing_replaces_what_was_damaged_meanwhile(tmp_path):
    entry(tmp_path).get(fill)

    def spoiling(folder):
        damaged(entry(tmp_path).folder / "values.npy")
        fill(folder)

    assert entry(tmp_path).store(spoiling)["values"].tolist() == [0, 1, 2, 3]


def test_an_entry_that_vanishes_while_it_is_read_is_computed_again(tmp_path, monkeypatch):
    entry(tmp_path).get(fill)
    checked = Entry._checked

    def pruned_first(self, *arguments):
        os.utime(self.folder, OLD)
        prune(tmp_path, days=1)
        return checked(self, *arguments)

    monkeypatch.setattr(Entry, "_checked", pruned_first)
    assert entry(tmp_path).load() is None


REPAIR = textwrap.dedent("""
    import sys, numpy as np
    from pathlib import Path
    from experiments.cache import Entry

    def fill(folder):
        np.save(folder / "values.npy", np.arange(4, dtype=np.float32))

    entry = Entry(Path(sys.argv[1]), "stage", {"version": 1})
    print("ready", flush=True)
    for _ in sys.stdin:
        print(entry.get(fill)["values"].sum(), flush=True)
""")


def test_processes_that_find_the_same_damage_put_it_aside_once(tmp_path):
    command = [sys.executable, "-c", REPAIR, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    entry(tmp_path).get(fill)
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for _ in range(20):
        damaged(entry(tmp_path).folder / "values.npy")
        for process in processes:
            process.stdin.write("again\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes] == ["6.0\n"] * 4
    said = [process.communicate(timeout=30)[1] for process in processes]
    assert sum(text.count("put aside") for text in said) == 20
    assert len(list(tmp_path.glob("*/*.damaged-*"))) == 20


def test_an_entry_says_what_it_depends_on(tmp_path):
    entry(tmp_path, model="m").get(fill)
    stored = json.loads((entry(tmp_path, model="m").folder / "done.json").read_text())
    assert stored["depends"] == {"version": 1, "model": "m"}
