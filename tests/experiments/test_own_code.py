"""Classes of the user's: in a file, or by a dotted path."""

import copy
import pickle
import sys
from dataclasses import fields

import pytest

from experiments.keys import key_of
from experiments.own_code import STARTED_IN, class_name, located, short
from experiments.schema import parameters_of
from methods.contract import InvalidInput

CODE = """
from __future__ import annotations

from dataclasses import dataclass, field

from methods import HighestLoss, ModelOutputs, Slices

@dataclass
class Mine:
    size: int | None = field(default=3, metadata={"min": 1})

    def fit(self, outputs: ModelOutputs) -> Mine:
        return self

    def predict(self, outputs: ModelOutputs) -> Slices:
        return Slices.none(outputs.example_ids)
"""
DOTTED = "method._target_"


@pytest.fixture
def mine(workspace):
    folder = workspace / "my folder"
    folder.mkdir()
    (folder / "mine.py").write_text(CODE)
    return folder / "mine.py"


def test_a_class_in_a_file_is_found_with_its_annotations(mine):
    found = located("my folder/mine.py:Mine", DOTTED)
    assert found.__name__ == "Mine"
    assert parameters_of(found)["size"].annotation == int | None
    assert [one.metadata["min"] for one in fields(found)] == [1]
    assert located(f"{mine}:Mine", DOTTED) is found
    assert "mine" not in sys.modules


def test_its_instances_are_copied_and_pickled(mine):
    made = located(f"{mine}:Mine", DOTTED)(size=7)
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made


def test_an_edited_file_is_read_again(mine):
    first = located(f"{mine}:Mine", DOTTED)
    mine.write_text(CODE.replace("default=3", "default=4"))  # as many letters, and within a second
    assert (first().size, located(f"{mine}:Mine", DOTTED)().size) == (3, 4)


def test_a_process_in_another_folder_finds_it_from_where_the_command_was_given(mine, tmp_path, monkeypatch):
    monkeypatch.setenv(STARTED_IN, str(mine.parent))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert located("mine.py:Mine", DOTTED).__name__ == "Mine"


def test_a_file_in_the_home_folder_is_found(mine, monkeypatch):
    monkeypatch.setenv("HOME", str(mine.parent))
    assert located("~/mine.py:Mine", DOTTED).__name__ == "Mine"


@pytest.mark.parametrize("group", ["method", "model"])
def test_what_defines_a_run_names_no_folder_but_the_content(settings_of, mine, workspace, monkeypatch, group):
    mine.write_text(f"{CODE}\n    build = predict\n")

    def defined(path):
        component = getattr(settings_of(f"{group}=custom", f"{group}._target_={path}:Mine"), group)
        return component.name.split(" ")[0], component.target, component.version, key_of(component.defining())

    first = defined("my folder/mine.py")
    assert first[:2] == ("Mine", "mine.py:Mine")
    assert defined(mine) == first
    monkeypatch.chdir(mine.parent)
    assert defined("mine.py") == first
    assert str(workspace) not in str(first)
    mine.write_text(mine.read_text() + "\n")
    assert defined("mine.py")[2] != first[2]


def test_a_file_that_is_called_like_ours_is_the_users(settings_of, workspace):
    (workspace / "methods.py").write_text(CODE)
    method = settings_of("method=custom", "method._target_=methods.py:Mine").method
    assert not method.is_ours
    assert isinstance(method.version, str)


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("nope.py:Mine", CODE, "'nope.py:Mine' cannot be imported: there is no file nope.py in "),
        ("mien.py:Mine", CODE, "the nearest is mine.py (all: mine.py)"),
        ("/nowhere/mine.py:Mine", CODE, "there is no file /nowhere/mine.py"),
        (
            "mine.py",
            CODE,
            "'mine.py' names no class, expected my_package.MyClass, or FILE.py:MyClass: mine.py has Mine",
        ),
        ("mine.py:Mien", CODE, "mine.py has no 'Mien'; the nearest is Mine (all: Mine)"),
        ("mine.py:Mine", "", "mine.py has no 'Mine' (there are none)"),
        ("mine.py:Mine", "x = 1\nclass Mine\n", "cannot be imported: SyntaxError: expected ':' (mine.py, line 2)"),
        ("mine.py:Mine", "x = 1\n1 / 0\n", "ZeroDivisionError: division by zero (mine.py, line 2)"),
        ("mine.py:Mine", "import sys\nsys.exit(3)\n", "SystemExit: 3 (mine.py, line 2)"),
        ("mine.py:Mine", "import nope\n", "'nope' (mine.py, line 1) (a module in a folder: --import-path DIR)"),
        ("mine.py:Mine", "# -*- coding: nope -*-\n", "SyntaxError: "),
        ("mine.Mine", CODE, "No module named 'mine' (for the file mine.py: mine.py:Mine)"),
        ("nope.Mine", CODE, "No module named 'nope' (a module in a folder: --import-path DIR)"),
        ("Mine", CODE, "'Mine' is no class, expected my_package.MyClass, or FILE.py:MyClass"),
        ("mine:Mine", CODE, "'mine:Mine' is no file of Python's"),
        ("methods.Spotlihgt", CODE, "methods has no 'Spotlihgt'; the nearest is Spotlight"),
    ],
)
def test_what_cannot_be_loaded_is_told(workspace, target, code, says):
    (workspace / "mine.py").write_text(code)
    with pytest.raises(InvalidInput) as told:
        located(target, "--method")
    assert str(told.value).startswith(f"--method {target!r} ")
    assert says in str(told.value)


def test_a_module_beside_the_file_is_told_with_its_folder(mine, workspace):
    mine.write_text("import helping\n")
    mine.with_name("helping.py").touch()
    with pytest.raises(InvalidInput, match=r"'helping' .*--import-path my folder\)"):
        located(f"{mine}:Mine", DOTTED)


def test_the_place_of_an_error_in_a_module_is_told(workspace, monkeypatch):
    (workspace / "breaks_when_imported.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    monkeypatch.syspath_prepend(str(workspace))
    with pytest.raises(InvalidInput, match=r"division by zero \(breaks_when_imported.py, line 2\)"):
        located("breaks_when_imported.Mine", DOTTED)


def test_targets_are_shown_without_their_folders():
    assert [short(one) for one in ("/a/b.py:C", "b.py:C", "a.b.C")] == ["b.py:C", "b.py:C", "a.b.C"]
    assert [class_name(one) for one in ("/a.b/b.py:C", "a.b.C", "C")] == ["C", "C", "C"]
