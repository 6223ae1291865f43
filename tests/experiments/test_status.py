"""What `slicebench status` says, whatever the folders hold."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.manifest import FOLDER, Manifest, Wanted, write_manifest
from experiments.status import FEW

CONTENT = {"definition": {}, "seconds": {"train": 1.5, "infer": 0.5}, "refused": {"7": "too few"}}
NOTE = "2.0 s, 1 refused"
COMMAND = "slicebench run --multirun method=gmm,random seeds.method=0,1"


def written(folder, status, **more):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(CONTENT | {"status": status, **more}))
    return folder


def swept(*runs, command=COMMAND, results="outputs"):
    """Write the manifest of a sweep of such runs: (what tells it from the others, its folder or none)."""
    wanted = [
        Wanted((f"method={word}", "tracking=none"), run, None if run else f"method {word} is 3, expected a word")
        for word, run in runs
    ]
    write_manifest(Path(results), Manifest(command, tuple(wanted)))


@pytest.fixture
def runs(workspace):
    """A folder of runs, one in each state that needs no process."""
    outputs = workspace / "outputs"
    written(outputs / "a", "done")
    written(outputs / "b", "failed", error="[/red] ValueError: no [layer] :on: fire")
    written(outputs / "c", "failed")
    progress = written(outputs / "d", "running") / "progress.json"
    progress.write_text('{"what": "train", "done": 3, "total": 40, "time": 4e9}')
    written(outputs / "e", "").joinpath("run.json").write_text('{"status": "do')
    return outputs


def shown(slicebench, *arguments):
    """Status and note of each run, as programs get them."""
    return {line["run"]: (line["status"], line["note"]) for line in listed(slicebench, *arguments)}


def listed(slicebench, *arguments):
    return json.loads(slicebench("status", *arguments, "--json").stdout)


def test_every_run_is_shown(runs, slicebench):
    lines = shown(slicebench)
    assert lines["outputs/a"] == ("done", NOTE)
    assert lines["outputs/b"] == ("failed", "[/red] ValueError: no [layer] :on: fire")
    assert lines["outputs/c"] == ("failed", "")
    assert lines["outputs/d"] == ("killed", "train 3 of 40")
    assert lines["outputs/e"][0] == "unreadable"
    assert "delete the folder and run again" in lines["outputs/e"][1]


def test_for_programs_it_is_a_list_with_three_words_for_each_run(runs, slicebench):
    swept(("gmm", "digits/gmm-0"), ("x", None))
    assert all(set(line) == {"run", "status", "note"} for line in listed(slicebench))


def test_notes_are_shown_as_they_are(runs, slicebench):
    text = slicebench("status").stdout
    assert "[/red] ValueError: no [layer] :on: fire" in text
    assert "1 done, 2 failed, 1 killed, 1 unreadable" in text


def test_the_exit_code_is_0_only_where_all_are_done(runs, slicebench):
    assert slicebench("status", "outputs/a").exit_code == 0
    assert slicebench("status", "outputs").exit_code == 1
    written(runs.parent / "swept" / "digits" / "gmm-0", "done")
    swept(("gmm", "digits/gmm-0"), results="swept")
    assert slicebench("status", "swept").exit_code == 0
    swept(("gmm", "digits/gmm-0"), ("random", "digits/random-0"), results="swept")
    assert slicebench("status", "swept").exit_code == 1


def test_a_run_that_lost_a_file_is_no_longer_done(workspace, slicebench):
    folder = written(workspace / "outputs" / "digits" / "gmm-0", "done", files={"scores.parquet": 3})
    swept(("gmm", "digits/gmm-0"))
    for content in (None, "ab"):
        if content:
            (folder / "scores.parquet").write_text(content)
        assert shown(slicebench)["digits/gmm-0"] == (
            "killed",
            "it was done, but scores.parquet is no longer what it wrote",
        )
    assert f"to finish: {COMMAND}" in slicebench("status").stdout
    (folder / "scores.parquet").write_text("abc")
    assert shown(slicebench)["digits/gmm-0"][0] == "done"


def test_missing_runs_are_shown_with_what_tells_them_apart(workspace, slicebench):
    written(workspace / "outputs" / "digits" / "gmm-0", "done")
    swept(("gmm", "digits/gmm-0"), ("random", "digits/random-1"))
    assert shown(slicebench)["digits/random-1"] == ("missing", "method=random")
    assert "1 done, 1 missing" in slicebench("status").stdout


def test_a_sweep_of_one_run_shows_all_of_its_overrides(workspace, slicebench):
    swept(("gmm", "digits/gmm-0"))
    assert shown(slicebench)["digits/gmm-0"] == ("missing", "method=gmm tracking=none")


def test_a_run_that_several_sweeps_miss_is_missing_once_in_each_folder_of_results(workspace, slicebench):
    for results in ("outputs/a", "outputs/b"):
        swept(("gmm", "digits/gmm-0"), results=results)
        swept(("gmm", "digits/gmm-0"), ("random", "digits/random-0"), results=results)
    names = sorted(line["run"] for line in listed(slicebench))
    assert names == ["digits/gmm-0", "digits/gmm-0", "digits/random-0", "digits/random-0"]


def test_runs_with_settings_that_cannot_be_used_say_why_and_how_to_be_rid_of_them(workspace, slicebench):
    written(workspace / "outputs" / "digits" / "gmm-0", "done")
    swept(("gmm", "digits/gmm-0"), ("3", None))
    assert shown(slicebench)["-"] == ("failed", "method=3: method 3 is 3, expected a word")
    text = slicebench("status").stdout
    assert "retry_failed" not in text
    (manifest,) = Path("outputs", FOLDER).iterdir()
    assert f"stay in this list until {manifest} is deleted" in text
    manifest.unlink()
    assert slicebench("status").exit_code == 0


def commands(slicebench, *arguments):
    return [line for line in slicebench("status", *arguments).stdout.splitlines() if line.startswith("to ")]


def test_the_command_that_finishes_a_sweep_is_said_once_for_each(workspace, slicebench):
    results = workspace / "outputs" / "digits"
    written(results / "gmm-0", "running")
    swept(("gmm", "digits/gmm-0"), ("random", "digits/random-0"), ("confusion", "digits/confusion-0"))
    swept(("ridge", "digits/ridge-0"), command="slicebench run --multirun 'method=ridge'")
    written(results / "ball-0", "done")
    swept(("ball", "digits/ball-0"), command="slicebench run --multirun method=ball")
    ridge = "to finish: slicebench run --multirun 'method=ridge'"
    assert sorted(commands(slicebench)) == sorted([f"to finish: {COMMAND}", ridge])


def test_failed_runs_are_tried_again_by_a_command_of_their_own(workspace, slicebench):
    written(workspace / "outputs" / "digits" / "gmm-0", "failed", error="KeyError: 3")
    swept(("gmm", "digits/gmm-0"))
    assert commands(slicebench) == [f"to try failed runs again: {COMMAND} compute.retry_failed=true"]


def test_what_a_method_refuses_is_not_to_be_tried_again(workspace, slicebench):
    written(workspace / "outputs" / "digits" / "gmm-0", "failed", error="needs labels", refusal=True)
    assert slicebench("status").stdout.splitlines()[-1] == "1 failed"
    swept(("gmm", "digits/gmm-0"))
    assert slicebench("status").stdout.splitlines()[-1] == "1 failed"


@pytest.mark.parametrize("status", ["running", "failed"])
def test_a_run_without_a_sweep_goes_on_by_its_own_command(workspace, slicebench, status):
    written(workspace / "outputs" / "digits" / "gmm-0", status)
    says = "The command that started a run goes on where it stopped."
    assert slicebench("status").stdout.splitlines()[-1] == says
    swept(("random", "digits/random-0"))
    assert slicebench("status").stdout.splitlines()[-2:] == [f"to finish: {COMMAND}", says]


def test_commands_are_whole_however_long(workspace, slicebench):
    command = f"slicebench run --multirun method.label='{'long ' * 100}' seeds.method=0,1 +a.b=[x,y]"
    swept(("gmm", "digits/gmm-0"), command=command)
    assert commands(slicebench) == [f"to finish: {command}"]


def test_a_broken_manifest_is_one_line_beside_the_others(runs, slicebench):
    swept(("gmm", "digits/gmm-0"))
    (manifest,) = (runs / FOLDER).iterdir()
    manifest.write_text('{"command": ')
    done = slicebench("status")
    assert "Traceback" not in done.output
    assert done.exit_code == 1
    lines = shown(slicebench)
    assert lines["outputs/a"][0] == "done"
    assert lines[f"{FOLDER}/{manifest.name}"][0] == "unreadable"
    assert "delete it, and start the sweep again" in lines[f"{FOLDER}/{manifest.name}"][1]


def test_other_files_and_folders_are_no_manifests(runs, slicebench):
    before = listed(slicebench)
    (runs / FOLDER).mkdir()
    (runs / FOLDER / "notes.json").write_text("mine")
    (runs / FOLDER / ".0123456789abcdef.json.x").write_text("being written")
    assert listed(slicebench) == before
    done = slicebench("status", f"outputs/{FOLDER}")
    assert done.exit_code == 2
    assert "holds no runs" in done.stderr


def test_a_folder_with_nothing_but_a_manifest_is_a_sweep_that_has_not_begun(workspace, slicebench):
    swept(("gmm", "digits/gmm-0"), ("random", "digits/random-0"))
    text = slicebench("status").stdout
    assert "2 missing" in text
    assert f"to finish: {COMMAND}" in text


def test_of_many_runs_those_that_are_done_are_counted(workspace, slicebench):
    for index in range(FEW + 1):
        written(workspace / "outputs" / "digits" / f"gmm-{index:03d}", "done")
    assert slicebench("status").stdout.strip() == f"{FEW + 1} done"
    written(workspace / "outputs" / "digits" / "gmm-001", "failed", error="KeyError: 3")
    text = slicebench("status").stdout
    assert "digits/gmm-001" in text
    assert "digits/gmm-002" not in text
    assert len(listed(slicebench)) == FEW + 1


def test_of_many_runs_that_are_missing_the_first_are_shown(workspace, slicebench):
    written(workspace / "outputs" / "digits" / "broken-0", "failed", error="KeyError: 3")
    swept(*((str(index), f"digits/gmm-{index:03d}") for index in range(3 * FEW)))
    text = slicebench("status").stdout
    assert text.count("digits/gmm-") == FEW
    assert "digits/broken-0" in text
    assert f"and {2 * FEW} others" in text
    assert f"1 failed, {3 * FEW} missing" in text
    assert len(listed(slicebench)) == 3 * FEW + 1


def test_watching_is_for_people(runs, slicebench):
    done = slicebench("status", "--watch", "--json")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "slicebench: --watch is for people to look at, --json for programs: take one of them"
    ]


WORKER = """
import json, os, sys, time
from pathlib import Path
from filelock import FileLock

run, go = Path(sys.argv[1]), Path(sys.argv[2])
with FileLock(run / "lock"):
    print("at work", flush=True)
    while not go.exists():
        time.sleep(0.01)
    content = json.loads((run / "run.json").read_text())
    (run / "new").write_text(json.dumps(content | {"status": "done"}))
    os.replace(run / "new", run / "run.json")
"""
# a shell that starts things in the background makes them ignore Ctrl-C, and so their children
STATUS = """
import signal
import experiments.status
from experiments.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
experiments.status.EVERY = 0.05
main()
"""


@contextmanager
def at_work(run, go):
    """A process that works on a run until a file appears, and then finishes it."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, run, go], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "at work\n"
        yield
    finally:
        process.kill()
        process.communicate()


def test_watching_off_a_terminal_is_a_line_for_each_change_and_ends_when_nothing_is_left(workspace):
    run, go = written(workspace / "outputs" / "digits" / "gmm-0", "running"), workspace / "go"
    written(workspace / "outputs" / "digits" / "gmm-1", "failed", error="KeyError: 3")
    with at_work(run, go):
        command = [sys.executable, "-c", STATUS, "status", "--watch"]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=workspace)
        assert watch.stderr.readline() == "1 running, 1 failed\n"
        time.sleep(0.3)
        go.touch()
        text, said = watch.communicate(timeout=30)
    assert said == "1 done, 1 failed\n"
    assert watch.returncode == 1
    assert f"digits/gmm-0   done     {NOTE}" in text
    assert text.count("digits/gmm-0") == 1


def on_a_terminal(*arguments, columns=80, rows=24):
    """Start the command line on a terminal of its own: the process, and where to read what it shows."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    command = [sys.executable, "-c", STATUS, *arguments]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    return process, ours


def read(terminal, until=None):
    """What is shown, until there is such a text or the process has ended."""
    text = b""
    while until is None or until not in text:
        assert select.select([terminal], [], [], 30)[0], f"nothing more came after {text!r}"
        try:
            text += os.read(terminal, 4096)
        except OSError:  # what Linux says when the other side is closed
            break
    return text.decode().replace("\r\n", "\n")


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_watching_on_a_terminal_leaves_the_last_table(workspace):
    run, go = written(workspace / "outputs" / "digits" / "gmm-0", "running"), workspace / "go"
    with at_work(run, go):
        watch, terminal = on_a_terminal("status", "--watch")
        before = read(terminal, until=b"running")
        go.touch()
        after = read(terminal)
        assert watch.wait(timeout=30) == 0
    os.close(terminal)
    assert "1 running" in before
    assert "Traceback" not in before + after
    last = without_colours(after.rpartition("\x1b[?25h")[2])  # after the cursor came back
    assert [line.split() for line in last.splitlines() if "digits" in line] == [["digits/gmm-0", "done", *NOTE.split()]]
    assert last.splitlines()[-1] == "1 done"


def test_a_watch_that_is_interrupted_leaves_the_last_table_too(workspace):
    written(workspace / "outputs" / "digits" / "gmm-0", "running")
    watch, terminal = on_a_terminal("status", "--watch")
    shown = read(terminal, until=b"1 killed")
    watch.send_signal(signal.SIGINT)
    shown = read(terminal)
    os.close(terminal)
    assert watch.wait(timeout=30) == 130
    assert "Traceback" not in shown
    last = without_colours(shown.rpartition("\x1b[?25h")[2])
    assert "digits/gmm-0" in last
    assert "1 killed" in last


def test_80_columns_cut_nothing(workspace):
    name, error = "imagenet_superclass/infembed_rule-0123456789abcdef", "no file /" + 20 * "very-long-"
    written(workspace / "outputs" / name, "failed", error=error)
    swept(("gmm", name), ("b" * 100, "digits/random-0"))
    process, terminal = on_a_terminal("status")
    text = without_colours(read(terminal))
    os.close(terminal)
    assert process.wait(timeout=30) == 1
    table, _, _ = text.partition("to finish")
    assert max(map(len, table.splitlines())) <= 80
    assert name in table
    assert "…" not in text
    joined = re.sub(r"\s", "", table)
    assert re.sub(r"\s", "", error) in joined
    assert "method=" + "b" * 100 in joined
