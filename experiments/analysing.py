"""Make numbers, pictures and a text of the finished runs of an experiment: `slicebench collect DIR --analyse`."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import pandas as pd

import experiments.analyses
from experiments.console import say
from experiments.files import write_json, write_parquet, write_text
from experiments.finished import FinishedRun
from experiments.runs import commit_of
from methods.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD, ANALYSIS = "experiment.json", "analysis"
WHOLE = ("summary.json", "numbers.parquet", "report.md")  # of all analyses together
# what an experiment's record has: how it was asked for, its runs, and what is to be made of them
WRITTEN = ("experiment", "scale", "command", "stand_ins", "notes", "analyses", "runs", "refused", "missing")
# a number and what it is of; what does not apply is empty
COLUMNS = (
    *("analysis", "measure", "dataset", "model", "embedding", "corruption", "method", "variant", "split"),
    *("slice", "group", "value", "low", "high", "n"),
)


@dataclass
class Output:
    """Where one analysis writes its pictures, tables and sentences.

    Parameters
    ----------
    folder : Path
    name : str
        Of the analysis: what its files begin with.
    """

    folder: Path
    name: str
    pictures: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def picture(self, figure: Figure, name: str, caption: str, shows: str | None = None) -> None:
        """Keep a picture as png and svg.

        Parameters
        ----------
        figure : Figure
        name : str
            What it shows, in one word or two with a hyphen.
        caption : str
            One sentence; also for who cannot see it.
        shows : str, optional
            The data set whose examples can be seen in it: not all of them may be passed on.
        """
        from experiments.drawing import save

        path = self.folder / f"{self.name}-{name}"
        save(figure, path, few_colours=shows is not None)
        self.pictures.append({"file": path.name, "caption": caption, "shows": shows})

    def table(self, frame: pd.DataFrame, name: str, caption: str) -> None:
        """Keep a table for people to read, as csv; it may hold examples, and is not passed on."""
        path = self.folder / f"{self.name}-{name}.csv"
        write_text(path, frame.to_csv(index=False))
        self.tables.append({"file": path.name, "caption": caption})

    def say(self, sentence: str) -> None:
        """Add a sentence to the report."""
        self.sentences.append(sentence)


def analyse(folder: Path) -> Path:
    """Run the analyses of the experiment in this folder again; where they wrote to.

    Raises
    ------
    InvalidInput
        Where the folder holds no experiment, or some of its runs are not done.
    """
    record = read_record(folder)
    if record["missing"]:
        raise InvalidInput(
            f"{folder}: {len(record['missing'])} runs are missing, the first is {record['missing'][0]}; "
            f"finish them with: {record['command']}"
        )
    runs = [FinishedRun.read(folder / name) for name in record["runs"]]
    out = folder / ANALYSIS
    _forget(out)
    outputs, frames = [], []
    for analysis in record["analyses"]:
        say(f"{record['experiment']}: {analysis['name']}")
        output = Output(out, analysis["name"])
        module = import_module(f"experiments.analyses.{analysis['name']}")
        options = dict(analysis["options"])
        chosen = _chosen(runs, options.pop("runs", {}))
        numbers = module.analyse(chosen, output, **options) if chosen else pd.DataFrame()
        frames.append(numbers.assign(analysis=analysis["name"]))
        outputs.append(output)
    numbers = _tidy(frames)
    write_parquet(out / "numbers.parquet", numbers)
    summary = {
        **{name: record[name] for name in ("experiment", "scale", "command", "stand_ins", "notes", "refused")},
        "stamp": _stamp(runs),
        "pictures": [picture for output in outputs for picture in output.pictures],
        "tables": [table for output in outputs for table in output.tables],
        "sentences": {output.name: output.sentences for output in outputs if output.sentences},
    }
    write_json(out / "summary.json", summary)
    write_text(out / "report.md", _report(summary, runs))
    return out


def _forget(out: Path) -> None:
    """Remove what the last time wrote: what is no longer made must not be taken for a result. The user's files stay."""
    names = {analysis.name for analysis in iter_modules(experiments.analyses.__path__)}
    for path in out.glob("*"):
        is_ours = path.name in WHOLE or any(path.name.startswith(f"{name}-") for name in names)
        if is_ours and path.is_file():
            path.unlink()


def _chosen(runs: Sequence[FinishedRun], wanted: Mapping[str, Sequence[str]]) -> list[FinishedRun]:
    """The runs that an analysis is about: those with one of these names in each column, all where none is said."""
    return [run for run in runs if all(run.identity[name] in names for name, names in wanted.items())]


def read_record(folder: Path) -> dict[str, Any]:
    """What `slicebench run experiment=...` wrote down of the experiment in this folder."""
    try:
        record = json.loads((folder / RECORD).read_text())
        absent = next((name for name in WRITTEN if name not in record), None)
        if absent is not None:
            raise ValueError(f"it has no {absent}")
        return record
    except FileNotFoundError:
        raise InvalidInput(
            f"{folder} holds no experiment, expected a folder that `slicebench run experiment=...` wrote to"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"{folder / RECORD} cannot be read ({error}): run the experiment again") from None


def _tidy(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All numbers below each other, under the same columns."""
    table = pd.concat([frame.reindex(columns=list(COLUMNS)) for frame in frames], ignore_index=True)
    numbers = dict.fromkeys(("value", "low", "high"), "float64") | dict.fromkeys(("slice", "n"), "Int64")
    words = [name for name in COLUMNS if name not in numbers]
    return table.astype(numbers).astype(dict.fromkeys(words, "string"))


def _stamp(runs: Sequence[FinishedRun]) -> dict[str, Any]:
    """With what, and for how long, the runs were made."""
    seconds: dict[str, float] = {}
    for run in runs:
        for stage, spent in run.content["seconds"].items():
            if ": " in stage:  # a part of another stage: waiting for data
                continue
            seconds[stage] = seconds.get(stage, 0.0) + spent
    devices = sorted({str(run.content["device"]) for run in runs})
    commits = sorted({commit_of(run.content) for run in runs})
    threads = sorted({int(run.content["threads"]) for run in runs})
    return {"commits": commits, "devices": devices, "threads": threads, "seconds": seconds, "runs": len(runs)}


def _report(summary: Mapping[str, Any], runs: Sequence[FinishedRun]) -> str:
    """What was run, and what came out, for people."""
    stamp = summary["stamp"]
    minutes = sum(stamp["seconds"].values()) / 60
    lines = [f"# {summary['experiment']}, scale {summary['scale']}", "", f"`{summary['command']}`", ""]
    lines += [
        f"{stamp['runs']} runs, {minutes:.1f} minutes of work (what was cached before not counted), on "
        f"{', '.join(stamp['devices'])} with {', '.join(map(str, stamp['threads']))} threads, commit "
        f"{', '.join(stamp['commits'])}.",
        "",
    ]
    lines += [f"- stand-in: {one}" for one in summary["stand_ins"]]
    lines += [f"- {note}" for note in summary["notes"]]
    lines += [f"- refused: {one['overrides']}: {one['reason']}" for one in summary["refused"]]
    notes = dict.fromkeys(note for run in runs for note in run.content.get("dataset_notes", ()))
    lines += [f"- data: {note}" for note in notes]
    for name, sentences in summary["sentences"].items():
        lines += ["", f"## {name}", "", *(f"- {html.escape(sentence, quote=False)}" for sentence in sentences)]
    if summary["pictures"]:
        lines += ["", "## Pictures", ""]
        lines += [f"![{one['caption']}]({one['file']}.png)\n\n{one['caption']}\n" for one in summary["pictures"]]
    lines += [f"- [{one['file']}]({one['file']}): {one['caption']}" for one in summary["tables"]]
    return "\n".join(lines) + "\n"
