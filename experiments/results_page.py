"""The page on all experiments of both papers: what was published and what was measured, as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from experiments.check import read_recipe
from experiments.compare import HEADER, NOTHING, cells
from experiments.listing import items
from experiments.prepared import read_prepared
from experiments.reading.sources import data_root
from experiments.scale import FOLDER
from methods.errors import InvalidInput, unknown_name

PAPERS = {"spotlight": "The Spotlight (d'Eon et al. 2022)", "infembed": "InfEmbed (Wang et al. 2023)"}
FINDINGS = "findings.yaml"
HEAD = """# The experiments of two papers, published and measured

Every table and figure of The Spotlight and of InfEmbed, run again by `scripts/reproduce.sh`. Scale `full` has the
papers' data and models, scale `here` what a laptop has: what stands in for them is said in each section, and is the
first reason for a difference. Published numbers stand in [published.yaml](published.yaml) with source and place;
`release` is what the authors' stored results or code say. Numbers in a list are of slices, in their order; a dash is
what is not there. Pictures of data that may not be passed on stay where they were made.

Words: a *spotlight* is a ball in the embedding space, and its *objective* the mean loss in it, weighted by nearness to
the centre. *The mixture* is a Gaussian mixture. *Opponents* of a slice are training examples that make its loss larger.
*The rule* splits clusters of influence embeddings until the model is wrong for most of a part, or the part is small. A
*cell* of table 1 is one kind of slice in one kind of data. What a method cannot work on it *refuses*, with the reason.
"""


@cache
def shown_experiments() -> dict[str, str]:
    """All experiments of the papers by name, in the order of the page, with what they show."""
    found = {item["name"]: item["summary"] for item in items("experiments")}
    return {name: text for paper in PAPERS for name, text in found.items() if name.startswith(f"{paper}/")}


def page(to: Path, reasons: Mapping[str, str]) -> str:
    """The whole page.

    Parameters
    ----------
    to : Path
        The folder of the results, with `findings.yaml`; links are relative to its parent.
    reasons : mapping from str to str
        Why what is not in that folder was not measured, by experiment.
    """
    findings = _findings(to / FINDINGS)
    files = {name: to / f"{name}.json" for name in shown_experiments()}
    contents = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    lines = [HEAD.strip(), _overview(findings, contents)]
    for name, summary in shown_experiments().items():
        paper = PAPERS[name.split("/")[0]]
        lines += [f"## {paper}"] if f"## {paper}" not in lines else []
        measured = _measured(name, contents[name], to.name) if name in contents else None
        lines += [f"### {name}", _text(summary), *([findings[name]] if name in findings else [])]
        lines += measured or [f"Not measured: {reasons[name]}."]
    return "\n\n".join(lines) + "\n"


def _overview(findings: Mapping[str, str], measured: Collection[str]) -> str:
    """All experiments, each with what it shows and the first sentence of what was found."""
    rows = [["experiment", "what it shows", "what was found here"], ["---"] * 3]
    for name, summary in shown_experiments().items():
        found = re.split(r"(?<=\.) ", findings.get(name, ""))[0] if name in measured else "not measured"
        link = f"[{name}](#{name.replace('/', '')})"  # as GitHub makes anchors of headings
        rows.append([link, _text(summary), _text(found)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def why_not(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Why an experiment has no results: what its records say, or which data are not on this machine."""
    of_this = [record for record in records if record["experiment"] == name]
    missing = [one for record in of_this for one in record["missing"]]
    if missing:
        n_runs = sum(len(record["runs"]) for record in of_this)
        return f"{len(missing)} of {n_runs + len(missing)} runs are missing, the first is `{_own_words(missing[0])}`"
    absent = _absent_data(name)
    if not of_this and absent:
        return f"it needs data that are not on this machine: {', '.join(absent)} (`slicebench check`)"
    return "its runs have not been analysed yet" if of_this else "it has not been run yet"


def _absent_data(experiment: str) -> list[str]:
    """The data sets of which nothing is there, at the scale that asks for less."""
    prepared = read_prepared(experiment)
    words = [word for arm in (prepared.arms["here"] if prepared else ()) for word in arm]
    names = dict.fromkeys(word.removeprefix("dataset=") for word in words if word.startswith("dataset="))
    folders = {name: _folder(name) for name in names}
    return [name for name, folder in folders.items() if folder and not (data_root() / folder).exists()]


@cache
def _folder(dataset: str) -> str | None:
    """Where a data set lies below the data root; None where nobody publishes it."""
    path = FOLDER / "here" / f"{dataset}.yaml"
    given = yaml.safe_load(path.read_text()).get("dataset", {}) if path.exists() else {}
    recipe = read_recipe(dataset, given)
    source = None if recipe.missing else recipe.source
    return source.folder if source else None


def _findings(path: Path) -> dict[str, str]:
    """What somebody wrote about an experiment."""
    findings = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
    unknown = next((name for name in findings if name not in shown_experiments()), None)
    if unknown is not None:
        raise InvalidInput(unknown_name(f"{path}: no experiment is called {unknown!r}", unknown, shown_experiments()))
    return {name: text.strip() for name, text in findings.items()}


def _measured(name: str, content: Mapping[str, Any], folder: str) -> list[str]:
    """The paragraphs on one experiment."""
    reasons = [f"- stand-in: {_text(one)}" for one in content["stand_ins"]]
    reasons += [f"- {_text(note)}" for note in content["notes"]]
    reasons += [f"- refused: `{_own_words(one['overrides'])}`: {_text(one['reason'])}" for one in content["refused"]]
    reasons += [f"- not passed on: {_text(caption)}" for caption in content["withheld"]]
    return [
        f"```\n{content['command']}\n```",
        _table(content["comparison"]) if content["comparison"] else f"{NOTHING.capitalize()}.",
        *(["\n".join(reasons)] if reasons else []),
        *(_picture(f"{folder}/{name}", one) for one in content["pictures"]),
        f"{_stamp(content['stamp'])} All numbers: [{name}.json]({folder}/{name}.json).",
    ]


def _table(comparison: Sequence[Mapping[str, Any]]) -> str:
    rows = [HEADER, ["---"] * len(HEADER), *(map(_text, cells(row)) for row in comparison)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _picture(folder: str, picture: Mapping[str, str]) -> str:
    caption = _text(picture["caption"])
    below = " ".join([caption, *(f"({picture[name]})" for name in ("attribution",) if name in picture)])
    return f"![{caption}]({quote(folder)}/{quote(picture['file'])})\n\n*{below}*"


def _stamp(stamp: Mapping[str, Any]) -> str:
    # what a stage waited for is a part of it
    minutes = sum(seconds for stage, seconds in stamp["seconds"].items() if ": " not in stage) / 60
    made = {
        "runs": [stamp["runs"]],
        "device": stamp["devices"],
        "threads": stamp["threads"],
        "commit": stamp["commits"],
    }
    words = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in made.items())
    return f"{minutes:.1f} minutes of work, what was cached before not counted; {words}."


def _own_words(overrides: str) -> str:
    """The overrides of one run without those that all runs of the experiment have."""
    return " ".join(word for word in overrides.split() if not word.startswith(("experiment=", "paths.", "scale")))


def _text(text: str) -> str:
    """So that nothing in it is taken for markup."""
    return re.sub(r"([|\[\]*`])", r"\\\1", text).replace("<", "&lt;")
