"""What is on this machine: `slicebench check`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import yaml
from hydra.utils import get_object
from rich.table import Table

import conf
from experiments.cache_report import cache_root
from experiments.console import printer
from experiments.listing import items
from experiments.schema import construct
from experiments.settings import Numbers
from methods.errors import InvalidInput, unknown_name


class Finding(TypedDict):
    """One line of the report."""

    what: str
    state: str
    note: str


def show_check(overrides: Sequence[str], as_json: bool) -> bool:
    """Print what was found; whether every data set that was asked for by name is there."""
    asked = [_dataset_name(override) for override in overrides]
    names = asked or [item["name"] for item in items("datasets")]
    datasets = [_dataset(name) for name in names]
    findings = datasets + ([] if asked else _machine())
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        _print(findings)
    return not asked or all(finding["state"] == "found" for finding in datasets)


def _print(findings: Sequence[Finding]) -> None:
    table = Table("", "", "")
    table.show_header = False
    for finding in findings:
        table.add_row(finding["what"], finding["state"], finding["note"])
    printer().print(table)


def _dataset_name(override: str) -> str:
    group, _, name = override.partition("=")
    known = [item["name"] for item in items("datasets")]
    if group != "dataset" or not name:
        raise InvalidInput(f"{override!r} cannot be checked, expected dataset=NAME with one of {', '.join(known)}")
    if name not in known:
        raise InvalidInput(unknown_name(f"no dataset is called {name!r}", name, known))
    return name


def _dataset(name: str) -> Finding:
    """Load names and labels with the settings of the data set's yaml, and count."""
    values = yaml.safe_load((Path(conf.__path__[0]) / "dataset" / f"{name}.yaml").read_text())
    arguments = {n: v for n, v in values.items() if n != "_target_" and n not in Numbers.__dataclass_fields__}
    root = Path(os.environ.get("SLICEBENCH_DATA", "data"))
    try:
        dataset = construct(get_object(values["_target_"]), arguments, name).load(root, seed=0)
    except InvalidInput as error:
        return Finding(what=f"dataset {name}", state="absent", note=str(error))
    rows = ", ".join(f"{split.n_examples:,} {name}" for name, split in dataset.splits.items())
    return Finding(what=f"dataset {name}", state="found", note=rows)


def _machine() -> list[Finding]:
    import torch

    cuda = torch.cuda.is_available()
    sbatch = shutil.which("sbatch")
    data = Path(os.environ.get("SLICEBENCH_DATA", "data")).absolute()
    packages = ", ".join(f"{name} {version(name)}" for name in ("slicebench", "torch", "scikit-learn", "hydra-core"))
    return [
        Finding(what="data root", state="found" if data.is_dir() else "absent", note=f"{data} (SLICEBENCH_DATA)"),
        Finding(what="cache", state="found" if cache_root().is_dir() else "absent", note=f"{cache_root()}"),
        Finding(what="GPU", state="found" if cuda else "absent", note=torch.cuda.get_device_name() if cuda else ""),
        Finding(what="SLURM", state="found" if sbatch else "absent", note=sbatch or ""),
        Finding(what="cores", state="found", note=str(len(os.sched_getaffinity(0)))),
        Finding(what="packages", state="found", note=packages),
    ]
