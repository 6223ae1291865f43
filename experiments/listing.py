"""What there is to choose from, read from the configs and the sources: nothing is imported, so it takes no time."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

import yaml

import conf

# what `slicebench list` calls it -> folder below conf/
GROUPS = {
    "datasets": "dataset",
    "models": "model",
    "embeddings": "embedding",
    "methods": "method",
    "corruptions": "corruption",
    "suites": "suite",
    "experiments": "experiment",
}


class Item(TypedDict):
    """One line of a list."""

    name: str
    summary: str


def items(kind: str) -> list[Item]:
    """Everything of one kind, by name; `custom`, which is no method by itself, is left out."""
    folder = Path(conf.__path__[0]) / GROUPS[kind]
    files = sorted(folder.rglob("*.yaml"))
    names = {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}
    return [Item(name=name, summary=_summary(file)) for file, name in names.items() if name != "custom"]


def _summary(file: Path) -> str:
    """The first line of the docstring of what the config makes; else the line below its command."""
    text = file.read_text()
    target = (yaml.safe_load(text) or {}).get("_target_")
    if target:
        return _docstring(*target.rsplit(".", 1)).split("\n")[0].strip()
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    return next((below for line, below in pairwise(comments) if line.startswith("slicebench ")), "")


def _docstring(module: str, name: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text())
    classes = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    return next((ast.get_docstring(node) or "" for node in classes), "")
