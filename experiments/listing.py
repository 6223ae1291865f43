"""What there is to choose from, read from the configs and the sources: nothing is imported, so it takes no time."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import conf
from methods.errors import InvalidInput, unknown_name

if TYPE_CHECKING:
    from rich.console import Console

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


PROBLEMS = "problems"  # a list that is read from the data root


class Item(TypedDict):
    """One line of a list."""

    name: str
    summary: str


def show_lists(kind: str | None, as_json: bool) -> None:
    """Print everything of one kind, or of all."""
    if kind is not None and kind not in GROUPS:
        raise InvalidInput(unknown_name(f"no list is called {kind!r}", kind, (*GROUPS, PROBLEMS)))
    lists = {one: items(one) for one in ([kind] if kind else GROUPS)}
    if as_json:
        found = lists[kind] if kind else [{"kind": one, **item} for one, of_kind in lists.items() for item in of_kind]
        print(json.dumps(found, indent=2))
    else:
        _print(lists, named=kind is None)


def _print(lists: dict[str, list[Item]], named: bool) -> None:
    """Tables on a terminal; elsewhere a line each, never cut, below the name of the list where there are several."""
    from experiments.console import printer

    console = printer()
    for kind, found in lists.items():
        if console.is_terminal:
            _print_table(console, kind, found)
            continue
        if named:
            print(f"{kind}:")
        width = max(len(item["name"]) for item in found)
        for item in found:
            print(f"{'  ' if named else ''}{item['name']:<{width}}  {item['summary']}")


def _print_table(console: Console, kind: str, found: Sequence[Item]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(kind, "", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True  # to be copied: never cut short
    for item in found:
        table.add_row(item["name"], Text(item["summary"]))
    console.print(table)


def items(kind: str) -> list[Item]:
    """Everything of one kind, by name; `custom`, which is no method by itself, is left out."""
    folder = Path(conf.__path__[0]) / GROUPS[kind]
    files = sorted(folder.rglob("*.yaml"))
    names = {file: file.relative_to(folder).with_suffix("").as_posix() for file in files}
    return [Item(name=name, summary=_summary(file)) for file, name in names.items() if name != "custom"]


def _summary(file: Path) -> str:
    """The first line of the docstring of what the config makes; else the line below its command."""
    text = file.read_text()
    target = re.search(r"^_target_: ([\w.]+)\.(\w+)$", text, re.MULTILINE)  # a parser takes ten times as long
    if target:
        return _docstring(*target.groups()).split("\n")[0].strip()
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    return next((below for line, below in pairwise(comments) if line.startswith("slicebench ")), "")


def _docstring(module: str, name: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text())
    classes = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    return next((ast.get_docstring(node) or "" for node in classes), "")
