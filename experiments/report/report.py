"""Write a static HTML report of run folders: `slicebench report DIR`."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.analysing import RECORD
from experiments.console import progress_bars, say
from experiments.files import write_text
from experiments.finished import FinishedRun, titles
from experiments.report.assets import FOLDER, Assets
from experiments.report.overview import Overview, overview
from experiments.report.rendering import MARK, render
from experiments.report.run_page import RunPage, run_page
from experiments.runs import Results, find_results
from methods.errors import InvalidInput
from methods.progress import progress

NAME = "report"
PROBLEMS = 3  # of a run that are shown in detail
# what files of a report are called
FILE = re.compile(rf"index\.html|run-\d{{3,}}-[a-z0-9-]*\.html|{FOLDER}/[0-9a-f]{{20}}\.(png|jpg)")
MANY = 12  # runs; of more than these, one problem each


def write_report(
    folder: Path,
    out: Path | None = None,
    inline: bool = False,
    n_problems: int | None = None,
    title: str | None = None,
) -> Path:
    """Write the report of all runs at or below a folder.

    Parameters
    ----------
    folder : Path
    out : Path, optional
        The folder of the report, or the file where everything is in one; FOLDER/report by default, or
        FOLDER/report.html.
    inline : bool
        One file, with all pictures in it.
    n_problems : int, optional
        Problems of a run that are shown in detail; 3 by default, and 1 where there are more than 12 runs.
    title : str, optional
        The experiment's name, or the folder's, by default.

    Returns
    -------
    Path
        The file to open.

    Raises
    ------
    InvalidInput
        Where there is no finished run, or `out` is something else than a report of ours.
    """
    results = find_results(folder)
    runs = _finished(results, folder)
    asked = _Asked(folder, results, runs, n_problems or (PROBLEMS if len(runs) <= MANY else 1), title or _title(folder))
    out = out or folder / (f"{NAME}.html" if inline else NAME)
    _refuse_others(out, inline)
    with progress_bars(lambda *_: None):
        return _write_one_file(asked, out) if inline else _write_folder(asked, out)


@dataclass(frozen=True)
class _Asked:
    """What the report is about."""

    folder: Path
    results: Results
    runs: list[FinishedRun]
    n_problems: int
    title: str


def _title(folder: Path) -> str:
    """The experiment's name, or the folder's."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return f"{record['experiment']}, scale {record['scale']}"
    except (OSError, ValueError, KeyError, TypeError):
        return folder.absolute().name


def _write_folder(asked: _Asked, out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made = Path(temporary) / NAME
        made.mkdir()
        for name, page in _pages(asked, Assets(made)).items():
            write_text(made / name, page)
        _replace(out, made)
    return out / "index.html"


def _finished(results: Results, folder: Path) -> list[FinishedRun]:
    """The runs that can be shown; of the others it is said why they are not."""
    runs = []
    for run in results.runs:
        if run.state != "done":
            continue
        try:
            runs.append(FinishedRun.read(run.folder))
        except InvalidInput as error:
            say(f"not in the report: {error}")
    if not runs:
        raise InvalidInput(f"{folder} holds no finished run to report on: `slicebench status {folder}`")
    return runs


def _refuse_others(out: Path, inline: bool) -> None:
    """A folder, or a file, of the user's is never overwritten, nor one that was put beside the pages of a report."""
    if not out.exists() or (not inline and out.is_dir() and not any(out.iterdir())):
        return
    files = (path for path in out.rglob("*") if path.is_file())  # none below a file
    other = next((path for path in files if not FILE.fullmatch(path.relative_to(out).as_posix())), None)
    if other or not _is_ours(out if inline else out / "index.html"):
        raise InvalidInput(
            f"{other or out} is there already, and no report of ours: choose another place with --output"
        )


def _is_ours(page: Path) -> bool:
    return page.is_file() and MARK in page.read_text(errors="replace")[:4_000]


def _replace(out: Path, made: Path) -> None:
    """The new report in the place of the old one, whole."""
    if out.exists():
        out.rename(made.parent / "old")
    made.rename(out)
    shutil.rmtree(made.parent / "old", ignore_errors=True)


def _contents(asked: _Asked, assets: Assets, addresses: Sequence[str]) -> tuple[Overview, list[RunPage]]:
    runs, named = asked.runs, titles(asked.runs)
    steps = progress(range(len(runs)), "runs", total=len(runs))
    pages = [run_page(runs[index], f"run-{index + 1}", named[index], assets, asked.n_problems) for index in steps]
    links = addresses if len(runs) > 1 else [None]
    first = overview(asked.title, asked.folder, asked.results, list(zip(runs, named, links, strict=True)), assets)
    return first, pages


def _pages(asked: _Asked, assets: Assets) -> dict[str, str]:
    """Each page by the name of its file; a single run stands on the first page."""
    names = [f"run-{index:03d}-{_file_name(run)}.html" for index, run in enumerate(asked.runs, start=1)]
    first, pages = _contents(asked, assets, names)
    if len(pages) == 1:
        return {"index.html": render("index.html", first=first, pages=pages)}
    others = {name: render("run.html", first=first, page=page) for name, page in zip(names, pages, strict=True)}
    return {"index.html": render("index.html", first=first, pages=[]), **others}


def _write_one_file(asked: _Asked, out: Path) -> Path:
    first, pages = _contents(asked, Assets(None), [f"#run-{index}" for index in range(1, len(asked.runs) + 1)])
    write_text(out, render("index.html", first=first, pages=pages))
    return out


def _file_name(run: FinishedRun) -> str:
    """Of letters that no browser, and no file system, takes for anything else."""
    return re.sub(r"[^a-z0-9]+", "-", f"{run.dataset} {run.folder.name}".lower()).strip("-")[-60:]
