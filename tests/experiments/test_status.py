"""What `slicebench status` says, whatever the folders hold."""

import json
from pathlib import Path

import pytest

CONTENT = {"definition": {}, "seconds": {"train": 1.5, "infer": 0.5}, "refused": {"7": "too few"}}


@pytest.fixture
def runs(workspace):
    """A folder of runs, one in each state that needs no process."""
    contents = {
        "a": CONTENT | {"status": "done"},
        "b": CONTENT | {"status": "failed", "error": "[/red] ValueError: no [layer]"},
        "c": CONTENT | {"status": "failed"},
        "d": CONTENT | {"status": "running"},
    }
    for name, content in contents.items():
        (workspace / "outputs" / name).mkdir(parents=True)
        (workspace / "outputs" / name / "run.json").write_text(json.dumps(content))
    (workspace / "outputs" / "d" / "progress.json").write_text('{"what": "train", "done": 3, "total": 40, "time": 4e9}')
    (workspace / "outputs" / "e").mkdir()
    (workspace / "outputs" / "e" / "run.json").write_text('{"status": "do')


def test_every_run_is_shown(runs, slicebench):
    done = slicebench("status", "--json")
    assert done.exit_code == 1
    lines = {line["run"]: (line["status"], line["note"]) for line in json.loads(done.stdout)}
    assert lines["outputs/a"] == ("done", "2.0 s, 1 refused")
    assert lines["outputs/b"] == ("failed", "[/red] ValueError: no [layer]")
    assert lines["outputs/c"] == ("failed", "")
    assert lines["outputs/d"] == ("killed", "train 3 of 40")
    assert lines["outputs/e"][0] == "unreadable"
    assert "delete the folder and run again" in lines["outputs/e"][1]


def test_notes_are_shown_as_they_are(runs, slicebench):
    text = slicebench("status").stdout
    assert "[/red] ValueError: no [layer]" in text
    assert "1 done, 2 failed, 1 killed, 1 unreadable" in text


def test_all_done_is_success(runs, slicebench):
    assert slicebench("status", str(Path("outputs") / "a")).exit_code == 0
