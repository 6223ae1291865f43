"""What a sweep writes down before it starts, and what comes back."""

import json

import pytest

from experiments.manifest import FOLDER, NAME, Manifest, Wanted, read_manifest, write_manifest
from methods.errors import InvalidInput


def manifest(*overrides, command="slicebench run --multirun ..."):
    """A sweep of runs with one override each."""
    return Manifest(command, tuple(Wanted((one, "tracking=none"), f"digits/{one}") for one in overrides))


def files(results):
    return sorted((results / FOLDER).iterdir())


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    sweep = Manifest("slicebench run method=gmm,x", (Wanted(("method=gmm",), "digits/a"), Wanted(("x",), None, "no x")))
    write_manifest(tmp_path, sweep)
    (path,) = files(tmp_path)
    assert NAME.fullmatch(path.name)
    assert read_manifest(path) == sweep


@pytest.mark.parametrize("aside", ["compute.threads=1", "paths.cache=elsewhere", "tracking=offline"])
def test_the_same_sweep_started_otherwise_takes_the_place_of_the_first(tmp_path, aside):
    write_manifest(tmp_path, manifest("seeds.method=0", "seeds.method=1"))
    again = (Wanted((f"seeds.method={seed}", "tracking=none", aside), f"digits/{seed}") for seed in (1, 0))
    write_manifest(tmp_path, Manifest("another command", tuple(again)))
    (path,) = files(tmp_path)
    assert read_manifest(path).command == "another command"


def test_another_sweep_stands_beside_the_first(tmp_path):
    write_manifest(tmp_path, manifest("seeds.method=0"))
    write_manifest(tmp_path, manifest("seeds.method=0", "seeds.method=1"))
    assert len(files(tmp_path)) == 2


RUN = {"overrides": ["a=1"], "run": "digits/a", "error": None}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "Expecting value"),
        ('{"command": "x", "runs": [{"overr', "Unterminated string"),
        ([], "cannot be read"),
        ({"runs": [RUN]}, "it has no 'command'"),
        ({"command": "x"}, "it has no 'runs'"),
        ({"command": "x", "runs": 3}, "cannot be read"),
        ({"command": "x", "runs": ["digits/a"]}, "cannot be read"),
        ({"command": 3, "runs": []}, "3 is no text"),
        ({"command": "x", "runs": [{**RUN, "run": 3}]}, "3 is no text"),
        ({"command": "x", "runs": [{**RUN, "overrides": [3]}]}, "3 is no text"),
        ({"command": "x", "runs": [{"overrides": [], "run": None}]}, "it has no 'error'"),
    ],
)
def test_anything_else_is_explained_in_one_line(tmp_path, content, says):
    path = tmp_path / "0123456789abcdef.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InvalidInput, match="delete it, and start the sweep again") as caught:
        read_manifest(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_gone_is_no_broken_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "0123456789abcdef.json")
