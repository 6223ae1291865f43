"""Write a static HTML report of run folders: `slicebench report DIR`."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.console import progress_bars, say
from experiments.files import write_text
from experiments.finished import FinishedRun, titles
from experiments.report.assets import Assets
from experiments.report.graphics import Dot
from experiments.report.overview import Overview, overview
from experiments.report.run_page import RunPage, run_page
from experiments.report.words import name_of, written
from experiments.runs import Results, find_results
from methods.errors import InvalidInput
from methods.progress import progress

NAME, MARK = "report", '<meta name="generator" content="slicebench">'
PROBLEMS = 3  # of a run that are shown in detail
MANY = 12  # runs; of more than these, one problem each
STYLE, SCRIPT = (Path(__file__).parent / "templates" / name for name in ("style.css", "sort.js"))


def write_report(folder: Path, out: Path | None = None, inline: bool = False, n_problems: int | None = None) -> Path:
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
    with progress_bars(lambda *_: None):
        return _write(folder, results, runs, out, inline, n_problems)


def _write(
    folder: Path, results: Results, runs: list[FinishedRun], out: Path | None, inline: bool, n_problems: int | None
) -> Path:
    out = out or folder / (f"{NAME}.html" if inline else NAME)
    _refuse_others(out, inline)
    if inline:
        write_text(out, _one_file(folder, results, runs, n_problems))
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made = Path(temporary) / NAME
        made.mkdir()
        for name, page in _pages(folder, results, runs, n_problems, Assets(made)).items():
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
    """A folder, or a file, of the user's is never overwritten."""
    if not out.exists():
        return
    page = out if inline else out / "index.html"
    if inline != out.is_file() or (any(out.iterdir()) if out.is_dir() else True):
        try:
            is_ours = page.is_file() and MARK in page.read_text(errors="replace")[:4_000]
        except OSError:
            is_ours = False
        if not is_ours:
            raise InvalidInput(f"{out} is there already, and is no report of ours: choose another place with --output")


def _replace(out: Path, made: Path) -> None:
    """The new report in the place of the old one, whole."""
    if out.exists():
        out.rename(made.parent / "old")
    made.rename(out)
    shutil.rmtree(made.parent / "old", ignore_errors=True)


def _contents(
    folder: Path,
    results: Results,
    runs: list[FinishedRun],
    n_problems: int | None,
    assets: Assets,
    addresses: list[str],
) -> tuple[Overview, list[RunPage]]:
    named, most = titles(runs), n_problems or (PROBLEMS if len(runs) <= MANY else 1)
    steps = progress(range(len(runs)), "runs", total=len(runs))
    pages = [run_page(runs[index], named[index], assets, most) for index in steps]
    links = addresses if len(runs) > 1 else [None]
    return overview(folder, results, list(zip(runs, named, links, strict=True)), assets), pages


def _pages(
    folder: Path, results: Results, runs: list[FinishedRun], n_problems: int | None, assets: Assets
) -> dict[str, str]:
    """Each page by the name of its file; a single run stands on the first page."""
    names = [f"run-{index:03d}-{_file_name(run)}.html" for index, run in enumerate(runs, start=1)]
    first, pages = _contents(folder, results, runs, n_problems, assets, names)
    if len(pages) == 1:
        return {"index.html": _render("index.html", first=first, pages=pages)}
    others = {name: _render("run.html", first=first, page=page) for name, page in zip(names, pages, strict=True)}
    return {"index.html": _render("index.html", first=first, pages=[]), **others}


def _one_file(folder: Path, results: Results, runs: list[FinishedRun], n_problems: int | None) -> str:
    addresses = [f"#run-{index}" for index in range(1, len(runs) + 1)]
    first, pages = _contents(folder, results, runs, n_problems, Assets(None), addresses)
    return _render("index.html", first=first, pages=pages)


def _file_name(run: FinishedRun) -> str:
    """Of letters that no browser, and no file system, takes for anything else."""
    return re.sub(r"[^a-z0-9]+", "-", f"{run.dataset} {run.folder.name}".lower()).strip("-")[-60:]


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def _environment() -> Environment:
    """Everything that a template writes is escaped, and free of what cannot be written."""
    style, script = STYLE.read_text(), SCRIPT.read_text()
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        finalize=written,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "style": style,
        "script": script,
        "policy": policy({"style-src": style, "script-src": script}),
        "mark": MARK,
        "dot": Dot.of,
    }
    environment.filters |= {"name": name_of, "percent": _percent, "number": _number}
    return environment


def policy(ours: Mapping[str, str]) -> str:
    """The Content-Security-Policy: pictures, and no style and no script but ours.

    Parameters
    ----------
    ours : mapping from directive to the content of the element that it allows
    """
    allowed = "; ".join(f"{directive} '{_digest(content)}'" for directive, content in ours.items())
    return f"default-src 'none'; img-src 'self' data: file:; {allowed}; base-uri 'none'; form-action 'none'"


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:z.0f}%"  # nan is not equal to itself


def _number(value: float, digits: int = 2) -> str:
    return "–" if value != value else f"{value:z,.{digits}f}"
