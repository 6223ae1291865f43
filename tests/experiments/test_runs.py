"""Run folders as kills, full disks and hands leave them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments import runs
from experiments.manifest import Manifest, Wanted, write_manifest
from experiments.runs import (
    check_definition,
    check_unchanged,
    find_results,
    find_runs,
    read_content,
    read_run,
    stored_definition,
)
from methods.errors import InvalidInput

CONTENT = {"status": "done", "definition": {"method": {"size": 1}}, "seconds": {"train": 1.5}, "refused": {}}


def written(folder, content):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


BROKEN = [
    ('{"status": "do', "Unterminated string"),
    ("", "Expecting value"),
    ("[]", "expected names and values"),
    ("{}", "it has no status"),
    (CONTENT | {"status": None}, "its status is None"),
    (CONTENT | {"status": "sleeping"}, "its status is 'sleeping'"),
    ({name: value for name, value in CONTENT.items() if name != "definition"}, "it has no definition"),
    (CONTENT | {"definition": {"a": float("nan")}}, "NaN is no number"),
    (CONTENT | {"seconds": {"train": "long"}}, "its seconds are no numbers"),
]


@pytest.mark.parametrize(("content", "reason"), BROKEN)
def test_a_broken_run_is_listed_with_the_reason_beside_the_others(tmp_path, content, reason):
    written(tmp_path / "a", CONTENT)
    written(tmp_path / "b", content)
    good, bad = find_runs(tmp_path)
    assert (good.state, bad.state) == ("done", "unreadable")
    assert reason in bad.content["error"]
    assert "delete the folder and run again" in bad.content["error"]
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_run(tmp_path / "b")


def test_bytes_that_are_no_text_are_a_broken_run(tmp_path):
    (written(tmp_path / "a", "") / "run.json").write_bytes(b"\xff\xfe")
    assert find_runs(tmp_path)[0].state == "unreadable"


def test_a_folder_without_a_run_has_no_content(tmp_path):
    assert read_content(tmp_path) is None
    assert read_content(written(tmp_path / "a", CONTENT)) == CONTENT


@pytest.mark.parametrize("text", ['{"what": "tr', "[]", '{"what": "train"}', ""])
def test_a_broken_progress_says_nothing(tmp_path, text):
    folder = written(tmp_path / "a", CONTENT | {"status": "running"})
    (folder / "progress.json").write_text(text)
    (run,) = find_runs(tmp_path)
    assert (run.state, run.progress()) == ("killed", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method: {size: 1, 1: 2}", "method.1 is 2, but this run has"),
        ("2: 3\nmethod: {size: 1}", "2 is 3, but this run has"),
        ("[]", "holds no settings"),
        ("", "holds no settings"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_definition_that_was_changed_is_refused(tmp_path, text, says):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        check_definition(tmp_path, CONTENT["definition"])


@pytest.mark.parametrize(
    "text",
    [
        "method:\n  size: 10\n  k:\n  - 1\nseeds:\n  method: 0\nfingerprint: abc\n",
        "k:\n- 1\n- 2\nempty:\n'quoted': 1\n",
        "a: 1\nb: 2\na: 3\n",
        "# by hand\na: 1\n\nb: 2\n",
        "a: &one 1\nb: *one\n",
        "a: |\n  one\n\n  two\nb: 2\n",
        "a: 'one\n  two'\nb: 2",
        "---\na: 1\n",
    ],
)
def test_a_definition_is_what_yaml_says_however_it_is_written(tmp_path, text):
    for written in (text, text, text + "\nlast: 4\n", text.replace("2", "5")):  # groups that were read before are known
        (tmp_path / "config.yaml").write_text(written)
        assert stored_definition(tmp_path) == yaml.safe_load(written)


@pytest.mark.parametrize("text", ["", "a:b\n", "a: 1\n---\nb: 2\n", "a: 'one\nb: 2\n", "- 1\n", "a: b: c\n"])
def test_what_is_no_definition_is_refused_as_a_whole(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=r"cannot be read|holds no settings"):
        stored_definition(tmp_path)


def test_a_folder_with_another_key_is_refused(tmp_path):
    folder = written(tmp_path / "gmm-0123456789abcdef", CONTENT)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONTENT["definition"]))
    with pytest.raises(InvalidInput, match="was changed by hand"):
        check_unchanged(find_runs(tmp_path)[0])


def test_a_done_run_whose_files_are_not_what_it_wrote_is_no_longer_done(tmp_path):
    folder = written(tmp_path / "a", CONTENT | {"files": {"scores.parquet": 3, "parts/000.npz": 2}})
    (folder / "scores.parquet").write_text("abc")
    assert read_run(folder).state == "killed"
    assert "parts/000.npz is no longer what it wrote" in read_run(folder).content["error"]
    (folder / "parts").mkdir()
    (folder / "parts" / "000.npz").write_text("ab")
    assert read_run(folder).state == "done"
    (folder / "scores.parquet").write_text("ab")
    assert "scores.parquet is no longer what it wrote" in read_run(folder).content["error"]


def test_what_lies_below_a_run_is_the_runs(tmp_path):
    written(tmp_path / "a", CONTENT)
    written(tmp_path / "a" / "wandb" / "run-1", CONTENT)
    assert [run.folder for run in find_runs(tmp_path)] == [tmp_path / "a"]


def test_a_sweep_knows_which_of_its_runs_are_there(tmp_path, monkeypatch):
    written(tmp_path / "outputs" / "digits" / "gmm-0", CONTENT)
    wanted = (
        Wanted(("a=0",), "digits/gmm-0"),
        Wanted(("a=1",), "digits/gmm-1"),
        Wanted(("a=x",), None, "x is no number"),
    )
    write_manifest(tmp_path / "outputs", Manifest("slicebench run", wanted))
    monkeypatch.chdir(tmp_path / "outputs")
    for folder in (tmp_path, tmp_path / "outputs", tmp_path / "outputs" / "digits" / "..", Path("../outputs")):
        results = find_results(folder)
        (sweep,) = results.sweeps
        assert [run and run.name for run in sweep.runs] == ["digits/gmm-0", None, None]
        assert [one for _, one in results.missing] == list(wanted[1:])


def test_a_run_that_vanishes_while_we_look_is_none_of_them(tmp_path, monkeypatch):
    written(tmp_path / "a", CONTENT)
    written(tmp_path / "b", CONTENT)

    def gone(folder):
        if folder.name == "b":
            shutil.rmtree(folder)
        return read_run(folder)

    monkeypatch.setattr(runs, "read_run", gone)
    assert [run.folder.name for run in find_runs(tmp_path)] == ["a"]


def test_a_manifest_that_vanishes_while_we_look_is_no_sweep(tmp_path, monkeypatch):
    written(tmp_path / "a", CONTENT)
    write_manifest(tmp_path, Manifest("slicebench run", (Wanted(("a=1",), "digits/a-0"),)))
    monkeypatch.setattr(runs, "_read_or_reason", lambda _: shutil.rmtree(tmp_path / "sweeps"))
    with pytest.raises(InvalidInput, match="holds no runs"):
        find_results(tmp_path)


BUSY = """
import shutil, sys
from pathlib import Path
from experiments.files import write_json
from experiments.manifest import Manifest, Wanted, write_manifest

outputs = Path(sys.argv[1])
content = {"definition": {}, "seconds": {}, "refused": {}}
index = 0
while True:
    run = outputs / "digits" / f"gmm-{index % 3}"
    for status in ("running", "done"):
        write_json(run / "run.json", content | {"status": status})
        write_json(run / "progress.json", {"what": "train", "done": index, "total": 9, "time": 0})
        (run / "lock").touch()
    write_manifest(outputs, Manifest("slicebench run", (Wanted(("a=1",), f"digits/gmm-{index % 3}"),)))
    shutil.rmtree(run)
    index += 1
    if index == 3:
        print("at work", flush=True)
"""


def test_folders_that_are_written_and_removed_meanwhile_are_read_all_the_same(tmp_path):
    written(tmp_path / "digits" / "kept", CONTENT)
    process = subprocess.Popen([sys.executable, "-c", BUSY, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "at work\n"
        for _ in range(300):
            results = find_results(tmp_path)
            assert {run.state for run in results.runs} <= {"done", "killed"}
            assert (results.unreadable, len(results.sweeps)) == ({}, 1)
            assert all(isinstance(run.progress(), str) for run in results.runs)
    finally:
        process.kill()
        process.communicate()
