"""Put what was measured where it can be committed: `python -m experiments.results`.

Numbers, charts, and pictures of data that may be passed on; no texts and images of other data, and no paths.
"""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import pandas as pd
import typer
from PIL import Image

import experiments
from experiments.analysing import ANALYSIS, RECORD, read_record
from experiments.cli import explained
from experiments.compare import Analysed, plain
from experiments.console import say
from experiments.files import write_atomically, write_text
from experiments.prepared import RESULTS
from experiments.published import rows_of
from experiments.results_page import page, shown_experiments, why_not
from methods.errors import InvalidInput

HERE = Path(experiments.__path__[0]) / "results"
MARK = "<!-- written by `python -m experiments.results` -->"
LARGEST = 150_000  # bytes of a picture
SMALLER = 0.85  # from one try at a smaller picture to the next
DIGITS = 6  # significant ones
# data sets whose examples may be shown, and with what words beside them
ATTRIBUTION = {
    "fairface": "faces: FairFace (Kärkkäinen and Joo 2021), CC BY 4.0",
    "chest_xray": "x-rays: Kermany et al. 2018, CC BY 4.0",
    "imagenet": (
        "photographs: development set of the NIPS 2017 adversarial competition, by the users of Flickr that its "
        "dev_dataset.csv names, CC BY 2.0"
    ),
    "digits": "digits: scikit-learn, from Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI)",
}
REQUIRED = {"imagenet": "layout=nips2017"}  # of ImageNet itself nothing may be shown
# an absolute path in a text, whatever stands before it but a word, an address or a home
PATH = re.compile(r"(?<![\w.:/<~)\]-])/(?:[\w.+@%~-]+/)*[\w.+@%~-]+")


def write_results(results: Path, to: Path) -> None:
    """Write `<paper>/<name>.json` and `<paper>/<name>/*.png` of every analysed experiment, and a README beside `to`.

    What lies in `to` of experiments that were not analysed here stays, and is in the README too.

    Parameters
    ----------
    results : Path
        The folder of the experiments.
    to : Path
        The folder of the results, with `findings.yaml`.

    Raises
    ------
    InvalidInput
        Where a README of somebody else's would be overwritten.
    """
    path = to.parent / "README.md"
    if path.exists() and not path.read_text().startswith(MARK):
        raise InvalidInput(f"{path} was not written by this program: move it away, or write to another folder")
    for name, one in analysed(results).items():
        kept, withheld = _write_pictures(one, to / name)
        write_text(to / f"{name}.json", _as_text(_content(one, kept, withheld)))
        say(f"{name}: scale {one.summary['scale']}, {len(kept)} pictures, {len(withheld)} that may not be passed on")
    records = [read_record(path.parent) for path in sorted(results.rglob(RECORD))]
    missing = [name for name in shown_experiments() if not (to / f"{name}.json").exists()]
    reasons = {name: portable(_without_machine(why_not(name, records))) for name in missing}
    write_text(path, f"{MARK}\n{page(to, reasons)}")


def analysed(results: Path) -> dict[str, Analysed]:
    """The analysed experiments of both papers by name; of several of one name the one at full scale, else the first."""
    found: dict[str, Analysed] = {}
    for folder in sorted(path.parent.parent for path in results.rglob(f"{ANALYSIS}/summary.json")):
        one = Analysed.read(folder)
        if one.name not in shown_experiments():
            say(f"{folder}: {one.name} is no experiment of a paper, left out")
        elif one.name not in found or (one.summary["scale"], found[one.name].summary["scale"]) == ("full", "here"):
            found[one.name] = one
    return dict(sorted(found.items()))


def portable(value: Any) -> Any:
    """The same without what only this machine knows: of an absolute path its last name, no name of the machine."""
    if isinstance(value, Mapping):
        return {name: portable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [portable(one) for one in value]
    if not isinstance(value, str):
        return value
    return PATH.sub(lambda found: found.group().rpartition("/")[2], value)


def _content(one: Analysed, kept: list[dict[str, str]], withheld: list[str]) -> dict[str, Any]:
    """What is written of an experiment, as json values."""
    summary = {name: one.summary[name] for name in ("experiment", "scale", "stamp", "stand_ins", "notes")}
    refused = [{name: _without_machine(text) for name, text in of_one.items()} for of_one in one.summary["refused"]]
    numbers = one.numbers.dropna(axis="columns", how="all")
    everywhere = [name for name in numbers if len(numbers) > 1 and numbers[name].nunique(dropna=False) == 1]
    differing = numbers.drop(columns=everywhere)
    content = {
        **summary,
        "command": _without_machine(one.summary["command"]),
        "refused": refused,
        "pictures": kept,
        "withheld": withheld,
        "comparison": rows_of(one.comparison),
        "everywhere": {name: numbers[name].iloc[0] for name in everywhere},  # what all rows of numbers have
        "columns": list(differing),
        "numbers": [list(row.values()) for row in rows_of(differing.astype(object).where(differing.notna(), None))],
    }
    written: dict[str, Any] = portable(plain(content, DIGITS))
    return written


def _without_machine(text: str) -> str:
    """What somebody typed, or was told, may hold the machine's name."""
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "HOST", text)


def _as_text(content: Mapping[str, Any]) -> str:
    """Json with a line for each row of a table."""

    def written(value: Any) -> str:
        if isinstance(value, list) and value:
            return "[\n" + ",\n".join(f"  {_line(one)}" for one in value) + "\n ]"
        return _line(value)

    return "{\n" + ",\n".join(f" {_line(name)}: {written(value)}" for name, value in content.items()) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_pictures(one: Analysed, folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Copy what may be passed on, and remove what is no longer made: (pictures, captions of those withheld)."""
    kept: list[dict[str, str]] = []
    withheld: list[str] = []
    files: dict[str, bytes] = {}
    for picture in one.summary["pictures"]:
        shows = picture["shows"]
        if shows is not None and not may_be_shown(shows, one.numbers):
            withheld.append(picture["caption"])
            continue
        files |= _file(one.folder / ANALYSIS / f"{picture['file']}.png")
        attribution = {} if shows is None else {"attribution": ATTRIBUTION[shows]}
        kept.append({"file": f"{picture['file']}.png", "caption": picture["caption"], **attribution})
    for name, content in files.items():
        write_atomically(folder / name, partial(_write_bytes, content))
    for path in folder.glob("*.*"):
        if path.name not in files:
            path.unlink()
    return kept, withheld


def _write_bytes(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def may_be_shown(dataset: str, numbers: pd.DataFrame) -> bool:
    """Whether pictures of a data set's examples may be passed on: all runs must be known to have read what may be."""
    words = [set(name.split()) for name in numbers["dataset"].dropna().unique() if name.split(" ")[0] == dataset]
    required = {REQUIRED[dataset]} if dataset in REQUIRED else set()
    is_elsewhere = any(word.startswith("folder=") for of_one in words for word in of_one)  # who knows what lies there
    return dataset in ATTRIBUTION and bool(words) and all(required <= of_one for of_one in words) and not is_elsewhere


def _file(png: Path) -> dict[str, bytes]:
    """The picture, small enough to be committed."""
    if not png.exists():
        raise InvalidInput(f"{png} is missing: slicebench collect {png.parent.parent} --analyse")
    return {png.name: _small(png)}


def _small(path: Path) -> bytes:
    """The png as it is; where it is too large with 256 colours, and as many pixels as fit."""
    content = path.read_bytes()
    with Image.open(path) as picture:
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
    scale = 1.0
    while len(content) > LARGEST:
        width, height = (max(1, round(side * scale)) for side in opaque.size)
        file = io.BytesIO()
        opaque.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).quantize(256).save(
            file, "PNG", optimize=True
        )
        content, scale = file.getvalue(), scale * SMALLER
    return content


def main(
    results: Annotated[Path, typer.Option(help="The folder of the experiments.")] = Path(RESULTS),
    to: Annotated[Path, typer.Option(help="The folder of the results; a README is written beside it.")] = HERE,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Write what was measured, beside what was published, where it can be committed."""
    with explained(debug):
        write_results(results, to)


if __name__ == "__main__":
    typer.run(main)
