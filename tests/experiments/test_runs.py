"""Run folders as kills, full disks and hands leave them."""

import json

import pytest
import yaml

from experiments.runs import check_definition, check_unchanged, find_runs, read_content, read_run
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


def test_a_folder_with_another_key_is_refused(tmp_path):
    folder = written(tmp_path / "gmm-0123456789abcdef", CONTENT)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONTENT["definition"]))
    with pytest.raises(InvalidInput, match="was changed by hand"):
        check_unchanged(find_runs(tmp_path)[0])
