"""Who may import whom, and what must stay cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evaluation
import experiments
import methods

OURS = {"methods", "evaluation", "experiments", "conf"}
MAY_IMPORT = {
    methods: {"methods"},
    evaluation: {"evaluation", "methods.contract", "methods.errors"},
    experiments: {"experiments", "evaluation", "methods", "conf"},
}
FILES = [(room, path) for room in MAY_IMPORT for path in sorted(Path(room.__path__[0]).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_all_rooms_have_files():
    assert {room for room, _ in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize(("room", "path"), FILES, ids=lambda value: getattr(value, "name", ""))
def test_imports_point_one_way(room, path):
    allowed = MAY_IMPORT[room]
    ours = [name for name in imported(path) if name.split(".")[0] in OURS]
    assert [name for name in ours if name not in allowed and name.split(".")[0] not in allowed] == []


def loaded_by(code):
    """The names of all packages that a fresh process has after running this code."""
    code += "\nimport sys; print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("LOADED")[-1].split())


def test_methods_and_evaluation_need_nothing_but_the_numerical_core():
    modules = [f"{room.__name__}.{path.stem}" for room, path in FILES if room in (methods, evaluation)]
    loaded = loaded_by("\n".join(f"import {name.removesuffix('.__init__')}" for name in modules))
    assert "torch" in loaded
    assert loaded & {"hydra", "omegaconf", "pydantic", "wandb", "transformers", "filelock", "typer"} == set()


def test_the_package_of_methods_imports_what_is_asked_for_and_not_before():
    assert "torch" not in loaded_by("import methods; dir(methods)")
    assert methods.Spotlight.__name__ == "Spotlight"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = methods.Nothing


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "methods", "--json"], ["run", "--help"]])
def test_looking_around_imports_no_torch(arguments):
    code = (
        f"from experiments.cli import app\ntry:\n    app({arguments!r})\nexcept SystemExit as e:\n    assert not e.code"
    )
    assert not loaded_by(code) & {"torch", "numpy", "pandas", "hydra"}
