"""How far a sweep is, while others do its runs."""

import json
import time

from experiments import watching

CONTENT = {"definition": {}, "seconds": {}, "refused": {}}


def put(folder, status):
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(CONTENT | {"status": status}))


def test_off_a_terminal_there_is_a_line_for_each_change(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watching, "SAY", 0.05)
    folders = [tmp_path / name for name in "abc"]
    with watching.watched(folders):
        for folder, status in zip(folders, ("done", "failed", "done"), strict=True):
            put(folder, status)
            time.sleep(0.3)
    assert capsys.readouterr().err.splitlines() == [
        "of 3 runs: 1 done",
        "of 3 runs: 1 done, 1 failed",
        "of 3 runs: 2 done, 1 failed",
    ]


def test_a_run_in_this_process_says_itself_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watching, "SAY", 0.01)
    put(tmp_path / "a", "done")
    with watching.watched([tmp_path / "a"], shown=False):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
